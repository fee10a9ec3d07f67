"""Examples from a text of word ids: the next word after a context.

Letters: n words of the text, m examples of a batch, C words of context.
"""

import numpy as np
import torch
from torch import Tensor

from widehead.targets import SparseTargets


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
        check_ids(ids)
        if context < 1:
            raise ValueError(f"Parameter `context` should be at least 1. Found {context}.")
        if before < 0:
            raise ValueError(f"Parameter `before` should be a word id, at least 0. Found {before}.")
        self.context = context
        self.ids, self._before = ids, before

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, SparseTargets]:
        """Contexts (m, C), oldest word first, and the next words of the examples ``rows`` (m,)."""
        places = rows[:, None] + np.arange(-self.context, 1)
        window = self.ids[np.maximum(places, 0)].astype(np.int64)
        window[places < 0] = self._before
        return torch.from_numpy(window[:, :-1].copy()), SparseTargets.from_ids(torch.from_numpy(window[:, -1].copy()))


def check_ids(ids: np.ndarray) -> None:
    """ValueError unless ids are an (n,) array of integers."""
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"Parameter `ids` should be an (n,) array of integers. Found {ids.dtype} {ids.shape}.")
