"""Documents with labels, and what their columns are: the part that all formats share."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from widehead.data.files import FilePath, listed
from widehead.data.sparse import CSR, csr_from_pairs
from widehead.data.text_features import TextFeatures
from widehead.data.vocabulary import Vocabulary
from widehead.errors import DataError, check_whole
from widehead.split import Share


@dataclass(frozen=True)
class LabelSchema:
    """What the columns of features and labels are; a test file is read against that of its training file.

    Attributes:
        num_features: columns of the features.
        num_labels: columns of the labels.
        keys: labels as they are written in the file, or None for XC text, which writes label i as i.
        names: names to show, from labels.txt, or None.
        text: the words that are features, or None for XC text.
    """

    num_features: int
    num_labels: int
    keys: Vocabulary | None = None
    names: list[str] | None = None
    text: TextFeatures | None = None

    def name(self, label: int) -> str:
        """The name of a column of the labels."""
        if self.names is not None:
            return self.names[label]
        return str(label) if self.keys is None else self.keys[label]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {
            "num_features": self.num_features,
            "num_labels": self.num_labels,
            "keys": None if self.keys is None else self.keys.names,
            "names": self.names,
            "text": None if self.text is None else self.text.to_dict(),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> LabelSchema:
        """What ``to_dict`` gave; KeyError, TypeError or ValueError if it is something else."""
        num_features, num_labels, text = saved["num_features"], saved["num_labels"], saved["text"]
        check_whole("num_features", num_features, 0)
        check_whole("num_labels", num_labels, 0)
        for name, names, count in (
            ("keys", saved["keys"], num_labels),
            ("names", saved["names"], num_labels),
            ("words", None if text is None else text["words"], num_features),
        ):
            if names is not None and not _are_names(names, count):
                raise ValueError(f"`{name}` that are not a list of {count} texts")
        keys = None if saved["keys"] is None else Vocabulary(saved["keys"])
        words = None if text is None else TextFeatures.from_dict(text)
        return cls(num_features, num_labels, keys, saved["names"], words)


def _are_names(found: Any, count: int) -> bool:
    return isinstance(found, list) and len(found) == count and all(isinstance(name, str) for name in found)


@dataclass(frozen=True)
class MultiLabel:
    """Documents with labels.

    Attributes:
        features: (m, N) scipy CSR, float32.
        labels: (m, D) scipy CSR, float32 ones.
        unreachable: (m,) int64, for each document the number of distinct labels that have no column.
        schema: what the columns are.
        total: how many documents there are in all, if in several processes ``features``, ``labels`` and
            ``unreachable`` are of a share of them alone.
        doubt: what speaks against the file's being what it was read as, or "".
    """

    features: CSR
    labels: CSR
    unreachable: np.ndarray
    schema: LabelSchema
    total: int
    doubt: str = ""

    def of_share(self, share: Share) -> MultiLabel:
        """With the documents of a share alone."""
        features, labels, unreachable = (part[share.own] for part in (self.features, self.labels, self.unreachable))
        return MultiLabel(features, labels, unreachable, self.schema, self.total, self.doubt)

    def __str__(self) -> str:
        return self.told(self.labels.nnz)

    def told(self, labels: int) -> str:
        """What was read, with so many labels on documents of all shares."""
        schema = self.schema
        features = "features" if schema.text is None else "words"
        first = "" if schema.text is None else f"; first words {listed(schema.text.words)}"
        return (
            f"{self.total:,} documents, {schema.num_features:,} {features}, {schema.num_labels:,} labels, "
            f"{labels:,} of them on documents; "
            f"first labels {listed(schema.name(i) for i in range(min(3, schema.num_labels)))}{first}{self.doubt}"
        )


def assemble(
    path: FilePath,
    features: CSR,
    ends: array[int],
    label: np.ndarray,
    unknown: np.ndarray,
    schema: LabelSchema,
    total: int,
) -> MultiLabel:
    """Documents, of so many in all, whose (nnz,) labels have the ends ``ends``; ``unknown`` ones have no column."""
    num_examples = features.shape[0]
    example = np.repeat(np.arange(num_examples), np.diff(np.asarray(ends)))
    if schema.num_labels == 0 or total == 0:
        raise DataError(f"{path}: expected labels. Found none.")
    lost = np.unique(np.stack([example[unknown], label[unknown]]), axis=1)[0]
    return MultiLabel(
        features=features,
        labels=csr_from_pairs(example[~unknown], label[~unknown], None, (num_examples, schema.num_labels)),
        unreachable=np.bincount(lost, minlength=num_examples).astype(np.int64),
        schema=schema,
        total=total,
    )
