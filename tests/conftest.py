"""Fixtures and settings for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are shared and slow at times; a test is judged by its result, not by its time.
settings.register_profile("widehead", deadline=None)
settings.load_profile("widehead")
pytest.register_assert_rewrite("support")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data that the variable WIDEHEAD_DATA names; skips if there is none (CONTRIBUTING.md)."""
    folder = os.environ.get("WIDEHEAD_DATA")
    if folder is None:
        pytest.skip("needs the real data: set WIDEHEAD_DATA to their folder")
    if not Path(folder).is_dir():
        pytest.fail(f"WIDEHEAD_DATA should name a folder. Found {folder}.")
    return Path(folder)
