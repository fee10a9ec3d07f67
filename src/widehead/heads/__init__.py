"""Output layers to put on a network, one contract for all: forward, scores, top_k, log_prob, to_linear."""

from widehead.heads.exact import ExactHead
from widehead.heads.retrieved import RetrievedSoftmaxHead

__all__ = ["ExactHead", "RetrievedSoftmaxHead"]
