"""Exact training of very wide output layers: 10^5 to 10^8 classes at a cost that does not depend on their number.

>>> import torch, widehead as wh
>>> head = wh.ExactHead(16, 100_000, loss=wh.losses.SphericalSoftmax())
>>> optimizer = wh.optim.SGD(head, lr=0.1)
>>> loss = head(torch.randn(4, 16), torch.tensor([5, 17, 99_999, 0]))
>>> loss.backward()
>>> optimizer.step()
"""

from widehead import errors, losses, optim
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

__version__ = "0.1.0"
__all__ = [
    "AdaptiveSoftmaxHead",
    "BlackOutHead",
    "ExactHead",
    "FullSoftmaxHead",
    "HierarchicalSoftmaxHead",
    "NegativeSamplingHead",
    "NoiseContrastiveHead",
    "RetrievedSoftmaxHead",
    "SampledSoftmaxHead",
    "SparseTargets",
    "__version__",
    "errors",
    "losses",
    "optim",
]
