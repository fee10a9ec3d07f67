"""Optimisers that remember what they proposed last."""

from __future__ import annotations

from typing import Any

import widehead as wh
from widehead.arithmetic import OutputGradient
from widehead.optim.base import HeadOptimizer, Proposal


def watched(kind: type[HeadOptimizer]) -> type[Any]:
    """An optimiser that remembers what it proposed last."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        proposal: Proposal | None = None

        def _propose(self, head: wh.ExactHead, gradient: OutputGradient, group: dict[str, Any]) -> Proposal:
            self.proposal = super()._propose(head, gradient, group)
            return self.proposal

    return Watched
