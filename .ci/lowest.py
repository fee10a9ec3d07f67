"""Print constraints.txt with each dependency of a user at the lowest version that pyproject.toml allows.

torch alone stays as it is pinned: older ones may come with the CUDA libraries, gigabytes that no test here uses.
`make test-gpu` and `make test-python` take whatever torch an interpreter has.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
EXTRAS = ("demo", "retrieval")


def lowest(requirements: list[str]) -> dict[str, str]:
    """Name → version, of requirements such as ``numpy>=2.0``; one without a lower bound is an error."""
    found = {}
    for requirement in requirements:
        bound = re.fullmatch(r"([\w.-]+)[>=]=([\w.]+)", requirement)
        if bound is None:
            raise SystemExit(f"A dependency should have a lower bound alone, as in numpy>=2.0. Found {requirement}.")
        found[bound[1].lower()] = bound[2]
    return found


def main() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]]
    bounds = lowest(project["dependencies"] + extras)
    del bounds["torch"]
    pinned = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    others = [line for line in pinned if "==" in line and line.split("==")[0].lower() not in bounds]
    print("\n".join(others + [f"{name}=={version}" for name, version in bounds.items()]))


if __name__ == "__main__":
    main()
