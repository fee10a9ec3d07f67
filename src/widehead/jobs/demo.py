"""The demo: a recommender of synonyms, trained on the Moby thesaurus; and what it is compared with."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widehead.data import Interactions, binary, open_text, read_interactions, read_thesaurus
from widehead.data.files import is_file
from widehead.data.sparse import CSR, csr_from_pairs
from widehead.errors import DataError
from widehead.heads import ExactHead
from widehead.jobs.base import Prediction
from widehead.jobs.judging import Given, ranked
from widehead.jobs.recommender import Recommender
from widehead.kinds import demo as kind
from widehead.losses import SquaredError
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.split import Share
from widehead.targets import Inputs


class Demo(kind.Demo, Recommender):
    """Synonyms in, synonyms out; each word of the thesaurus is a user."""

    @classmethod
    def interactions(cls, config: TrainingConfig, data: Any, share: Share | None = None) -> Interactions:
        return read_interactions(read_thesaurus(), share=share)

    def hidden(self, words: Sequence[str]) -> list[set[str]]:
        """The synonyms of some words that were held out of the training data."""
        thesaurus = read_thesaurus()
        held = (binary(thesaurus.matrix) - self.train.matrix).tocsr()
        held.eliminate_zeros()
        rows = {name: row for row, name in enumerate(thesaurus.users)}
        return [{thesaurus.items[c] for c in held[rows[word]].indices} for word in words]

    def predict(self, network: WideNetwork, data: Any, k: int) -> Iterator[Prediction]:
        """``suggest`` for words or phrases, one a line of a file; DataError names an unknown one, and its line."""
        words = list(self._words(data))
        if not words:
            raise DataError(f"{data}: expected a word on each line. Found none.")
        return self.suggest(network, words, k)

    def _words(self, data: Any) -> Iterator[str]:
        roots = set(self.train.users)
        with open_text(data) if is_file(data) else nullcontext(data) as lines:
            for number, word in enumerate(map(str.strip, lines), 1):
                if word and word not in roots and word not in self.train.items:
                    place = f"{data}, line {number}: e" if is_file(data) else "E"
                    raise DataError(f"{place}xpected a word of the thesaurus. Found {word[:60]!r}.")
                if word:
                    yield word

    def suggest(self, network: WideNetwork, words: Sequence[str], k: int) -> Iterator[Prediction]:
        """New synonyms for each word, best first: of a root, from those it is known to have; else from the word."""
        names = self.train.items
        # One more is asked for, as the word itself may be among them.
        given = Given.bags(words, _inputs(self.train, words))
        for word, (classes, scores) in zip(words, ranked(network, given, k + 1, exclude_inputs=True), strict=True):
            found = [(names[c], s) for c, s in zip(classes, scores, strict=True) if names[c] != word][:k]
            yield Prediction(word, [name for name, _ in found], [score for _, score in found])


def _inputs(known: Interactions, words: Sequence[str]) -> CSR:
    """(words, items) the ids that stand for each word."""
    roots = {name: row for row, name in enumerate(known.users)}
    columns = [known.matrix[roots[w]].indices if w in roots else [known.items.id(w)] for w in words]
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
