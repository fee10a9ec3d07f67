"""What users write, for mypy --strict and pyright: `make check` looks at it; nothing runs it.

Names have types, wrong arguments are errors (each is expected in its line), and nothing of what comes back is unknown.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import widehead as wh
from widehead.heads import Head, LinearHead, Scorer
from widehead.jobs import Prediction, configure
from widehead.losses import Loss
from widehead.options import TrainingConfig
from widehead.training import Outcome


class Cubic(wh.losses.SphericalLoss):
    """A loss of one's own."""

    def __init__(self) -> None:
        super().__init__(lambda q, s, a, targets: q**1.5 - s)


class Network(nn.Module):
    """An encoder and a head of either kind."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.encoder = nn.EmbeddingBag(100, head.in_features)
        self.head = head

    def forward(self, inputs: Tensor, targets: wh.SparseTargets) -> Tensor:
        loss: Tensor = self.head(self.encoder(inputs), targets)
        return loss


def heads() -> list[Head]:
    exact = wh.ExactHead(16, 1_000, loss=wh.losses.SphericalSoftmax(eps=0.1), bias=True)
    return [
        exact,
        wh.FullSoftmaxHead(16, 1_000),
        wh.SampledSoftmaxHead(16, 1_000, negatives=100, sampler="uniform"),
        wh.RetrievedSoftmaxHead(16, 1_000),
        wh.NoiseContrastiveHead(16, 1_000, sampler="uniform"),
        wh.NegativeSamplingHead(16, 1_000, sampler="uniform"),
        wh.BlackOutHead(16, 1_000, sampler="uniform"),
    ]


def losses() -> list[Loss]:
    return [wh.losses.SquaredError(), wh.losses.WeightedSquaredError(0.1), wh.losses.ZLoss(), Cubic()]


def steps(head: wh.ExactHead, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    network = Network(head)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(network.encoder.parameters()),
        wh.optim.SGD(head, lr=0.1, momentum=0.9),
    ]
    scheduler = torch.optim.lr_scheduler.StepLR(wh.optim.Newton(head), 10)
    total = 0.0
    for inputs, classes in batches:
        targets = wh.SparseTargets.from_ids(classes)
        loss = network(inputs, targets)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        scheduler.step()
        total += float(loss)
    return total


def answers(head: wh.ExactHead, hidden: Tensor) -> None:
    scores, classes = head.top_k(hidden, 10)
    assert_type(scores, Tensor)
    assert_type(classes, Tensor)
    assert_type(head.to_linear(), nn.Linear)
    assert_type(head.to_scorer(), Scorer)
    assert_type(head.weight(), Tensor)
    assert_type(head.log_prob(hidden, classes), Tensor)
    assert_type(head.scores(hidden, classes), Tensor)


def together(head: wh.ExactHead, encoder: nn.Module) -> torch.optim.Optimizer:
    return wh.optim.Together(torch.optim.AdamW(encoder.parameters()), wh.optim.Newton(head))


def swapped(model: nn.Module, head: wh.ExactHead) -> nn.Module:
    wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    wh.restore_linear(model, "lm_head")
    return model


def estimators(texts: list[str], labels: list[list[str]], items: list[list[str]], folder: Path) -> None:
    recommender = assert_type(wh.Recommender(width=64).fit(items), wh.Recommender)
    ids, scores = recommender.recommend(items, 10)
    assert ids.shape == scores.shape
    recommender.save(folder)
    assert_type(wh.Recommender.load(folder), wh.Recommender)
    wh.MultiLabel(quiet=True).fit(texts, labels).predict(texts, 5)
    wh.WordVectors(texts).most_similar("word", 10)


def one_run(folder: Path) -> dict[str, float]:
    config = configure("recommender", train="train.txt", out=str(folder), width=64)
    assert_type(config, TrainingConfig)
    run = wh.Run.new(config)
    assert_type(run.train(quiet=True), Outcome)
    for prediction in wh.Run.open(folder).predict("users.txt", 10):
        assert_type(prediction, Prediction)
    return run.evaluate("test.txt")


def of_rows(head: Head) -> int:
    return head.num_classes if isinstance(head, LinearHead) else 0


def mistakes(head: wh.ExactHead) -> None:
    wh.ExactHead(16, 1_000)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    wh.ExactHead("16", 1_000, loss=wh.losses.ZLoss())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    wh.optim.SGD(head, momentum="0.9")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    wh.losses.SphericalSoftmax(epsilon=1.0)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    head.top_q(head.weight(), 10)  # type: ignore[operator] # pyright: ignore[reportCallIssue]
