"""The operations that cost, on tensors alone: one interface, torch's class that runs anywhere, and a compiled one."""

from widehead.arithmetic.buffers import empty_like
from widehead.arithmetic.choice import TORCH, choose, find_compiled, using
from widehead.arithmetic.correct import Corrected, correct_before
from widehead.arithmetic.corrections import Corrections, without_denormals
from widehead.arithmetic.crowd import sharing
from widehead.arithmetic.gradient import Forward, OutputGradient, Share
from widehead.arithmetic.placed_targets import PlacedTargets, row_dots
from widehead.arithmetic.reference import AdamRule, Arithmetic
from widehead.arithmetic.row_table import RowTable
from widehead.arithmetic.small_state import SmallState
from widehead.arithmetic.step import Figures, RowSums, StepMade
from widehead.arithmetic.step_rule import StepRule, is_known
from widehead.arithmetic.target_plan import TargetPlan

__all__ = [
    "TORCH",
    "AdamRule",
    "Arithmetic",
    "Corrected",
    "Corrections",
    "Figures",
    "Forward",
    "OutputGradient",
    "PlacedTargets",
    "RowSums",
    "RowTable",
    "Share",
    "SmallState",
    "StepMade",
    "StepRule",
    "TargetPlan",
    "choose",
    "correct_before",
    "empty_like",
    "find_compiled",
    "is_known",
    "row_dots",
    "sharing",
    "using",
    "without_denormals",
]
