"""The record of W whose rows are split over processes: every process has a part of V, and all have Q and w̄.

Letters (docs/notation.md): P processes, M examples of all of them, D classes, d width, c = order·d, Q = XᵀX, x̄ = Xᵀ1.

Each process has the factor U, the shift ω and the versions of its own rows, ends its segments by itself, and need not
know what others do. What all know is Q and x̄, which they advance by the same numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient, SmallState, StepRule
from widehead.errors import NonFiniteError, ProcessesError
from widehead.factored import Audit, Change, FactoredWeights, audit, check_size, output_gradient
from widehead.factored.state import ROWS, part_of
from widehead.split.outputs import best_of_all, outputs_of_all
from widehead.split.processes import RowSplit
from widehead.split.reading import JointForward, OwnForward, SplitArithmetic, gather_batch, own_targets
from widehead.targets import SparseTargets
from widehead.versions import Rows, RowVersions

_R = TypeVar("_R")

_ALIKE = 1e-2  # relative; machines round differently, and preconditioners make more of that
_TRUTH_EVERY = 64  # steps from one copy of rank 0's Q and x̄ to the next


@dataclass(kw_only=True)
class SplitWeights(FactoredWeights):
    """See `FactoredWeights`; ``rows`` and ``versions`` are those of this process.

    What reads or changes W has to be called by all processes together.

    Attributes:
        split: who has which rows.
        unshared: (c + 1, c) what rounding of the rows here did to x̄ and Q, and others do not know yet.
        lent: the ``revision`` of which a state was made last.
        parted: the largest relative difference of Q from that of rank 0 that was found since the beginning.
    """

    split: RowSplit
    unshared: Tensor | None = field(default=None, init=False)
    parted: float = 0.0
    lent: int = -1

    @property
    def num_classes(self) -> int:
        return self.split.num_rows

    @property
    def first(self) -> int:
        return self.split.first

    def fresh(self, rows: Rows, order: int = 1) -> SplitWeights:
        return SplitWeights.from_rows(rows, order, split=self.split)

    def draw(self, rows: Rows, std: float) -> None:
        self.split.draw(rows, std)

    def _meet(self, what: str, *numbers: int, failure: Exception | None = None) -> list[list[int]]:
        return self.split.meet(what, *numbers, rows=self.rows, failure=failure)

    def agree(self, fault: str | None) -> None:
        """Raise ProcessesError, on all processes, if one of them was given something with a fault."""
        self._meet("what it was given", failure=None if fault is None else ValueError(fault))

    def tell(self, fault: Exception) -> None:
        self.split.tell(fault, self.rows)

    def whole(self, part: Tensor) -> Tensor:
        self._meet("weight")
        return self.split.all_rows(part, self.split.counts, "rows")

    # -- passes -------------------------------------------------------------------------------------------------

    def forward(self, hidden: Tensor, targets: SparseTargets, *, learns: bool = True) -> OwnForward:
        batch = gather_batch(self.split, self.rows, hidden, targets, learns=learns)
        joint, rank = self._read(batch.hidden, batch.targets, batch.examples), self.split.rank
        mine = batch.own(rank)
        return OwnForward(
            joint.arithmetic,
            joint.hidden[mine],
            joint.products[mine],
            targets,
            joint.plan,
            joint.values,
            joint.squared_norm[mine],
            joint.outputs[batch.own_targets(rank)],
            joint.num_classes,
            joint.revision,
            joint.layout,
            joint=joint,
            begin=mine.start,
        )

    def read_again(self, hidden: Tensor, targets: SparseTargets) -> JointForward:
        self._meet("reading again")
        return self._read(hidden, targets, [])

    def _read(self, hidden: Tensor, targets: SparseTargets, examples_of: list[int]) -> JointForward:
        arithmetic, split = SplitArithmetic(self.rows.arithmetic, self.split), self.split
        here, chosen = own_targets(split, targets)
        own = arithmetic.inner.plan_targets(here)
        table = self.versions.table(self.rows)
        found = arithmetic.inner.read_outputs(hidden, self.small, table, own)
        outputs = found.outputs.new_zeros(targets.class_ids.numel()).index_copy_(0, chosen, found.outputs)
        return JointForward(
            arithmetic,
            hidden,
            found.products,
            targets,
            arithmetic.inner.plan_targets(targets),
            found.values,
            found.squared_norm,
            split.sum_(outputs, "outputs"),
            self.num_classes,
            self.revision,
            self.layout,
            own=own,
            chosen=chosen,
            examples_of=examples_of,
        )

    def gradient(self, read: Any, *parts: Any) -> OutputGradient:
        """T of the mean of all processes' losses, as torch averages the gradients of encoders; ``parts`` are of one.

        So T has 1/P of what each process's loss says.
        """
        assert isinstance(read, OwnForward)
        lam, constant, sparse, weight = (*parts, None)[:4]
        split = self.split
        table = self._meet("backward", len(lam), sparse.numel(), constant is not None, weight is not None)
        examples, counts, constants, weights = (list(column) for column in zip(*table, strict=True))
        columns = [lam]
        if any(constants):
            columns.append(torch.zeros_like(lam) if constant is None else constant)
        if all(weights):
            columns.append(weight)
        told = split.all_of([*columns, sparse], [*[examples] * len(columns), counts], "derivatives")
        *found, all_sparse = [part.div_(split.size) for part in told]
        all_weight = found.pop() if all(weights) else None
        all_constant = found.pop() if any(constants) else None
        return output_gradient(self, read.joint, found[0], all_constant, all_sparse, all_weight)

    def by_hidden(self, gradient: OutputGradient, read: Forward) -> Tensor:
        """(m, d) of the loss of this process, P times what it is of the mean."""
        assert isinstance(read, OwnForward)
        return gradient.by_hidden[read.begin : read.begin + len(read.hidden)] * self.split.size

    # -- steps --------------------------------------------------------------------------------------------------

    def plan(
        self,
        gradient: OutputGradient,
        rule: StepRule,
        hr: Tensor | None = None,
        gram_hr: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Change:
        """As of one process; if it fails on one of them, it fails on all, and nothing is changed anywhere."""
        rule = rule.known()
        size = 0.0 if hr is None else float(torch.linalg.vector_norm(hr))
        figures = (rule.gain[0], rule.mix[0][0], rule.mix[-1][-1], size)
        _, failure = _tried(lambda: check_size(rule, self.dtype))
        _check_alike([_from_bits(row) for row in self._meet("step", *_bits(figures), failure=failure)])
        change, failure = _tried(lambda: super(SplitWeights, self).plan(gradient, rule, hr, gram_hr, skip))
        if failure is not None:
            failure = NonFiniteError(f"{failure}{_whose(gradient)}")
        self._meet("step", failure=failure)
        assert change is not None
        return change

    def apply(self, change: Change, others: tuple[Tensor, ...] = ()) -> None:
        super().apply(change, others)
        self._share_rounding()
        if self.steps % _TRUTH_EVERY == 0:
            self._take_truth()

    def _take_truth(self) -> None:
        """Q and x̄ of rank 0: rounding may differ between machines, and adds up."""
        c = self.small.columns
        mine = self.small.flushed().master[c + 1 : 2 * c + 2]
        truth = self.split.from_first_(mine.clone())
        size = torch.linalg.vector_norm(truth).clamp_min(torch.finfo(truth.dtype).tiny)
        self.parted = max(self.parted, float(torch.linalg.vector_norm(truth - mine) / size))
        self.small = self.small.with_sums(truth[1:], truth[0])

    # -- W ------------------------------------------------------------------------------------------------------

    def total(self, part: Tensor) -> Tensor:
        self._meet("counting")
        return self.split.sum_(part, "sums")

    def recount(self) -> None:
        self.unshared = None
        super().recount()

    def absorb_rounding(self) -> None:
        """Keep it for the next exchange: segments end here when they end nowhere else."""
        found = self.take_rounding()
        if found is not None:
            told = torch.cat([found[1][None], found[0]])
            self.unshared = told if self.unshared is None else self.unshared + told

    def _share_rounding(self) -> None:
        if not self.rows.is_narrow:
            return
        c, master = self.small.columns, self.small.flushed().master
        told = torch.zeros_like(master[: c + 1]) if self.unshared is None else self.unshared
        self.unshared = None
        found = self.split.sum_(told, "rounding") + master[c + 1 : 2 * c + 2]
        self.small = self.small.with_sums(found[1:], found[0])
        self.revision += 1

    def consolidate(self) -> None:
        self._meet("consolidate")
        super().consolidate()
        self._share_rounding()

    def audit(self) -> Audit:
        """The largest drift of all processes; boundaries, segments and rows are those of this one."""
        self._meet("audit")
        found = audit(self)
        names = ("gram", "column_sum", "inverse")
        drift = [*(getattr(found, name) for name in names), float(not found.finite)]
        most = self.split.largest_(torch.tensor(drift, dtype=torch.float64, device=self.values.device)).tolist()
        return replace(found, **dict(zip(names, most, strict=False)), finite=not most[3])

    # -- states -------------------------------------------------------------------------------------------------

    def for_state(self) -> SplitWeights:
        """All rows of V are W, or X, and U = I, so that any other processes can go on from here; O(Dc²)."""
        self.consolidate()
        self._take_truth()
        c, shift, master = self.small.columns, self.small.shift, self.small.flushed().master
        is_shifted = torch.ones(1, device=self.rows.device) * bool(shift.any())
        moved = bool(self.split.largest_(is_shifted))
        for start, stop in self.rows.spans() if moved else ():
            self.rows.put(start, self.values[start:stop].to(self.dtype) + shift)
        eye, zero = torch.eye(c, dtype=torch.float64, device=self.rows.device), torch.zeros_like(master[c])
        self.small = SmallState.joined(eye, zero, master[c + 1], master[c + 2 : 2 * c + 2], eye, self.dtype)
        self.versions = RowVersions.fresh(self.rows.num_rows, c, self.rows.zeros(0))
        if moved and self.rows.is_narrow:  # they were rounded anew
            self.recount()
            self.revision += 1
        self.layout += 1
        self.lent = self.revision
        return self

    def as_saved(self, part: Tensor) -> Tensor:
        return self.split.tensor(part)

    def own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Of a head whose rows were split over other processes, or not at all: the part of this one."""
        local = {name: self.split.part_of(part) if name in ROWS else part for name, part in state.items()}
        return part_of(local, self.num_classes, self.split.rows)

    def is_filled_in_place(self) -> bool:
        """As torch.distributed.checkpoint does."""
        return self.lent == self.revision

    # -- outputs ------------------------------------------------------------------------------------------------

    def best(
        self, hidden: Tensor, k: int, banned: SparseTargets | None, ranking: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Each process finds the best of its own rows for all examples, then those of its examples among all found."""
        find = partial(super().best, ranking=ranking)
        return best_of_all(self.split, self.rows, hidden, k, banned, find)

    def all_outputs(self, hidden: Tensor) -> Tensor:
        return outputs_of_all(self.split, self.rows, hidden, super().all_outputs)


def _tried(work: Callable[[], _R]) -> tuple[_R | None, NonFiniteError | None]:
    """What it gives, or the error that it raises, for the others to hear of."""
    try:
        return work(), None
    except NonFiniteError as error:
        return None, error


def _whose(gradient: OutputGradient) -> str:
    """Of which processes the examples are whose hidden layer is not finite, in words."""
    read = gradient.read
    assert isinstance(read, JointForward)
    if not read.examples_of:
        return ""  # several passes were added up
    parts = read.hidden.split(read.examples_of)
    ranks = [str(rank) for rank, part in enumerate(parts) if not bool(torch.isfinite(part).all())]
    return f" Not finite are examples of rank {', '.join(ranks)}." if ranks else ""


def _bits(numbers: Sequence[float]) -> tuple[int, ...]:
    """Floats as whole numbers of as many bits, which an exchange takes."""
    return struct.unpack(f"{len(numbers)}q", struct.pack(f"{len(numbers)}d", *numbers))


def _from_bits(numbers: Sequence[int]) -> tuple[float, ...]:
    return struct.unpack(f"{len(numbers)}d", struct.pack(f"{len(numbers)}q", *numbers))


def _check_alike(steps: Sequence[Sequence[float]]) -> None:
    """ProcessesError if processes would make other steps than one another, by more than their rounding may do."""
    for found in zip(*steps, strict=True):
        if max(found) - min(found) > _ALIKE * max(map(abs, found)):
            low, high = found.index(min(found)), found.index(max(found))
            raise ProcessesError(
                "All processes of a head should make the same step. Found numbers of it that are "
                f"{found[low]:g} on rank {low} and {found[high]:g} on rank {high}: give their optimisers the same "
                "options, states and schedules. The weights are unchanged."
            )
