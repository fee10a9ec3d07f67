"""Adam for tables of which a step touches few rows: embeddings, and output layers with sparse gradients."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.errors import check_number
from widehead.optim.rows import RowOptimizer
from widehead.split import local

# Numbers that are read, changed and written back at a time: all that one block needs then stays in the cache, and no
# memory is mapped anew in each step.


class RowAdam(RowOptimizer):
    """Adam on the rows that have a gradient, in place; all others, and their moments, stay as they are.

    The rule is that of torch.optim.SparseAdam (Kingma and Ba 2015, with bias corrections by the number of steps), and
    so is the state. It reads and writes each touched row once; SparseAdam makes a dozen passes.

    Args:
        params: as in torch; each needs gradients that are sparse in their rows (``sparse=True`` of nn.Embedding).
        lr: step size.
        betas: how much of the two moments a step keeps, each in [0, 1).
        eps: added to the root of the second moment.
    """

    numbers_at_once = 1 << 17

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        for beta in betas:
            check_number("betas", beta, below=1.0)
        super().__init__(params, lr, eps, betas=betas)

    def _change(self, parameter: Tensor, ids: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        means, squares, parameter = local(state["exp_avg"]), local(state["exp_avg_sq"]), local(parameter)
        first, second = group["betas"]
        length = group["lr"] * math.sqrt(1.0 - second ** state["step"]) / (1.0 - first ** state["step"])
        # A GPU has no use for blocks.
        count = max(1, ids.numel() if ids.is_cuda else self.numbers_at_once // max(1, parameter[:1].numel()))
        for rows, g in zip(ids.split(count), gradient.split(count), strict=True):
            mean = means.index_select(0, rows).lerp_(g, 1.0 - first)
            means.index_copy_(0, rows, mean)
            square = squares.index_select(0, rows).mul_(second).addcmul_(g, g, value=1.0 - second)
            squares.index_copy_(0, rows, square)
            root = square.sqrt_().add_(group["eps"])
            parameter.index_copy_(0, rows, parameter.index_select(0, rows).addcdiv_(mean, root, value=-length))
