"""Word embeddings: a word in, all the words around it out."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from widehead.data import (
    END,
    CooccurrenceExamples,
    Examples,
    SharedExamples,
    cooccurrences,
    following,
    information,
    sided_information,
    subsample,
)
from widehead.data.sparse import CSR
from widehead.jobs.words import TextPart, WordJob
from widehead.kinds import word_embeddings as kind
from widehead.models import SharedSymmetricPart, WordEncoder, word_inputs
from widehead.options import TrainingConfig
from widehead.split import Share


class WordEmbeddings(kind.WordEmbeddings, WordJob):
    """A word in, all the words around it out; the rows of the output layer are the embeddings.

    The targets of a word are its row of the matrix of positive pointwise mutual information. With the start from
    that matrix the places right after and right before a word are inputs too, whose targets are the words that
    stand there in the text that is not thinned: they tell what kind of word one is. Inputs start such that the output
    layer which fits all 3D·D pairs best has good vectors (`word_inputs`), and one pass of Newton's method finds it.
    """

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        inputs = 3 if _is_sided(config) else 1
        return WordEncoder(inputs * len(self.words), config.width)

    def examples(self, ids: np.ndarray) -> Examples:
        return self._made(ids, None)

    def part(self, total: int, share: Share | None = None) -> TextPart:
        """The whole text, as words anywhere in it stand near one's own; of a share its words' rows are examples."""
        return TextPart((0, total), partial(self._trained_on, share=share))

    def judged_part(self, total: int, share: Share | None = None) -> TextPart:
        """Words alone are asked for their contexts, in text that is not thinned."""
        return TextPart((0, total), partial(self._made, share=share))

    def _trained_on(self, ids: np.ndarray, share: Share | None) -> Examples:
        threshold, sided = self.config.subsample, None
        thinned = ids if threshold is None else subsample(ids, threshold, self.config.seed)
        if _is_sided(self.config):
            end, unknown = self.words.id(END), [self.words.unknown_id]
            after = following(ids, len(self.words), end=end, without=unknown)
            sided = sided_information(after, self.config.smoothing)
        return self._made(thinned, share, sided)

    def _made(self, ids: np.ndarray, share: Share | None, sided: CSR | None = None) -> Examples:
        end, unknown, size = self.words.id(END), [self.words.unknown_id], len(self.words)
        counts = cooccurrences(ids, size, self.config.window, end=end, without=unknown, share=share)
        made = CooccurrenceExamples(information(counts, self.config.smoothing, share), sided, share)
        if share is None:
            return made
        return SharedExamples(made, share.dealt_of(np.tile(np.arange(size), 1 if sided is None else 3)))

    @torch.no_grad()
    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Inputs of which the output layer finds word vectors."""
        here = examples.here if isinstance(examples, SharedExamples) else examples
        assert isinstance(here, CooccurrenceExamples)
        assert isinstance(encoder, WordEncoder)
        near: Any = here.near
        if isinstance(examples, SharedExamples):
            near = SharedSymmetricPart(near, examples.among.share)
        encoder.embeddings.weight.copy_(word_inputs(near, here.sided, config.width, config.seed))


def _is_sided(config: TrainingConfig) -> bool:
    """Whether places beside words are inputs: they start from the data, and would be trained for nothing else."""
    return config.encoder_init == "svd"
