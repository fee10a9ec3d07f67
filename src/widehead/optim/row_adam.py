"""Adam for tables of which a step touches few rows: embeddings, and output layers with sparse gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.optim.base import check_number

__all__ = ["RowAdam", "coalesced", "sparse_rows"]

# Numbers that are read, changed and written back at a time: all that one block needs then stays in the cache, and no
# memory is mapped anew in each step.
_BLOCK = 1 << 17


class RowAdam(torch.optim.Optimizer):
    """Adam on the rows that have a gradient, in place; all others, and their moments, stay as they are.

    The rule is that of torch.optim.SparseAdam (Kingma and Ba 2015, with bias corrections by the number of steps), and
    so is the state. It reads and writes each touched row once, where SparseAdam makes a dozen passes.

    Args:
        params: as in torch; each needs gradients that are sparse in their rows (``sparse=True`` of nn.Embedding).
        lr: step size.
        betas: how much of the two moments a step keeps, each in [0, 1).
        eps: added to the root of the second moment.

    Raises:
        TypeError: in `step`: a gradient is not sparse in its rows; no parameter of its group or of later ones was
            changed.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        check_number("lr", lr)
        for beta in betas:
            check_number("betas", beta, below=1.0)
        check_number("eps", eps)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Change the rows that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            found = [(p, sparse_rows(p.grad, "RowAdam")) for p in group["params"] if p.grad is not None]
            for parameter, (ids, gradient) in found:
                self._change(parameter, ids, gradient, group)
        return loss

    def _change(self, parameter: Tensor, ids: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        first, second = group["betas"]
        length = group["lr"] * math.sqrt(1.0 - second ** state["step"]) / (1.0 - first ** state["step"])
        # A GPU has no use for blocks.
        count = max(1, ids.numel() if ids.is_cuda else _BLOCK // max(1, parameter[:1].numel()))
        for rows, g in zip(ids.split(count), gradient.split(count), strict=True):
            mean = state["exp_avg"].index_select(0, rows).lerp_(g, 1.0 - first)
            state["exp_avg"].index_copy_(0, rows, mean)
            square = state["exp_avg_sq"].index_select(0, rows).mul_(second).addcmul_(g, g, value=1.0 - second)
            state["exp_avg_sq"].index_copy_(0, rows, square)
            root = square.sqrt_().add_(group["eps"])
            parameter.index_copy_(0, rows, parameter.index_select(0, rows).addcdiv_(mean, root, value=-length))


def sparse_rows(gradient: Tensor, optimizer: str) -> tuple[Tensor, Tensor]:
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
    """A gradient that is sparse in its rows, with each row once, rising; its values are shared where it is so already.

    Autograd forgets that a gradient was coalesced, and looking costs far less than sorting and summing again.
    """
    ids = gradient._indices()[0]
    if not bool((ids[1:] > ids[:-1]).all()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        ids[None], gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False
    )
