"""Losses whose exact update costs O(d²) an example: functions of q = ‖o‖², s = Σo and a = o at the targets."""

from widehead.losses import names
from widehead.losses.base import Loss, Partials, SphericalLoss, mean_over_targets, sum_over_targets
from widehead.losses.names import *  # noqa: F403  a new loss is listed there alone

__all__ = ["Loss", "Partials", "SphericalLoss", "mean_over_targets", "sum_over_targets"]
__all__ += names.__all__
