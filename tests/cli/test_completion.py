"""TAB: what the shells are told, by the protocol of each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.processes import ENVIRONMENT, PROGRAM

from widehead.names import ACTIVATIONS, HEADS, LOSSES, METHODS, OPTIMIZERS, PARAMETER_OPTIMIZERS


def completed(line: str, folder: Path, shell: str = "bash") -> list[str]:
    """What a shell is offered at the end of a line."""
    words = line.split(" ")
    given = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)} if shell == "bash" else {}
    given |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        PROGRAM,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**ENVIRONMENT, "_WIDEHEAD_COMPLETE": f"complete_{shell}", **given},
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("widehead tr", ["train"]),
        ("widehead train ", ["recommender", "language-model", "multilabel", "next-item"]),
        ("widehead compare mu", ["multilabel"]),
        ("widehead train recommender f.txt --head ", list(HEADS)),
        ("widehead train recommender f.txt --loss s", [name for name in LOSSES if name.startswith("s")]),
        ("widehead train multilabel f.txt --head-optimizer ", [*OPTIMIZERS, *PARAMETER_OPTIMIZERS]),
        ("widehead train multilabel f.txt --activation ", list(ACTIVATIONS)),
        ("widehead train recommender f.txt --preset ", ["svd", "trained"]),
        ("widehead train language-model f.txt --preset e", ["exact", "eigenvectors"]),
        ("widehead train language-model f.txt --task w", ["word-embeddings"]),
        ("widehead train recommender f.txt --schedule ", ["constant", "cosine", "linear"]),
        ("widehead train recommender f.txt --encoder-o", ["--encoder-optimizer"]),
        ("widehead compare recommender f.txt --heads exact,re", ["exact,retrieved"]),
        ("widehead bench output-layer --methods dense,exact-n", ["dense,exact-newton"]),
        ("widehead predict run f.txt --device cu", ["cuda"]),
        ("widehead export runs/a --format s", ["safetensors"]),
        ("widehead train recommender ", []),  # the shell offers files
        ("widehead train recommender f.txt --test ", []),
    ],
)
def test_values_are_completed(line: str, names: list[str], tmp_path: Path) -> None:
    assert completed(line, tmp_path) == names


def test_every_method_is_offered(tmp_path: Path) -> None:
    assert completed("widehead bench output-layer --methods ", tmp_path) == list(METHODS)


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_run_folders_are_completed(shell: str, tmp_path: Path) -> None:
    for name in ("runs/shop", "runs/old/tags", "rest", ".hidden/run"):
        (tmp_path / name).mkdir(parents=True)
        if name != "rest":
            (tmp_path / name / "config.json").touch()
    offered = {
        "widehead predict ": ["runs/old/tags", "runs/shop"],
        "widehead similar runs/s": ["runs/shop"],
        f"widehead evaluate {tmp_path}/runs/o": [f"{tmp_path}/runs/old/tags"],
        "widehead export re": [],
    }
    for line, expected in offered.items():
        found = completed(line, tmp_path, shell)
        if shell == "zsh":
            found = re.findall(r'"([^"]+)"', " ".join(found))
        assert found == expected, line


def test_it_is_installed_for_a_shell(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "from widehead.cli import main; main()" --install-completion; true', PROGRAM[0]],
        capture_output=True,
        text=True,
        check=True,
        env={**ENVIRONMENT, "HOME": str(tmp_path)},
    )
    assert "completion installed in" in done.stdout, done.stderr
    script = (tmp_path / ".bash_completions" / "widehead.sh").read_text()
    assert "_WIDEHEAD_COMPLETE=complete_bash" in script


def test_completion_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'numpy', 'polars', 'scipy', 'rich', 'pydantic')\n"
        "atexit.register(lambda: print('loaded', *[name for name in heavy if name in sys.modules]))\n"
        "from widehead.cli import main\nmain()"
    )
    for line in ("widehead train recommender f.txt --width 3 --head ", "widehead predict ", "widehead tr"):
        given = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_WIDEHEAD_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [PROGRAM[0], "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=ENVIRONMENT | given
        )
        assert done.stdout.split()[-1] == "loaded", done.stdout
