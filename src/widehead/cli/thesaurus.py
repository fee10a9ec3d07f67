"""What the demo's network suggests for words of the thesaurus, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widehead.data import Interactions, open_text
from widehead.data.sparse import CSR, csr_from_pairs
from widehead.errors import DataError
from widehead.heads import ExactHead
from widehead.losses import SquaredError
from widehead.models import WideNetwork
from widehead.targets import Inputs
from widehead.training import Prediction, Run
from widehead.training.judging import ranked_rows
from widehead.training.recommender import Recommender

__all__ = ["known_synonyms", "popularity_network", "suggest", "suggest_for_lines"]


def known_synonyms(run: Run) -> Interactions:
    """The pairs of a demo run that it was trained on."""
    assert isinstance(run.job, Recommender)
    return run.job.train


def suggest_for_lines(run: Run, path: Path, k: int) -> Iterator[Prediction]:
    """``suggest`` for a file with one word or phrase a line. Raises DataError, with the line, for an unknown one."""
    known = known_synonyms(run)
    roots = set(known.users)
    words: list[str] = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            word = line.strip()
            if word and word not in roots and word not in known.items:
                raise DataError(f"{path}, line {number}: expected a word of the thesaurus. Found {word[:60]!r}.")
            words += [word] if word else []
    if not words:
        raise DataError(f"{path}: expected a word on each line. Found none.")
    return suggest(run, words, k)


def suggest(run: Run, words: Sequence[str], k: int) -> Iterator[Prediction]:
    """New synonyms for each word, best first: of a root, from the synonyms it is known to have; else from the word."""
    known = known_synonyms(run)
    # One more is asked for, as the word itself may be among them.
    for row, classes, scores in ranked_rows(run.network, _inputs(known, words), k + 1, exclude_inputs=True):
        found = [(known.items[c], s) for c, s in zip(classes, scores, strict=True) if known.items[c] != words[row]][:k]
        yield Prediction(words[row], [name for name, _ in found], [score for _, score in found])


def _inputs(known: Interactions, words: Sequence[str]) -> CSR:
    """(words, items) the ids that stand for each word."""
    roots = {name: row for row, name in enumerate(known.users)}
    matrix = known.matrix
    columns = [
        matrix.indices[matrix.indptr[roots[w]] : matrix.indptr[roots[w] + 1]]
        if w in roots
        else np.array([known.items.id(w)])
        for w in words
    ]
    rows = np.repeat(np.arange(len(words)), [len(ids) for ids in columns])
    return csr_from_pairs(rows, np.concatenate(columns), None, (len(words), len(known.items)))


class _Nothing(nn.Module):
    """Forgets its input: (m, 1) ones."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.one.expand(len(inputs), 1)


def popularity_network(matrix: Any) -> WideNetwork:
    """Ranks the columns of a (rows, D) matrix of pairs by how many pairs they are in, whatever the input."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    head = ExactHead(1, len(counts), SquaredError())
    head.load_weight(torch.from_numpy(counts)[:, None].to(head.dtype))
    return WideNetwork(_Nothing(), head)
