"""Steps that were not finite: the device alone knows at once, and the host is told as soon as it need not wait."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from widehead.errors import NonFiniteError

_MOST = 64  # flags on their way; the oldest of more is waited for


class LateReport:
    """What became of the last steps. A step that is not finite changes nothing, and is reported some steps later.

    On a GPU a flag of each step is copied to pinned memory, and looked at once that copy has ended. Elsewhere the host
    sees it at once.
    """

    def __init__(self, steps: int = 0) -> None:
        self._steps = steps
        self._flags: Tensor | None = None
        self._on_their_way: deque[tuple[int, Any]] = deque()

    def note(self, sound: Tensor) -> None:
        """Take note of a step, () whether it was finite."""
        self._steps += 1
        if sound.device.type != "cuda":
            if not bool(sound):
                _refuse(self._steps, self._steps)
            return
        if self._flags is None:
            self._flags = torch.zeros(_MOST, dtype=torch.bool, pin_memory=True)
        self._flags[self._steps % _MOST].copy_(sound, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._on_their_way.append((self._steps, event))

    def check(self, *, wait: bool = False) -> None:
        """Raise NonFiniteError if a step was left out that was not reported yet; ``wait`` for all that were made."""
        while self._on_their_way:
            step, event = self._on_their_way[0]
            if wait or len(self._on_their_way) >= _MOST:
                event.synchronize()
            elif not event.query():
                return
            self._on_their_way.popleft()
            assert self._flags is not None, "there is a flag for each step"
            if not bool(self._flags[step % _MOST]):
                _refuse(step, self._steps)

    def __getstate__(self) -> dict[str, Any]:
        """Copies know of no steps on their way."""
        self.check(wait=True)
        return {"steps": self._steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["steps"])  # type: ignore[misc]


def _refuse(step: int, now: int) -> None:
    raise NonFiniteError(
        f"A step should be finite. Found NaN or infinity in step {step} (now {now}): in the hidden layer, in the "
        "loss's derivatives, or in the updated weights (the lr is too large). That step was left out; the weights are "
        "as if it had not been asked for."
    )
