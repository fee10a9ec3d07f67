"""Exact training of very wide output layers: 10^5 to 10^8 classes at a cost that does not depend on their number.

>>> import torch, widehead as wh
>>> head = wh.ExactHead(16, 100_000, loss=wh.losses.SphericalSoftmax())
>>> optimizer = wh.optim.SGD(head, lr=0.1)
>>> loss = head(torch.randn(4, 16), torch.tensor([5, 17, 99_999, 0]))
>>> loss.backward()
>>> optimizer.step()
"""

from typing import TYPE_CHECKING, Any

from widehead import cuda, errors, losses, optim
from widehead.heads import (
    AdaptiveSoftmaxHead,
    BlackOutHead,
    ExactHead,
    FullSoftmaxHead,
    HierarchicalSoftmaxHead,
    NegativeSamplingHead,
    NoiseContrastiveHead,
    RetrievedSoftmaxHead,
    SampledSoftmaxHead,
)
from widehead.targets import SparseTargets
from widehead.version import __version__

if TYPE_CHECKING:
    from widehead.runs import Run

__all__ = [
    "AdaptiveSoftmaxHead",
    "BlackOutHead",
    "ExactHead",
    "FullSoftmaxHead",
    "HierarchicalSoftmaxHead",
    "NegativeSamplingHead",
    "NoiseContrastiveHead",
    "RetrievedSoftmaxHead",
    "Run",
    "SampledSoftmaxHead",
    "SparseTargets",
    "__version__",
    "cuda",
    "errors",
    "losses",
    "optim",
]


def __getattr__(name: str) -> Any:
    """`Run` is imported when it is asked for: readers, plots and checkpoints need more than torch and numpy."""
    if name != "Run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from widehead.runs import Run

    return Run
