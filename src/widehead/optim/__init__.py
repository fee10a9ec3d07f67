"""Optimisers of exact heads: torch.optim.Optimizer subclasses whose steps cost O(d²) an example."""

from widehead.optim.base import HeadOptimizer
from widehead.optim.clipping import clip_grad_norm_
from widehead.optim.muon import Muon
from widehead.optim.newton import Newton
from widehead.optim.preconditioned import Preconditioned, Trust
from widehead.optim.sgd import SGD
from widehead.optim.shampoo import Shampoo

__all__ = ["SGD", "HeadOptimizer", "Muon", "Newton", "Preconditioned", "Shampoo", "Trust", "clip_grad_norm_"]
