"""Where the training time of the recommender on gowalla goes: seconds a pass, parts of a step, share of products.

    python recipes/profile_gowalla.py FOLDER [--width 512] [--batch 1024] [--head-optimizer newton] [--passes 4]

FOLDER holds train.txt, one user a line. Trains the given number of passes without any evaluation. The first pass warms
up; those after it are timed, part by part, by marks that cost microseconds; the last one runs under torch.profiler,
which says what share of its time the products take. Prints both and appends one line to
recipes/results/profile-gowalla.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from provenance import commit
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from widehead.bench.measure import hardware
from widehead.data import Batch, Batches
from widehead.jobs import build_network, configure
from widehead.jobs.recommender import Recommender
from widehead.options import TrainingConfig
from widehead.training import RunFolder, Trainer
from widehead.training.memory import keep_freed_memory
from widehead.training.optimizers import make_head_optimizer

RESULTS = Path(__file__).resolve().parent / "results"
LOOP = "the loop itself"
# What counts as a matrix product, and what is shown beside it: sums of rows named by ids (S·X, Sᵀ·Y, the encoder's
# bags), and inverses and factorisations of d × d matrices.
KINDS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "addmv_", "dot"),
    "bag sums": ("_embedding_bag", "_embedding_bag_forward_only"),
    "inverses and factorisations": (
        "linalg_lu_factor_ex",
        "linalg_lu_solve",
        "linalg_cholesky_ex",
        "cholesky_inverse",
        "_linalg_eigh",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--head-optimizer", default="newton")
    parser.add_argument("--passes", type=int, default=4)
    options = parser.parse_args()
    if options.passes < 3:
        parser.error("--passes should be at least 3: one to warm up, one to time, one to profile")
    with tempfile.TemporaryDirectory() as out:
        config = configure(
            "recommender",
            train=str(options.folder / "train.txt"),
            out=str(Path(out) / "run"),
            width=options.width,
            batch_size=options.batch,
            head_optimizer=options.head_optimizer,
            encoder_init="random",  # to be trained
            epochs=options.passes,
            checkpoint_every="1000 epochs",
        )
        watch = train(config)
    timed = watch.passes[1:-1]
    parts = {part: statistics.median(p[part] for p in timed) for part in timed[0]}
    record = {
        "recipe": "profile_gowalla",
        "date": datetime.date.today().isoformat(),
        "width": options.width,
        "batch": options.batch,
        "head_optimizer": options.head_optimizer,
        "steps": len(watch),
        "seconds_each_pass": [round(sum(p.values()), 3) for p in watch.passes[:-1]],
        "seconds_a_pass": round(statistics.median(sum(p.values()) for p in timed), 3),
        "parts": {part: round(seconds, 4) for part, seconds in parts.items()},
        "profiled_pass": profiled(watch),
        "commit": commit(),
        **hardware(torch.device("cpu")),
    }
    show(record)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "profile-gowalla.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


class Watch:
    """The batches of a run, and a stopwatch over its passes: ``mark(part)`` books the time since the mark before it."""

    def __init__(self, batches: Batches, last: int) -> None:
        self.batches, self.last = batches, last
        self.passes: list[defaultdict[str, float]] = []
        self.profiler = profile(activities=[ProfilerActivity.CPU])
        self.profiled = 0.0  # seconds of the pass under the profiler
        self._lap, self._steps_left = 0.0, 0

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, n: int, start: int = 0) -> Iterator[Batch]:
        """As of the batches themselves; the profiler runs in the last pass."""
        self.passes.append(defaultdict(float))
        self._steps_left = len(self) - start
        if n == self.last:
            self.profiler.start()
        self._lap = time.perf_counter()
        for batch in self.batches.epoch(n, start):
            self.mark("waiting for a batch")
            yield batch
            self.mark(LOOP)

    def attach(self, trainer: Trainer) -> None:
        """Mark where each part of a step ends."""
        network, optimizers = trainer.network, trainer.state.encoder_optimizer.parts
        network.encoder.register_forward_pre_hook(lambda *_: self.mark(LOOP))
        network.encoder.register_forward_hook(self._encoded)
        network.head.register_forward_hook(lambda *_: self.mark("head and loss, forward"))
        trainer.state.head_optimizer.register_step_pre_hook(lambda *_: self.mark("encoder, backward"))
        trainer.state.head_optimizer.register_step_post_hook(lambda *_: self.mark("head optimiser"))
        optimizers[-1].register_step_post_hook(lambda *_: self._stepped())

    def mark(self, part: str) -> None:
        now = time.perf_counter()
        self.passes[-1][part] += now - self._lap
        self._lap = now

    def _encoded(self, module: torch.nn.Module, inputs: Any, hidden: Tensor) -> None:
        self.mark("encoder, forward")
        hidden.register_hook(lambda gradient: self.mark("head and loss, backward"))

    def _stepped(self) -> None:
        self.mark("encoder optimiser")
        self._steps_left -= 1
        if self._steps_left == 0 and len(self.passes) == self.last + 1:
            self.profiled = sum(self.passes[-1].values())
            self.profiler.stop()


def train(config: TrainingConfig) -> Watch:
    """Train without evaluation, under a watch."""
    keep_freed_memory()
    data = Recommender.read(config)
    network = build_network(data.job, config)
    assert config.epochs is not None
    watch = Watch(Batches(data.examples, config.batch_size, config.seed), config.epochs - 1)
    optimizer = make_head_optimizer(config, network, data.examples)
    trainer = Trainer(config, network, optimizer, watch, RunFolder.create(config), sizes=data.job.sizes)
    watch.attach(trainer)
    trainer.run()
    return watch


def profiled(watch: Watch) -> dict[str, Any]:
    """The last pass: its seconds on the training thread, and the share of each kind of operation in them."""
    own = {e.key.removeprefix("aten::"): e.self_cpu_time_total / 1e6 for e in watch.profiler.key_averages()}
    kinds = {kind: sum(own.get(name, 0.0) for name in names) for kind, names in KINDS.items()}
    longest = sorted(own.items(), key=lambda item: -item[1])[:20]
    return {
        "seconds": round(watch.profiled, 3),
        "shares": {kind: round(seconds / watch.profiled, 3) for kind, seconds in kinds.items()},
        "seconds_by_operation": {name: round(seconds, 4) for name, seconds in longest},
    }


def show(record: Mapping[str, Any]) -> None:
    steps, seconds = record["steps"], record["seconds_a_pass"]
    print(f"{seconds:.2f} s a pass of {steps} steps (all: {record['seconds_each_pass']}), {record['head_optimizer']}")
    for part, spent in record["parts"].items():
        print(f"  {part:24s} {spent:7.3f} s  {spent / seconds:6.1%}  {1e3 * spent / steps:7.2f} ms a step")
    found = record["profiled_pass"]
    print(f"Under the profiler {found['seconds']:.2f} s:")
    for kind, share in found["shares"].items():
        print(f"  {kind:28s} {share:6.1%}")
    for name, spent in found["seconds_by_operation"].items():
        print(f"    {name:40s} {spent:7.3f} s")


if __name__ == "__main__":
    main()
