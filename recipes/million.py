"""A million items on a laptop: a planted table, trained on by the recommender's defaults, judged and saved.

    python recipes/million.py [FOLDER] [--pairs 10000000] [--users 300000] [--items 1300000] [--widths 0] [--threads 2]

The table is written to FOLDER (a new one in the system's by default). Items are taken about as 1/rank: seven pairs in
ten are of genres near a user's own, of which there is one for 400 items, the rest are of all items. Of 1.3 million
items about a million are taken at all, and a third of them by five users or more. For each width, 0 being what the data
decide, one process reads the table, holds a tenth of each user's pairs out, trains, judges 2,000 users by them and
saves. A row with its seconds, those of CPU, its peak memory and its metrics goes to recipes/results/million.jsonl.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars
from provenance import append

from widehead.training import RunFolder
from widehead.training.memory import give_back_freed_memory


def log_uniform(rng: np.random.Generator, size: Any, draws: int) -> np.ndarray:
    """(draws,) ranks below ``size``, each with a probability of about 1 / (rank + 1)."""
    return np.minimum((size + 1.0) ** rng.random(draws) - 1.0, size - 1).astype(np.int64)


def planted(pairs: int, users: int, items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of distinct pairs, at most ``pairs`` of them."""
    rng = np.random.default_rng(seed)
    genres = max(20, items // 400)
    weight = np.arange(5, genres + 5) ** -0.6
    genre_of = rng.choice(genres, size=items, p=weight / weight.sum())  # of each item, whose number is its rank
    order = np.argsort(genre_of, kind="stable")
    starts = np.searchsorted(genre_of[order], np.arange(genres + 1))
    home = rng.choice(genres, size=users, p=weight / weight.sum())
    ring = rng.permutation(genres)
    taken = rng.lognormal(0.0, 1.0, users)
    draws = int(1.35 * pairs)
    user = rng.choice(users, size=draws, p=taken / taken.sum())
    step = (rng.geometric(0.25, draws) - 1) * rng.choice([-1, 1], draws) * rng.choice([1, 97], draws)
    genre = ring[(home[user] + step) % genres]
    size = np.maximum(starts[genre + 1] - starts[genre], 1)
    item = order[np.minimum(starts[genre] + log_uniform(rng, size, draws), items - 1)]
    item = np.where(rng.random(draws) < 0.3, log_uniform(rng, items, draws), item)
    keys = rng.permutation(np.unique(user * items + item))[:pairs]
    return keys // items, keys % items


def run(table: Path, out: Path, width: int, threads: int) -> dict[str, Any]:
    """One process that does all; what it took and reached."""
    told = ["--rank-at-most", "2000", "--threads", str(threads), "--overwrite", "--json"]
    options = ["--holdout", "0.1", "--width", str(width), "--out", str(out), *told]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "widehead", "train", "recommender", str(table), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    found = json.loads(answer)
    times = {"wall_seconds": time.perf_counter() - begin, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    took = {"training_seconds": found["seconds"], "preparation_seconds": found["preparation"]}
    memory = {"peak_bytes": 1024 * usage.ru_maxrss, "folder_bytes": sum(f.stat().st_size for f in out.rglob("*"))}
    return {"width": RunFolder.open(out)[1].width, **times, **took, **memory, "metrics": found["metrics"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    for name, default in (("pairs", 10_000_000), ("users", 300_000), ("items", 1_300_000), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--widths", default="0")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="million-"))
    folder.mkdir(exist_ok=True)
    user, item = planted(asked.pairs, asked.users, asked.items)
    counts = np.bincount(item)
    sizes = {"pairs": len(user), "users": len(np.unique(user)), "items": int((counts > 0).sum())}
    sizes["items_of_five_users"] = int((counts >= 5).sum())
    table = folder / "pairs.csv"
    polars.DataFrame({"user": user, "item": item}).write_csv(table)
    del user, item, counts
    give_back_freed_memory()  # gigabytes, which the run may need
    for width in asked.widths.split(","):
        found = run(table, folder / f"run-{width}", int(width), asked.threads)
        print(append("million", {"asked_width": int(width), "threads": asked.threads, **sizes, **found}), flush=True)


if __name__ == "__main__":
    main()
