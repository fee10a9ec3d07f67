"""Readers: files to batches of inputs and SparseTargets."""

from widehead.data.batches import Batch, Batches, Examples, RowExamples
from widehead.data.cooccurrences import CooccurrenceExamples, cooccurrences, information
from widehead.data.demo import read_thesaurus
from widehead.data.files import open_text
from widehead.data.interactions import Interactions, Pair, pair, read_interactions
from widehead.data.labels import LabelSchema, MultiLabel
from widehead.data.multilabel import read_multilabel
from widehead.data.sparse import binary, split_rows
from widehead.data.text import END, UNKNOWN, count_words, encode, read_words, subsample
from widehead.data.text_features import TextFeatures
from widehead.data.vocabulary import Vocabulary
from widehead.data.words import NgramExamples

__all__ = [
    "END",
    "UNKNOWN",
    "Batch",
    "Batches",
    "CooccurrenceExamples",
    "Examples",
    "Interactions",
    "LabelSchema",
    "MultiLabel",
    "NgramExamples",
    "Pair",
    "RowExamples",
    "TextFeatures",
    "Vocabulary",
    "binary",
    "cooccurrences",
    "count_words",
    "encode",
    "information",
    "open_text",
    "pair",
    "read_interactions",
    "read_multilabel",
    "read_thesaurus",
    "read_words",
    "split_rows",
    "subsample",
]
