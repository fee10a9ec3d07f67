"""Help, the version, mistakes and completion: at once, without torch; and Ctrl-C while torch is imported."""

from __future__ import annotations

import ast
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.processes import ENVIRONMENT, PROGRAM

from widehead.bench.methods import METHODS
from widehead.cli.app import app
from widehead.kinds import JOBS
from widehead.names import METHODS as NAMES

HEAVY = ("torch", "numpy", "scipy", "polars", "matplotlib", "jinja2", "safetensors", "rich", "pydantic")
# Says which of them are loaded when the program ends, however it does; standard output is dropped after a mistake.
WATCHED = (
    "import atexit, sys\n"
    f"atexit.register(lambda: print('\\nloaded:', [name for name in {HEAVY} if name in sys.modules], "
    "file=sys.stderr))\n"
    "from widehead.cli import main\nmain()"
)
GROUPS = {"train": [job.command for job in JOBS.values()], "bench": ["output-layer", "paper-table", "upkeep"]}
GROUPS["compare"] = GROUPS["train"]


def command_lines() -> list[list[str]]:
    """Every command and every group."""
    alone = [[command.name or command.callback.__name__] for command in app.registered_commands]  # type: ignore
    groups = [[str(group.name)] for group in app.registered_groups]
    within = [[group, name] for group, names in GROUPS.items() for name in dict.fromkeys(names) if name]
    return [[], *alone, *groups, *within]


def ended(*arguments: str, **variables: str) -> Any:
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, **variables},
    )


def loaded(done: Any) -> list[str]:
    return list(ast.literal_eval(done.stderr.rpartition("loaded: ")[2]))


def test_every_command_is_looked_at() -> None:
    assert {group.name for group in app.registered_groups} == set(GROUPS)
    assert len(command_lines()) > 14


@pytest.mark.parametrize("command", command_lines(), ids=" ".join)
def test_help_needs_no_torch(command: list[str]) -> None:
    done = ended(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "\nloaded: []\n")
    assert "--help" in done.stdout


@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        ("--version", 0, "widehead "),
        ("trian", 2, "Did you mean 'train'?"),
        ("train recomender", 2, "the job should be one of"),
        ("train recommender --epoch 3", 2, "--epochs"),
        ("compare multilabel x.txt --hiden 3", 2, "--hidden"),
        ("bench upkeep --step 3", 2, "--steps"),
        ("train recommender", 2, "a training file is needed"),
    ],
)
def test_a_mistake_is_told_without_torch(line: str, code: int, what: str) -> None:
    done = ended(*line.split())
    assert done.returncode == code
    assert what in done.stdout + done.stderr
    assert not {"torch", "numpy", "polars", "rich"} & set(loaded(done))


@pytest.mark.parametrize(
    "option", ["--head exakt --device cpu", "--dropout 2", "--schedule saw", "--at 0", "--preset none"]
)
def test_a_wrong_value_is_told_without_torch(option: str) -> None:
    done = ended("train", "recommender", "x.txt", *option.split())
    assert done.returncode == 2
    assert option.split()[0] in done.stderr
    assert "torch" not in loaded(done)


def test_the_methods_of_the_benchmark_are_those_that_the_help_names() -> None:
    assert tuple(METHODS) == NAMES


def test_help_is_quick() -> None:
    """0.15 s on a quiet machine; the bound is for one on which much else runs."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([*PROGRAM, "--help"], capture_output=True, check=True, env=ENVIRONMENT)
        seconds.append(time.perf_counter() - begin)
    assert statistics.median(seconds) < 1.5


# SIGINT from within, so many seconds after the program began.
INTERRUPTED = (
    "import os, signal, sys, threading\n"
    "def send(): os.kill(os.getpid(), signal.SIGINT)\n"
    "from widehead.cli import main\n"
    "timer = threading.Timer(float(sys.argv.pop(1)), send)\n"
    "timer.daemon = True\n"
    "timer.start()\n"
    "main()"
)


def test_ctrl_c_in_an_import_that_swallows_it_comes_again(tmp_path: Path) -> None:
    """A library may import what it needs late, and an import may catch everything."""
    (tmp_path / "swallowing.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    (tmp_path / "late.py").write_text("def get():\n    import swallowing\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport late, time, widehead.cli.errors as errors\n"
        "from widehead.cli import main\n"
        "def run(*_):\n    late.get()\n    time.sleep(30)\n"
        "errors.run_guarded = run\nmain([])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=25)
    assert (done.returncode, done.stderr) == (130, "widehead: interrupted.\n")


@pytest.mark.parametrize("seed", range(5))
def test_ctrl_c_while_modules_are_imported(seed: int, tmp_path: Any) -> None:
    moment = random.Random(seed).uniform(0.0, 1.5)
    (tmp_path / "train.txt").write_text("".join(f"u{n} i{n % 7} i{n % 5}\n" for n in range(30)))
    command = [
        "train",
        "recommender",
        "train.txt",
        "--out",
        "run",
        "--encoder-lr",
        "0.01",
        "--epochs",
        "1000000",
        "--at",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(moment), *command],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(("widehead: interrupted.", "widehead: stopped at step"))
