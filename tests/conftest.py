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
    """The folder of real data: WIDEHEAD_DATA, or ../shared/data seen from the project; skips where there is none."""
    project = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("WIDEHEAD_DATA") or project.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the real data: set WIDEHEAD_DATA to their folder (looked in {folder})")
    return folder
