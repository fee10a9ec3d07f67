"""Compiled twins of what small steps on the CPU spend their time in; everything works without them, and more slowly."""

from widehead.kernels.calls import (
    SLOTS,
    Deflated,
    Places,
    StepOutputs,
    applies,
    available,
    backward,
    bring,
    class_plan,
    deflate,
    forward,
    moves,
    step,
    without_kernels,
    write,
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
    "forward",
    "moves",
    "step",
    "without_kernels",
    "write",
]
