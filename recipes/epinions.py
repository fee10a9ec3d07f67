"""Recommender on Epinions, 296,277 products: this library, implicit's ALS for the same time, and popularity.

    python recipes/epinions.py epinions.tsv.gz [--tune] [--width N] [--out runs/epinions]

A fifth of each user's pairs, drawn with seed 0, is held out to judge by. Prints a table and appends its rows to
results/epinions.jsonl. --tune looks for the options of ALS on a part of the training pairs first; without it those
found here are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recommenders import Split, side_by_side, tuned

from widehead.data import binary, read_interactions
from widehead.training import TrainingConfig

ALS: dict[str, Any] = {"alpha": 5.0, "regularization": 0.01}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--width", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/epinions"))
    options = parser.parse_args()
    split = Split.of(binary(read_interactions(options.file).matrix), seed=0)
    peer = options.out.with_name(f"{options.out.name}-als")
    found = tuned("epinions", split, peer) if options.tune else ALS
    width = {} if options.width is None else {"width": options.width}
    data = {"train": str(options.file), "holdout": 0.2, "seed": 0}
    config = TrainingConfig.for_job("recommender", **data, out=str(options.out), **width)
    side_by_side("epinions", split, config, peer, found)


if __name__ == "__main__":
    main()
