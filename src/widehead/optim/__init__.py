"""Optimisers of exact heads, whose steps cost O(d²) an example, and of tables that have sparse gradients."""

from widehead.optim.base import HeadOptimizer
from widehead.optim.clipping import clip_grad_norm_
from widehead.optim.muon import Muon
from widehead.optim.newton import Newton
from widehead.optim.preconditioned import Preconditioned, Trust
from widehead.optim.row_adagrad import RowAdagrad
from widehead.optim.row_adam import RowAdam
from widehead.optim.sgd import SGD
from widehead.optim.shampoo import Shampoo
from widehead.optim.together import Together

__all__ = [
    "SGD",
    "HeadOptimizer",
    "Muon",
    "Newton",
    "Preconditioned",
    "RowAdagrad",
    "RowAdam",
    "Shampoo",
    "Together",
    "Trust",
    "clip_grad_norm_",
]
