"""Optimisers of exact heads: torch.optim.Optimizer subclasses whose steps cost O(d²) an example."""

from widehead.optim.sgd import SGD

__all__ = ["SGD"]
