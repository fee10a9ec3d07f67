"""Hostile batches for the random walk: bad hidden layers of every kind, from no targets to all classes, in any form."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

import widehead as wh
from support.properties import Row

DOUBLE = torch.float64
KINDS = ["normal"] * 3 + ["dominant"] * 4
KINDS += ["zeros", "equal", "sparse", "one-hot", "low rank", "tiny", "huge", "mixed", "some zero", "denormal"]
_FLAT = ("zeros", "one-hot", "sparse", "some zero", "tiny", "denormal", "mixed")  # outputs that are nearly all alike
_SIZES = [1, 1, 2, 3, 8, 8, 8, 8, 8, 31, 31, 100]
_LARGE = [255, 256, 257, 300]  # about the largest that the compiled step takes


@dataclass(frozen=True)
class Batch:
    """What one forward pass is given, and the same for the twin.

    Attributes:
        kind: of hidden layer.
        given: (m, d) hidden layer for the head, in its type or another, and with any strides.
        hidden: (m, d) or, with a bias, (m, d + 1) in float64: what the head sees of it.
        ids, values, sparse: of targets, by example; ``targets`` the same in the form that the head is given.
        reduction: of the losses; ``weight`` (m,) of examples, or None; ``shares`` (m,) what "none" is summed with.
    """

    kind: str
    given: Tensor
    hidden: Tensor
    ids: list[list[int]]
    values: list[list[float]] | None
    sparse: wh.SparseTargets
    targets: Any
    reduction: str
    weight: Tensor | None
    shares: Tensor

    @property
    def size(self) -> int:
        """m."""
        return len(self.ids)

    def twice(self) -> Batch:
        """The examples one below the other, as after two backward passes."""
        hidden, weight, shares = (
            None if x is None else torch.cat([x, x]) for x in (self.hidden, self.weight, self.shares)
        )
        values = None if self.values is None else self.values * 2
        sparse = wh.SparseTargets.concatenate([self.sparse, self.sparse])
        both = {"hidden": hidden, "ids": self.ids * 2, "values": values, "sparse": sparse}
        return replace(self, weight=weight, shares=shares, **both)


class Source:
    """All that is drawn in one walk, from one seed.

    Args:
        seed: of everything.
    """

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(self.random.getrandbits(63))
        self.torch = torch.Generator().manual_seed(self.random.getrandbits(63))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.torch, dtype=DOUBLE)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.torch, dtype=DOUBLE)

    def hidden_layer(self, kind: str, m: int, d: int, step: int) -> Tensor:
        """(m, d) float64."""
        h = 0.3 * self.normal(m, d)
        direction = torch.cos(torch.arange(d, dtype=DOUBLE) * (1 + 1e-4 * step))
        narrow = min(2, d)
        made = {
            "dominant": lambda: h + 3.0 * self.normal(m, 1) * direction / direction.norm(),
            "zeros": lambda: 0.0 * h,
            "equal": lambda: h[:1].expand(m, d).clone(),
            "sparse": lambda: h.relu() * (self.uniform(m, d) < 0.2),
            "one-hot": lambda: torch.eye(d, dtype=DOUBLE)[torch.randint(d, (m,), generator=self.torch)],
            "low rank": lambda: self.normal(m, narrow) @ self.normal(narrow, d),
            "tiny": lambda: h * 10.0 ** -self.random.uniform(2, 6),
            "huge": lambda: h * 10.0 ** self.random.uniform(1, 2),
            "mixed": lambda: h * 10.0 ** (4.0 * self.uniform(m, 1) - 3.0),
            "some zero": lambda: h * (torch.arange(m) % 2)[:, None],
            "denormal": lambda: h * 1e-39,
        }
        return made.get(kind, lambda: h)()

    def ids(self, m: int, num_classes: int) -> list[list[int]]:
        """From no targets to all classes an example, with repeats; popular classes, rare ones, one alone."""
        most = self.random.choice([0, 1, 1, 3, 5, 10, 50])
        if m <= 8 and self.chance(0.01):
            return [list(range(num_classes))] * m
        if self.chance(0.1):
            return [[num_classes - 1] * most] * m
        if self.chance(0.1):
            return [[(7 * b) % num_classes] for b in range(m)]
        power = self.random.choice([1, 3, 20])
        counts = self.numpy.integers(0, most + 1, m)
        return [(num_classes * self.numpy.random(k) ** power).astype(int).tolist() for k in counts]

    def values(self, ids: list[list[int]], *, negative: bool, dtype: torch.dtype) -> list[list[float]]:
        """A number for each target, as the type ``dtype`` has it."""
        draw = self.numpy.standard_normal if negative else lambda k: self.numpy.random(k) + 0.1
        return [torch.tensor(draw(len(row)), dtype=DOUBLE).to(dtype).tolist() for row in ids]

    def form(self, ids: list[list[int]], made: wh.SparseTargets, num_classes: int) -> Any:
        """The targets as lists, a table of ids, a matrix of scipy's, or SparseTargets."""
        how = self.random.choice(["lists", "table", "matrix", "sparse", "sparse"])
        values = made.values
        distinct = all(len(set(row)) == len(row) for row in ids)
        if how == "matrix" and distinct and values is not None:
            numbers = (values.double().numpy(), made.class_ids.numpy(), made.offsets.numpy())
            return scipy.sparse.csr_matrix(numbers, shape=(len(ids), num_classes))
        # Lists and tables of 0 and 1 that are as long as there are classes are refused as multi-hot.
        if values is not None or not ids or num_classes <= 50 or how in ("sparse", "matrix"):
            return made
        if how == "lists":
            return ids
        width = max(map(len, ids))
        table = torch.tensor([row + [-100] * (width - len(row)) for row in ids], dtype=torch.int64)
        return table.view(len(ids), width).to(self.random.choice([torch.int64, torch.int32]))

    def strided(self, hidden: Tensor) -> Tensor:
        """The same numbers, in any order in memory."""
        d, form = hidden.shape[1], self.random.random()
        if form < 0.1:
            return hidden.T.contiguous().T
        if form < 0.2:
            return torch.cat([hidden, hidden], 1)[:, :d]
        return hidden.repeat_interleave(2, 0)[::2] if form < 0.25 else hidden

    def batch(self, row: Row, head: wh.ExactHead, step: int, m: int | None = None) -> Batch:
        """A batch for ``head``, of a random size or of ``m`` examples."""
        d, num_classes, dtype = head.in_features, head.num_classes, head.dtype
        if m is None:
            m = self.random.choice([*_SIZES, d, d + 1] if self.chance(0.85) else _LARGE)
        kind = self.random.choice(KINDS)
        if row.name == "z-loss" and kind in _FLAT:  # it has no value if all outputs are alike
            kind = "normal"
        given = self.hidden_layer(kind, m, d, step).to(self.random.choice([dtype, dtype, DOUBLE]))
        given = self.strided(given)
        seen = given.to(dtype).double()
        hidden = torch.cat([seen, torch.ones(m, 1, dtype=DOUBLE)], 1) if head.has_bias else seen
        ids = self.ids(m, num_classes)
        negative = row.quadratic and "weights" not in row.name and self.chance(0.5)
        values = self.values(ids, negative=negative, dtype=dtype) if row.valued and self.chance(0.8) else None
        weight = self.uniform(m) * (self.uniform(m) < 0.8) if self.chance(0.25) else None
        weight = None if weight is None else weight.to(dtype).double()
        reduction = self.random.choice(["mean"] * 3 + ["sum", "none"])
        shares = (self.uniform(m) + 0.5).to(dtype).double()
        sparse = _sparse(ids, values)
        targets = self.form(ids, sparse, num_classes)
        return Batch(kind, given, hidden, ids, values, sparse, targets, reduction, weight, shares)


def _sparse(ids: list[list[int]], values: list[list[float]] | None) -> wh.SparseTargets:
    offsets = torch.tensor([0, *itertools.accumulate(map(len, ids))])
    numbers = None if values is None else torch.tensor(list(itertools.chain(*values)), dtype=DOUBLE)
    return wh.SparseTargets(torch.tensor(list(itertools.chain(*ids)), dtype=torch.int64), offsets, numbers)
