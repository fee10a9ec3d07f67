"""What TAB completes: names from the tables, and folders of runs. Nothing here imports torch."""

from collections.abc import Callable, Collection
from pathlib import Path

_DEPTH, _LOOKED_AT = 3, 2000  # folders within folders that runs are looked for in, and how many at most


def one_of(names: Collection[str]) -> Callable[[], list[str]]:
    """Completes a name."""
    return lambda: list(names)


def some_of(names: Collection[str]) -> Callable[[str], list[str]]:
    """Completes the last of several names with commas between them."""

    def completed(incomplete: str) -> list[str]:
        before, comma, _ = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names]

    return completed


def run_folders(incomplete: str) -> list[str]:
    """Run folders that begin so, those within folders too."""
    base = incomplete[: incomplete.rfind("/") + 1]
    found: list[str] = []
    waiting = [(Path(base), base, _DEPTH)]
    for _ in range(_LOOKED_AT):
        if not waiting:
            break
        folder, name, depth = waiting.pop(0)
        if (folder / "config.json").is_file() and name != base:
            found.append(name.removesuffix("/"))
        elif depth > 0:
            waiting += [(path, f"{name}{path.name}/", depth - 1) for path in _folders(folder)]
    return sorted(found)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:  # one that may not be read
        return []
