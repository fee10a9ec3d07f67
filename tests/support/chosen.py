"""What a job chose after training, by data that its network had not seen: runs, and a head that gives known scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.errors import RankingWarning
from widehead.jobs import configure
from widehead.runs import Run
from widehead.targets import SparseTargets
from widehead.training.log import read_metrics


def rooms(count: int, number: int, seed: int = 0) -> list[list[str]]:
    """Users have five of the seven items of a small room: a network needs as many units as there are rooms."""
    rng = np.random.default_rng(seed)
    return [[f"{room}.{i}" for i in rng.permutation(7)[:5]] for room in rng.integers(number, size=count)]


def write_parts(folder: Path, lists: list[list[str]]) -> None:
    """Of each user four items to train on, the rest to judge by."""
    for name, items in (("train", slice(4)), ("test", slice(4, None))):
        (folder / f"{name}.txt").write_text("".join(f"{u} {' '.join(row[items])}\n" for u, row in enumerate(lists)))


def random_pairs(rng: np.random.Generator, shape: tuple[int, int], part: float) -> Any:
    return scipy.sparse.csr_matrix((rng.random(shape) < part).astype(np.float32))


class KnownHead:
    """Gives its scores (m, D), by the row that the hidden layer names, as an index with holes does if some are −inf."""

    device = torch.device("cpu")

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def top_k(
        self, hidden: torch.Tensor, k: int, exclude: SparseTargets | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.scores[hidden[:, 0].long()].clone()
        if exclude is not None:
            scores[exclude.example_ids, exclude.class_ids] = -torch.inf
        best, classes = scores.topk(k, dim=1)
        return best, classes.masked_fill(best == -torch.inf, -1)


def trained(job: str, folder: Path, out: str, stop: int | None = None, **options: Any) -> Run:
    """A run on train.txt of a folder, or so many steps of it, opened again."""
    more = {} if stop is None else {"log_every": 1}
    run = Run.new(configure(job, train=str(folder / "train.txt"), out=str(folder / out), **more, **options))
    run.train(quiet=True, on_log=None if stop is None else lambda _, record: record["step"] >= stop)
    return Run.open(folder / out)


def whole_and_in_parts(
    run_in: Callable[..., Run], asked: Path, stop: int | None = None, **options: Any
) -> tuple[Run, list[Any]]:
    """A run of two epochs, and the three best of each line of a file: after a stop in between too, and once loaded.

    Both are judged, as they end, by what they answer, which their logs say once. The stop is after so many steps, or
    else at the end of a run of one epoch.
    """
    folder = asked.parent
    options["test"] = str(folder / "test.txt")
    first = {"epochs": 1} if stop is None else {"epochs": 2, "stop": stop}
    whole, parts = (run_in(folder, "whole", epochs=2, **options), run_in(folder, "parts", **first, **options))
    assert parts.step < whole.step
    end = parts.train(quiet=True, epochs=2)
    for run in (whole, parts):
        finals = [record for record in read_metrics(run.folder.metrics_path) if record["kind"] == "final"]
        assert [{name: record[name] for name in end.metrics} for record in finals] == [end.metrics]
    assert Run.open(folder / "parts").evaluate() == end.metrics
    said = [
        [(p.classes, p.scores) for p in run.predict(asked, 3)] for run in (whole, parts, Run.open(folder / "parts"))
    ]
    assert said[0] == said[1] == said[2]
    one, two = (folder / out / "neighbours.json" for out in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()
    return whole, said[0]


def train_on_and_die(run: Run, chooser: type[Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of one epoch, opened again after it went on and died as it chose anew: it ranks by its network alone."""
    assert run.network.beside is not None

    def killed(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(chooser, "chosen", killed)
        with pytest.raises(MemoryError):
            run.train(quiet=True, epochs=2)
    again = Run.open(Path(run.folder.path))
    with pytest.warns(RankingWarning, match=r"ranks by the network alone.*\(--resume"):
        assert again.network.beside is None
    return again
