"""W in a file: 20 million classes × 64 (5 GB of float32) trained with how much memory, and how fast?

    python recipes/memory_mapped.py PATH [--classes 20000000] [--width 64] [--steps 300] [--bfloat16]

PATH is the file to keep W in; it should not be there, and is removed in the end. Random hidden layers and targets, 128
examples of 5 targets a step. Memory is the peak of RssAnon: what the process alone holds and the system could only
swap. Pages of the file are not in it, as the system drops them where it needs the room. At the end all of Q and w̄ is
computed again from the file. Appends one line to recipes/results/memory-mapped.jsonl. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import threading
import time
from pathlib import Path
from types import TracebackType

import torch
from provenance import commit

import widehead as wh
from widehead.bench.measure import hardware

RESULTS = Path(__file__).resolve().parent / "results"
BATCH, TARGETS = 128, 5


class AnonymousMemory:
    """While entered, looks fifty times a second at how many bytes of its own the process has; ``peak`` is the most."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return 1024 * int(found[1])


def step_seconds(head: wh.ExactHead, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Seconds of each step: loss, gradient by the hidden layer, update."""
    seconds = []
    for _ in range(steps):
        hidden = (torch.randn(BATCH, head.in_features) + 0.5).requires_grad_()  # segments end, rows have to move
        targets = torch.randint(0, head.num_classes, (BATCH, TARGETS))
        begin = time.perf_counter()
        loss = head(hidden, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--classes", type=int, default=20_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--bfloat16", action="store_true", help="store W in half of the bytes")
    options = parser.parse_args()
    torch.manual_seed(0)
    before = anonymous_bytes()
    storage_dtype = torch.bfloat16 if options.bfloat16 else None
    with AnonymousMemory() as memory:
        begin = time.perf_counter()
        loss = wh.losses.WeightedSquaredError(0.05)
        head = wh.ExactHead(options.width, options.classes, loss, storage=options.path, storage_dtype=storage_dtype)
        try:
            constructed = time.perf_counter() - begin
            seconds = step_seconds(head, wh.optim.SGD(head, lr=0.1), options.steps)
            begin = time.perf_counter()
            audit = head.audit()
            audited = time.perf_counter() - begin
            size = options.path.stat().st_size
        finally:
            options.path.unlink()
    record = {
        "recipe": "memory_mapped",
        "classes": options.classes,
        "width": options.width,
        "batch": BATCH,
        "stored": str(head.weights.values.dtype).removeprefix("torch."),
        "file_bytes": size,
        "anonymous_bytes_before": before,
        "anonymous_bytes_peak": memory.peak,
        "seconds_construction": round(constructed, 1),
        "milliseconds_a_step": round(1e3 * statistics.median(seconds[10:]), 3),
        "slowest_step": round(1e3 * max(seconds[10:]), 1),
        "seconds_audit": round(audited, 1),
        "drift": audit.gram,
        "closes": audit.closes,
        "moved_rows": audit.moved_rows,
        "commit": commit(),
        **hardware(torch.device("cpu")),
    }
    print(json.dumps(record, indent=2))
    with (RESULTS / "memory-mapped.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
