"""Output layers to put on a network, one contract for all: forward, scores, top_k, log_prob, to_linear, to_scorer."""

from widehead.heads.adaptive import AdaptiveSoftmaxHead
from widehead.heads.averaging import AveragedModel
from widehead.heads.base import Head, ParameterHead
from widehead.heads.black_out import BlackOutHead
from widehead.heads.exact import ExactHead
from widehead.heads.full_softmax import FullSoftmaxHead
from widehead.heads.hierarchical import HierarchicalSoftmaxHead
from widehead.heads.linear import LinearHead
from widehead.heads.negative_sampling import NegativeSamplingHead
from widehead.heads.noise_contrastive import NoiseContrastiveHead
from widehead.heads.retrieved import RetrievedSoftmaxHead
from widehead.heads.sampled import SampledHead
from widehead.heads.sampled_softmax import SampledSoftmaxHead
from widehead.heads.scorer import Scorer
from widehead.heads.swap import restore_linear, swap_head

__all__ = [
    "AdaptiveSoftmaxHead",
    "AveragedModel",
    "BlackOutHead",
    "ExactHead",
    "FullSoftmaxHead",
    "Head",
    "HierarchicalSoftmaxHead",
    "LinearHead",
    "NegativeSamplingHead",
    "NoiseContrastiveHead",
    "ParameterHead",
    "RetrievedSoftmaxHead",
    "SampledHead",
    "SampledSoftmaxHead",
    "Scorer",
    "restore_linear",
    "swap_head",
]
