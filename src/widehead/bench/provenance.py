"""Where a figure comes from: the day it was measured and the code that was measured."""

import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from widehead.version import __version__


def provenance() -> dict[str, str | None]:
    """{"date": UTC in ISO 8601, "commit": of the package's working copy or None, "version": of the package}."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(Path(__file__).parents[1]),
        "version": __version__,
    }


@cache
def commit_of(folder: Path) -> str | None:
    """Git's name of the commit that ``folder`` is checked out at, with "-dirty" if files were changed since.

    None if git is missing or fails, or if the folder is no part of the repository around it, as in an
    environment that stands in some project's working copy.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
