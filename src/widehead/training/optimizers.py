"""The optimiser of a run's head, by the run's options and, where no lr is given, by its data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from widehead.data import Examples
from widehead.errors import NonFiniteError
from widehead.heads import ParameterHead
from widehead.models import WideNetwork
from widehead.models.optimizer import clip
from widehead.optim import SGD, HeadOptimizer, Muon, Newton, RowAdagrad, RowAdam, Shampoo
from widehead.optim.sgd import cautious_lr
from widehead.training.config import TrainingConfig

__all__ = ["make_head_optimizer"]

_SAMPLE = 2048  # examples that the default lr of SGD is computed from
# SGD's lr where the data do not tell: the hidden layers of a language model grow 100-fold while it trains.
_MEASURED_LR = {("language-model", "spherical-softmax"): 3.0}
_KINDS: dict[str, Callable[..., HeadOptimizer]] = {"newton": Newton, "shampoo": Shampoo, "muon": Muon}


def make_head_optimizer(config: TrainingConfig, network: WideNetwork, examples: Examples) -> Optimizer:
    """A new optimiser of ``network.head``; ``examples`` are those to train on."""
    if config.head != "exact":
        return _parameter_optimizer(config, network.head)
    shared: dict[str, Any] = {
        "weight_decay": config.head_weight_decay,
        "max_grad_norm": config.head_max_grad_norm,
    }
    if config.head_optimizer == "sgd":
        lr = config.head_lr
        if lr is None:
            lr = _MEASURED_LR.get((config.job, str(config.loss))) or _natural_lr(network, examples, config.activation)
            lr = None if lr is None else lr * (1.0 - config.head_momentum)
        return SGD(network.head, lr, config.head_momentum, nesterov=config.head_nesterov, **shared)
    own: dict[str, Any] = {"damping": config.head_damping, "decay": config.head_decay}
    own = {name: value for name, value in own.items() if value is not None}
    if config.head_ridge > 0.0:  # Newton's own is relative to one step
        own["ridge"] = config.head_ridge * math.ceil(len(examples) / config.batch_size)
    return _KINDS[config.head_optimizer](network.head, config.head_lr, **shared, **own)


def _parameter_optimizer(config: TrainingConfig, head: ParameterHead) -> Optimizer:
    """Adam or Adagrad; where gradients are sparse, only the rows that have one move, by RowAdam or RowAdagrad."""
    parameters: list[Tensor] = list(head.parameters())
    lr = config.encoder_lr if config.head_lr is None else config.head_lr
    made: Optimizer
    if config.head_optimizer == "adagrad":
        made = (RowAdagrad if head.sparse else torch.optim.Adagrad)(parameters, lr=lr)
    else:
        made = (RowAdam if head.sparse else torch.optim.Adam)(parameters, lr=lr)
    limit = config.head_max_grad_norm
    if limit is not None:
        made.register_step_pre_hook(lambda *_: _clip(parameters, limit))
    return made


def _clip(parameters: list[Tensor], limit: float) -> None:
    if not bool(torch.isfinite(clip(parameters, limit))):
        raise NonFiniteError("A step should be finite. Found NaN or infinity in the gradient of the output layer.")


@torch.no_grad()
def _natural_lr(network: WideNetwork, examples: Examples, activation: str) -> float | None:
    """The loss's default lr for hidden layers and targets such as some examples have before training.

    Hidden layers grow while they train. Those behind tanh start near 0 and may grow until every unit is ±1, so that is
    what counts for them; growth by some eight times is within the caution of the losses' defaults.
    """
    rows = np.linspace(0, len(examples) - 1, min(_SAMPLE, len(examples))).astype(np.int64)
    inputs, targets = examples.batch(rows)
    network.eval()
    hidden = network.hidden(inputs.to(network.head.device)).cpu()
    dense = float(torch.linalg.eigvalsh(hidden.T @ hidden)[-1]) / len(rows)
    squares = hidden.square().sum(1)[targets.example_ids] / len(rows)
    growth = hidden.shape[1] / float(hidden.square().sum(1).mean().clamp_min(1e-12)) if activation == "tanh" else 1.0
    most = torch.zeros(network.head.num_classes).index_add_(0, targets.class_ids, squares.float()).max()
    usable = float(most) > 0.0 and dense > 0.0
    return cautious_lr(network.head.loss, growth * dense, growth * float(most)) if usable else None
