"""What heads that train on a few drawn classes have in common.

Letters: m examples, D classes, d width, n negatives, nnz targets in all; H (m, d) hidden, O = HWᵀ outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from widehead.errors import check_choice, check_whole
from widehead.heads.linear import LinearHead
from widehead.sampling import LogUniformSampler, Sampler, UniformSampler, UnigramSampler
from widehead.sampling.base import Frequencies, checked_frequencies
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class SampledHead(LinearHead):
    """A linear head whose loss reads the rows of the targets and of n negatives that the whole batch shares.

    Gradients of ``table`` are sparse and have nnz + n rows, in backward passes and in the optimiser, whatever D:
    `widehead.optim.RowAdam`, torch.optim.SparseAdam, Adagrad and SGD take them. Other optimisers, clipping by torch and
    DistributedDataParallel need ``sparse=False``, and O(Dd) a step.
    What is None among the options is as the head's own docstring says.

    Args:
        in_features: d.
        num_classes: D.
        negatives: n, at least 1; draws are with replacement, so n may exceed D.
        sampler: q; None takes "unigram" if there are frequencies. "log-uniform" is for classes numbered by falling
            frequency; "uniform" is 1/D; "unigram" is f^alpha.
        frequencies: (D,) how often each class is a target; for "unigram".
        alpha: power of the frequencies, for "unigram".
        bias: an additional output weight for a hidden unit that is always 1.
        sparse: whether the gradient is sparse, as in torch.nn.Embedding.
        mesh: as in `LinearHead`. Rank 0 draws the negatives, which all processes share, so that losses are those of one
            process with the examples of all and rank 0's seed. The rows of targets and negatives travel, each once, and
            their gradients.
        device, dtype: as in torch.

    Raises:
        TypeError, ValueError: wrong options.
    """

    default_negatives: ClassVar[int]
    default_alpha: ClassVar[float] = 0.75
    #: the sampler if neither it nor frequencies are given
    default_sampler: ClassVar[str] = "uniform"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        negatives: int | None = None,
        sampler: str | None = None,
        frequencies: Frequencies | None = None,
        alpha: float | None = None,
        bias: bool = False,
        sparse: bool = True,
        mesh: DeviceMesh | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, bias=bias, mesh=mesh, device=device, dtype=dtype)
        self.sparse = sparse
        self.negatives = self.default_negatives if negatives is None else negatives
        check_whole("negatives", self.negatives)
        alpha = self.default_alpha if alpha is None else alpha
        self.sampler: Any = self._make_sampler(sampler, frequencies, alpha)
        self._check_alike(self.negatives, self.sampler, alpha, frequencies)

    def _make_sampler(self, name: str | None, frequencies: Frequencies | None, alpha: float) -> Sampler:
        if name is None:
            name = self.default_sampler if frequencies is None else "unigram"
        check_choice("sampler", name, ("log-uniform", "uniform", "unigram"))
        if name == "unigram":
            if frequencies is None:
                raise ValueError("Parameter `frequencies` should be given: this sampler draws by them. Found None.")
            values = checked_frequencies(frequencies, self.num_classes)
            return UnigramSampler(values, alpha=alpha, device=self.device)
        if frequencies is not None:
            raise ValueError(f'Parameter `frequencies` is of no use to the sampler "{name}". Leave it out.')
        return (LogUniformSampler if name == "log-uniform" else UniformSampler)(self.num_classes, device=self.device)

    def _outputs(self, widened: Tensor, targets: SparseTargets, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(nnz,) outputs of the targets, (m, n) of negatives, and their ids (n,), from one read of the table.

        Args:
            negatives: (n,) as drawn here; what comes back are those of rank 0, if there are several processes.
        """
        ids, _, negatives, rows = self._joint_rows(targets.class_ids, negatives)
        positive: Tensor = torch.linalg.vecdot(widened[targets.example_ids], rows[: len(ids)])
        return positive, widened @ rows[len(ids) :].T, negatives

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negatives={self.negatives}, sampler={type(self.sampler).__name__}"


def accidental_hits(negatives: Tensor, targets: SparseTargets) -> Tensor:
    """(m, n) whether each of ``negatives`` (n,) is one of the example's targets.

    In O((n + nnz) log n + mn): a target marks the first of the equal ids among the sorted negatives, and each negative
    looks there. No size depends on what was drawn, so that nothing waits for a GPU. Single targets are compared with
    all negatives, which takes a quarter of the time on a CPU.
    """
    if targets.most == 1:
        single = torch.full((len(targets),), -1, device=negatives.device).index_copy_(
            0, targets.example_ids, targets.class_ids
        )
        return single[:, None] == negatives
    n, ids = negatives.numel(), torch.sort(negatives).values
    first = torch.searchsorted(ids, targets.class_ids)
    met = ids[first.clamp_max(n - 1)] == targets.class_ids
    marks = torch.zeros(len(targets), n + 1, dtype=torch.bool, device=ids.device)
    marks.view(-1).index_fill_(0, targets.example_ids * (n + 1) + torch.where(met, first, n), True)
    return marks.index_select(1, torch.searchsorted(ids, negatives))


def left_out(outputs: Tensor, hits: Tensor) -> Tensor:
    """``outputs`` (m, n), changed in place: those at ``hits`` become so low that they count as nothing.

    The number is finite, for infinities become NaN in gradients if a row has nothing but hits.
    """
    return outputs.masked_fill_(hits, torch.finfo(outputs.dtype).min / 4)
