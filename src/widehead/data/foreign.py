"""Formats of other programs, told by the first lines of a text file and refused by name, with what to do."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from widehead.data.files import FilePath
from widehead.errors import DataError

NumberedLines = Sequence[tuple[int, str]]

_MOST = 0.9  # of the lines, for what single lines may be by chance
_JSON = re.compile(r"""\{\s*(?:u?(["']).*?\1\s*:.*)?|\[\s*(?:\{.*)?""")
_WEIGHTED = re.compile(r"\d+(?::\d+)?:[-+]?[\d.]+(?:[eE][-+]?\d+)?")


def _is_json(line: str) -> bool:
    if _JSON.fullmatch(line):
        return True
    try:
        return line.startswith("[") and isinstance(json.loads(line.rstrip(",")), list)
    except (ValueError, RecursionError):
        return False


def _starts(pattern: str) -> Callable[[str], bool]:
    return lambda line: re.match(pattern, line, re.IGNORECASE) is not None


_JSON_SAID = "JSON; write what it holds as plain lines, as with jq -r"
# Told by the first line. Plain text may begin like the second ones.
_PACKED: list[tuple[str, Callable[[str], bool]]] = [
    ("a MatrixMarket file; write its entries as 'row,column' lines (scipy.io.mmread reads it)", _starts("%%MatrixM")),
    ("an RTF document; save it as plain text", _starts(r"\{\\rtf")),
    ("a pointer of Git LFS; get the file itself by git lfs pull", _starts(r"version https://git-lfs")),
]
_TABLES: list[tuple[str, Callable[[str], bool]]] = [
    (_JSON_SAID, _is_json),
    ("a web page or XML; get the data themselves", _starts(r"<(?:\?xml|!doctype|html|head|body|mediawiki|rss)\b")),
    ("RDF triples; write them as a table", _starts(r"<[^>\s]+>\s+<[^>\s]+>\s.*\.\s*$")),
    ("ARFF; take the rows after @data as CSV", _starts(r"@(?:relation|attribute|data)\b")),
    ("SQL; export the table as CSV", _starts(r"(?:insert into|create table|drop table)\s")),
    ("YAML; write what it holds as a table", _starts(r"---\s*$|- \w+:\s")),
    ("a comment; leave such lines out", _starts(r"(?:#|%|//|--|;)(?:\s|$)|##|%%")),
]


def refuse_foreign(path: FilePath, lines: NumberedLines, expected: str, *, text: bool = False) -> None:
    """DataError if the first lines are of a format that is neither ours nor, if ``text``, plain text."""
    found = _foreign(lines, text) if lines else None
    if found is not None:
        raise DataError(f"{path}, line {lines[0][0]}: expected {expected}. Found {found}.")


def _foreign(lines: NumberedLines, text: bool) -> str | None:
    """What the lines are, and what to do."""
    first = lines[0][1].strip()
    for what, is_so in _PACKED if text else _PACKED + _TABLES:
        if is_so(first):
            return what
    if text:
        return _JSON_SAID if _mostly(_is_json, lines) else None
    if _mostly(_is_weighted, lines) and any(len(line.split()) > 2 for _, line in lines):
        return (
            "'label index:value …' rows as of libsvm; a multilabel job reads them as 'label,label index:value …' "
            "after the header 'rows features labels'"
        )
    return None


def refuse_separators(path: FilePath, lines: NumberedLines, *, table: bool) -> None:
    """DataError if the columns of a file are separated by ';', '|' or '::'.

    Args:
        table: whether there are tabs or commas too, so that a name such as 'site|17' is no two columns.
    """
    for separator, least in (("::", 1), (";", 1), ("|", 2 if table else 1)):
        if _separates(separator, least, [line for _, line in lines], table):
            raise DataError(
                f"{path}, line {lines[0][0]}: expected columns separated by tabs or commas, or lists "
                f"'user item item …'. Found {separator!r} between the columns; put tabs there."
            )


def _separates(separator: str, least: int, lines: Sequence[str], table: bool) -> bool:
    """Whether most lines (or in lists, most first names) hold the same number of separators, at least ``least``."""
    count, times = _commonest(line.count(separator) for line in lines)
    alike = count >= least and times >= _MOST * len(lines) and (len(lines) > 2 or count > 1)
    if table:
        return alike
    rows = [line.split() for line in lines]
    count, times = _commonest(row[0].count(separator) for row in rows)
    in_items = [name.count(separator) for row in rows for name in row[1:]]
    are_names = len(in_items) > len(rows) and min(in_items) > 0
    return (count > 0 and times > len(rows) / 2) or (alike and not are_names)


def _commonest(counts: Iterable[int]) -> tuple[int, int]:
    """The most common of some numbers, and how often it occurs."""
    return Counter(counts).most_common(1)[0]


def _is_weighted(line: str) -> bool:
    """Whether a line is 'labels index:value index:value …' with rising indices."""
    labels, *pairs = line.split()
    if not pairs or not re.fullmatch(r"[-+]?\d+(?:[.,]\d+)*", labels) or not all(map(_WEIGHTED.fullmatch, pairs)):
        return False
    indices = [int(pair.partition(":")[0]) for pair in pairs]
    return all(a < b for a, b in itertools.pairwise(indices))


def _mostly(is_so: Callable[[str], bool], lines: NumberedLines) -> bool:
    return sum(is_so(line.strip()) for _, line in lines) >= _MOST * len(lines)
