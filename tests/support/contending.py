"""Contenders of a comparison without a process each, which takes seconds to import torch."""

from __future__ import annotations

import importlib
from typing import Any

compare_module = importlib.import_module("widehead.comparison.compare")  # the room has a function of that name


def in_this_process(name: str, config: Any, quiet: bool, processes: int) -> Any:
    """Takes the place of `_contend` in tests that are not about processes."""
    return compare_module._run(name, config, 1, quiet, compare_module.Member(0, processes, ""))
