"""A small run for the tests of training: 60 classes, seeded random bags, everything else as in real runs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from widehead.heads import ExactHead
from widehead.jobs import configure
from widehead.jobs.network import bag_encoder
from widehead.models import WideNetwork
from widehead.optim import SGD
from widehead.options import TrainingConfig
from widehead.targets import SparseTargets
from widehead.training.contract import Evaluator, Outcome
from widehead.training.folder import RunFolder
from widehead.training.loop import Trainer

INPUTS, CLASSES = 300, 60
TIMINGS = ("seconds", "preparation", "examples_per_second", "head_share")


class SmallBatches:
    """Batches of 8 bags of 3 ids; the first two decide the targets, which are among the first 4 classes."""

    def __init__(self, count: int = 25) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def epoch(self, n: int, start: int = 0) -> Iterator[tuple[SparseTargets, SparseTargets]]:
        generator = torch.Generator().manual_seed(n)
        ids = torch.randint(INPUTS, (len(self), 8, 3), generator=generator)
        for batch in ids[start:]:
            yield SparseTargets.from_ids(batch), SparseTargets.from_ids(batch[:, :2] % 4)


def small_config(out: Path, **options: Any) -> TrainingConfig:
    small: dict[str, Any] = {
        "train": "unused.txt",
        "out": str(out),
        "width": 8,
        "hidden": (12,),
        "activation": "tanh",
        "dropout": 0.2,
        "input_dropout": 0.3,
        "loss": "spherical-softmax",
        "head_lr": 1.0,
        "encoder_lr": 0.01,
        "epochs": 4,
        "schedule": "cosine",
        "warmup_steps": 10,
        "evaluate_every": "1 epoch",
        "log_every": 7,
        "seed": 3,
    }
    return configure("recommender", **{**small, **options})


def build(config: TrainingConfig, folder: RunFolder, **more: Any) -> Trainer:
    torch.manual_seed(config.seed)
    encoder = bag_encoder(INPUTS, config)
    head = ExactHead(config.width, CLASSES, config.make_loss())
    network = WideNetwork(encoder, head).to(config.device)

    def metrics() -> dict[str, float]:
        inputs, targets = next(iter(SmallBatches().epoch(1_000)))
        with torch.no_grad():
            return {"loss": float(network(inputs.to(config.device), targets)), "perplexity": 2.0}

    return Trainer(
        config,
        network,
        SGD(head, config.head_lr),
        SmallBatches(),
        folder,
        sizes={"inputs": INPUTS, "classes": CLASSES},
        evaluator=Evaluator(metrics, "loss", lower_is_better=True),
        **more,
    )


def start_or_resume(out: Path, **options: Any) -> Outcome:
    """One call of the program: start the run, or go on from its last checkpoint."""
    torch.set_num_threads(1)
    if (out / "config.json").exists():
        folder, config = RunFolder.open(out)
        trainer = build(config, folder)
        trainer.restore()
    else:
        config = small_config(out, **options)
        trainer = build(config, RunFolder.create(config))
    return trainer.run()


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["widehead.runs", "torch.distributed.tensor"])  # what takes long


def run_through_kills(
    target: Callable[..., object],
    args: tuple[object, ...],
    seed: int,
    most: int,
    pause: tuple[float, float],
    **kwargs: Any,
) -> int:
    """Call ``target`` in processes that are killed after random pauses (seconds), until one ends; how many were."""
    rng, kills, status = random.Random(seed), 0, None
    while status != 0:
        process = PROCESSES.Process(target=target, args=args, kwargs=kwargs)
        process.start()
        process.join(timeout=rng.uniform(*pause) if kills < most else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        status = process.exitcode
        assert status in (0, -signal.SIGKILL)
    return kills


def log_without_timings(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]
