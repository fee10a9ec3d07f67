"""Run folders that tests of foreign ones change: of several jobs and heads, each trained once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.foreign import JOBS
from support.job_files import config_of

from widehead.runs import Run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the data of a job and its run "run", trained for an epoch when it is first asked for."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            job, options = JOBS[name]
            folder = tmp_path_factory.mktemp(name)
            Run.new(config_of(job, folder, epochs=1, **{"head_lr": 0.01, **options})).train(quiet=True)
            made[name] = folder
        return made[name]

    return find


@pytest.fixture
def copied(runs: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of such a run folder."""

    def copy(name: str) -> Path:
        shutil.copytree(runs(name) / "run", tmp_path / "copy" / "run")
        return tmp_path / "copy" / "run"

    return copy
