"""The optimisers of output layers by the names that configurations and the command line give them."""

import inspect
from collections.abc import Callable

import torch

from widehead.optim.base import HeadOptimizer
from widehead.optim.muon import Muon
from widehead.optim.newton import Newton
from widehead.optim.row_adagrad import RowAdagrad
from widehead.optim.row_adam import RowAdam
from widehead.optim.sgd import SGD
from widehead.optim.shampoo import Shampoo

__all__ = ["OPTIMIZERS", "PARAMETER_OPTIMIZERS", "SGD", "Muon", "Newton", "RowAdagrad", "RowAdam", "Shampoo"]

#: optimisers of the exact head by name: (head, lr, *, own options)
OPTIMIZERS: dict[str, Callable[..., HeadOptimizer]] = {"sgd": SGD, "newton": Newton, "shampoo": Shampoo, "muon": Muon}


def taking(parameter: str) -> tuple[str, ...]:
    """Names of the optimisers of the exact head whose constructors have this parameter."""
    return tuple(name for name, kind in OPTIMIZERS.items() if parameter in inspect.signature(kind).parameters)


#: optimisers of all other heads by name, (params, lr): for dense gradients, and for gradients with few rows
PARAMETER_OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[..., torch.optim.Optimizer]]] = {
    "adam": (torch.optim.Adam, RowAdam),
    "adagrad": (torch.optim.Adagrad, RowAdagrad),
}
