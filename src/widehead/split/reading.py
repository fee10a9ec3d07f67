"""What a pass reads of W, each process of its own rows, for the examples of all processes.

Letters (docs/notation.md): P processes, m examples of this one, M of all, d width, c = order·d, nnz targets of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from widehead.arithmetic import Arithmetic, Forward, OutputGradient, Share, SmallState, StepMade, StepRule, TargetPlan
from widehead.arithmetic.reference import GradientParts
from widehead.errors import ProcessesError
from widehead.split.processes import Formed, RowSplit
from widehead.targets import SparseTargets


@dataclass(frozen=True)
class JointForward(Forward):
    """Of the examples of all processes: all is the same on each of them but ``products`` by U and ω, and ``values``.

    Attributes:
        own: the targets whose rows are here; ``values`` (n, c) are those rows.
        chosen: (k,) which of the nnz targets they are.
        examples_of: how many of the M examples are of each process; none if several passes were added up.
    """

    own: TargetPlan
    chosen: Tensor
    examples_of: list[int]

    @property
    def written(self) -> Tensor:
        return self.own.class_ids

    def by_rows(self, sparse: Tensor, right: Tensor, onto: Tensor | None = None) -> Tensor:
        return self.own.transposed_times(sparse[self.chosen], right, onto)

    def share(self, gradient: OutputGradient, small: SmallState, hr: Tensor) -> Share:
        """Equal parts of the examples, and each its own rows; one message of (2d + c)·d numbers.

        Nothing in it is of Q or x̄, which a process may have rounded in another way: rank 0's stay its own.
        """
        assert isinstance(self.arithmetic, SplitArithmetic)
        m, d, c, split = *hr.shape, small.columns, self.arithmetic.split
        part = slice(m * split.rank // split.size, m * (split.rank + 1) // split.size)

        def add_up(sums: Sequence[Tensor]) -> Sequence[Tensor]:
            told = split.sum_(sums[0] if len(sums) == 1 else torch.cat(list(sums)), "sums over examples")
            if gradient.constant is not None:
                told[d : d + c].addr_(small.column_sum, gradient.constant @ hr)
            return told.split([len(one) for one in sums])

        return Share(part, gradient.left[part, :c], self.own, gradient.sparse[self.chosen], add_up)

    def others(self, left: Tensor, small: SmallState, columns: slice) -> Tensor:
        """``left`` holds SX in the place of SV."""
        c = small.columns
        found = left[:, :c][:, columns]
        if left.shape[1] == c + 1:
            return found
        return torch.addr(found, left[:, c + 1], small.column_sum[columns])


@dataclass(frozen=True)
class OwnForward(Forward):
    """The part of this process's examples, as its loss sees it; ``joint`` is the whole, and they ``begin`` there."""

    joint: JointForward
    begin: int

    @property
    def examples(self) -> Tensor:
        return self.targets.example_ids


class Batch(NamedTuple):
    """The examples of all processes.

    Attributes:
        hidden: (M, d). targets: of all.
        examples: of each process, by rank. counts: likewise its targets.
    """

    hidden: Tensor
    targets: SparseTargets
    examples: list[int]
    counts: list[int]

    def own(self, rank: int) -> slice:
        """Which examples are those of one process."""
        return _part(self.examples, rank)

    def own_targets(self, rank: int) -> slice:
        """Likewise of the targets."""
        return _part(self.counts, rank)


def _part(lengths: list[int], rank: int) -> slice:
    begin = sum(lengths[:rank])
    return slice(begin, begin + lengths[rank])


def gather_batch(
    split: RowSplit,
    rows: Formed,
    hidden: Tensor,
    targets: SparseTargets,
    *,
    learns: bool = False,
    what: str = "forward",
) -> Batch:
    """H and the targets of all processes: one message, after the one in which all say how many there are."""
    has_values = targets.values is not None
    table = split.meet(what, len(targets), targets.class_ids.numel(), has_values, learns, rows=rows)
    examples, counts, valued, learning = (list(column) for column in zip(*table, strict=True))
    check_alike(learning)
    parts, lengths = [targets.counts, targets.class_ids.to(torch.int64), hidden], [examples, counts, examples]
    if any(valued):
        parts, lengths = [*parts, targets.values_or_ones(hidden.dtype).to(hidden.dtype)], [*lengths, counts]
    numbers, ids, joint, *values = split.all_of(parts, lengths, "batch")
    whole = SparseTargets._trusted(ids, pad(numbers.cumsum(0), (1, 0)), values[0] if values else None)
    return Batch(joint, whole, examples, counts)


def own_targets(split: RowSplit, targets: SparseTargets) -> tuple[SparseTargets, Tensor]:
    """Those of the targets whose rows are here, called by their places here, and (k,) which of all they are."""
    ids = targets.class_ids
    chosen = ((ids >= split.first) & (ids < split.end)).nonzero().squeeze(1)
    counts = torch.bincount(targets.example_ids[chosen], minlength=len(targets))
    return SparseTargets._trusted(ids[chosen] - split.first, pad(counts.cumsum(0), (1, 0)), None), chosen


def no_targets(hidden: Tensor) -> SparseTargets:
    """None for each of ``hidden`` (m, d)."""
    whole = torch.zeros(len(hidden) + 1, dtype=torch.int64, device=hidden.device)
    return SparseTargets._trusted(whole[:0], whole, None)


def check_alike(learning: list[int]) -> None:
    if len(set(learning)) > 1:
        who = {bool(flag): learning.index(flag) for flag in learning}
        raise ProcessesError(
            "All processes of a head should train at the same time, or none of them. Found a pass with gradients on "
            f"rank {who[True]}, and one without (eval mode, torch.no_grad() or a frozen head) on rank {who[False]}."
        )


class SplitArithmetic(Arithmetic):
    """The operations for the examples of all processes, with what is in terms of rows added up over them.

    Only numbers in terms of W are exchanged: each process has its own U, ω and versions, and need not know others'.

    Args:
        inner: the operations that the rows here have.
    """

    def __init__(self, inner: Arithmetic, split: RowSplit) -> None:
        self.inner, self.split, self.phase = inner, split, inner.phase

    def gradient(
        self, read: Forward, small: SmallState, by_squared_norm: Tensor, constant: Tensor | None, sparse: Tensor
    ) -> GradientParts:
        assert isinstance(read, JointForward)
        d, c, own, values = read.hidden.shape[1], small.columns, read.own, sparse[read.chosen]
        mine = torch.cat([own.times(values, read.values), own.row_sums(values)[:, None]], dim=1) @ small.value[: c + 1]
        parts = [self.split.sum_(mine, "SW"), read.plan.row_sums(sparse)[:, None]]
        left = torch.cat(parts if constant is None else [*parts, constant[:, None]], dim=1)
        others = read.others(left, small, slice(d))
        return GradientParts(left, others, torch.addcmul(others, by_squared_norm[:, None], read.hidden_gram), None)

    def step(
        self, gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor, gram_hr: Tensor | None
    ) -> StepMade:
        if len(hr) > hr.shape[1]:
            return self.inner.step(gradient, rule, small, hr, gram_hr)
        return super().step(gradient, rule, small, hr, gram_hr)  # in which all see to all targets
