"""The mathematical core: factored weights, exact steps, rows in generations, audit. Tensors and records only."""

from widehead.factored.audit import Audit, audit
from widehead.factored.gradient import Forward, OutputGradient, accumulate, forward
from widehead.factored.update import exact_step, largest_curvature
from widehead.factored.weights import FactoredWeights

__all__ = [
    "Audit",
    "FactoredWeights",
    "Forward",
    "OutputGradient",
    "accumulate",
    "audit",
    "exact_step",
    "forward",
    "largest_curvature",
]
