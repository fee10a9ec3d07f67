"""Which code and machine a figure was measured with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from widehead.bench.measure import hardware

__all__ = ["append", "commit"]

HERE = Path(__file__).resolve().parent


def append(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Append a line with the time, the commit and the machine to results/NAME.jsonl; what was written."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    whole = {**record, "date": date, "commit": commit(), **hardware(torch.device("cpu"))}
    with (HERE / "results" / f"{name}.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(whole) + "\n")
    return whole


def commit() -> str:
    """The commit that was measured; marked where the tree had changes."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
