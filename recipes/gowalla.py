"""Recommender on gowalla (the split of the LightGCN papers): this library within five minutes, ALS and popularity.

    python recipes/gowalla.py FOLDER [--tune] [--width N] [--out runs/gowalla]

FOLDER holds train.txt and test.txt, one user a line. Prints a table and appends its rows to results/gowalla.jsonl.
--tune looks for the options of ALS on a part of the training pairs first; without it those found here are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recommenders import Split, side_by_side, tuned

from widehead.data import binary, pair, read_interactions
from widehead.training import TrainingConfig

ALS: dict[str, Any] = {"alpha": 20.0, "regularization": 0.01}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--width", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/gowalla"))
    options = parser.parse_args()
    files = {part: str(options.folder / f"{part}.txt") for part in ("train", "test")}
    both = pair(*(read_interactions(files[part]) for part in ("train", "test")))
    split = Split(binary(both.train.matrix), binary(both.test.matrix), both.test.unreachable)
    peer = options.out.with_name(f"{options.out.name}-als")
    found = tuned("gowalla", split, peer) if options.tune else ALS
    width = {} if options.width is None else {"width": options.width}
    config = TrainingConfig.for_job("recommender", **files, out=str(options.out), **width)
    side_by_side("gowalla", split, config, peer, found)


if __name__ == "__main__":
    main()
