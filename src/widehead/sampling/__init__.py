"""Distributions over class ids to draw negatives from, with the log-probability of what was drawn."""

from widehead.sampling.base import Sampler
from widehead.sampling.log_uniform import LogUniformSampler
from widehead.sampling.quadratic import QuadraticSampler
from widehead.sampling.uniform import UniformSampler
from widehead.sampling.unigram import UnigramSampler

__all__ = ["LogUniformSampler", "QuadraticSampler", "Sampler", "UniformSampler", "UnigramSampler"]
