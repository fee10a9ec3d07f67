"""Multi-label classification beside omikuji 0.5.2 (Parabel, its own settings): quality and time on the same rows.

    python recipes/multilabel.py FOLDER [--sets citeulike-t,yso-finna-en] [--threads 2] [--rows 60000]

FOLDER holds citeulike-t/{train,test}.txt.gz and yso-finna-en/{train,test}.tsv.gz. Both systems read the same features:
those of the file, or of texts the tf-idf weights of the training words (widehead.data.TextFeatures). Rows without
features or without labels are left out. Times are of reading and training, without evaluation, for both. ``--rows``
trains on the first so many rows of a fixed shuffle. Appends one line a system to recipes/results/multilabel.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
    parser.add_argument("--out", type=Path, default=Path("runs/multilabel"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.sets.split(","):
        place = options.out / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        training, tested = prepare(options.folder / name, SETS[name], place, options.rows)
        print(f"{name}: {training.features.shape[0]:,} training rows, {tested.features.shape[0]:,} test rows")
        peer = {"trained": "omikuji 0.5.2, Parabel", **of_omikuji(place, training, tested, options.threads)}
        ours = {"trained": "widehead", **of_widehead(place)}
        for record in (peer, ours):
            keep({"recipe": "multilabel", "set": name, "rows": options.rows, "threads": options.threads, **record})
        print(f"widehead takes {ours['seconds'] / peer['seconds']:.2f} times as long\n")


def prepare(folder: Path, data: DataSet, place: Path, rows: int | None) -> tuple[MultiLabel, MultiLabel]:
    """Both parts, and in ``place`` the XC text of them that both systems read."""
    training = read_multilabel(folder / data.train)
    tested = read_multilabel(folder / data.test, schema=training.schema)
    order = np.random.default_rng(0).permutation(training.features.shape[0])[:rows]
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
    return MultiLabel(x, y, documents.unreachable[rows], documents.schema)


def of_omikuji(place: Path, training: MultiLabel, tested: MultiLabel, threads: int) -> dict[str, Any]:
    python = python_of("omikuji", "omikuji==0.5.2")
    files = [(place / name).absolute() for name in ("train.txt", "test.txt", "omikuji.jsonl")]
    times = run(python, "peer_omikuji.py", *files, str(threads), str(max(AT)))
    counts = np.bincount(training.labels.indices, minlength=training.labels.shape[1])
    evaluation = Evaluation(METRICS, Propensities.from_counts(torch.from_numpy(counts), training.labels.shape[0]))
    ranked = [json.loads(line) for line in files[2].read_text(encoding="utf-8").splitlines()]
    filled = torch.tensor([(row + [-1] * max(AT))[: max(AT)] for row in ranked])
    relevant = RowExamples(tested.features, tested.labels).batch(np.arange(len(ranked)))[1]
    evaluation.add_ranked(filled, relevant)
    return {**times, **evaluation.result()}


def of_widehead(place: Path) -> dict[str, Any]:
    """What a user gets who gives no options."""
    config = configure("multilabel", train=str(place / "train.txt"), out=str(place / "run"), at=AT)
    begin, cpu = time.perf_counter(), time.process_time()
    Run.new(config).train()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    run = Run.open(place / "run")
    metrics = run.evaluate(place / "test.txt")
    chosen = {"head": run.config.head, "width": run.config.width, "epochs": run.config.epochs}
    return {"seconds": seconds, "cpu_seconds": cpu, **{name: metrics[name] for name in METRICS}, **chosen}


def keep(record: dict[str, Any]) -> None:
    """Print the figures and append them to the results."""
    figures = ", ".join(f"{name} {record[name]:.4f}" for name in METRICS)
    print(f"{record['trained']:24} {record['seconds']:7.1f} s  {figures}")
    append("multilabel", record)


if __name__ == "__main__":
    main()
