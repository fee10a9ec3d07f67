"""A figure's commit is that of the package, or none."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

import pytest

import widehead
from widehead.bench.provenance import commit_of, provenance


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "copy" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    try:
        _git(tmp_path / "copy", "init")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine has no git")
    return folder


def test_a_checkout_has_a_commit_and_says_whether_it_was_changed(package: Path) -> None:
    _git(package, "add", ".")
    _git(package, "commit", "-m", "first")
    commit = commit_of(package)
    assert commit is not None
    assert len(commit) == 40
    (package / "__init__.py").write_text("changed = True\n")
    commit_of.cache_clear()
    assert commit_of(package) == f"{commit}-dirty"


def test_a_package_beside_other_code_has_none(package: Path) -> None:
    """As one in an environment inside a working copy of something else."""
    (package.parent / "other").write_text("")
    _git(package.parent, "add", "other")
    _git(package.parent, "commit", "-m", "first")
    commit_of.cache_clear()
    assert commit_of(package) is None


def test_no_repository_and_no_git_are_no_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(tmp_path / "nowhere") is None
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) is None


def test_date_and_version() -> None:
    found = provenance()
    assert found["version"] == widehead.__version__
    assert datetime.fromisoformat(str(found["date"])).tzinfo is not None
