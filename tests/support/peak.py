"""Peak of memory of what an exact head can do, in a process of its own: python peak.py CLASSES WIDTH FOLDER [MOMENTUM].

Prints a JSON object: for each action the most bytes that were in memory beyond those before the head was made.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import widehead as wh
from widehead.training.checkpoint import load_checkpoint, save_checkpoint

BATCH = 32


def in_memory(name: str) -> int:
    """Bytes by the system's count: VmHWM is the peak, VmRSS what there is now."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


def train(head: wh.ExactHead, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        loss = head(torch.randn(BATCH, head.in_features), torch.randint(0, head.num_classes, (BATCH, 2)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(classes: int, width: int, folder: Path, momentum: float) -> None:
    path = folder / "checkpoint"

    def made(num_classes: int) -> tuple[wh.ExactHead, torch.optim.Optimizer]:
        head = wh.ExactHead(width, num_classes, wh.losses.WeightedSquaredError(0.05))
        return head, wh.optim.SGD(head, lr=0.05, momentum=momentum)

    def all_actions(head: wh.ExactHead, optimizer: torch.optim.Optimizer) -> dict[str, Callable[[], object]]:
        zeros = torch.zeros(1, 1).expand(head.num_classes, width)  # a weight that needs no memory itself
        return {
            "train": lambda: train(head, optimizer, 60),
            "save": lambda: save_checkpoint(path, {"head": head.state_dict()}),
            "load": lambda: head.load_state_dict(load_checkpoint(path)["head"]),
            "train on": lambda: train(head, optimizer, 60),
            "audit": head.audit,
            "top_k": lambda: head.top_k(torch.randn(4, width), 5),
            "consolidate": head.consolidate,
            "load_state_dict": lambda: head.load_state_dict(head.state_dict()),
            "load_weight": lambda: head.load_weight(zeros),
        }

    tiny = made(1000)  # so that libraries have loaded what they need
    for action in all_actions(*tiny).values():
        action()
    del tiny
    before = in_memory("VmRSS")
    reset_peak()
    large = made(classes)
    peaks = {"construct": in_memory("VmHWM") - before}
    for name, action in all_actions(*large).items():
        reset_peak()
        action()
        peaks[name] = in_memory("VmHWM") - before
    print(json.dumps(peaks))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
