"""Compiled twins of what small steps on the CPU spend their time in; everything works without them, and more slowly."""

from widehead.kernels.library import available, without_kernels
from widehead.kernels.rows import SLOTS, Places, bring, find, moves, write
from widehead.kernels.steps import (
    Deflated,
    StepOutputs,
    applies,
    backward,
    class_plan,
    deflate,
    forward,
    step,
)

__all__ = [
    "SLOTS",
    "Deflated",
    "Places",
    "StepOutputs",
    "applies",
    "available",
    "backward",
    "bring",
    "class_plan",
    "deflate",
    "find",
    "forward",
    "moves",
    "step",
    "without_kernels",
    "write",
]
