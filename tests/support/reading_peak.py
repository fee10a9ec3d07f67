"""Peak of memory of reading interactions, in a process of its own: python reading_peak.py ROWS USERS ITEMS FILE.

Writes a CSV of random pairs, reads it, and prints a JSON object: the most bytes that were in memory beyond those
before reading, the seconds, and the shape and number of entries of the matrix.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars
import psutil

from widehead.data import read_interactions

PIECE = 2_000_000


def write(rows: int, users: int, items: int, path: Path) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, PIECE):
            size = min(PIECE, rows - start)
            frame = polars.DataFrame({"user": rng.integers(0, users, size), "item": rng.integers(0, items, size)})
            frame.write_csv(file, include_header=False)


def peak() -> int:
    """The most bytes in memory since the peak was last forgotten (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(rows: int, users: int, items: int, path: Path) -> None:
    write(10_000, 100, 100, path)
    read_interactions(path)  # what polars and numpy take once
    write(rows, users, items, path)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    matrix = read_interactions(path).matrix
    found = {"bytes": peak() - before, "seconds": time.perf_counter() - start}
    kinds = [str(part.dtype) for part in (matrix.indices, matrix.indptr)]
    print(json.dumps({**found, "shape": matrix.shape, "entries": int(matrix.nnz), "kinds": kinds}))


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:4]), Path(sys.argv[4]))
