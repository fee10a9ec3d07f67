"""Files of every make through the command line: read with the right numbers, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.cli_runs import call
from support.made_up_tables import Made, made_up_table, names_in
from support.made_up_texts import made_up_labels, made_up_text

from widehead.runs import Run

FEW, MANY = 25, 700  # of each of the three kinds
KINDS = {
    "recommender": (made_up_table, []),
    "multilabel": (made_up_labels, ["--minimum-count", "1"]),
    "language-model": (
        made_up_text,
        ["--minimum-count", "1", "--context", "1", "--hidden", "2", "--embedding", "2", "--holdout", "0"],
    ),
}


def check(job: str, made: Made, options: list[str], folder: Path) -> str:
    """What is wrong with what became of a file, or ""."""
    (folder / "file").write_bytes(made.data)
    called = call(
        "train", job, folder / "file", "--out", folder / "run", "--width", "2", "--at", "1", *options, *made.options
    )
    lines = [line for line in called.err.split("\n") if line]
    if called.code == 2:
        refused = len(lines) == 1 and lines[0].startswith("widehead: error: ") and not (folder / "run").exists()
        return "" if made.may_refuse and refused else called.err
    vocabularies = {name: names_in(folder / "run" / "vocabularies" / name) for name in made.vocabularies}
    shutil.rmtree(folder / "run", ignore_errors=True)
    said = lines[0] if lines else ""
    if called.code != 0 or not made.may_read or not said.startswith("Read file: "):
        return called.err
    if not all(part in said for part in made.parts) or vocabularies != made.vocabularies:
        return f"{said}; expected {made.parts}, {made.vocabularies}, found {vocabularies}"
    return ""


def wrong(job: str, seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(Run, "report", lambda run: run.folder.path / "report.html")  # curves take a second
    make, options = KINDS[job]
    found = []
    for seed in seeds:
        made = make(seed)
        if problem := check(job, made, options, folder):
            found.append(f"{seed}: {made.about}: {problem}")
    return found


@pytest.mark.parametrize("job", KINDS)
def test_a_few_files_of_every_make(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(job, range(FEW), tmp_path, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("job", KINDS)
def test_many_files_of_every_make(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(job, range(FEW, FEW + MANY), tmp_path, monkeypatch) == []
