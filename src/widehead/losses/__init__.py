"""Losses whose exact update costs O(d²) an example: functions of q = ‖o‖², s = Σo and a = o at the targets."""

from widehead.losses.base import Loss, Partials, SphericalLoss, mean_over_targets, sum_over_targets
from widehead.losses.spherical_softmax import SphericalSoftmax
from widehead.losses.squared_error import SquaredError
from widehead.losses.taylor_softmax import TaylorSoftmax
from widehead.losses.weighted_squared_error import WeightedSquaredError
from widehead.losses.z_loss import ZLoss

__all__ = [
    "Loss",
    "Partials",
    "SphericalLoss",
    "SphericalSoftmax",
    "SquaredError",
    "TaylorSoftmax",
    "WeightedSquaredError",
    "ZLoss",
    "mean_over_targets",
    "sum_over_targets",
]
