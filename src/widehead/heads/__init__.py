"""Output layers to put on a network, one contract for all: forward, scores, top_k, log_prob, to_linear, to_scorer."""

from widehead.heads import names
from widehead.heads.averaging import AveragedModel
from widehead.heads.base import Head, LinearHead, ParameterHead
from widehead.heads.names import *  # noqa: F403  a new head is listed there alone
from widehead.heads.sampled import SampledHead
from widehead.heads.scorer import Scorer

__all__ = ["AveragedModel", "Head", "LinearHead", "ParameterHead", "SampledHead", "Scorer"]
__all__ += names.__all__
