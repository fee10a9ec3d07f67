"""Documents with labels: XC repository text and ``label label<TAB>text``.

The first line that is not blank tells the format: three integers are the header "rows features labels" of XC text,
whose rows are "l1,l2 f:v f:v" (a row without labels starts with a space); a tab is the other format.
"""

import itertools

from widehead.data.files import FilePath, first_filled, first_lines, open_text, shortened
from widehead.data.foreign import refuse_foreign
from widehead.data.labelled_text import read_labelled_text
from widehead.data.labels import LabelSchema, MultiLabel
from widehead.data.xc import read_xc, xc_header
from widehead.errors import DataError
from widehead.split import Share

_EXPECTED = "the header 'rows features labels' of XC text, or a line 'label label<tab>text'"


def read_multilabel(
    path: FilePath,
    *,
    schema: LabelSchema | None = None,
    labels_path: FilePath | None = None,
    minimum_documents: int = 2,
    max_features: int = 200_000,
    share: Share | None = None,
) -> MultiLabel:
    """Read documents with labels; the format is told by the content, as the module says.

    Of text, the features are tf-idf weights (``TextFeatures``) and the labels' columns go by number if all labels are
    numbers, else by frequency. Of XC text, a feature that a row names twice counts with the sum.

    Args:
        path: the file, plain or compressed by gzip, xz or zstd.
        schema: of the training file, to read a test file with the same columns.
        labels_path: names of the labels, one a line: line i (from 0) names the label written i.
        minimum_documents, max_features: which words are features; see ``TextFeatures.fit``.
        share: of the documents, by their numbers; others are left out while the file is read. None for all.

    Raises:
        DataError: a file cannot be read or is not what it should be; names the line.
    """
    with open_text(path) as lines:
        skipped, first = first_filled(lines)
        if header := xc_header(path, skipped + 1, first):
            return read_xc(path, header, enumerate(lines, skipped + 2), schema, labels_path, share)
        refuse_foreign(path, first_lines(path), _EXPECTED)
        if "\t" in first:
            rows = enumerate(itertools.chain([first], lines), skipped + 1)
            return read_labelled_text(path, rows, schema, labels_path, minimum_documents, max_features, share)
    raise DataError(f"{path}, line {skipped + 1}: expected {_EXPECTED}. Found {shortened(first)}.")
