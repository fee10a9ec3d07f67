"""The operations that cost, by torch's own: what is true on every device, and what faster classes are compared with."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Self

import torch
from torch import Tensor

from widehead.arithmetic import correct as corrections
from widehead.arithmetic import row_table
from widehead.arithmetic import step as steps
from widehead.arithmetic.correct import Corrected
from widehead.arithmetic.corrections import without_denormals
from widehead.arithmetic.gradient import Forward, OutputGradient
from widehead.arithmetic.row_table import RowTable
from widehead.arithmetic.small_state import SmallState
from widehead.arithmetic.step import RowSums, StepMade
from widehead.arithmetic.step_rule import StepRule
from widehead.arithmetic.sums import ExampleSums, curvature_of
from widehead.arithmetic.target_plan import TargetPlan
from widehead.targets import SparseTargets

# Numbers of rows of embeddings that are read, changed and written back at a time: all that one block needs then stays
# in the cache, and no memory is mapped anew in each step.
_NUMBERS_AT_ONCE = 1 << 17


class Outputs(NamedTuple):
    """What `Forward` holds of W: products (m, 2c + 2), values (n, c), squared_norm (m,), outputs (nnz,) and size."""

    products: Tensor
    values: Tensor
    squared_norm: Tensor
    outputs: Tensor
    size: float | None = None


class GradientParts(NamedTuple):
    """What `OutputGradient` computes: left, others, by_hidden and, if it costs nothing, the bound."""

    left: Tensor
    others: Tensor
    by_hidden: Tensor
    bound: float | None


class AdamRule(NamedTuple):
    """What Adam does to a row in one step: the share of the two moments that stays, ``eps``, and the step's length."""

    first: float
    second: float
    eps: float
    length: float


class Arithmetic:
    """Nine operations on tensors, of which a step is made. Forward chooses an instance; the step goes on with it.

    Two more move rows of embeddings, for encoders.

    Laws: an operation changes nothing but what `write_rows`, or one of those two, is told to; a class that overrides
    some of them gives the same numbers up to rounding, and calls this one if something does not apply (a size, a type,
    a sign). Instances hold no state.

    Letters: m examples, d width, c = order·d columns, D classes, n distinct target classes, nnz targets.
    """

    #: a context around work that is no part of a step's own: "closing" segments, "moving" rows
    phase: Callable[[str], AbstractContextManager[None]] = staticmethod(lambda name: nullcontext())

    def with_phases(self, phase: Callable[[str], AbstractContextManager[None]]) -> Self:
        """The same operations with another `phase`: for those who measure."""
        made = copy.copy(self)
        made.phase = phase
        return made

    def fits(self, table: Tensor, *, resident: bool) -> bool:
        """Whether it can compute with rows that are stored as ``table`` (D, c); see `choose`."""
        return True

    def plan_targets(self, targets: SparseTargets) -> TargetPlan:
        """Sort the targets by class."""
        return TargetPlan.of(targets)

    def bring_rows(self, table: RowTable, ids: Tensor, *, to_base: bool = True) -> tuple[Tensor, Tensor]:
        """(n, c) copies of the rows ``ids`` (n,) of V, brought to the newest version.

        With ``to_base`` False they go to the first slot without a successor only; then (n,) uint8 says which it is.
        """
        return row_table.bring(table, ids, to_base=to_base)

    def read_outputs(self, hidden: Tensor, small: SmallState, table: RowTable, plan: TargetPlan) -> Outputs:
        """Read what the statistics, their gradient and the step need of W, from H (m, d)."""
        d, c = hidden.shape[1], small.columns
        products = hidden @ small.value[: 2 * c + 2, :d].T
        values = self.bring_rows(table, plan.class_ids)[0]
        # Q ⪰ 0, so q ≥ 0; rounding may say otherwise.
        squared_norm = torch.linalg.vecdot(products[:, c + 2 : c + 2 + d], hidden).clamp_min_(0.0)
        # a = h·(v U + ω) = (h Uᵀ)·v + h·ω: U meets the m hidden rows, not the n target rows, which may be many more.
        outputs = plan.dots(products[:, :c], values).add_(products[:, c][plan.examples])
        return Outputs(products, values, squared_norm, outputs)

    def gradient(
        self, read: Forward, small: SmallState, by_squared_norm: Tensor, constant: Tensor | None, sparse: Tensor
    ) -> GradientParts:
        """∇H = TW = ΛHQ + NW and NW = (SV)U + (S1)ωᵀ + σw̄ᵀ, from λ (m,), σ (m,) or None, and g (nnz,)."""
        d, plan = read.hidden.shape[1], read.plan
        parts = [plan.times(sparse, read.values), plan.row_sums(sparse)[:, None]]
        left = torch.cat(parts if constant is None else [*parts, constant[:, None]], dim=1)
        others = left @ small.value[: left.shape[1], :d]
        return GradientParts(left, others, torch.addcmul(others, by_squared_norm[:, None], read.hidden_gram), None)

    def sums(self, gradient: OutputGradient, small: SmallState, hr: Tensor, *, named: bool) -> ExampleSums:
        """Sums over the examples, of which `step` is made if they are more than d."""
        share = gradient.read.share(gradient, small, hr)
        sums = [curvature_of(gradient, hr, share.examples), share.others.T @ hr[share.examples]]
        if named:
            sums.append(share.plan.gram_times(share.sparse, hr).T @ hr)
        return ExampleSums(*share.add_up(sums))

    def step(
        self, gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor, gram_hr: Tensor | None
    ) -> StepMade:
        """The numbers of a step with ``hr`` (m, d) HR, and ``gram_hr`` TTᵀHR if it is known already."""
        return steps.step(gradient, rule, small, hr, gram_hr)

    def correct(
        self, gradient: OutputGradient, rule: StepRule, small: SmallState, solved: Tensor, hr: Tensor, values: Tensor
    ) -> Corrected | None:
        """Give the direction in which U is smallest the length τ; None if it is too small for that, or not finite.

        What comes back may be as ill conditioned as what was given, if several directions are: the caller judges it.

        Args:
            gradient, rule, hr: of the step, whose order is 1; m ≥ 1.
            small, solved: what the step made, (m, c) C = f·Hr·U⁻¹.
            values: (n, c) the target rows of V.
        """
        return corrections.correct(gradient, rule, small, solved, hr, values)

    def write_rows(
        self, table: Tensor, versions: Tensor, ids: Tensor, rows: Tensor | RowSums, version: int | Tensor
    ) -> None:
        """V[ids] ← rows (n, c) for distinct ids, with this version or with versions (n,) of their own.

        Rows with versions of their own were multiplied many times: their numbers below 1e-30 become 0.
        """
        rows = rows.made() if isinstance(rows, RowSums) else rows
        if isinstance(version, Tensor):
            table.index_copy_(0, ids, without_denormals(rows))
            versions.index_copy_(0, ids, version)
            return
        table.index_copy_(0, ids, rows)
        versions.index_fill_(0, ids, version)

    def find_rows(
        self, versions: Tensor, start: int, stop: int, wanted: Sequence[int], most: int
    ) -> tuple[Tensor, int]:
        """Rows from ``start`` to ``stop`` that have one of the ``wanted`` versions, rising; at most ``most`` of them.

        Also how far it looked: every row before that place was looked at.
        """
        flags = torch.zeros(256, dtype=torch.bool, device=versions.device)
        flags[list(wanted)] = True
        found = flags.index_select(0, versions[start:stop].int()).nonzero().squeeze(1) + start
        return (found, stop) if found.numel() <= most else (found[:most], int(found[most]))

    def move_by_adam(
        self, table: Tensor, means: Tensor, squares: Tensor, ids: Tensor, gradient: Tensor, rule: AdamRule
    ) -> None:
        """Adam's step of the rows ``ids`` (n,), distinct, by their gradient (n, …), in place.

        Args:
            table: (N, …) rows. means, squares: their moments, of the same shape.
        """
        # A GPU has no use for blocks.
        count = max(1, ids.numel() if ids.is_cuda else _NUMBERS_AT_ONCE // max(1, table[:1].numel()))
        for rows, g in zip(ids.split(count), gradient.split(count), strict=True):
            mean = means.index_select(0, rows).lerp_(g, 1.0 - rule.first)
            means.index_copy_(0, rows, mean)
            square = squares.index_select(0, rows).mul_(rule.second).addcmul_(g, g, value=1.0 - rule.second)
            squares.index_copy_(0, rows, square)
            root = square.sqrt_().add_(rule.eps)
            table.index_copy_(0, rows, table.index_select(0, rows).addcdiv_(mean, root, value=-rule.length))

    def move_by_adagrad(
        self, table: Tensor, sums: Tensor, ids: Tensor, gradient: Tensor, lr: float, eps: float
    ) -> None:
        """The step of Adagrad by rows of ``ids`` (n,), distinct, by their gradient (n, …), in place.

        Args:
            table: (N, …) rows. sums: (N,) their sums of mean squares.
        """
        flat = gradient.flatten(1) if gradient.ndim > 1 else gradient[:, None]
        sums.index_add_(0, ids, flat.square().mean(1))
        factors = lr / (sums.index_select(0, ids).sqrt() + eps)
        table.index_add_(0, ids, (flat * -factors[:, None]).view_as(gradient))
