"""Readers: files to batches of inputs and SparseTargets."""

from widehead.data.batches import Batch, Batches, Examples, RowExamples, SharedExamples
from widehead.data.cooccurrences import CooccurrenceExamples, cooccurrences, following, information, sided_information
from widehead.data.demo import read_thesaurus
from widehead.data.files import open_text
from widehead.data.interactions import Interactions, Pair, pair, read_interactions
from widehead.data.labels import LabelSchema, MultiLabel
from widehead.data.multilabel import read_multilabel
from widehead.data.sequence_examples import Histories, SequenceExamples, pieces
from widehead.data.sessions import Sequences, read_sequences
from widehead.data.sparse import binary, split_rows
from widehead.data.text import END, UNKNOWN, count_words, encode, encode_spans, read_words, subsample
from widehead.data.text_features import TextFeatures
from widehead.data.vocabulary import Vocabulary
from widehead.data.word_tests import read_analogies, read_word_pairs
from widehead.data.words import NgramExamples

__all__ = [
    "END",
    "UNKNOWN",
    "Batch",
    "Batches",
    "CooccurrenceExamples",
    "Examples",
    "Histories",
    "Interactions",
    "LabelSchema",
    "MultiLabel",
    "NgramExamples",
    "Pair",
    "RowExamples",
    "SequenceExamples",
    "Sequences",
    "SharedExamples",
    "TextFeatures",
    "Vocabulary",
    "binary",
    "cooccurrences",
    "count_words",
    "encode",
    "encode_spans",
    "following",
    "information",
    "open_text",
    "pair",
    "pieces",
    "read_analogies",
    "read_interactions",
    "read_multilabel",
    "read_sequences",
    "read_thesaurus",
    "read_word_pairs",
    "read_words",
    "sided_information",
    "split_rows",
    "subsample",
]
