"""The optimiser of a run's head: every option arrives, and where no lr is given the first examples give it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import widehead as wh
from widehead.data import SequenceExamples
from widehead.jobs import JOBS, configure
from widehead.models import SequenceEncoder, WideNetwork
from widehead.optim.sgd import cautious_lr
from widehead.training.optimizers import make_head_optimizer

D, WIDTH, EXAMPLES = 10, 4, 12
KINDS = {"sgd": wh.optim.SGD, "newton": wh.optim.Newton, "shampoo": wh.optim.Shampoo, "muon": wh.optim.Muon}
TARGETS = [[c % 3, 3 + c % 4] for c in range(EXAMPLES)]


class Plain:
    """Examples whose inputs are their hidden layer, of ``scale``."""

    def __init__(self, scale: float) -> None:
        self.hidden = scale * torch.randn(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return EXAMPLES

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, wh.SparseTargets]:
        return self.hidden[torch.from_numpy(rows)], wh.SparseTargets.from_lists([TARGETS[r] for r in rows])


def made(scale: float = 0.5, job: str = "multilabel", **options: Any) -> tuple[wh.optim.HeadOptimizer, wh.ExactHead]:
    config = configure(job, out="run", train="train.txt", width=WIDTH, **options)
    head = wh.ExactHead(WIDTH, D, config.make_loss())
    measured = JOBS[job].sgd_lr.get(str(config.loss))
    return make_head_optimizer(config, WideNetwork(torch.nn.Identity(), head), Plain(scale), measured), head


def options_of(optimizer: wh.optim.HeadOptimizer) -> dict[str, Any]:
    return {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("sgd", {"momentum": 0.8, "nesterov": True}),
        ("newton", {"decay": 0.7, "damping": 0.3}),
        ("shampoo", {"decay": 0.6, "damping": 0.4}),
        ("muon", {"damping": 0.2}),
    ],
)
def test_every_option_arrives(kind: str, own: dict[str, Any]) -> None:
    given = {"lr": 0.25, "weight_decay": 0.01, "max_grad_norm": 2.0, **own}
    optimizer, _ = made(head_optimizer=kind, **{f"head_{name}": value for name, value in given.items()})
    assert type(optimizer) is KINDS[kind]
    assert options_of(optimizer).items() >= given.items()


@pytest.mark.parametrize("kind", ["newton", "shampoo", "muon"])
def test_options_left_out_are_the_optimisers_own(kind: str) -> None:
    optimizer, head = made(head_optimizer=kind, head_lr=None, head_damping=None, head_decay=None)
    assert options_of(optimizer) == options_of(KINDS[kind](head))


@pytest.mark.parametrize("momentum", [0.0, 0.75])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_lr_of_sgd_comes_from_the_first_hidden_layers_and_targets(activation: str, momentum: float) -> None:
    """Layers behind tanh count as they will be when every unit is ±1, so that their scale at first is no matter."""
    optimizer, head = made(head_optimizer="sgd", activation=activation, head_momentum=momentum)
    hidden = Plain(0.5).hidden
    if activation == "tanh":
        hidden = hidden * (WIDTH * EXAMPLES / hidden.square().sum()).sqrt()
    dense = float(torch.linalg.svdvals(hidden)[0]) ** 2 / EXAMPLES
    most = max(float(hidden[[c in row for row in TARGETS]].square().sum()) for c in range(D)) / EXAMPLES
    assert dense > most  # so that squared error goes by the one, the weighted one by the other
    expected = cautious_lr(head.loss, dense, most) * (1.0 - momentum)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-5)
    squared, head = made(head_optimizer="sgd", activation=activation, loss="squared-error")
    assert squared.param_groups[0]["lr"] == pytest.approx(cautious_lr(head.loss, dense, most), rel=1e-5)


def test_the_lr_is_what_was_measured_for_language_models() -> None:
    """0.3 of it where the momentum of 0.7 makes steps that much longer."""
    options = {"job": "language-model", "head_optimizer": "sgd"}
    assert made(**options)[0].param_groups[0]["lr"] == 3.0
    assert made(**options, head_momentum=0.7)[0].param_groups[0]["lr"] == pytest.approx(0.9)
    other, _ = made(**options, loss="taylor-softmax")
    assert other.param_groups[0]["lr"] != 3.0


def test_hidden_layers_that_are_zero_say_nothing_about_the_lr() -> None:
    optimizer, head = made(scale=0.0, head_optimizer="sgd", head_momentum=0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5 * cautious_lr(head.loss, WIDTH, WIDTH)


@pytest.mark.parametrize("loss", ["squared-error", "spherical-softmax"])
def test_places_of_sequences_count_as_examples(loss: str) -> None:
    """The lr is that of the same hidden layers and targets, one an example."""
    ids = np.random.default_rng(0).integers(0, D, 40)
    pieces = SequenceExamples(ids, np.array([0, 9, 11]), np.array([9, 11, 40]))
    config = configure("next-item", out="run", train="train.txt", width=WIDTH, head_optimizer="sgd", loss=loss)
    head, encoder = wh.ExactHead(WIDTH, D, config.make_loss()), SequenceEncoder(D, WIDTH, kind="gru").eval()
    found = make_head_optimizer(config, WideNetwork(encoder, head), pieces).param_groups[0]["lr"]
    inputs, targets = pieces.batch(np.arange(3))
    hidden = encoder(inputs).detach()
    dense = float(torch.linalg.svdvals(hidden)[0]) ** 2 / 37
    most = max(float(hidden[targets.class_ids == c].square().sum()) for c in range(D)) / 37
    assert len(hidden) == 37
    assert found == pytest.approx(cautious_lr(head.loss, dense, most), rel=1e-5)
