"""Multi-label classification beside omikuji 0.5.2 (Parabel and Bonsai, three trees): quality and cost on the same rows.

    python recipes/multilabel.py FOLDER [--sets citeulike-t,yso-finna-en] [--threads 2] [--rows 60000] [--validate]
        [--peers Parabel,Bonsai]

FOLDER holds citeulike-t/{train,test}.txt.gz, yso-finna-en/{train,test}.tsv.gz, and what label_sets.py says of the other
sets. All systems read the same features: those of the file, or of texts the tf-idf weights of
the training words (widehead.data.TextFeatures). Rows without features or without labels are left out. Times and memory
are of reading and training, without evaluation, for all. ``--rows`` trains on the first rows of a fixed shuffle.
``--validate`` judges by a tenth of the training rows, at most 4,000, which then train nothing, for choices that leave
the test part alone. ``--peers ""`` trains none, where their lines are there from before. Appends one line a system to
recipes/results/multilabel.jsonl.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_sets import BUILDERS, build
from peer_memory import peak_bytes
from peers import python_of, run
from provenance import append

from widehead.data import MultiLabel, RowExamples, read_multilabel
from widehead.jobs import configure
from widehead.metrics import Evaluation, Propensities
from widehead.runs import Run

AT = (1, 3, 5)
METRICS = [f"{kind}@{k}" for kind in ("precision", "psp") for k in AT]


@dataclass(frozen=True)
class DataSet:
    """Where a set lies."""

    train: str
    test: str


SETS = {"citeulike-t": DataSet("train.txt.gz", "test.txt.gz"), "yso-finna-en": DataSet("train.tsv.gz", "test.tsv.gz")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--peers", default="Parabel,Bonsai")
    parser.add_argument("--out", type=Path, default=Path("runs/multilabel"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.sets.split(","):
        place = options.out / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        training, tested = prepare(options.folder / name, place, options.rows, options.validate)
        print(f"{name}: {training.features.shape[0]:,} training rows, {tested.features.shape[0]:,} test rows")
        setting = {"recipe": "multilabel", "set": name, "rows": options.rows, "threads": options.threads}
        setting["judged_by"] = "validation" if options.validate else "test"
        for kind in filter(None, options.peers.split(",")):
            record = of_omikuji(kind, place, training, tested, options.threads)
            keep({**setting, "trained": f"omikuji 0.5.2, {kind}", **record})
        keep({**setting, "trained": "widehead", **run_alone(of_widehead, place, options.threads)})


def prepare(folder: Path, place: Path, rows: int | None, validate: bool) -> tuple[MultiLabel, MultiLabel]:
    """Both parts, and in ``place`` the XC text of them that all systems read."""
    if folder.name in BUILDERS:
        files = build(folder.name, folder, place)
    else:
        files = folder / SETS[folder.name].train, folder / SETS[folder.name].test
    training = read_multilabel(files[0])
    count = training.features.shape[0]
    order = np.random.default_rng(0).permutation(count)
    if validate:
        held = min(4_000, count // 10)
        return (
            written(training, np.sort(order[held:][:rows]), place / "train.txt"),
            written(training, np.sort(order[:held]), place / "test.txt"),
        )
    order = order[:rows]
    tested = read_multilabel(files[1], schema=training.schema)
    return (
        written(training, np.sort(order), place / "train.txt"),
        written(tested, np.arange(tested.features.shape[0]), place / "test.txt"),
    )


def written(documents: MultiLabel, rows: np.ndarray, path: Path) -> MultiLabel:
    """Those rows that have features and labels, and a file of them as XC text."""
    rows = rows[(np.diff(documents.features.indptr)[rows] > 0) & (np.diff(documents.labels.indptr)[rows] > 0)]
    x, y = documents.features[rows], documents.labels[rows]
    with path.open("w", encoding="utf-8") as out:
        out.write(f"{len(rows)} {x.shape[1]} {y.shape[1]}\n")
        for i in range(len(rows)):
            here = slice(x.indptr[i], x.indptr[i + 1])
            pairs = zip(x.indices[here].tolist(), x.data[here].tolist(), strict=True)
            labels = y.indices[y.indptr[i] : y.indptr[i + 1]].tolist()
            out.write(",".join(map(str, labels)) + " " + " ".join(f"{f}:{v:.6g}" for f, v in pairs) + "\n")
    return MultiLabel(x, y, documents.unreachable[rows], documents.schema, len(rows))


def of_omikuji(kind: str, place: Path, training: MultiLabel, tested: MultiLabel, threads: int) -> dict[str, Any]:
    python = python_of("omikuji", "omikuji==0.5.2")
    files = [(place / name).absolute() for name in ("train.txt", "test.txt", "omikuji.jsonl")]
    times = run(python, "peer_omikuji.py", *files, str(threads), str(max(AT)), kind)
    counts = np.bincount(training.labels.indices, minlength=training.labels.shape[1])
    evaluation = Evaluation(METRICS, Propensities.from_counts(torch.from_numpy(counts), training.labels.shape[0]))
    ranked = [json.loads(line) for line in files[2].read_text(encoding="utf-8").splitlines()]
    filled = torch.tensor([(row + [-1] * max(AT))[: max(AT)] for row in ranked])
    relevant = RowExamples(tested.features, tested.labels).batch(np.arange(len(ranked)))[1]
    evaluation.add_ranked(filled, relevant)
    return {**times, **evaluation.result()}


def run_alone(work: Callable[[Path], dict[str, Any]], place: Path, threads: int) -> dict[str, Any]:
    """What ``work`` finds in a process of its own, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (threads,)) as pool:
        return pool.apply(work, (place,))


def of_widehead(place: Path) -> dict[str, Any]:
    """What a user gets who gives no options."""
    config = configure("multilabel", train=str(place / "train.txt"), out=str(place / "run"), at=AT)
    begin, cpu = time.perf_counter(), time.process_time()
    Run.new(config).train()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_bytes()
    run = Run.open(place / "run")
    metrics = run.evaluate(place / "test.txt")
    chosen = {"head": run.config.head, "width": run.config.width, "epochs": run.config.epochs}
    times = {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}
    return {**times, **{name: metrics[name] for name in METRICS}, **chosen}


def keep(record: dict[str, Any]) -> None:
    """Print the figures and append them to the results."""
    figures = ", ".join(f"{name} {record[name]:.4f}" for name in METRICS)
    print(f"{record['trained']:24} {record['cpu_seconds']:7.1f} CPU s  {record['peak_bytes'] / 1e9:.2f} GB  {figures}")
    append("multilabel", record)


if __name__ == "__main__":
    main()
