"""Fixtures and settings for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

# Machines are shared and slow at times; a test is judged by its result, not by its time.
settings.register_profile("widehead", deadline=None)
settings.load_profile("widehead")
pytest.register_assert_rewrite("support")

from support.played import Device, now_played, played_cuda  # noqa: E402  (its asserts are rewritten)
from support.several import Several  # noqa: E402

if TYPE_CHECKING:
    from support.cli_runs import Called

# WIDEHEAD_TEST_DEVICE=cuda on a machine without a card: the CPU plays one.
PLAYS = os.environ.get("WIDEHEAD_TEST_DEVICE", "cpu").startswith("cuda") and not torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    if not PLAYS:
        return (yield)
    with played_cuda():
        return (yield)


@pytest.fixture
def played() -> Iterator[Device]:
    """A CUDA device that the CPU plays, whatever WIDEHEAD_TEST_DEVICE says; not on a machine that has a card."""
    if (device := now_played()) is not None:
        yield device
        return
    if torch.cuda.is_available():
        pytest.skip("there is a card here: WIDEHEAD_TEST_DEVICE=cuda runs the tests on it")
    with played_cuda() as device:
        yield device


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data that the variable WIDEHEAD_DATA names; skips if there is none (CONTRIBUTING.md)."""
    folder = os.environ.get("WIDEHEAD_DATA")
    if folder is None:
        pytest.skip("needs the real data: set WIDEHEAD_DATA to their folder")
    if not Path(folder).is_dir():
        pytest.fail(f"WIDEHEAD_DATA should name a folder. Found {folder}.")
    return Path(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Called]]:
    """Runs that tests look at and do not change: for each job a folder and what the training said.

    In the folder there are train.txt, test.txt, input.txt and the run "run".
    """
    from support.cli_runs import FILES, train  # needs packages that machines with a card may lack

    made = {}
    for job in FILES:
        folder = tmp_path_factory.mktemp(job)
        made[job] = (folder, train(job, folder, "--json"))
    return made


@pytest.fixture(scope="session")
def several() -> Iterator[Several]:
    made = Several()
    yield made
    made.close()
