"""How often something happens: every so many steps, epochs, seconds or minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {
    "step": "steps",
    "epoch": "epochs",
    "second": "seconds",
    "s": "seconds",
    "minute": "minutes",
    "min": "minutes",
}
_SECONDS = {"seconds": 1.0, "minutes": 60.0}


@dataclass(frozen=True)
class Interval:
    """``count`` (above 0) of ``unit``: "steps", "epochs", "seconds" or "minutes"; whole for the first two.

    >>> Interval.parse("500 steps"), Interval.parse("1.5 min")
    (Interval(count=500.0, unit='steps'), Interval(count=1.5, unit='minutes'))
    """

    count: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read "500 steps", "1 epoch", "60 seconds" or "5 minutes"; ValueError for anything else."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", text)
        unit = None if found is None else _UNITS.get(found[2])
        whole = unit in ("steps", "epochs")
        if found is None or unit is None or float(found[1]) <= 0 or (whole and not float(found[1]).is_integer()):
            raise ValueError(
                f'An interval should read like "500 steps", "1 epoch", "60 seconds" or "5 minutes". Found {text!r}.'
            )
        return cls(float(found[1]), unit)

    def due(self, *, step: int, epochs: int, epoch_ends: bool, waited: float) -> bool:
        """Whether it is time.

        Args:
            step: steps done.
            epochs: whole epochs done.
            epoch_ends: whether the last step ended an epoch.
            waited: seconds since the last time.
        """
        if self.unit == "steps":
            return step % int(self.count) == 0
        if self.unit == "epochs":
            return epoch_ends and epochs % int(self.count) == 0
        return waited >= self.count * _SECONDS[self.unit]
