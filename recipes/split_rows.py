"""Rows split over processes of one machine: how much memory and time a process takes, and what it sends.

    python recipes/split_rows.py [--classes 5000000] [--width 64] [--batch 1024] [--targets 27] [--processes 1,2]
        [--steps 60] [--storage FOLDER]

For each number of processes: random hidden layers, ``batch`` examples of all processes together, targets drawn by
1/rank^0.8, Newton. Memory is RssAnon, what a process alone holds and the system could only swap, at its most after the
head was made; without the 0.3 GB or so of Python and torch, which stand in a column of their own. ``--storage`` keeps
the rows in files there, which are removed. Each process has one thread. Appends a line for each number of processes to
recipes/results/split-rows.jsonl. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from memory_mapped import AnonymousMemory, anonymous_bytes
from provenance import append
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

import widehead as wh
from widehead.split.weights import SplitWeights


def drawn_targets(classes: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) ids below ``classes`` with probabilities that fall as 1/rank^0.8."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    ids = (uniform * classes**0.2).pow(5.0).long()
    # Frequent classes are anywhere, as names in an order of their own are.
    return (ids.clamp_(max=classes - 1) * 2_654_435_761) % classes


def rank_figures(rank: int, processes: int, given: argparse.Namespace, place: str, answers: Any) -> None:
    torch.set_num_threads(1)
    limit = datetime.timedelta(hours=1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=processes, timeout=limit
    )
    mesh, before = init_device_mesh("cpu", (processes,)), anonymous_bytes()
    storage = None if given.storage is None else given.storage / f"rows-{processes}-{rank}"
    with AnonymousMemory() as memory:
        head = wh.ExactHead(given.width, given.classes, wh.losses.SquaredError(), mesh=mesh, storage=storage)
        assert isinstance(head.weights, SplitWeights)
        optimizer, split = wh.optim.Newton(head), head.weights.split
        seconds, generator = [], torch.Generator().manual_seed(rank)
        share = given.batch // processes
        for step in range(given.steps):
            hidden = (torch.randn(share, given.width, generator=generator) + 0.5).requires_grad_()
            ids = drawn_targets(given.classes, share * given.targets, generator).view(share, given.targets)
            if step == given.steps // 3:
                split.sent.clear()
            distributed.barrier()
            begin = time.perf_counter()
            head(hidden, ids).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
        sent = sum(split.sent.values()) / (given.steps - given.steps // 3)
        drift = head.audit().gram if given.audit else None
    answers.put(
        {
            "memory": memory.peak - before,
            "without": before,
            "seconds": statistics.median(seconds[given.steps // 3 :]),
            "bytes_sent": sent,
            "drift": drift,
        }
    )
    if storage is not None:
        storage.unlink()


def figures(processes: int, given: argparse.Namespace) -> dict[str, Any]:
    """The largest of all ranks."""
    context = multiprocessing.get_context("spawn")
    answers, place = context.Queue(), tempfile.mkdtemp()
    started = [
        context.Process(target=rank_figures, args=(rank, processes, given, place, answers)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    found = [answers.get() for _ in started]
    for process in started:
        process.join()
    return {name: max(row[name] or 0.0 for row in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=5_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--targets", type=int, default=27)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--no-audit", dest="audit", action="store_false")
    given = parser.parse_args()
    for processes in map(int, given.processes.split(",")):
        row = {"processes": processes, **figures(processes, given)}
        print(
            f"{processes} processes: {row['memory'] / 1e9:.2f} GB each, and {row['without'] / 1e9:.2f} without a head; "
            f"{1e3 * row['seconds']:.1f} ms a step; {row['bytes_sent'] / 1e6:.2f} MB sent by each in a step; "
            f"drift {row['drift']:.1e}",
            flush=True,
        )
        append("split-rows", {**vars(given), "storage": given.storage is not None, **row})


if __name__ == "__main__":
    main()
