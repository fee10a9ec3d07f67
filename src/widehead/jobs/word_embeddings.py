"""Word embeddings: a word in, all the words around it out."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from widehead.data import END, CooccurrenceExamples, Examples, SharedExamples, cooccurrences, information
from widehead.jobs.words import TextPart, WordJob
from widehead.kinds import word_embeddings as kind
from widehead.models import SharedSymmetricPart, WordEncoder, positive_eigenpairs
from widehead.options import TrainingConfig
from widehead.split import Share

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

    def examples(self, ids: np.ndarray) -> Examples:
        return self._examples(ids, None)

    def part(self, total: int, share: Share | None = None) -> TextPart:
        """The whole text, as words anywhere in it stand near one's own; of a share its words' rows are kept."""
        return TextPart((0, total), partial(self._examples, share=share))

    def _examples(self, ids: np.ndarray, share: Share | None) -> Examples:
        ends, unknown, size = self.words.id(END), [self.words.unknown_id], len(self.words)
        counts = cooccurrences(ids, size, self.config.window, end=ends, without=unknown, share=share)
        matrix = information(counts, self.config.smoothing, share)
        if share is None:
            return CooccurrenceExamples(matrix)
        return SharedExamples(CooccurrenceExamples(matrix, np.arange(size)[share.own]), share.dealt(size))

    @torch.no_grad()
    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Words' rows of UΛ^a."""
        here = examples.here if isinstance(examples, SharedExamples) else examples
        assert isinstance(here, CooccurrenceExamples)
        assert isinstance(encoder, WordEncoder)
        matrix: Any = here.matrix
        if isinstance(examples, SharedExamples):
            matrix = SharedSymmetricPart(matrix, examples.among.share)
        rows, width = encoder.embeddings.weight, config.width
        values, vectors = positive_eigenpairs(matrix, width, basis=_BASIS * width, seed=config.seed)
        rows.copy_(vectors * values.pow(_POWER))
