"""N-gram language models: the words before in, the next word out (section 3 of the paper)."""

import numpy as np
from torch import nn

from widehead.data import END, Examples, NgramExamples
from widehead.jobs.words import WordJob
from widehead.kinds import language_model as kind
from widehead.models import ContextEncoder
from widehead.options import TrainingConfig


class LanguageModel(kind.LanguageModel, WordJob):
    """The words before in, the next word out."""

    @property
    def context(self) -> int:
        return self.config.context

    def encoder(self, config: TrainingConfig) -> nn.Module:
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
        return NgramExamples(ids, self.context, before=self.words.id(END))
