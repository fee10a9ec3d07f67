"""Readers: files to batches of inputs and SparseTargets."""

from widehead.data.files import open_text
from widehead.data.interactions import Interactions, Pair, pair, read_interactions
from widehead.data.sparse import binary, split_rows
from widehead.data.vocabulary import Vocabulary

__all__ = ["Interactions", "Pair", "Vocabulary", "binary", "open_text", "pair", "read_interactions", "split_rows"]
