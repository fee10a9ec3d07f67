"""Reading a CSV file of users and items, beside polars, in turns.

    python recipes/reading.py [--rows 3000000] [--users 300000] [--items 100000] [--rounds 5]

The file has rows such as u17,i3, drawn with a seed. Polars reads it as strings, and as strings to which its own
operations give codes in order of appearance, with the list of names: that is what users and items must become. Its
categories, which are codes in no order, are timed too. Widehead makes the matrix of users and items from the same file,
with both lists of names. Appends a line for each way to recipes/results/reading.jsonl: the median of the seconds, and
of the CPU time of all threads.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
from provenance import append

from widehead.data import read_interactions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 3_000_000), ("users", 300_000), ("items", 100_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    rounds = options.pop("rounds")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        write(path, **options)
        check(path)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, way in WAYS.items():
                times[name].append(timed(way, path))
    for name, found in times.items():
        seconds, cpu = (statistics.median(part) for part in zip(*found, strict=True))
        record = append("reading", {"recipe": "reading", "way": name, **options, "seconds": seconds, "cpu": cpu})
        print(f"{name}: {record['seconds']:.2f} s, {record['cpu']:.2f} s of CPU time", flush=True)


def write(path: Path, rows: int, users: int, items: int) -> None:
    """Users alike, items by a law that makes some of them frequent."""
    random = np.random.default_rng(0)
    of_users = random.integers(0, users, rows).tolist()
    of_items = (random.random(rows) ** 3 * items).astype(np.int64).tolist()
    path.write_text("".join(f"u{user},i{item}\n" for user, item in zip(of_users, of_items, strict=True)))


def strings(path: Path) -> polars.DataFrame:
    return polars.read_csv(path, has_header=False)


def joined(path: Path) -> list[tuple[np.ndarray, list[str]]]:
    """Codes and names of each column, by the row that a name has among the distinct ones."""
    frame, found = strings(path), []
    for name in frame.columns:
        names = frame.select(polars.col(name).unique(maintain_order=True)).with_row_index("code")
        codes = frame.select(name).join(names, on=name, how="left", maintain_order="left")["code"]
        found.append((codes.to_numpy(), names[name].to_list()))
    return found


def categories(path: Path) -> list[np.ndarray]:
    """Codes of each column by polars' own type for that, in no order; not the names."""
    frame = polars.read_csv(path, has_header=False, schema_overrides=[polars.Categorical] * 2)
    return [column.to_physical().to_numpy() for column in frame]


def matrix(path: Path) -> Any:
    return read_interactions(path)


WAYS: dict[str, Callable[[Path], Any]] = {
    "polars, strings": strings,
    "polars, codes by join": joined,
    "polars, categories": categories,
    "widehead, the matrix": matrix,
}


def check(path: Path) -> None:
    """The pairs that polars joins are those of the matrix, whose items come by frequency. Raises ValueError if not."""
    (users, user_names), (items, item_names) = joined(path)
    found = matrix(path)
    column = found.items.ids(item_names)
    pairs = np.unique(users.astype(np.int64) * len(column) + column[items])
    here = found.matrix.tocoo()
    same = np.array_equal(pairs, np.sort(here.row.astype(np.int64) * len(column) + here.col))
    if not (same and found.users == user_names):
        raise ValueError("Both ways should give the same users, items and pairs. They do not.")


def timed(way: Callable[[Path], Any], path: Path) -> tuple[float, float]:
    """Seconds, and CPU time of this process with all its threads."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    way(path)
    seconds, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
