"""The losses by the names that configurations and the command line give them."""

from widehead.losses.base import Loss
from widehead.losses.spherical_softmax import SphericalSoftmax
from widehead.losses.squared_error import SquaredError
from widehead.losses.taylor_softmax import TaylorSoftmax
from widehead.losses.weighted_squared_error import WeightedSquaredError
from widehead.losses.z_loss import ZLoss

__all__ = ["LOSSES", "SphericalSoftmax", "SquaredError", "TaylorSoftmax", "WeightedSquaredError", "ZLoss"]

#: classes by name, each made with its own options
LOSSES: dict[str, type[Loss]] = {
    "squared-error": SquaredError,
    "weighted-squared-error": WeightedSquaredError,
    "spherical-softmax": SphericalSoftmax,
    "taylor-softmax": TaylorSoftmax,
    "z-loss": ZLoss,
}
