"""Averages of models that have exact heads: exponential moving averages, stochastic weight averaging."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from widehead.heads.exact import ExactHead


class AveragedModel(swa_utils.AveragedModel):
    """torch.optim.swa_utils.AveragedModel for models with exact heads, whose W is averaged as parameters are.

    W is no parameter, and its parts averaged one by one are not those of an average. So each update reads W of both
    models, dense, and sets that of the average: O(Dd²). Once in some steps is enough.

    Args: as in torch.

    >>> from widehead import ExactHead, losses
    >>> model = nn.Sequential(nn.Linear(2, 4), ExactHead(4, 30, losses.SquaredError()))
    >>> averaged = AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    >>> averaged.update_parameters(model)
    >>> torch.allclose(averaged.module[1].weight(), model[1].weight())
    True
    """

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the present weights of ``model`` into the average.

        Raises:
            ValueError: the model has other exact heads than the one that was copied.
        """
        pairs = list(zip(_heads(self.module), _heads(model), strict=True))
        before = self.n_averaged.clone()
        super().update_parameters(model)
        for averaged, head in pairs:
            averaged.accept_average()
            mixed = self._mixed(averaged.weights.dense(), head.weights.dense().to(averaged.device), before)
            bias = mixed[:, head.in_features] if head.has_bias else None
            averaged.load_weight(mixed[:, : head.in_features], bias)

    def _mixed(self, averaged: Tensor, present: Tensor, count: Tensor) -> Tensor:
        """The new average, by the functions that torch's class was given."""
        if int(count) == 0:
            return present
        if self.multi_avg_fn is not None:
            self.multi_avg_fn([averaged], [present], count)  # in place
            return averaged
        mixed: Tensor = (self.avg_fn or swa_utils.get_swa_avg_fn())(averaged, present, count)
        return mixed


def _heads(module: nn.Module) -> list[ExactHead]:
    return [part for part in module.modules() if isinstance(part, ExactHead)]
