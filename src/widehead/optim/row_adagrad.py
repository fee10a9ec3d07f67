"""Adagrad with one step size for each row, for tables of which a step touches few rows."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.arithmetic import choose
from widehead.optim.rows import RowOptimizer
from widehead.split import local


class RowAdagrad(RowOptimizer):
    """Adagrad on the rows that have a gradient, with one sum of squares for each row; all others stay as they are.

    With g (c,) the gradient of a row and s its sum, 0 at first:

        s += ‖g‖²/c,        row −= lr·g/(√s + eps).

    A row that is seen n times moves by about lr·√n, while Adam moves it by lr·n until it has memorised its examples:
    a word of three documents should not get as long a vector as one of three hundred. The state is one number a row,
    while Adam keeps two numbers a weight.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods" (JMLR 12, 2011), with the squares of a row averaged.

    Args:
        params: as in torch; each needs gradients that are sparse in their rows (``sparse=True`` of nn.Embedding).
        lr: step size.
        eps: added to the root of the sum.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.05, *, eps: float = 1e-10) -> None:
        super().__init__(params, lr, eps)

    def _change(self, parameter: Tensor, ids: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["sum"] = torch.zeros_like(parameter.flatten(1)[:, 0] if parameter.ndim > 1 else parameter)
        rows = local(parameter)
        found = choose(rows, resident=True)
        lr, eps = float(group["lr"]), float(group["eps"])
        found.move_by_adagrad(rows, local(state["sum"]), ids, gradient, lr, eps)
