"""Recommender on Epinions, 296,277 products: this library, implicit's ALS for the same time, and popularity.

    python recipes/epinions.py epinions.tsv.gz [--tune] [--width N] [--out runs/epinions]

A fifth of each user's pairs, drawn with seed 0, is held out to judge by. Prints a table and appends its rows to
results/epinions.jsonl. --tune looks for the options of ALS on a part of the training pairs first; without it those
found here are used.
"""

from __future__ import annotations

from typing import Any

from recommenders import Split, compared, options_of

from widehead.data import binary, read_interactions

ALS: dict[str, Any] = {"alpha": 5.0, "regularization": 0.01}


def main() -> None:
    options = options_of("epinions", __doc__, "file")
    split = Split.of(binary(read_interactions(options.file).matrix), seed=0)
    data = {"train": str(options.file), "holdout": 0.2, "seed": 0}
    compared("epinions", split, data, options, ALS)


if __name__ == "__main__":
    main()
