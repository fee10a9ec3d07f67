"""Optimisers of exact heads: torch.optim.Optimizer subclasses whose steps cost O(d²) an example."""

from widehead.optim.clipping import clip_grad_norm_
from widehead.optim.newton import Newton
from widehead.optim.sgd import SGD

__all__ = ["Newton", "SGD", "clip_grad_norm_"]
