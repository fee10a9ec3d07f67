"""What heads that train on a few drawn classes have in common.

Letters: m examples, D classes, d width, n negatives, nnz targets in all; H (m, d) hidden, O = HWᵀ outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.errors import check_whole
from widehead.heads.base import LinearHead
from widehead.sampling import LogUniformSampler, Sampler, UniformSampler, UnigramSampler
from widehead.sampling.base import Frequencies
from widehead.targets import SparseTargets

__all__ = ["SampledHead", "accidental_hits", "class_sampler", "left_out"]


class SampledHead(LinearHead):
    """A linear head whose loss reads the rows of the targets and of n negatives that the whole batch shares.

    Gradients of ``table`` are sparse and have nnz + n rows, in backward passes and in the optimiser, whatever D.

    Args:
        in_features: d.
        num_classes: D.
        negatives: n, at least 1; draws are with replacement, so n may exceed D.
        bias: an additional output weight for a hidden unit that is always 1.
        device, dtype: as in torch.
    """

    sparse = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        negatives: int,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        check_whole("negatives", negatives)
        self.negatives = negatives

    def _outputs(self, widened: Tensor, targets: SparseTargets, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """(nnz,) outputs of the targets and (m, n) of ``negatives`` (n,), from one read of the table."""
        rows = self._rows(torch.cat([targets.class_ids, negatives]))
        nnz = targets.class_ids.numel()
        positive: Tensor = torch.linalg.vecdot(widened[targets.example_ids], rows[:nnz])
        return positive, widened @ rows[nnz:].T

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negatives={self.negatives}"


def class_sampler(
    name: str | None,
    num_classes: int,
    frequencies: Frequencies | None,
    alpha: float,
    device: torch.device | str | None,
    otherwise: str = "uniform",
) -> Sampler:
    """The sampler "log-uniform", "uniform" or "unigram"; None takes unigram if there are frequencies, or ``otherwise``.

    Raises:
        TypeError, ValueError: another name, or frequencies that are wrong, missing or of no use to the sampler.
    """
    if name is None:
        name = otherwise if frequencies is None else "unigram"
    if name not in ("log-uniform", "uniform", "unigram"):
        raise ValueError(f'Parameter `sampler` should be "log-uniform", "uniform" or "unigram". Found {name!r}.')
    if name == "unigram":
        return _unigram(num_classes, frequencies, alpha, device)
    if frequencies is not None:
        raise ValueError(f'Parameter `frequencies` is of no use to the sampler "{name}". Leave it out.')
    return (LogUniformSampler if name == "log-uniform" else UniformSampler)(num_classes, device=device)


def _unigram(
    num_classes: int, frequencies: Frequencies | None, alpha: float, device: torch.device | str | None
) -> UnigramSampler:
    if frequencies is None:
        raise ValueError("Parameter `frequencies` should be given: this sampler draws by them. Found None.")
    sampler = UnigramSampler(frequencies, alpha=alpha, device=device)
    if sampler.num_classes != num_classes:
        raise ValueError(
            f"Parameter `frequencies` should have shape (num_classes = {num_classes},). Found ({sampler.num_classes},)."
        )
    return sampler


def accidental_hits(negatives: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
    """The pairs (example, column of ``negatives`` (n,)) in which a negative is one of that example's targets.

    In O((n + nnz) log n): targets look up runs of equal ids among the sorted negatives.
    """
    ids, order = torch.sort(negatives)
    first = torch.searchsorted(ids, targets.class_ids)
    runs = torch.searchsorted(ids, targets.class_ids, right=True) - first
    total = int(runs.sum())
    examples = torch.repeat_interleave(targets.example_ids, runs, output_size=total)
    starts = torch.repeat_interleave(first - (runs.cumsum(0) - runs), runs, output_size=total)
    return examples, order[starts + torch.arange(total, device=ids.device)]


def left_out(outputs: Tensor, hits: tuple[Tensor, Tensor]) -> Tensor:
    """``outputs`` (m, n), changed in place: hits become so low that they count as nothing.

    The number is finite, for infinities become NaN in gradients if a row has nothing but hits.
    """
    low = torch.finfo(outputs.dtype).min / 4
    return outputs.index_put_(hits, outputs.new_full((), low))
