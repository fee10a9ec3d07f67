"""torch.optim.Optimizer that leaves torch._dynamo alone, unless something else in the process has imported it.

Four methods of torch's class are kept out of what torch.compile traces by a decorator that imports torch._dynamo, and
sympy with it, as soon as one of them is called: 70 MB and a second of CPU time, for a process that compiles nothing.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch


class LightOptimizer(torch.optim.Optimizer):
    """As in torch. Who compiles has torch._dynamo, and gets torch's own methods, decorator and all."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch."""
        _light(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in torch."""
        _light(torch.optim.Optimizer.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As in torch."""
        state: dict[str, Any] = _light(torch.optim.Optimizer.state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch."""
        _light(torch.optim.Optimizer.load_state_dict)(self, state_dict)


def _light(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch without its decorator, where that would import torch._dynamo."""
    plain: Callable[..., Any] = method if "torch._dynamo" in sys.modules else getattr(method, "__wrapped__", method)
    return plain
