"""Examples from a text of word ids: the next word after a context, and the words around a word.

Letters: n words of the text, m examples of a batch, C words of context.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from widehead.targets import SparseTargets

__all__ = ["NgramExamples", "SkipgramExamples"]


class NgramExamples:
    """Predict each word from the C words before it: inputs (m, C) int64, one target an example.

    Args:
        ids: (n,) word ids of the text; example i has the target ids[i].
        context: C, at least 1.
        before: word id that stands before the start of the text; the end of a sentence is the natural one.

    Raises:
        ValueError: ids are not an (n,) integer array, or a parameter is out of range.
    """

    def __init__(self, ids: np.ndarray, context: int, *, before: int) -> None:
        _check_ids(ids)
        _check_positive("context", context)
        if before < 0:
            raise ValueError(f"Parameter `before` should be a word id, at least 0. Found {before}.")
        self.context = context
        dtype = np.promote_types(ids.dtype, np.min_scalar_type(before))
        self._padded = np.concatenate([np.full(context, before, dtype=dtype), ids])

    def __len__(self) -> int:
        return len(self._padded) - self.context

    def batch(self, rows: np.ndarray) -> tuple[Tensor, SparseTargets]:
        """Contexts (m, C), oldest word first, and the next words of the examples ``rows`` (m,)."""
        window = self._padded[rows[:, None] + np.arange(self.context + 1)].astype(np.int64)
        return torch.from_numpy(window[:, :-1].copy()), SparseTargets.from_ids(torch.from_numpy(window[:, -1].copy()))


class SkipgramExamples:
    """Predict the words around a word: inputs (m, 1) int64, up to 2·window targets an example.

    Args:
        ids: (n,) word ids of the text; example i has the input ids[i].
        window: how many words on either side are targets, at least 1.
        end: word id that ends a sentence: windows do not reach beyond it and it is neither input nor target.
            None: the text is one sentence.

    Raises:
        ValueError: ids are not an (n,) integer array, or ``window`` is below 1.
    """

    def __init__(self, ids: np.ndarray, window: int, *, end: int | None = None) -> None:
        _check_ids(ids)
        _check_positive("window", window)
        sentences = np.zeros(len(ids), dtype=np.int32) if end is None else np.cumsum(ids == end, dtype=np.int32)
        kept = slice(None) if end is None else ids != end
        # Padded on both sides by words of no sentence, so that every window has 2·window + 1 places.
        self._ids = np.pad(ids[kept], window)
        self._sentences = np.pad(sentences[kept], window, constant_values=-1)
        self._steps = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
        self.window = window

    def __len__(self) -> int:
        return len(self._ids) - 2 * self.window

    def batch(self, rows: np.ndarray) -> tuple[Tensor, SparseTargets]:
        """Centre words (m, 1) and the words around them of the examples ``rows`` (m,)."""
        centres = rows + self.window
        places = centres[:, None] + self._steps
        inside = self._sentences[places] == self._sentences[centres][:, None]
        targets = self._ids[places][inside].astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
        return torch.from_numpy(self._ids[centres].astype(np.int64)[:, None]), SparseTargets(targets, offsets)


def _check_ids(ids: np.ndarray) -> None:
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"Parameter `ids` should be an (n,) array of integers. Found {ids.dtype} {ids.shape}.")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"Parameter `{name}` should be at least 1. Found {value}.")
