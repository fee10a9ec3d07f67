"""The mathematical core: factored weights, exact steps, rows in generations, audit. Tensors and records only."""

from widehead.factored.audit import Audit, audit
from widehead.factored.curvature import CurvatureMonitor, dense_curvature, target_curvature
from widehead.factored.gradient import Forward, OutputGradient, accumulate, forward
from widehead.factored.rows import Rows
from widehead.factored.rule import StepRule
from widehead.factored.sparse import TargetPlan
from widehead.factored.state import STATE_NAMES, from_state, to_state
from widehead.factored.update import Change, apply_step, plan_step
from widehead.factored.weights import FactoredWeights

__all__ = [
    "STATE_NAMES",
    "Audit",
    "Change",
    "CurvatureMonitor",
    "FactoredWeights",
    "Forward",
    "OutputGradient",
    "Rows",
    "StepRule",
    "TargetPlan",
    "accumulate",
    "apply_step",
    "audit",
    "dense_curvature",
    "forward",
    "from_state",
    "plan_step",
    "target_curvature",
    "to_state",
]
