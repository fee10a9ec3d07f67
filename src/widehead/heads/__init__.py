"""Output layers to put on a network, one contract for all: forward, scores, top_k, log_prob, to_linear."""

from widehead.heads.black_out import BlackOutHead
from widehead.heads.exact import ExactHead
from widehead.heads.negative_sampling import NegativeSamplingHead
from widehead.heads.noise_contrastive import NoiseContrastiveHead
from widehead.heads.sampled_softmax import SampledSoftmaxHead

__all__ = ["BlackOutHead", "ExactHead", "NegativeSamplingHead", "NoiseContrastiveHead", "SampledSoftmaxHead"]
