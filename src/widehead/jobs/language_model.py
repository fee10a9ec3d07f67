"""Language models: the words before in, the next word out. N-gram networks (section 3 of the paper), or sequences."""

import math
from typing import Any

import numpy as np
from torch import nn

from widehead.data import END, Examples, Histories, NgramExamples, SequenceExamples, SharedExamples
from widehead.jobs.judging import Given, WordTest
from widehead.jobs.network import sequence_encoder
from widehead.jobs.words import TextPart, WordJob
from widehead.kinds import language_model as kind
from widehead.models import ContextEncoder
from widehead.options import TrainingConfig
from widehead.split import Runs, Share

_Cut = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class LanguageModel(kind.LanguageModel, WordJob):
    """The words before in, the next word out.

    Encoders other than ngram read the text in pieces of ``context`` words, and predict at each place of a piece. Of
    several processes each has a run of neighbouring words or pieces, with the words before that it needs.
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
        return self.part(len(ids)).made(ids)

    def part(self, total: int, share: Share | None = None) -> TextPart:
        if self._by_places:
            starts = np.arange(0, total, self.context)
            return self._pieces((starts, np.minimum(starts + self.context, total) + 1, None), share)
        first, end = (0, total) if share is None else share.run_of(total)
        begin, before = max(first - self.context, 0), self.words.id(END)

        def made(ids: np.ndarray) -> Examples:
            return _shared(NgramExamples(ids, self.context, before=before), share, total, begin)

        return TextPart((begin, end), made)

    def judged_part(self, total: int, share: Share | None = None) -> TextPart:
        """Each word is judged once; of a piece the last half, so that none but the first ones lack words before."""
        if not self._by_places:
            return self.part(total, share)
        first = np.arange(0, total, self._half)
        last = np.minimum(first + self._half, total)
        return self._pieces((np.maximum(last - self.context, 0), last + 1, last - first), share)

    @property
    def _half(self) -> int:
        """Of a piece's places."""
        return math.ceil(self.context / 2)

    def _pieces(self, cut: _Cut, share: Share | None) -> TextPart:
        """Pieces of a text that begins with the end of a line: starts, ends and how many last places are asked for."""
        count = len(cut[0])
        first, end = (0, count) if share is None else share.run_of(count)
        starts, ends, asked = (None if part is None else part[first:end] for part in cut)
        assert starts is not None
        assert ends is not None
        begin, stop = (int(starts[0]), int(ends[-1])) if len(starts) else (0, 1)
        line_end = self.words.id(END)

        def made(ids: np.ndarray) -> Examples:
            text = ids if begin > 0 else np.concatenate([np.array([line_end], dtype=ids.dtype), ids])
            return _shared(SequenceExamples(text, starts - begin, ends - begin, asked), share, count, first)

        return TextPart((max(begin - 1, 0), stop - 1), made)

    def _tested(self, examples: Examples, reading: str, *, fits: bool = True) -> WordTest:
        return WordTest(examples, reading, fits, places=self._half if self._by_places else 1)

    def given(self, data: Any) -> Given:
        """Lines of words, of which the last ones count; before the first word a line ends."""
        found = super().given(data)
        if not self._by_places:
            return found
        missing = np.logical_and.accumulate(found.rows == self.words.id(END), axis=1).sum(axis=1)
        lengths = np.minimum(self.context - missing + 1, self.context)
        ids = found.rows[np.arange(self.context) >= self.context - lengths[:, None]]
        return Given(found.names, Histories(ids, np.cumsum([0, *lengths]), self.context), found.known)


def _shared(examples: Examples, share: Share | None, total: int, origin: int) -> Examples:
    """Those of a share among ``total``, of which number ``origin`` is the first one here; or all."""
    return examples if share is None else SharedExamples(examples, Runs(share, total, origin))
