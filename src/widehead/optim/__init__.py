"""Optimisers of exact heads, whose steps cost O(d²) an example, and of tables that have sparse gradients."""

from widehead.optim import names
from widehead.optim.base import HeadOptimizer
from widehead.optim.clipping import clip_grad_norm_
from widehead.optim.names import *  # noqa: F403  a new optimiser is listed there alone
from widehead.optim.preconditioned import Preconditioned, Trust
from widehead.optim.together import Together

__all__ = ["HeadOptimizer", "Preconditioned", "Together", "Trust", "clip_grad_norm_"]
__all__ += names.__all__
