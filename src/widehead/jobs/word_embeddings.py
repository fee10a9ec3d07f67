"""Word embeddings: a word in, all the words around it out."""

from typing import Any

import numpy as np
import torch
from torch import nn

from widehead.data import END, CooccurrenceExamples, Examples, cooccurrences, information
from widehead.jobs.words import WordJob
from widehead.kinds import word_embeddings as kind
from widehead.models import WordEncoder, positive_eigenpairs
from widehead.options import TrainingConfig

_BASIS = 4  # dimensions of the space that the start is found in, in widths
_POWER = 0.75  # a of the start: small powers 1 - a of the eigenvalues in the embeddings are good for similarity


class WordEmbeddings(kind.WordEmbeddings, WordJob):
    """A word in, all the words around it out; the rows of the output layer are the embeddings.

    The targets of a word are its row of the matrix of positive pointwise mutual information. A word's hidden layer
    starts as its row of UΛ^a, from the largest positive eigenvalues Λ of that matrix. The output layer that fits all
    D·D pairs best is then near UΛ^(1−a), and one pass of Newton's method finds it.
    """

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        return WordEncoder(len(self.words), config.width)

    def examples(self, ids: np.ndarray) -> CooccurrenceExamples:
        ends, unknown = self.words.id(END), [self.words.unknown_id]
        counts = cooccurrences(ids, len(self.words), self.config.window, end=ends, without=unknown)
        return CooccurrenceExamples(information(counts, self.config.smoothing))

    @torch.no_grad()
    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Words' rows of UΛ^a."""
        assert isinstance(examples, CooccurrenceExamples)
        assert isinstance(encoder, WordEncoder)
        rows, width = encoder.embeddings.weight, config.width
        values, vectors = positive_eigenpairs(examples.matrix, width, basis=_BASIS * width, seed=config.seed)
        rows.copy_(vectors * values.pow(_POWER))
