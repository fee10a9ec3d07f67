"""Language models: the words before in, the next word out. N-gram networks (section 3 of the paper), or sequences."""

from typing import Any

import numpy as np
from torch import nn

from widehead.data import END, Examples, Histories, NgramExamples, SequenceExamples, pieces
from widehead.jobs.judging import Given, WordTest
from widehead.jobs.network import sequence_encoder
from widehead.jobs.words import WordJob
from widehead.kinds import language_model as kind
from widehead.models import ContextEncoder
from widehead.options import TrainingConfig


class LanguageModel(kind.LanguageModel, WordJob):
    """The words before in, the next word out.

    Encoders other than ngram read the text in pieces of ``context`` words, and predict at each place of a piece.
    """

    @property
    def context(self) -> int:
        return self.config.context

    @property
    def _by_places(self) -> bool:
        return self.config.encoder != "ngram"

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        if self._by_places:
            return sequence_encoder(len(self.words), config, config.embedding)
        return ContextEncoder(
            len(self.words),
            config.context,
            config.width,
            embedding=config.embedding,
            hidden=config.hidden,
            activation=config.activation,
            dropout=config.dropout,
        )

    def examples(self, ids: np.ndarray) -> Examples:
        end = self.words.id(END)
        if not self._by_places:
            return NgramExamples(ids, self.context, before=end)
        return SequenceExamples(np.append(end, ids), *pieces(np.array([0]), np.array([len(ids) + 1]), self.context))

    def _judged(self, ids: np.ndarray, reading: str, *, fits: bool = True) -> WordTest:
        """Each word is judged once; of a piece the last half, so that none but the first ones lack words before."""
        if not self._by_places:
            return super()._judged(ids, reading, fits=fits)
        half = -(-self.context // 2)
        first = np.arange(0, len(ids), half)
        last = np.minimum(first + half, len(ids))
        starts = np.maximum(last - self.context, 0)
        examples = SequenceExamples(np.append(self.words.id(END), ids), starts, last + 1, last - first)
        return WordTest(examples, reading, fits, places=half)

    def given(self, data: Any) -> Given:
        """Lines of words, of which the last ones count; before the first word a line ends."""
        found = super().given(data)
        if not self._by_places:
            return found
        missing = np.logical_and.accumulate(found.rows == self.words.id(END), axis=1).sum(axis=1)
        lengths = np.minimum(self.context - missing + 1, self.context)
        ids = found.rows[np.arange(self.context) >= self.context - lengths[:, None]]
        return Given(found.names, Histories(ids, np.cumsum([0, *lengths]), self.context), found.known)
