"""What optimisers of tables share if a step touches few rows: the loop over sparse gradients, and their rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.errors import check_number


class RowOptimizer(torch.optim.Optimizer, ABC):
    """Changes the rows that have a gradient, in place, by a rule of its own; all others stay as they are.

    Args:
        params: as in torch; each needs gradients that are sparse in their rows (``sparse=True`` of nn.Embedding).
        lr: step size.
        eps: added to the root of what the rule sums or averages.
        options: what else stands in each parameter group.
    """

    def __init__(self, params: Iterable[Any], lr: float, eps: float, **options: Any) -> None:
        check_number("lr", lr)
        check_number("eps", eps)
        if isinstance(params, torch.nn.Module):
            name = type(params).__name__
            raise TypeError(
                f"{type(self).__name__} should be given parameters. Found {name}: give {name}.parameters()."
            )
        super().__init__(params, {"lr": lr, "eps": eps, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Change the rows that have a gradient.

        Raises:
            TypeError: a gradient is not sparse in its rows; no parameter of its group or of later ones was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            found = [(p, _sparse_rows(p.grad, type(self).__name__)) for p in group["params"] if p.grad is not None]
            for parameter, (ids, gradient) in found:
                self._change(parameter, ids, gradient, group)
        return loss

    @abstractmethod
    def _change(self, parameter: Tensor, ids: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Apply the rule to rows ``ids`` (n,), distinct, of a parameter, by their ``gradient`` (n, …)."""


def _sparse_rows(gradient: Tensor, optimizer: str) -> tuple[Tensor, Tensor]:
    """(n,) distinct row ids and their (n, …) gradients; TypeError names the ``optimizer`` that needs them sparse."""
    if not gradient.is_sparse or gradient.sparse_dim() != 1:
        raise TypeError(
            f"{optimizer} should be given parameters with gradients that are sparse in their rows. Found a gradient "
            f"of layout {gradient.layout}. Use torch.optim.{optimizer.removeprefix('Row')} for it, or sparse=True "
            "where the embedding is made."
        )
    gradient = coalesced(gradient)
    return gradient._indices()[0], gradient._values()


def coalesced(gradient: Tensor) -> Tensor:
    """A gradient that is sparse in its rows, with each row once, rising; its values are shared if it is so already.

    Autograd forgets that a gradient was coalesced, and on a CPU looking costs far less than sorting and summing again.
    A GPU is waited for once, to know how many rows there are.
    """
    ids = gradient._indices()[0]
    if gradient.is_coalesced() or gradient.device.type != "cpu" or not bool((ids[1:] > ids[:-1]).all()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        ids[None], gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False
    )
