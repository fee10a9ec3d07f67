"""Compiled twins of what a small step on the CPU spends its time in; everything works without them, and more slowly."""

from widehead.kernels.calls import (
    StepOutputs,
    applies,
    backward,
    class_plan,
    forward,
    step,
    without_kernels,
    write,
)

__all__ = ["StepOutputs", "applies", "backward", "class_plan", "forward", "step", "without_kernels", "write"]
