"""What a process of 8, 64 and 256 sends and holds, with one process that plays the first of them.

    python recipes/split_traffic.py [--classes 100000000] [--width 256] [--batch 128] [--targets 1]
        [--processes 8,64,256]

torch's fake process group answers for the others, as if all had this process's examples, so that the real code runs
with real shapes. ``batch`` examples are of each process. Bytes are counted in a warm step of SGD; from them follows
what a process sends if gathers and sums go round a ring: (P − 1)·n of a gather of n bytes a process, 2(P − 1)/P·n of a
sum. Memory is that of its rows (with their versions), and of all else that the head holds. Time was not measured: the
computed column is flops at ``--rate`` and bytes at ``--bandwidth``, as if neither waited for anything else. Beside it
is the same for the full softmax with its rows split, whose steps take 6·M·(D/P)·d flops on each process, and which
sends the hidden layers and targets of all, three numbers an example and ∇H (PartialFC: An et al. 2022; within an
example's group the same sums as Megatron's vocabulary-parallel loss: Shoeybi et al. 2019, section 3). Appends a line
for each number of processes to recipes/results/split-traffic.jsonl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import torch
from provenance import append
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

import widehead as wh
from widehead.split.weights import SplitWeights

GATHERS = ("numbers", "batch", "derivatives")
SUMS = ("outputs", "SW", "sums over examples")


def ring(sent: dict[str, int], processes: int) -> float:
    """Bytes that a process sends of what it gives to gathers and sums."""
    unknown = set(sent) - {*GATHERS, *SUMS}
    assert not unknown, f"neither a gather nor a sum: {unknown}"
    gathered, summed = (sum(sent.get(name, 0) for name in names) for names in (GATHERS, SUMS))
    return (processes - 1) * gathered + 2 * (processes - 1) / processes * summed


def held(head: wh.ExactHead) -> tuple[int, int]:
    """Bytes of what has a row for each row of W here, and of all other tensors that the weight record keeps."""
    found: dict[int, torch.Tensor] = {}
    seen: set[int] = set()

    def look(thing: Any) -> None:
        if isinstance(thing, torch.Tensor):
            found[thing.untyped_storage().data_ptr()] = thing
        elif id(thing) not in seen and type(thing).__module__.startswith(("widehead", "builtins")):
            seen.add(id(thing))
            parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
            for part in [*parts, *getattr(thing, "__dict__", {}).values()]:
                look(part)

    look(head.weights)
    count = head.weights.rows.num_rows
    rows = sum(part.untyped_storage().nbytes() for part in found.values() if len(part.shape) and len(part) == count)
    return rows, sum(part.untyped_storage().nbytes() for part in found.values()) - rows


def figures(processes: int, given: argparse.Namespace) -> dict[str, Any]:
    """Of one number of processes; a process has one fake group in its life."""
    distributed.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    mesh = init_device_mesh("cpu", (processes,))
    head = wh.ExactHead(given.width, given.classes, wh.losses.SphericalSoftmax(), mesh=mesh)
    assert isinstance(head.weights, SplitWeights)
    optimizer, split = wh.optim.SGD(head, lr=0.001), head.weights.split
    for _ in range(2):
        split.sent.clear()
        hidden = torch.randn(given.batch, given.width).requires_grad_()
        head(hidden, torch.randint(given.classes, (given.batch, given.targets))).backward()
        optimizer.step()
    rows, rest = held(head)
    return {"given": dict(split.sent), "sent": ring(split.sent, processes), "rows": rows, "rest": rest}


def computed(processes: int, given: argparse.Namespace, sent: float) -> dict[str, float]:
    """Seconds of a step, and what the full softmax sends and takes, by formulas."""
    examples, d = given.batch * processes, given.width
    softmax = 4 * (processes - 1) * (given.batch * d + given.batch)  # hidden layers and targets
    softmax += 4 * 2 * (processes - 1) / processes * (examples * d + 3 * examples)  # ∇H; maximum, sum, target's output
    flops = 6 * examples * (given.classes / processes) * d
    return {
        "computed_seconds": 14 * d * d * examples / given.rate + sent / given.bandwidth,
        "softmax_sent": softmax,
        "softmax_computed_seconds": flops / given.rate + softmax / given.bandwidth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--processes", default="8,64,256")
    parser.add_argument("--rate", type=float, default=30e12, help="flops a second; about half of an H100's in float32")
    parser.add_argument("--bandwidth", type=float, default=25e9, help="bytes a second that a process sends")
    given = parser.parse_args()
    sizes = list(map(int, given.processes.split(",")))
    if len(sizes) > 1:
        for size in sizes:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--processes", str(size)], check=True)
        return
    row = figures(sizes[0], given)
    row |= computed(sizes[0], given, row["sent"])
    print(
        f"{sizes[0]} processes: sends {row['sent'] / 1e6:.1f} MB a step, holds {row['rows'] / 1e9:.2f} GB of rows and "
        f"{row['rest'] / 1e6:.1f} MB; computed: {1e3 * row['computed_seconds']:.2f} ms, full softmax "
        f"{1e3 * row['softmax_computed_seconds']:.0f} ms",
        flush=True,
    )
    append("split-traffic", {**vars(given), **row, "processes": sizes[0]})


if __name__ == "__main__":
    main()
