"""A small run of every job, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.job_files import FILES, config_of

from widehead.runs import Run

Folders = dict[str, Path]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made = {}
    for job in FILES:
        folder = tmp_path_factory.mktemp(job)
        Run.new(config_of(job, folder, epochs=2)).train(quiet=True)
        made[job] = folder / "run"
    return made
