"""Adam for tables of which a step touches few rows: embeddings, and output layers with sparse gradients."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.arithmetic import AdamRule, choose
from widehead.errors import check_number
from widehead.optim.rows import RowOptimizer
from widehead.split import local


class RowAdam(RowOptimizer):
    """Adam on the rows that have a gradient, in place; all others, and their moments, stay as they are.

    The rule is that of torch.optim.SparseAdam (Kingma and Ba 2015, with bias corrections by the number of steps), and
    so is the state. It reads and writes each touched row once, in C where rows are float32 in a CPU's memory, where
    SparseAdam makes a dozen passes.

    Args:
        params: as in torch; each needs gradients that are sparse in their rows (``sparse=True`` of nn.Embedding).
        lr: step size.
        betas: how much of the two moments a step keeps, each in [0, 1).
        eps: added to the root of the second moment.
    """

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
        rule = AdamRule(float(first), float(second), float(group["eps"]), float(length))
        choose(parameter, resident=True).move_by_adam(parameter, means, squares, ids, gradient, rule)
