"""Steps of losses that torch.amp.GradScaler scaled."""

import gc
import weakref

from torch.amp import GradScaler

from widehead.arithmetic import OutputGradient

# A loss may be divided into so many parts before it is scaled, or be a sum of so many examples. What is larger, or
# infinite, no scaler has made.
_PARTS, _SUMMED = 64, 1 << 24


class ScaledLosses:
    """Refuses the steps that should have gone through a GradScaler.

    It leaves no trace in a gradient but the factor that the examples' losses have, which is 1 together in a mean. So
    if they have more, and a GradScaler in use has about as much, it is meant.
    """

    def __init__(self) -> None:
        self._scalers: list[weakref.ref[GradScaler]] | None = None

    def refuse(self, gradient: OutputGradient) -> None:
        """RuntimeError if a GradScaler scaled the loss of this ``gradient``."""
        weight = gradient.example_weight
        factor = 0.0 if weight is None else weight.sum().item()
        if factor < 2.0:
            return
        if self._scalers is None:  # torch keeps no list of them
            self._scalers = [weakref.ref(found) for found in gc.get_objects() if issubclass(type(found), GradScaler)]
        for scaler in filter(None, (reference() for reference in self._scalers)):
            scale = scaler.get_scale() if scaler.is_enabled() else 0.0
            if scale > 1.0 and scale / _PARTS <= factor <= scale * _SUMMED:
                raise RuntimeError(
                    "A loss that GradScaler scaled should be stepped by it: scaler.step(optimizer). Found "
                    f"optimizer.step() with a gradient scaled by {factor:g}. The weights are unchanged."
                )
