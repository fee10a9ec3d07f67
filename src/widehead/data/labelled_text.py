"""Labelled texts, ``label label<TAB>text`` a line.

A header and a second tab on every line are refused, as they are of a table with other columns.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from widehead.data.files import FilePath, open_text, shortened
from widehead.data.labels import LabelSchema, MultiLabel, assemble
from widehead.data.sparse import CSR
from widehead.data.text_features import TextFeatures
from widehead.data.vocabulary import Vocabulary, name_order
from widehead.errors import DataError
from widehead.split import Share

_LABEL_NAMES = {"label", "labels", "tag", "tags", "category", "categories", "class", "topic", "topics", "subject"}
_TEXT_NAMES = {"text", "texts", "document", "title", "body", "content", "description", "abstract", "sentence"}


class LabelLists:
    """Labels of rows as they are read: keys in order of appearance, and ids of the rows of a share, or of all."""

    def __init__(self, share: Share | None = None) -> None:
        self.keys: dict[str, int] = {}
        self.share, self._counts, self.texts_with_tabs, self._rows = share, array("q"), 0, 0
        self.ids, self.ends = array("q"), array("q", [0])

    def texts(self, path: FilePath, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
        """The texts; their labels are kept here."""
        for number, line in lines:
            labels, tab, text = line.partition("\t")
            if not tab:
                if not line.strip():
                    continue
                raise DataError(f"{path}, line {number}: expected 'label label<tab>text'. Found no tab.")
            if len(self) == 0:
                _refuse_header(path, number, labels, text)
            self.texts_with_tabs += "\t" in text
            self.add(labels.split())
            yield text
        if self.texts_with_tabs == len(self) > 0:
            raise DataError(
                f"{path}: expected one tab a line, 'label label<tab>text'. Found two or more on every line; leave out "
                "columns that are neither labels nor text."
            )

    def add(self, labels: Iterable[str]) -> None:
        """Those of one more row."""
        ids = [self.keys.setdefault(key, len(self.keys)) for key in labels]
        if self.share is not None:
            self._counts.extend([0] * (len(self.keys) - len(self._counts)))
            for number in ids:
                self._counts[number] += 1
        if self.share is None or self.share.holds(self._rows):
            self.ids.extend(ids)
            self.ends.append(len(self.ids))
        self._rows += 1

    @property
    def counts(self) -> np.ndarray:
        """How often each key is on a row, of all."""
        if self.share is not None:
            return np.array(self._counts, dtype=np.int64)
        return np.bincount(np.array(self.ids, dtype=np.int64), minlength=len(self.keys))

    def by_frequency(self) -> Vocabulary:
        """The keys in the order of ``name_order``."""
        keys = list(self.keys)
        return Vocabulary(keys[i] for i in name_order(keys, self.counts))

    def beside(self, source: str, features: CSR, schema: LabelSchema) -> MultiLabel:
        """Documents with these labels; those that the schema's keys lack have no column."""
        assert schema.keys is not None
        column = schema.keys.ids(self.keys)
        ids = np.array(self.ids, dtype=np.int64)
        unknown = column[ids] < 0
        # Unknown labels keep numbers of their own, so that each counts once in a row.
        label = np.where(unknown, schema.num_labels + ids, column[ids])
        return assemble(source, features, self.ends, label, unknown, schema, len(self))

    def __len__(self) -> int:
        return self._rows


def read_labelled_text(
    path: FilePath,
    lines: Iterator[tuple[int, str]],
    schema: LabelSchema | None,
    labels_path: FilePath | None,
    minimum: int,
    max_features: int,
    share: Share | None = None,
) -> MultiLabel:
    """Read numbered lines, as ``read_multilabel`` says; without a schema, words and labels become the columns."""
    labels = LabelLists(share)
    texts, doubt = labels.texts(path, lines), ""
    if schema is None:
        text, features = TextFeatures.fit(texts, minimum=minimum, max_features=max_features, share=share)
        if len(text.words) == 0:
            raise DataError(f"{path}: expected texts after the tabs. Found no word.")
        doubt = _doubt(labels, features)
        keys = labels.by_frequency()
        schema = LabelSchema(len(text.words), len(keys), keys, names_of(path, keys, labels_path), text)
    elif schema.text is None or schema.keys is None:
        raise DataError(f"{path}: expected XC text, as the training file is. Found 'label label<tab>text'.")
    else:
        features = schema.text.transform(texts, share)
    return replace(labels.beside(str(path), features, schema), doubt=doubt)


def _refuse_header(path: FilePath, line: int, labels: str, text: str) -> None:
    cells = [cell.strip().lower() for cell in (labels, *text.split("\t"))]
    if _LABEL_NAMES & set(cells) and _TEXT_NAMES & set(cells):
        raise DataError(
            f"{path}, line {line}: expected 'label label<tab>text'. Found a header; leave it out, and put labels first."
        )


def _doubt(labels: LabelLists, features: CSR) -> str:
    """What speaks for columns the wrong way round, or for an id as the label."""
    once = int((labels.counts == 1).sum())
    if once > len(labels.keys) / 2 and once > 1:
        return f"; {once:,} of {len(labels.keys):,} labels occur once: are they the text, or ids?"
    if len(labels.ids) > 2 * features.nnz:
        return f"; {len(labels.ids):,} labels stand before {features.nnz:,} words: are they the text?"
    return ""


def names_of(source: FilePath, keys: Iterable[str], labels_path: FilePath | None) -> list[str] | None:
    """The lines of labels.txt that the keys number."""
    if labels_path is None:
        return None
    with open_text(labels_path) as lines:
        names = list(lines)
    written = list(keys)
    for key in written:
        if not (key.isascii() and key.isdigit() and len(key) < 19 and int(key) < len(names)):
            raise DataError(
                f"{source}: expected labels to be numbers of lines of {labels_path}, from 0 to {len(names) - 1}. "
                f"Found the label {shortened(key)}."
            )
    return [names[int(key)] for key in written]
