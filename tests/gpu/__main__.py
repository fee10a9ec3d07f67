"""Run every check on the device, write what was found down at once, and say what failed.

    python -m gpu OUT [--seconds 540] [--played]

OUT/acceptance.jsonl has a line a check, OUT/acceptance.log what went wrong, OUT/tables.log and tables.xml the tables of
the test suite, which run in the time that is left if pytest and hypothesis are on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

_MODULES = ("test_steps", "test_exactness", "test_products", "test_heads", "test_training")
_TABLES = ("test_exact_table.py", "test_optimizer_table.py", "heads/test_head_table.py", "bench/test_cuda.py")
_TESTS = Path(__file__).parents[1]


def checks() -> list[tuple[str, Callable[[], None]]]:
    """Those that cost least and tell most come first."""
    modules = [importlib.import_module(f"gpu.{name}") for name in _MODULES]
    return [
        (f"{module.__name__.removeprefix('gpu.')}: {name.removeprefix('test_').replace('_', ' ')}", function)
        for module in modules
        for name, function in vars(module).items()
        if name.startswith("test_") and callable(function)
    ]


def outcome(check: Callable[[], None]) -> dict[str, Any]:
    """Run one check: its status, seconds and figures, and what went wrong."""
    from gpu.device import figures

    figures.clear()
    begin = time.monotonic()
    found: dict[str, Any] = {"status": "passed"}
    try:
        check()
    except unittest.SkipTest as skipped:
        found = {"status": "skipped", "reason": str(skipped)}
    except OutOfTime:
        found = {"status": "failed", "reason": "the time ran out"}
    except Exception as error:  # noqa: BLE001  whatever it is, the other checks are run
        found = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return {**found, "seconds": round(time.monotonic() - begin, 2), "figures": dict(figures)}


class OutOfTime(BaseException):
    """The time for all checks is over."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """OutOfTime is raised inside after so many seconds."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def run_all(out: Path, end: float, hardware: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    with (out / "acceptance.jsonl").open("w") as lines, (out / "acceptance.log").open("w") as log:
        write(lines, {"check": "hardware", **hardware})
        for name, check in checks():
            with time_limit(end - time.monotonic()):
                row = {"check": name, **outcome(check)}
            trace = row.pop("trace", "")
            rows.append(row)
            write(lines, row)
            told = f"{row['status']:8} {row['seconds']:7.1f} s  {name}  {row.get('reason', '')}"
            print(told, flush=True)
            print(told, json.dumps(row["figures"], default=str), trace, sep="\n", file=log, flush=True)
    return rows


def write(lines: TextIO, row: dict[str, Any]) -> None:
    print(json.dumps(row, default=str), file=lines, flush=True)


def run_tables(out: Path, end: float) -> dict[str, Any]:
    """The tables of the test suite by pytest, as far as the time goes."""
    missing = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing:
        return {"status": "skipped", "reason": f"needs {', '.join(missing)}, not on this machine"}
    several = ["-n", "6"] if importlib.util.find_spec("xdist") is not None else []
    command = [sys.executable, "-m", "pytest", *several]
    command += [f"--junitxml={out / 'tables.xml'}", *(str(_TESTS / name) for name in _TABLES)]
    with (out / "tables.log").open("w") as log:
        try:
            left = max(end - time.monotonic(), 1.0)
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=left, cwd=_TESTS.parent)
        except subprocess.TimeoutExpired:
            return {"status": "failed", "reason": "the time ran out; tables.log says how far they came"}
    last = (out / "tables.log").read_text().strip().splitlines()[-1:]
    return {"status": "passed" if done.returncode == 0 else "failed", "reason": "".join(last)}


def hardware_of(device: str) -> dict[str, Any]:
    """The card and versions. Exits if there is no CUDA device that can be used."""
    import torch

    try:
        torch.ones(8, device=device).sum().item()
    except Exception as error:  # noqa: BLE001  torch has many errors for it
        sys.exit(f"make test-gpu needs a CUDA device that torch can use. Found none: {str(error).splitlines()[0]}")
    from widehead.bench.measure import hardware
    from widehead.bench.provenance import provenance

    return {
        **hardware(torch.device(device)),
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        **provenance(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder for what is found")
    parser.add_argument("--seconds", type=float, default=540.0, help="after which nothing new is begun")
    parser.add_argument("--played", action="store_true", help="on a device that the CPU plays, without the tables")
    given = parser.parse_args()
    os.environ["WIDEHEAD_TEST_DEVICE"] = "cuda"
    end = time.monotonic() + given.seconds
    given.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if given.played:
            from support.played import played_cuda

            stack.enter_context(played_cuda())
        rows = run_all(given.out, end, hardware_of("cuda"))
    if not given.played:
        tables = {"check": "tables of the test suite", **run_tables(given.out, end)}
        with (given.out / "acceptance.jsonl").open("a") as lines:
            write(lines, tables)
        print(f"{tables['status']:8} {'':9}  {tables['check']}  {tables['reason']}")
        rows.append(tables)
    failed = [row["check"] for row in rows if row["status"] == "failed"]
    print(f"{len(rows)} checks, {len(failed)} failed, in {given.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
