"""Recommenders on splits of other people's, with no options and with the usual width: what trying widths brings.

    python recipes/splits.py FOLDER [--sets ml-1m,amazon-sports] [--threads 1] [--out runs/splits]

FOLDER/NAME holds train.txt and test.txt as `widehead train recommender` reads them, such as a user and the items of
that user a line; by default all folders that do. Trains with no options, and if hidden pairs had fewer units chosen
than usual, once more with ``--width`` of as many as usual. Prints a line a run and appends it to
recipes/results/splits.jsonl: metrics of the test part, what was chosen, CPU seconds of reading, trying and training,
and of judging.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from provenance import append
from recommenders import METRICS

from widehead.jobs import configure
from widehead.runs import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("runs/splits"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.sets.split(",") if options.sets else sorted(path.parent.name for path in found(options.folder))
    for name in names:
        usual, record = judged(options.folder / name, options.out / name)
        keep(name, record, options.threads)
        if record["width"] < usual:
            keep(name, judged(options.folder / name, options.out / name, width=usual)[1], options.threads)


def found(folder: Path) -> list[Path]:
    """The training parts of the sets that are there."""
    return [path for path in folder.glob("*/train.txt") if path.with_name("test.txt").exists()]


def judged(data: Path, out: Path, width: int = 0) -> tuple[int, dict[str, Any]]:
    """The usual width, and what a run found."""
    shutil.rmtree(out, ignore_errors=True)
    begin = time.process_time()
    config = configure("recommender", train=str(data / "train.txt"), out=str(out), width=width)
    run = Run.new(config)
    run.train(quiet=True)
    trained = time.process_time()
    metrics = run.evaluate(data / "test.txt", at=(20,))
    taken = {"cpu_seconds": trained - begin, "judging_cpu_seconds": time.process_time() - trained}
    job: Any = run.data.job
    usual = job.usual_width(replace(config, width=0))[0]
    options = {name: getattr(run.config, name) for name in ("width", "neighbours", "direct")}
    sizes = dict(zip(("users", "items"), job.train.matrix.shape, strict=True)) | {"pairs": job.train.matrix.nnz}
    return usual, {**sizes, **options, "usual_width": usual, **taken, **{name: metrics[name] for name in METRICS}}


def keep(name: str, record: dict[str, Any], threads: int) -> None:
    """Print the figures and append them to the results."""
    figures = ", ".join(f"{metric} {record[metric]:.4f}" for metric in METRICS)
    chosen = f"{record['width']} units, {record['neighbours']} neighbours, direct {record['direct']:g}"
    print(f"{name}: {chosen}: {figures}; {record['cpu_seconds']:.1f} CPU s", flush=True)
    append("splits", {"recipe": "splits", "set": name, "threads": threads, **record})


if __name__ == "__main__":
    main()
