"""Recommender on gowalla (the split of the LightGCN papers): this library within five minutes, ALS and popularity.

    python recipes/gowalla.py FOLDER [--tune] [--width N] [--out runs/gowalla]

FOLDER holds train.txt and test.txt, one user a line. Prints a table and appends its rows to results/gowalla.jsonl.
--tune looks for the options of ALS on a part of the training pairs first; without it those found here are used.
"""

from __future__ import annotations

from typing import Any

from recommenders import Split, compared, options_of

from widehead.data import binary, pair, read_interactions

ALS: dict[str, Any] = {"alpha": 20.0, "regularization": 0.01}


def main() -> None:
    options = options_of("gowalla", __doc__, "folder")
    files = {part: str(options.folder / f"{part}.txt") for part in ("train", "test")}
    both = pair(read_interactions(files["train"]), read_interactions(files["test"]))
    split = Split(binary(both.train.matrix), binary(both.test.matrix), both.test.unreachable)
    compared("gowalla", split, files, options, ALS)


if __name__ == "__main__":
    main()
