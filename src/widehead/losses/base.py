"""The spherical family's contract: a loss is a function of three statistics of the outputs.

Letters: m examples, D classes, nnz targets, o = Wh the outputs of one example (never formed).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widehead.targets import SparseTargets


@dataclass(frozen=True)
class Partials:
    """Losses (m,) of examples with their derivatives by q (m,), by s (m,), None if that is 0, and by a (nnz,)."""

    losses: Tensor
    by_q: Tensor
    by_s: Tensor | None
    by_a: Tensor


class Loss(ABC):
    """A loss ℓ(q, s, a) of q = ‖o‖², s = Σ_j o_j and a = o at the targets; holds no weights.

    Laws: differentiable by autograd in q, s and a; finite for finite statistics with q ≥ 0; an example's loss
    depends on that example's statistics only.
    """

    #: whether `score` is an unnormalised log-probability, so that `log_normalizer` is defined
    has_probabilities: bool = False
    #: whether an example without targets has no loss and is left out of the mean (as ignore_index in torch)
    needs_targets: bool = False
    #: whether `score` falls and then rises with o: the best classes are among those of the largest and smallest outputs
    ranks_both_ways: bool = False

    def __repr__(self) -> str:
        given = (f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def ranks_by(self) -> str | None:
        """The formula of `score` in the output o, for messages; None if classes are ranked by o itself."""
        return None if type(self).score is Loss.score else f"the score of {type(self).__name__}"

    def __init_subclass__(cls) -> None:
        """A class with a score of its own ranks by that, not by what rises with the score of its parent."""
        super().__init_subclass__()
        if "score" in vars(cls):
            anew = {"ranks_by", "ranks_both_ways"} - vars(cls).keys()
            for name in anew if "ranking" in vars(cls) else anew | {"ranking", "score_of"}:
                setattr(cls, name, vars(Loss)[name])

    @property
    def curves_at_targets(self) -> bool:
        """Whether targets may add curvature; if not, nobody asks for `target_curvature`."""
        return True

    @abstractmethod
    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        """(m,) loss of each example, from q (m,), s (m,) and a (nnz,)."""

    def partials(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Partials:
        """Losses and their derivatives, here by autograd: the gradient of the sum holds those of each example.

        A loss may override this with derivatives that are written out, which is faster: a dozen small operations of
        autograd take as long as a large product of a step.

        Raises:
            ValueError: autograd finds no way from the losses back to q, s or a, or one to other tensors that train.
        """
        with torch.enable_grad():
            given = [x.detach().requires_grad_() for x in (q, s, a)]
            copies = [x.clone() for x in given]  # a loss may change in place what it is given
            losses = self(copies[0], copies[1], copies[2], targets, num_classes)
            if not losses.requires_grad:
                raise ValueError(
                    "A loss should be computed from q, s and a by operations of torch that autograd can differentiate. "
                    f"Found losses of {type(self).__name__} that have no gradient."
                )
            _check_leaves(losses, given, type(self).__name__)
            by_q, by_s, by_a = torch.autograd.grad(losses.sum(), given, allow_unused=True)
        by_q, by_a = (torch.zeros_like(x) if by is None else by for x, by in ((q, by_q), (a, by_a)))
        return Partials(losses.detach(), by_q, by_s, by_a)

    def prepare(self, targets: SparseTargets) -> SparseTargets:
        """The targets as this loss means them, for example with the values of a repeated class added up."""
        return targets

    def score(self, outputs: Tensor) -> Tensor:
        """What classes are ranked by, elementwise: the unnormalised log-probability if the loss has probabilities."""
        return outputs

    def ranking(self, outputs: Tensor) -> Tensor:
        """(m, n) anything that rises with the score and costs less, by which the best of many classes are found."""
        return self.score(outputs)

    def score_of(self, ranking: Tensor) -> Tensor:
        """The score from `ranking`; of −inf it is −inf."""
        return ranking

    def log_normalizer(self, q: Tensor, s: Tensor, num_classes: int) -> Tensor:
        """(m,) log of Σ_j exp(score_j)."""
        raise TypeError(f"{type(self).__name__} defines no probabilities.")

    def initial_std(self, in_features: int, num_classes: int) -> float:
        """Standard deviation of W's entries to begin with: outputs of ordinary size, as in torch.nn.Linear."""
        return 1.0 / math.sqrt(3.0 * in_features)

    def target_curvature(
        self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int, probability: float
    ) -> Tensor:
        """(nnz,) how curved each example's loss is in each target's output, as a step sees it; at least 0.

        For a quadratic loss it is ∂²ℓ/∂a². A loss whose minimum is far away has the largest gradient over the way to
        go, which ends at the output that gives a target ``probability``, in (0, 1), if all other outputs are 0. Here
        it is |∂²ℓ/∂a²|, by differentiating twice; for losses that mix the targets of one example, the sum of a row of
        the Hessian stands for its diagonal.
        """
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            slope = self(q, s, a.clone(), targets, num_classes).sum()
            for _ in range(2):
                if not slope.requires_grad:  # constant or linear in a
                    return torch.zeros_like(a)
                (slope,) = torch.autograd.grad(slope.sum(), a, create_graph=True, materialize_grads=True)
        return slope.detach().abs()

    def largest_step(self, dense: float, targets: float) -> float:
        """The largest stable step size of SGD for the mean over a batch; a step size of that order if none is known.

        Args:
            dense: λmax(HᵀH)/m, curvature that all outputs share.
            targets: max over classes of Σ‖h‖²/m over the examples that name the class, a bound of the curvature that
                the most frequent class has of its own.
        """
        return 1.0 / targets


def _check_leaves(losses: Tensor, given: list[Tensor], name: str) -> None:
    """Refuse a loss with parameters of its own: they would get no gradient, without a word."""
    nodes, seen = [losses.grad_fn], {losses.grad_fn}
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and not any(leaf is one for one in given):
            raise ValueError(
                f"A loss should have no tensors that train but q, s and a. Found {name} with one of shape "
                f"{tuple(leaf.shape)}: compute the loss of head.statistics(hidden, targets) instead."
            )
        fresh = {after for after, _ in getattr(node, "next_functions", ()) if after is not None} - seen
        seen |= fresh
        nodes += fresh


class SphericalLoss(Loss):
    """A loss of your own: ``fn(q, s, a, targets)`` → (m,), differentiated by autograd.

    An example's loss must depend on the statistics of that example alone, and on no parameter that is to be trained;
    a loss for which this does not hold is computed from `ExactHead.statistics`.

    >>> loss = SphericalLoss(lambda q, s, a, targets: q - 2 * sum_over_targets(a, targets))
    """

    def __init__(self, fn: Callable[[Tensor, Tensor, Tensor, SparseTargets], Tensor]) -> None:
        if not callable(fn):
            raise TypeError(f"Parameter `fn` should be a function of (q, s, a, targets). Found {type(fn).__name__}.")
        self.fn = fn

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        losses = self.fn(q, s, a, targets)
        if not isinstance(losses, Tensor) or losses.shape != q.shape:
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"A loss should return one number an example, shape {tuple(q.shape)}. Found {found}.")
        return losses


def sum_over_targets(terms: Tensor, targets: SparseTargets) -> Tensor:
    """(nnz,) → (m,): each example's sum over its targets, 0 if it has none.

    >>> sum_over_targets(torch.tensor([1.0, 2.0, 4.0]), SparseTargets([0, 1, 2], [0, 2, 2, 3]))
    tensor([3., 0., 4.])
    """
    return _SegmentSum.apply(terms, targets)


class _SegmentSum(torch.autograd.Function):
    """`sum_over_targets`, which can be differentiated twice; torch.segment_reduce can be once."""

    @staticmethod
    def forward(ctx: Any, terms: Tensor, targets: SparseTargets) -> Tensor:
        ctx.targets = targets
        return segment_sum(terms, targets)

    @staticmethod
    def backward(ctx: Any, by_sums: Tensor) -> Any:
        return by_sums[ctx.targets.example_ids], None


def segment_sum(terms: Tensor, targets: SparseTargets) -> Tensor:
    """`sum_over_targets` without a graph."""
    return torch.segment_reduce(terms, "sum", lengths=targets.counts, initial=0.0, unsafe=True)


def shares(targets: SparseTargets, dtype: torch.dtype) -> Tensor:
    """(nnz,) the part that each target has in `mean_over_targets`: 1/K, or by value."""
    weights = targets.values_or_ones(dtype)
    total = sum_over_targets(weights, targets)[targets.example_ids]
    return weights / torch.where(total > 0, total, 1.0)


def mean_over_targets(terms: Tensor, targets: SparseTargets) -> Tensor:
    """(nnz,) → (m,): mean over an example's targets, weighted by their values if given; 0 if it has no targets."""
    if targets.values is None:
        return sum_over_targets(terms, targets) / targets.counts.clamp_min(1).to(terms.dtype)
    weights = targets.values.to(terms.dtype)
    targets.check_weights()
    total = sum_over_targets(weights, targets)
    return sum_over_targets(weights * terms, targets) / torch.where(total > 0, total, 1.0)
