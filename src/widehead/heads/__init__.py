"""Output layers to put on a network, one contract for all: forward, scores, top_k, log_prob, to_linear."""

from widehead.heads.adaptive import AdaptiveSoftmaxHead
from widehead.heads.base import LinearHead, ParameterHead
from widehead.heads.exact import ExactHead
from widehead.heads.full_softmax import FullSoftmaxHead
from widehead.heads.hierarchical import HierarchicalSoftmaxHead
from widehead.heads.retrieved import RetrievedSoftmaxHead

__all__ = [
    "AdaptiveSoftmaxHead",
    "ExactHead",
    "FullSoftmaxHead",
    "HierarchicalSoftmaxHead",
    "LinearHead",
    "ParameterHead",
    "RetrievedSoftmaxHead",
]
