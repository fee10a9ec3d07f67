"""The text format of the Extreme Classification repository: "rows features labels", then "l1,l2 f:v f:v" a row.

scikit-learn's svmlight reader takes two thirds of the time (0.3 s for 20,780 rows, and a second to import), but it
reads what stands after '#' or 'qid' differently and checks neither ranges nor the header: our own code stays.
"""

import re
from array import array
from collections.abc import Iterator

import numpy as np
import scipy.sparse

from widehead.data.files import FilePath, finite, open_text, shortened
from widehead.data.labels import LabelSchema, MultiLabel, assemble
from widehead.errors import DataError
from widehead.split import Share

_HEADER = re.compile(r"\s*(\d{1,18})\s+(\d{1,18})\s+(\d{1,18})\s*")
_LIMIT = 2**31 - 1
_LARGEST = 1e30  # sums of repeated features stay finite in float32


class _XC:
    """Rows of XC text as they are read."""

    def __init__(self, num_features: int, num_labels: int) -> None:
        self.num_features, self.num_labels = num_features, num_labels
        self.labels, self.features, self.values = array("q"), array("q"), array("d")
        self.label_ends, self.feature_ends = array("q", [0]), array("q", [0])

    def add(self, line: str) -> None:
        """Raises ValueError, saying what was expected and found."""
        if "_" in line:  # int() and float() would take 1_000
            raise ValueError("expected numbers. Found '_'")
        labels, _, features = line.partition(" ")
        if labels.strip():
            self.labels.extend([_index(label, self.num_labels, "label") for label in labels.split(",")])
        for pair in features.split():
            feature, colon, value = pair.partition(":")
            if not colon:
                raise ValueError(f"expected feature:value. Found {shortened(pair)}")
            self.features.append(_index(feature, self.num_features, "feature"))
            self.values.append(finite(value, _LARGEST, "a finite value of a feature"))
        self.label_ends.append(len(self.labels))
        self.feature_ends.append(len(self.features))

    def __len__(self) -> int:
        return len(self.label_ends) - 1


def read_xc(
    path: FilePath,
    header: tuple[int, int, int],
    lines: Iterator[tuple[int, str]],
    schema: LabelSchema | None,
    labels_path: FilePath | None,
    share: Share | None = None,
) -> MultiLabel:
    """Read the numbered lines after the header, as ``read_multilabel`` says.

    A ``schema`` with another number of features is refused; labels beyond it are unreachable.
    """
    _, num_features, num_labels = header
    schema = schema or LabelSchema(num_features, num_labels, names=_names(labels_path, num_labels))
    if schema.text is not None or schema.num_features != num_features:
        expected = "label<tab>text" if schema.text is not None else f"{schema.num_features} features"
        raise DataError(
            f"{path}: expected {expected}, as in the training file. Found XC text of {num_features} features."
        )
    rows = _rows(path, header, lines, share)
    features = scipy.sparse.csr_matrix(
        (np.array(rows.values, dtype=np.float32), np.array(rows.features), np.array(rows.feature_ends)),
        shape=(len(rows), num_features),
    )
    features.sum_duplicates()
    label = np.array(rows.labels, dtype=np.int64)
    return assemble(path, features, rows.label_ends, label, label >= schema.num_labels, schema, header[0])


def xc_header(path: FilePath, line: int, text: str) -> tuple[int, int, int] | None:
    """Numbers of rows, features and labels, or None if this is no header; DataError if one is 0 or too large."""
    found = _HEADER.fullmatch(text)
    if found is None:
        return None
    rows, features, labels = (int(n) for n in found.groups())
    if max(features, labels) > _LIMIT or min(rows, features, labels) < 1:
        raise DataError(
            f"{path}, line {line}: expected 'rows features labels', each at least 1 and the last two at most {_LIMIT}. "
            f"Found {shortened(text)}."
        )
    return rows, features, labels


def _rows(path: FilePath, header: tuple[int, int, int], lines: Iterator[tuple[int, str]], share: Share | None) -> _XC:
    """All rows, or those of a share, which alone are looked at."""
    promised, num_features, num_labels = header
    rows, read = _XC(num_features, num_labels), 0
    for number, line in lines:
        try:
            if read >= promised and line.strip():
                raise ValueError(f"expected {promised} rows, as the header says. Found more")
            if read < promised and (share is None or share.holds(read)):
                rows.add(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
        read += read < promised
    if read < promised:
        raise DataError(f"{path}: expected {promised} rows, as the header says. Found {read}.")
    return rows


def _index(text: str, limit: int, what: str) -> int:
    try:
        index = int(text)
    except ValueError:
        index = -1
    if not 0 <= index < limit:
        raise ValueError(f"expected a {what} id in [0, {limit}). Found {shortened(text)}")
    return index


def _names(labels_path: FilePath | None, num_labels: int) -> list[str] | None:
    if labels_path is None:
        return None
    with open_text(labels_path) as lines:
        names = list(lines)
    if len(names) != num_labels:
        raise DataError(f"{labels_path}: expected {num_labels} lines, one for each label. Found {len(names)}.")
    return names
