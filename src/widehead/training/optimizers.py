"""The optimiser of a run's head, by the run's options and, if no lr is given, by its data."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from widehead.data import Examples
from widehead.errors import NonFiniteError
from widehead.heads import ParameterHead
from widehead.models import WideNetwork
from widehead.names import OPTIMIZERS, PARAMETER_OPTIMIZERS
from widehead.optim.clipping import clip_grad_norm_
from widehead.optim.sgd import cautious_lr
from widehead.options import OPTIONS, TrainingConfig
from widehead.split import Share

_SAMPLE = 2048  # examples that the default lr of SGD is computed from


def make_head_optimizer(
    config: TrainingConfig,
    network: WideNetwork,
    examples: Examples,
    measured_lr: float | None = None,
    share: Share | None = None,
) -> Optimizer:
    """A new optimiser of ``network.head``.

    Args:
        examples: those to train on; SGD's default lr is computed from some.
        measured_lr: that lr, if it is known.
        share: of the examples, if each of several processes has one.
    """
    if config.head != "exact":
        return _parameter_optimizer(config, network.head)
    lr, own = config.head_lr, _own_options(config, len(examples))
    if config.head_optimizer == "sgd" and lr is None:
        lr = measured_lr or _natural_lr(network, examples, config.activation, share)
        lr = None if lr is None else lr * (1.0 - config.head_momentum)
    if config.head_max_grad_norm is not None:
        own["max_grad_norm"] = config.head_max_grad_norm
    return OPTIMIZERS[config.head_optimizer](network.head, lr, **own)


def _own_options(config: TrainingConfig, num_examples: int) -> dict[str, Any]:
    """The options that the optimiser takes besides the lr, less those that are left to it."""
    takes = {name for name, row in OPTIONS.items() if config.head_optimizer in row.optimizers}
    given = {name.removeprefix("head_"): getattr(config, name) for name in takes}
    if "ridge" in given:  # Newton's own is relative to one step
        given["ridge"] *= math.ceil(num_examples / config.batch_size)
    return {name: value for name, value in given.items() if value is not None}


def _parameter_optimizer(config: TrainingConfig, head: ParameterHead) -> Optimizer:
    """One that moves only the rows that have a gradient, if gradients are sparse."""
    parameters: list[Tensor] = list(head.parameters())
    lr = config.encoder_lr if config.head_lr is None else config.head_lr
    dense, by_rows = PARAMETER_OPTIMIZERS[config.head_optimizer]
    made = (by_rows if head.sparse else dense)(parameters, lr=lr)
    if (limit := config.head_max_grad_norm) is not None:
        made.register_step_pre_hook(lambda *_: _clip(made, parameters, limit))
    return made


def _clip(optimizer: Any, parameters: list[Tensor], limit: float) -> None:
    """Clip, and leave the norm before as ``clipped_norm`` for who asks a GPU later; a CPU is asked here."""
    optimizer.clipped_norm = norm = clip_grad_norm_(parameters, [], limit)
    if norm.device.type == "cpu" and not bool(torch.isfinite(norm)):
        raise NonFiniteError("A step should be finite. Found NaN or infinity in the gradient of the output layer.")


@torch.no_grad()
def _natural_lr(network: WideNetwork, examples: Examples, activation: str, share: Share | None) -> float | None:
    """The loss's default lr for hidden layers and targets such as some examples have before training.

    Hidden layers grow while they train. Those behind tanh start near 0 and may grow until every unit is ±1, so that is
    what counts for them; growth by some eight times is within the caution of the losses' defaults.
    """
    rows = np.linspace(0, len(examples) - 1, min(_SAMPLE, len(examples))).astype(np.int64)
    inputs, targets = examples.batch(rows)
    network.eval()
    hidden = network.hidden(inputs.to(network.head.device)).cpu()
    squares = hidden.square().sum(1)[targets.example_ids]
    by_class = torch.zeros(network.head.num_classes).index_add_(0, targets.class_ids, squares.float())
    gram, count = hidden.T @ hidden, len(hidden)
    if share is not None:
        gram, by_class = (torch.from_numpy(share.total(part.numpy())) for part in (gram, by_class))
        count = int(share.peers.sums(count)[0])
    dense, most = float(torch.linalg.eigvalsh(gram)[-1]) / count, float(by_class.max()) / count
    growth = hidden.shape[1] / max(float(gram.trace()) / count, 1e-12) if activation == "tanh" else 1.0
    usable = most > 0.0 and dense > 0.0
    return cautious_lr(network.head.loss, growth * dense, growth * most) if usable else None
