"""The next item of a session: each output layer at equal minutes, and what followed the last item most often.

    python recipes/next_item.py FOLDER [--heads sampled] [--minutes 20 | --epochs N] [--set OPTION=VALUE …]
    python recipes/next_item.py FILE

FOLDER holds train.txt.gz, a session a line, and test.txt.gz, whose last items are to be found. FILE holds histories,
"user item item …" by time, as SASRec's authors have them: the last item of each is to be found, and all before it are
to train on. Without --minutes and --epochs a run has its job's own defaults. Prints recall and MRR in percent, and
appends rows to results/next-item.jsonl, of histories to results/next-item-histories.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from provenance import append

from widehead.data import Sequences, read_sequences
from widehead.jobs import configure
from widehead.metrics import Evaluation
from widehead.options import OPTIONS
from widehead.runs import Run
from widehead.targets import SparseTargets
from widehead.training.log import read_metrics

METRICS = ("recall@20", "mrr@20")
OF_HISTORIES = ("recall@5", *METRICS)  # as papers on these report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", default="sampled")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], help="an option of all runs, its value as JSON")
    parser.add_argument("--only-counts", action="store_true", help="no run, only what followed most often")
    given = parser.parse_args()
    metrics: tuple[str, ...]
    with tempfile.TemporaryDirectory() as made:
        if given.folder.is_file():
            metrics, files = OF_HISTORIES, parted(given.folder, Path(made))
        else:
            metrics, files = METRICS, {part: str(given.folder / f"{part}.txt.gz") for part in ("train", "test")}
        show("followed", counted(files, metrics), given.folder.stem, metrics)
        for head in [] if given.only_counts else given.heads.split(","):
            show(head, trained(files, head, given, metrics), given.folder.stem, metrics)


def parted(histories: Path, folder: Path) -> dict[str, str]:
    """Files of all items of each line but the user and the last item, and of these with the last item."""
    rows = [line.split()[1:] for line in histories.read_text().splitlines()]
    files = {"train": [row[:-1] for row in rows], "test": rows}
    for part, lists in files.items():
        (folder / f"{part}.txt").write_text("".join(" ".join(row) + "\n" for row in lists))
    return {part: str(folder / f"{part}.txt") for part in files}


def show(method: str, found: dict[str, Any], data: str, metrics: tuple[str, ...]) -> None:
    name = "next-item-histories" if metrics == OF_HISTORIES else "next-item"
    append(name, {"recipe": "next_item", "set": data, "method": method, **found})
    figures = "  ".join(f"{name} {100 * found[name]:.2f}" for name in metrics)
    print(f"{data} {method:14s} {figures}  {found['cpu_seconds']:.0f} s of CPU", flush=True)


def trained(files: dict[str, str], head: str, given: argparse.Namespace, metrics: tuple[str, ...]) -> dict[str, Any]:
    """A run's metrics on the test file, and what it took."""
    pairs = (text.split("=", 1) for text in given.set)
    options = {name: json.loads(value) for name, value in pairs}
    if head != "sampled":
        options["head"] = head
    if given.minutes is not None:
        options |= {"minutes": given.minutes, "epochs": None}
    if metrics == OF_HISTORIES:
        options = {"at": (5, 20), **options}
    if given.epochs is not None:
        options["epochs"] = given.epochs
    out = Path(tempfile.mkdtemp())
    config = configure(
        "next-item", **files, out=str(out / "run"), evaluate_every="1000 epochs", **{"rank_at_most": None, **options}
    )
    begin = time.process_time()
    outcome = Run.new(config).train(quiet=True)
    run = Run.open(out / "run")
    config = run.config  # with what the data decided
    judged = [record for record in read_metrics(run.folder.metrics_path) if record["kind"] == "evaluation"]
    chosen = json.loads(run.folder.neighbours_path.read_text()) if run.folder.neighbours_path.exists() else None
    shutil.rmtree(out)
    names = ("encoder", "width", "head", "loss", "epochs", "batch_size", "dropout", "input_dropout")
    changed = {name: value for name, value in options.items() if name in OPTIONS}
    made = {name: getattr(config, name) for name in names} | {
        "options": changed,
        "threads_used": torch.get_num_threads(),
    }
    spent = {"epoch": outcome.epoch, "seconds": outcome.seconds, "cpu_seconds": time.process_time() - begin}
    return {
        **made,
        **spent,
        **{name: outcome.metrics[name] for name in metrics},
        "neighbours": chosen,
        "alone": {name: judged[-1][name] for name in metrics},
    }


def counted(files: dict[str, str], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Metrics of the items that followed the last item most often in training, the nearer the more."""
    begin = time.process_time()
    train = read_sequences(files["train"])
    test = read_sequences(files["test"], train.items)
    follows, evaluation = followers(train), Evaluation(metrics)
    last = test.offsets[1:][np.diff(test.offsets) > 1] - 1  # one item asks for nothing
    wanted = np.where(test.ids[last] < 0, len(train.items), test.ids[last])  # an unknown item is missed
    for rows in np.array_split(np.arange(len(last)), max(1, len(last) // 500)):
        before = test.ids[last[rows] - 1]
        scores = torch.from_numpy(follows[before].toarray() * (before >= 0)[:, None])  # nothing follows an unknown one
        found, best = scores.topk(evaluation.depth, dim=1)
        evaluation.add_ranked(best.masked_fill(found <= 0, -1), SparseTargets.from_ids(wanted[rows]))
    return {"cpu_seconds": time.process_time() - begin, **evaluation.result()}


def followers(train: Sequences, most: int = 5) -> scipy.sparse.csr_matrix:
    """(D, D) how often a column's item came after a row's, divided by the square of how much later."""
    whose = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    made = scipy.sparse.csr_matrix((len(train.items),) * 2, dtype=np.float32)
    for distance in range(1, most + 1):
        same = whose[distance:] == whose[:-distance]
        before, after = train.ids[:-distance][same], train.ids[distance:][same]
        values = np.full(len(before), 1.0 / distance**2, dtype=np.float32)
        made = made + scipy.sparse.csr_matrix((values, (before, after)), shape=made.shape)
    return made.tocsr()


if __name__ == "__main__":
    main()
