"""The softmax with its normaliser estimated from drawn classes.

Letters: m examples, D classes, n negatives, nnz targets in all; o outputs, q the distribution of the negatives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from widehead.errors import check_choice
from widehead.heads.sampled import SampledHead, accidental_hits, left_out
from widehead.losses import mean_over_targets
from widehead.sampling import QuadraticSampler
from widehead.sampling.base import Frequencies
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class SampledSoftmaxHead(SampledHead):
    """The softmax, trained with an estimate of its normaliser: Bengio and Senécal (2008), Jean et al. (ACL 2015).

    For an example with targets S, the loss of its target y is −o_y + log Ẑ with

        Ẑ = exp(o_y) + Σ_{i=1..n, j_i ∉ S} exp(o_{j_i} − log n q(j_i)),    j_i ~ q with replacement.

    The negatives' outputs are less the log of their expected count; that of the target is not. Negatives that are
    targets of the example (accidental hits) are left out, so that E Ẑ = exp(o_y) + Σ_{j ∉ S} exp(o_j): exactly the
    normaliser for one target. Among several targets each competes with the classes outside S only, not with the
    other targets, and the example has the mean of their losses, weighted by their values if given.

    Bias: the loss is too low, for E log Ẑ ≤ log E Ẑ, by ½ Var(Ẑ)/Z² + O(n⁻²), which falls like 1/n; its gradient is
    biased to the same order. In eval mode the loss is that of the full softmax.

    Args:
        in_features: d.
        num_classes: D.
        negatives: n, 2000 if None. In-batch negatives are as many as the batch has targets instead.
        sampler: as in `SampledHead`, "log-uniform" if None without frequencies; or "in-batch", which takes the targets
            of the other examples, as draws in proportion to f (Yi et al., RecSys 2019); or "quadratic",
            `widehead.sampling.QuadraticSampler`, which follows the outputs themselves.
        frequencies, alpha: as in `SampledHead`; "in-batch" needs frequencies too, alpha is 0.75 if None.
        refresh_every: training steps between two trees, for "quadratic".
        bias, sparse, mesh, device, dtype: as in `SampledHead`.

    Raises:
        TypeError, ValueError: wrong options.

    >>> head = SampledSoftmaxHead(8, 1000, negatives=50)
    >>> head(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    default_negatives = 2000
    default_sampler = "log-uniform"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        negatives: int | None = None,
        sampler: str | None = None,
        frequencies: Frequencies | None = None,
        alpha: float | None = None,
        refresh_every: int = 300,
        bias: bool = False,
        sparse: bool = True,
        mesh: DeviceMesh | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if sampler is not None:
            check_choice("sampler", sampler, ("log-uniform", "uniform", "unigram", "in-batch", "quadratic"))
        if sampler == "quadratic" and frequencies is not None:
            raise ValueError('Parameter `frequencies` is of no use to the sampler "quadratic". Leave it out.')
        if sampler == "quadratic" and mesh is not None:
            raise ValueError(
                'The sampler "quadratic" has a tree of all rows, so they should not be split over processes (`mesh`). '
                'Take "log-uniform", "unigram" or "in-batch", or leave out the mesh.'
            )
        super().__init__(
            in_features,
            num_classes,
            negatives=negatives,
            sampler={"in-batch": "unigram", "quadratic": "uniform"}.get(str(sampler), sampler),
            frequencies=frequencies,
            alpha=1.0 if sampler == "in-batch" else alpha,
            bias=bias,
            sparse=sparse,
            mesh=mesh,
            device=device,
            dtype=dtype,
        )
        self.in_batch = sampler == "in-batch"
        self._check_alike(sampler)
        if sampler == "quadratic":
            width = in_features + bias
            self.sampler = QuadraticSampler(num_classes, width, refresh_every=refresh_every, device=device, dtype=dtype)

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        positive, negative = self.corrected(hidden, targets)
        log_rest = torch.logsumexp(negative, dim=1)
        # log(exp(o_y) + rest) − o_y
        return mean_over_targets(softplus(log_rest[targets.example_ids] - positive), targets)

    def corrected(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        """(nnz,) outputs of the targets and (m, n) of fresh negatives less log n q, very low at accidental hits.

        log Ẑ of target y is the log of exp(first) + Σ_i exp(second).
        """
        widened = self._widened(hidden)
        if self.in_batch:
            return self._against_the_batch(widened, targets)
        if isinstance(self.sampler, QuadraticSampler):
            drawn, log_q = self.sampler.sample(self.negatives, widened.detach(), self.table.detach())
            positive, negative, ids = self._outputs(widened, targets, drawn)
        else:
            positive, negative, ids = self._outputs(widened, targets, self.sampler.sample(self.negatives))
            log_q = self.sampler.log_prob(ids)
        negative = negative - (math.log(self.negatives) + log_q).to(negative.dtype)
        return positive, left_out(negative, accidental_hits(ids, targets))

    def _against_the_batch(self, widened: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        ids, begin, _, rows = self._joint_rows(targets.class_ids, of_all=True)
        outputs = widened @ rows.T
        own = torch.arange(begin, begin + targets.class_ids.numel(), device=ids.device)
        positive = outputs[targets.example_ids, own]
        others = (ids.numel() - targets.counts).clamp_min(1)  # draws: targets that are not the example's own
        expected = others.to(torch.float64).log()[:, None] + self.sampler.log_prob(ids)
        return positive, left_out(outputs - expected.to(outputs.dtype), accidental_hits(ids, targets))

    def load_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().load_weight(weight, bias)
        if isinstance(self.sampler, QuadraticSampler):
            self.sampler.refresh(self.table.detach())
