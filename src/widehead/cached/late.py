"""Steps that were not finite, counted on the device and reported when the host can know without waiting."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from widehead.errors import NonFiniteError


class LateReport:
    """Counts steps that changed nothing because they were not finite, and the first of them.

    On a GPU the counts are copied to pinned memory after each step, and read once that copy has ended; elsewhere they
    are read at once.

    Attributes:
        counts: (3,) int64 on the device: steps so far, those left out, the number of the first of these.
    """

    def __init__(self, device: torch.device, steps: int = 0) -> None:
        self.counts = torch.tensor([steps, 0, 0], dtype=torch.int64).to(device)
        self._copy: Tensor | None = None
        self._copied: Any = None
        if device.type == "cuda":
            self._copy = torch.zeros(3, dtype=torch.int64, pin_memory=True)
            self._copied = torch.cuda.Event()

    def note(self, written: Tensor, wanted: Tensor | None) -> None:
        """Count a step, () whether it was written, and () whether it was wanted."""
        step, left_out, first = self.counts.unbind()
        failed = ~written if wanted is None else wanted & ~written
        step.add_(1)
        left_out.add_(failed)
        first.copy_(torch.where(failed & (first == 0), step, first))

    def send(self) -> None:
        """Let the host know, some time."""
        if self._copy is not None:
            self._copy.copy_(self.counts, non_blocking=True)
            self._copied.record()

    def check(self, *, wait: bool = False) -> None:
        """Raise NonFiniteError if steps were left out since the last time; ``wait`` for those on their way."""
        if self._copy is None or wait:
            found = self.counts
        elif self._copied.query():
            found = self._copy
        else:
            return
        steps, left_out, first = found.tolist()
        if left_out == 0:
            return
        self.counts[1:] = 0
        if self._copy is not None:
            self._copy[1:] = 0
        raise NonFiniteError(
            f"A step should be finite. Found NaN or infinity in step {first} of {steps} (its hidden layer, its loss's "
            f"derivatives, or new weights, if the lr is too large); {left_out} steps were left out, and the weights "
            "are as if they had not been asked for."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["counts"].device)  # type: ignore[misc]
        self.counts = state["counts"]
