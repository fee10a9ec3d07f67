"""The heads by the names that configurations, the command line and benchmarks give them."""

from collections.abc import Callable

from widehead.heads.adaptive import AdaptiveSoftmaxHead
from widehead.heads.base import Head
from widehead.heads.black_out import BlackOutHead
from widehead.heads.exact import ExactHead
from widehead.heads.full_softmax import FullSoftmaxHead
from widehead.heads.hierarchical import HierarchicalSoftmaxHead
from widehead.heads.negative_sampling import NegativeSamplingHead
from widehead.heads.noise_contrastive import NoiseContrastiveHead
from widehead.heads.retrieved import RetrievedSoftmaxHead
from widehead.heads.sampled_softmax import SampledSoftmaxHead

__all__ = [
    "HEADS",
    "AdaptiveSoftmaxHead",
    "BlackOutHead",
    "ExactHead",
    "FullSoftmaxHead",
    "HierarchicalSoftmaxHead",
    "NegativeSamplingHead",
    "NoiseContrastiveHead",
    "RetrievedSoftmaxHead",
    "SampledSoftmaxHead",
]

#: constructors by name: (in_features, num_classes, *, own options, bias, device, dtype), the exact head with its loss
HEADS: dict[str, Callable[..., Head]] = {
    "exact": ExactHead,
    "full": FullSoftmaxHead,
    "retrieved": RetrievedSoftmaxHead,
    "sampled": SampledSoftmaxHead,
    "noise-contrastive": NoiseContrastiveHead,
    "negative-sampling": NegativeSamplingHead,
    "blackout": BlackOutHead,
    "hierarchical": HierarchicalSoftmaxHead,
    "adaptive": AdaptiveSoftmaxHead,
}
