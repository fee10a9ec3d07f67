"""Ragged sparse targets: the one data type that readers, losses, heads and metrics share."""

from widehead.targets import trees  # noqa: F401  torch then knows the type
from widehead.targets.parts import starts_run
from widehead.targets.sparse import Inputs, SparseTargets, TargetsLike, on_device

__all__ = ["Inputs", "SparseTargets", "TargetsLike", "on_device", "starts_run"]
