"""The exact step (docs/mathematics.md): factored weights, what is read of them, steps, their state, and their audit."""

from widehead.factored.audit import Audit, audit
from widehead.factored.monitor import LearningRateMonitor, dense_curvature, target_curvature
from widehead.factored.packing import pack, unpack
from widehead.factored.reading import accumulate, forward, output_gradient
from widehead.factored.record import WeightRecord
from widehead.factored.state import from_state, recount_if_drifted, to_state
from widehead.factored.step import Change, apply_step, check_size, plan_step
from widehead.factored.weights import FactoredWeights

__all__ = [
    "Audit",
    "Change",
    "FactoredWeights",
    "LearningRateMonitor",
    "WeightRecord",
    "accumulate",
    "apply_step",
    "audit",
    "check_size",
    "dense_curvature",
    "forward",
    "from_state",
    "output_gradient",
    "pack",
    "plan_step",
    "recount_if_drifted",
    "target_curvature",
    "to_state",
    "unpack",
]
