"""Runs that the tests of the command line look at and do not change."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_runs import FILES, Called, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Called]]:
    """A folder for each job with train.txt, test.txt, input.txt and the run "run", and what the training said."""
    made = {}
    for job in FILES:
        folder = tmp_path_factory.mktemp(job)
        made[job] = (folder, train(job, folder, "--json"))
    return made
