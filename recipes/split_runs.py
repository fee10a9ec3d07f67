"""A run in several processes of one machine: how much memory a process takes, and what it sends.

    python recipes/split_runs.py [FOLDER] [--job recommender] [--pairs 5000000] [--users 150000] [--items 650000]
        [--width 128] [--processes 1,2] [--preset svd]

The table is that of recipes/million.py, written to FOLDER (a new one in the system's by default). ``--job next-item``
takes each user's items as a sequence, a line of the file; ``--job language-model`` and ``--job word-embeddings`` take
these lines as text. For each number of processes, which have one thread each: the run without held-out parts, for one
epoch or, of sequences and language models, for ``--seconds``. Memory is RssAnon, what a process alone holds and the
system could only swap: before the data were read, after that, and at its most; the largest of all processes. ``matrix``
are the bytes of the training data in a process. Bytes sent are what a process gave to exchanges until the end, reading
and first weights included. Appends a line for each number of processes to recipes/results/split-runs.jsonl, of other
jobs to recipes/results/split-sequences.jsonl. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from memory_mapped import AnonymousMemory, anonymous_bytes
from million import planted
from provenance import append

from widehead.data import CooccurrenceExamples, NgramExamples, RowExamples, SequenceExamples, SharedExamples
from widehead.jobs import configure
from widehead.runs import Run
from widehead.split import Member, RowSplit


def rank_figures(rank: int, processes: int, place: str, table: str, given: argparse.Namespace, answers: Any) -> None:
    torch.set_num_threads(1)
    mesh = Member(rank, processes, place).joined()
    config = configure(given.job, **options_of(given), train=table, out=f"{place}/run")
    before, begin = anonymous_bytes(), time.perf_counter()
    with AnonymousMemory() as memory:
        run = Run.new(config, mesh=mesh)
        while_reading, read_seconds = memory.peak, time.perf_counter() - begin
        matrix = bytes_of(run.data.examples)
        held = anonymous_bytes()
        outcome = run.train(quiet=True)
    sent = sum(sum(found.sent.values()) for found in gc.get_objects() if type(found) is RowSplit)
    answers.put(
        {
            "matrix": matrix,
            "before": before,
            "while_reading": while_reading - before,
            "after_reading": held - before,
            "peak": memory.peak - before,
            "bytes_sent": sent,
            "steps": outcome.step,
            "read_seconds": read_seconds,
            "seconds": outcome.seconds,
        }
    )


def options_of(given: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"width": given.width, "holdout": 0.0, "preset": given.preset, "epochs": 1}
    if given.job in ("next-item", "language-model"):
        options |= {"epochs": None, "minutes": given.seconds / 60.0}
    if given.job == "next-item":  # what they count is chosen by the first process, with all data
        options["neighbours"] = 0
    return options


def bytes_of(examples: Any) -> int:
    """The training data that a process has of them."""
    here = examples.here if isinstance(examples, SharedExamples) else examples
    if isinstance(here, SequenceExamples):
        return sum(part.nbytes for part in (here.ids, here.starts, here.ends))
    if isinstance(here, NgramExamples):
        return here.ids.nbytes
    assert isinstance(here, RowExamples | CooccurrenceExamples)
    kept = (here.inputs,) if isinstance(here, RowExamples) else (here.near, here.sided)
    matrices = [matrix for matrix in kept if matrix is not None]
    return sum(part.nbytes for matrix in matrices for part in (matrix.data, matrix.indices, matrix.indptr))


def written(given: argparse.Namespace, folder: Path) -> tuple[Path, dict[str, int]]:
    """The file of training data, and what is in it."""
    user, item = planted(given.pairs, given.users, given.items)
    sizes = {"pairs": len(user), "users": len(np.unique(user)), "items": len(np.unique(item))}
    if given.job == "recommender":
        table = folder / "pairs.csv"
        polars.DataFrame({"user": user, "item": item}).write_csv(table)
        return table, sizes
    order = np.argsort(user, kind="stable")
    lines = np.split(item[order], np.flatnonzero(np.diff(user[order])) + 1)
    table = folder / "lines.txt"
    with table.open("w", encoding="utf-8") as file:
        file.writelines(" ".join(f"i{number}" for number in line.tolist()) + "\n" for line in lines)
    return table, sizes


def figures(processes: int, table: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The largest of all ranks."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        answers = context.Queue()
        arguments = (processes, place, str(table), given, answers)
        started = [context.Process(target=rank_figures, args=(rank, *arguments)) for rank in range(processes)]
        for process in started:
            process.start()
        found = [answers.get() for _ in started]
        for process in started:
            process.join()
    return {name: max(row[name] for row in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    for name, default in (("pairs", 5_000_000), ("users", 150_000), ("items", 650_000), ("width", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--preset", default="svd")
    parser.add_argument("--job", default="recommender")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="split-runs-"))
    folder.mkdir(exist_ok=True)
    table, sizes = written(given, folder)
    result = "split-runs" if given.job == "recommender" else "split-sequences"
    what = {} if given.job == "recommender" else {"job": given.job}
    for processes in map(int, given.processes.split(",")):
        found = {"width": given.width, "preset": given.preset, **sizes, **figures(processes, table, given)}
        print(append(result, {**what, "processes": processes, **found}), flush=True)


if __name__ == "__main__":
    main()
