"""Documents with labels that are in memory: texts or features, and a matrix or lists of labels."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from widehead.data.files import FilePath
from widehead.data.labelled_text import LabelLists, names_of
from widehead.data.labels import LabelSchema, MultiLabel
from widehead.data.memory import csr_of, features_of, is_matrix, lists_of, name_of, texts_of
from widehead.data.sparse import CSR
from widehead.data.text_features import TextFeatures
from widehead.errors import DataError


def is_pair(data: Any) -> bool:
    """Whether data are two things, documents and their labels."""
    return isinstance(data, tuple | list) and len(data) == 2


def documents_of(
    inputs: Any,
    labels: Any,
    *,
    schema: LabelSchema | None = None,
    labels_path: FilePath | None = None,
    minimum_documents: int = 2,
) -> MultiLabel:
    """What ``read_multilabel`` gives for a file of the same content.

    Args:
        inputs: (m, N) a matrix of features, or m texts.
        labels: (m, D) a matrix of zeros and ones, whose columns are the labels, called by their numbers; or the labels
            of each document, a list or a single one.
        schema: of the training documents, for others.
        labels_path: names of the labels, one a line: line i (from 0) names the label i.
        minimum_documents: words in fewer documents are no features.

    Raises:
        DataError: they are something else, or of different lengths.
    """
    columns: CSR = csr_of(labels) if is_matrix(labels) else None
    lists = LabelLists() if columns is not None else _lists(labels)
    if schema is None:
        text, features = _fitted(inputs, minimum_documents)
        if lists.keys.keys() == {"0", "1"} and len(lists.ids) == 2 * len(lists):
            raise DataError("Expected labels that tell documents apart. Found 0 and 1 on each; do numpy.array(…).")
        keys = lists.by_frequency() if columns is None else None
        names = range(columns.shape[1]) if keys is None else keys
        shown = names_of("data in memory", map(str, names), labels_path)
        schema = LabelSchema(features.shape[1], len(names), keys, shown, text)
    else:
        features = features_of(inputs, schema)
    count = len(lists) if columns is None else columns.shape[0]
    if features.shape[0] != count:
        raise DataError(f"Expected labels of {features.shape[0]:,} documents. Found those of {count:,}.")
    if columns is None and schema.keys is None:
        raise DataError(f"Expected a matrix of {schema.num_labels:,} labels, as for training. Found lists.")
    if columns is None:
        return lists.beside("data in memory", features, schema)
    return _indicated(features, columns, schema)


def _fitted(inputs: Any, minimum: int) -> tuple[TextFeatures | None, CSR]:
    if is_matrix(inputs):
        features = csr_of(inputs)
        if 0 in features.shape:
            raise DataError(f"Expected documents with features. Found a matrix of shape {features.shape}.")
        return None, features
    text, features = TextFeatures.fit(texts_of(inputs), minimum=minimum)
    if len(text.words) == 0:
        raise DataError("Expected texts. Found no word in them.")
    return text, features


def _indicated(features: CSR, columns: CSR, schema: LabelSchema) -> MultiLabel:
    if columns.shape[1] != schema.num_labels:
        raise DataError(f"Expected {schema.num_labels:,} labels. Found a matrix with {columns.shape[1]:,} columns.")
    if not (columns.data == 1.0).all() or 0 in columns.shape:
        raise DataError("Expected a matrix of zeros and ones for the labels. Found other values, or nothing in it.")
    return MultiLabel(features, columns, np.zeros(columns.shape[0], dtype=np.int64), schema, columns.shape[0])


def _lists(labels: Any) -> LabelLists:
    """Lists of labels; a document with a single label may have that alone."""
    single = (str, bytes)
    several = [row if isinstance(row, Iterable) and not isinstance(row, single) else [row] for row in labels]
    found = LabelLists()
    for row in lists_of(several, "labels, one for each document"):
        found.add([_label(label) for label in row])
    return found


def _label(label: Any) -> str:
    name = name_of(label)
    if name is None:
        raise DataError(f"Expected a name or whole number for each label. Found an empty one, {label!r}.")
    if isinstance(label, float | np.floating) and not label.is_integer():
        raise DataError(f"Expected labels that are names or whole numbers. Found the continuous value {label}.")
    return name
