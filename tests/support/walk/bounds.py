"""How far the head may be from its twin, with the reason for each number.

Nothing here is relative to what comes out, which may be a small difference of large numbers. A bound is a number of
rounding errors of what goes in: of Q, w̄ and the rows as they are kept, then of what the loss makes of the statistics.
An ordinary float32 layer has such errors too, if it has outputs that nearly cancel.

Letters: u unit roundoff, q, s, a statistics, λ, σ, g their derivatives, T = ΛO + σ1ᵀ + S; W (D, d), m examples.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from support.properties import Row
from support.walk.batches import DOUBLE
from support.walk.twin import Passed, Preconditioner, Twin

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
# A sum of n terms makes n rounding errors, each within ±u of what there is. Their standard deviation is √(n/3)·u,
# and 4√n·u seven of those. Half as much was passed twice, by 2 and 6 %, in 14,000 actions, each of which compares
# hundreds of numbers. The longest sums are over the examples of a step, three passes of up to 300, so n is about 1000.
PRODUCT = 4.0 * 1024**0.5
# Errors of n equal terms do not vary: while a sum doubles, all of them are rounded in one direction. They make up to
# n/2·u of the sum, in whatever is linear in it, and twice that in Q. Equal are examples in which only the bias counts,
# and targets that an example names many times, which U would magnify: the step adds them piece by piece. What is read
# of W, and the record for a GPU, which has no U, add one by one. `Bounds.terms` counts them.
# By how much the rounding of a written row may be magnified (the limits of versions/conditioning.py, 8 and 64), over
# the few products that bring a row forward; and the drift that UU⁻¹ may have meanwhile.
ROWS = {torch.float32: 64.0, torch.float64: 512.0}
DRIFT = {torch.float32: 1e-5, torch.float64: 1e-13}
# UU⁻¹ − I in all directions, of which the drift sees one, every sixteenth step.
INVERSE = {torch.float32: 1e-3, torch.float64: 1e-10}
# bfloat16 has eight bits: each number of a written row becomes one of its two neighbours.
NARROW = 2.0**-8
# So many classes may all be targets of nearly every step.
FEW = 3
# in which q, s and a are wrong
SIGNS = list(itertools.product((1.0, -1.0), repeat=3))
# Numbers of rows that are brought forward are 0 below this, in float64 too.
SMALLEST = 1e-30
# Squares of smaller numbers are 0, or have few bits.
UNDERFLOW = {torch.float32: 1e-30, torch.float64: 1e-290}


@dataclass(frozen=True)
class PassBounds:
    """Of one pass; all but the loss by example, (m,).

    Attributes:
        loss: of the loss. by_hidden: of ∇H.
        sizes: of T before its parts cancel. errors: of T. curvature: of λ, relative to it.
        kept: sizes with ‖h‖ times the largest ‖W‖ for ‖o‖: what is made of Q and w̄ has the rounding of that.
    """

    loss: float
    by_hidden: Tensor
    sizes: Tensor
    errors: Tensor
    curvature: Tensor
    kept: Tensor

    def twice(self) -> PassBounds:
        parts = (torch.cat([x, x]) for x in (self.by_hidden, self.sizes, self.errors, self.curvature, self.kept))
        return PassBounds(2.0 * self.loss, *parts)

    def scaled(self, factor: float) -> PassBounds:
        sizes, errors, kept = (x * factor for x in (self.sizes, self.errors, self.kept))
        return PassBounds(self.loss, self.by_hidden, sizes, errors, self.curvature, kept)


class Bounds:
    """What one action may make of the head, beside a twin that had the head's own W before it.

    Attributes:
        weight: ‖W − Ŵ‖, momentum: ‖M − M̂‖ that the action allows beyond what W has at rest.
        peak: the largest ‖W‖₂ since W was loaded: Q and w̄, which are sums, keep the rounding of that.
        reach: with momentum, rows are kept as (w + r·m, m) with r = lr·μ/(1 − μ), and what stiff directions make of
            that is up to lr·λ/(1 − μ) times as large; so w has the rounding of ``reach`` times m.
        kept: the largest ‖w + r·m‖ that there was; carried: that times the largest curvature of a step after it. What
            a step puts of w into m has the rounding of w, as it is kept since any step before.
        terms: so many errors a sum may have that a step has made since W was loaded.
        pushed: what M is made of, a sum of gradients before their parts cancel, if all of few classes are targets of
            nearly every step: V and ω have it, M, Q and w̄ its rounding.
    """

    def __init__(self, dtype: torch.dtype, twin: Twin, *, narrow: bool) -> None:
        self.narrow = narrow
        self.renew(dtype, twin)

    def renew(self, dtype: torch.dtype, twin: Twin) -> None:
        """W was loaded, or became of another type."""
        self.dtype, self.unit = dtype, UNIT[dtype]
        self.peak, self.reach, self.stiffness = twin.spectral(), 0.0, 1.0
        self.weight = self.momentum = self.pushed = self.kept = self.carried = 0.0
        self.terms = PRODUCT

    def resting(self, twin: Twin) -> float:
        """‖W − Ŵ‖ of W that is only read."""
        return ROWS[self.dtype] * self.unit * self.stiffness * self._weight_size(twin)

    def _weight_size(self, twin: Twin) -> float:
        return float(twin.weight.norm()) + self.reach * self._momentum_size(twin)

    def _momentum_size(self, twin: Twin) -> float:
        return float(twin.momentum.norm()) + self.pushed

    def rounded(self, twin: Twin) -> float:
        """What rows that are written in bfloat16 lose, as any action may bring some forward."""
        return self.narrowing * self._weight_size(twin)

    @property
    def narrowing(self) -> float:
        """Of a row that is written, what bfloat16 may make of it."""
        return NARROW * ROWS[torch.float32] if self.narrow else 0.0

    def rounded_momentum(self, twin: Twin) -> float:
        """The same of M."""
        return self.narrowing * self._momentum_size(twin)

    def resting_momentum(self, twin: Twin) -> float:
        """‖M − M̂‖ of M that is only read."""
        kept = self.stiffness * self._momentum_size(twin) + self.carried
        return ROWS[self.dtype] * self.unit * kept + SMALLEST * twin.momentum.numel() ** 0.5

    @property
    def summed(self) -> float:
        """What rounding makes of the sums of a step, relative to the sizes of their terms."""
        return self.terms * self.unit

    def gram(self, twin: Twin) -> float:
        """‖Q − WᵀW‖."""
        return self.summed * twin.width**0.5 * self.peak * self.peak + 2.0 * twin.spectral() * self.resting(twin)

    def may_be_refused(self, twin: Twin) -> bool:
        """Whether Q of a W that was much larger may be off by more than loading a state allows: docs/limits.md."""
        share = {torch.float32: 1e-2 if self.narrow else 1e-3, torch.float64: 1e-6}[self.dtype]
        return self.gram(twin) > share * float(twin.weight.square().sum()) / twin.width

    def column_sum(self, twin: Twin) -> float:
        """‖w̄ − Wᵀ1‖/√D."""
        return self.summed * self.peak + self.resting(twin)

    def statistics(self, part: Passed, twin: Twin, examples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Errors of q (m,), s (m,) and a (nnz,)."""
        h, root = torch.linalg.vector_norm(part.batch.hidden, dim=1), twin.classes**0.5
        q = h**2 * (self.summed * self.peak * self.peak + 2.0 * twin.spectral() * self.resting(twin))
        return q, root * h * self.column_sum(twin), (h * self.resting(twin))[examples]

    def of_pass(self, row: Row, part: Passed, twin: Twin) -> PassBounds:
        """What errors of the statistics make of the loss and its derivatives: it is asked again with them."""
        loss, outputs = row.make(), part.outputs
        alike = torch.bincount(part.batch.sparse.class_ids, minlength=1).max()
        self.terms = max(self.terms, float(alike), float(part.batch.size))
        targets = loss.prepare(part.batch.sparse)
        examples = targets.example_ids
        given = [(outputs**2).sum(1), outputs.sum(1), outputs[examples, targets.class_ids]]
        wrong = self.statistics(part, twin, examples)
        exact = _parts(loss.partials(*given, targets, twin.classes))
        off = [torch.zeros_like(x) for x in exact]
        for signs in SIGNS:
            q, s, a = (x + sign * dx for x, dx, sign in zip(given, wrong, signs, strict=True))
            found = _parts(loss.partials(q.clamp_min(0.0), s, a, targets, twin.classes))
            differences = ((x - y).abs().nan_to_num(math.inf) for x, y in zip(found, exact, strict=True))
            off = [torch.maximum(x, y) for x, y in zip(off, differences, strict=True)]
        return self._propagated(part, twin, examples, exact, off)

    def _propagated(
        self, part: Passed, twin: Twin, examples: Tensor, exact: list[Tensor], off: list[Tensor]
    ) -> PassBounds:
        few, factors, h = self.summed, part.factors.abs(), torch.linalg.vector_norm(part.batch.hidden, dim=1)
        # ‖o‖ is the root of q, with the rounding of that.
        lengths = torch.linalg.vector_norm(part.outputs, dim=1) + few**0.5 * h * self.peak

        def size(parts: list[Tensor]) -> Tensor:
            by_targets = torch.zeros_like(h).index_add(0, examples, parts[3].abs())
            total = 2.0 * parts[1].abs() * lengths + parts[2].abs() * twin.classes**0.5 + by_targets
            return torch.where(factors > 0.0, factors * total, 0.0)

        sizes = size(exact)
        errors = size(off) + few * sizes + factors * 2.0 * exact[1].abs() * h * self.resting(twin)
        # ∇H = ΛHQ + σw̄ᵀ + SW
        kept = sizes + factors * 2.0 * exact[1].abs() * h * self.peak
        wrong = few * self.peak + self.resting(twin)
        terms = part.values_squared() + exact[0].abs() + math.log(twin.classes + 2.0)
        loss = _sum(factors * (off[0] + few * terms))
        curvature = off[1] / exact[1].abs().clamp_min(1e-300)
        by_hidden = (errors * twin.spectral() + kept * wrong).nan_to_num(math.inf)
        return PassBounds(loss, by_hidden, sizes, errors, curvature, kept)

    def of_norm(self, hidden: Tensor, bounds: list[PassBounds], norm: float) -> float:
        """Of ‖∇W‖, whose square is a sum that may nearly cancel: it has the rounding of (Σ_b ‖t_b‖‖h_b‖)², with the
        largest ‖W‖ in ‖t_b‖, as Q is part of it."""
        square = self._square(hidden, bounds) + UNDERFLOW[self.dtype]
        return square if math.isinf(square) else square / max(norm, square**0.5)

    def _square(self, hidden: Tensor, bounds: list[PassBounds]) -> float:
        """Error of what is made of pairs of T's rows and of Q."""
        sizes, errors, kept = _moved(hidden, bounds)
        return self.summed * kept * kept + 2.0 * errors * (sizes + errors)

    def of_right(self, right: Preconditioner, hidden: Tensor) -> float:
        """Of HR, for R a function of a matrix C ⪰ δI: R moves by at most ‖ΔC‖/δ² or, of a root, ‖ΔC‖/2δ^(3/2)."""
        if not right.ridge > UNDERFLOW[self.dtype]:
            return math.inf  # what is written with it is compared all the same
        magnified = right.wrong / right.ridge
        return float(hidden.norm()) * right.largest * (magnified + self.summed)

    def of_sum(self, right: Preconditioner, hidden: Tensor, bounds: list[PassBounds]) -> float:
        """Of what this step adds to the matrix that R is made of."""
        if right.kind != "newton":
            return self._square(hidden, bounds)
        curvature = self.summed + max((float(b.curvature.max()) for b in bounds if b.curvature.numel()), default=0.0)
        return curvature * float(right.added.trace())

    def of_symmetry(self, right: Preconditioner, hidden: Tensor) -> float:
        """Of HRHᵀ, which steps rely on being symmetric, for an R that is off by what `of_right` allows."""
        if not right.ridge > UNDERFLOW[self.dtype]:
            return math.inf  # of a gradient that is 0 but for its rounding, R is anything
        largest = right.largest * (1.0 + right.wrong / right.ridge)
        return 4.0 * self.summed * largest * float(hidden.square().sum())

    def after_step(
        self,
        before: Tensor,
        twin: Twin,
        hr: Tensor,
        bounds: list[PassBounds],
        length: float,
        momentum: float,
        curvature: float,
    ) -> None:
        """A step W ← W − η·TᵀHR, or with momentum, by which this much curvature becomes ``stiffness``."""
        sizes, errors, _ = _moved(hr, bounds)
        reach = length * momentum / (1.0 - momentum)
        self.reach = max(self.reach, reach)
        if momentum > 0.0:
            self.carried = max(self.carried, curvature * self.kept)
            self.kept = max(self.kept, float(twin.weight.norm()) + reach * self._momentum_size(twin))
        self.stiffness = max(self.stiffness, length * curvature / (1.0 - momentum))
        rounding = ROWS[self.dtype] * self.unit
        made = (max(rounding, self.summed) * self.stiffness + DRIFT[self.dtype]) * sizes + errors
        self.momentum = made if momentum > 0.0 else 0.0
        if momentum > 0.0 and twin.classes <= FEW:
            self.pushed = momentum * self.pushed + sizes
            self.peak = max(self.peak, self._weight_size(twin))
        moved = length * (made + self.momentum) if length > 0.0 else 0.0  # and not 0 times infinite
        self.weight = rounding * float(before.norm()) + moved
        # Rows that are written have the sparse part of a step, whatever of it the dense part takes away.
        self.momentum += self.narrowing * sizes if momentum > 0.0 else 0.0
        self.weight += self.narrowing * (length + self.reach) * sizes
        self.peak = max(self.peak, twin.spectral())


def _moved(hidden: Tensor, bounds: list[PassBounds]) -> tuple[float, float, float]:
    """Σ_b ‖t_b‖‖h_b‖ for the sizes of T's rows, for their errors, and for what is kept."""
    lengths = torch.linalg.vector_norm(hidden, dim=1)
    sizes, errors, kept = (torch.cat([getattr(b, name) for b in bounds]) for name in ("sizes", "errors", "kept"))
    return _sum(sizes * lengths), _sum(errors * lengths), _sum(kept * lengths)


def _sum(numbers: Tensor) -> float:
    """What is 0 times infinite is nothing: examples that do not count."""
    return float(numbers.nan_to_num(0.0, posinf=math.inf).sum())


def _parts(partials: object) -> list[Tensor]:
    """ℓ, ∂ℓ/∂q, ∂ℓ/∂s (zeros if None) and ∂ℓ/∂a."""
    losses, by_q, by_s, by_a = (getattr(partials, name) for name in ("losses", "by_q", "by_s", "by_a"))
    return [losses.to(DOUBLE), by_q, torch.zeros_like(by_q) if by_s is None else by_s, by_a]
