"""The two jobs on text: n-gram language models, and word embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from widehead.data import (
    END,
    UNKNOWN,
    CooccurrenceExamples,
    Examples,
    NgramExamples,
    Vocabulary,
    cooccurrences,
    count_words,
    encode,
    information,
    read_words,
    subsample,
)
from widehead.errors import DataError
from widehead.models import ContextEncoder, WideNetwork, WordEncoder, positive_eigenpairs
from widehead.training.config import TrainingConfig
from widehead.training.folder import RunFolder
from widehead.training.jobs import Job, JobData, Prediction
from widehead.training.judging import WordTest

__all__ = ["LanguageModel", "WordEmbeddings"]

_BASIS = 4  # dimensions of the space that the start is found in, in widths
_POWER = 0.75  # a of the start: small powers 1 - a of the eigenvalues in the embeddings are good for similarity


class _WordJob(Job):
    """What both share: one vocabulary, for inputs and classes."""

    def __init__(self, words: Vocabulary, config: TrainingConfig) -> None:
        self.words = words
        self.config = config

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": len(self.words), "classes": len(self.words)}

    @classmethod
    def read(cls, config: TrainingConfig) -> JobData:
        assert config.train is not None
        counts = count_words(config.train, config.tokens)
        words = Vocabulary.from_counts(counts, minimum=config.minimum_count, unknown=UNKNOWN, keep=[END])
        job = cls(words, config)
        ids = encode(config.train, words, config.tokens)
        if config.test is not None:
            return JobData(job, job.examples(job._thinned(ids)), job.read_test(config.test))
        kept = len(ids) - round(config.holdout * len(ids))
        test = WordTest(job.examples(ids[kept:])) if kept < len(ids) else None
        return JobData(job, job.examples(job._thinned(ids[:kept])), test)

    @abstractmethod
    def examples(self, ids: np.ndarray) -> Examples:
        """Examples of a text of word ids."""

    def _thinned(self, ids: np.ndarray) -> np.ndarray:
        """Training text without some of its frequent words, where the option says so."""
        threshold = self.config.subsample
        return ids if threshold is None else subsample(ids, threshold, self.config.seed)

    def save(self, folder: RunFolder) -> None:
        folder.keep("words.txt", self.words.save)

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        return cls(Vocabulary.load(folder.vocabulary_path("words.txt"), UNKNOWN), config)

    def read_test(self, path: Path | str) -> WordTest:
        return WordTest(self.examples(encode(path, self.words, self.config.tokens)))

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        first = "perplexity" if self.config.has_probabilities else "mean_rank"
        return [first, *(f"recall@{k}" for k in at)]

    def predict(self, network: WideNetwork, path: Path | str, k: int) -> Iterator[Prediction]:
        """For each line of a text that has words, the best next words (or the best neighbours of its last word)."""
        network.eval()
        device = next(network.encoder.parameters()).device
        lines = list(read_words(path, self.config.tokens))
        if not lines:
            raise DataError(f"{path}: expected words. Found none.")
        for line in lines:
            scores, classes = network.top_k(self._input(line).to(device), k)
            names = [self.words[c] for c in classes[0].tolist()]
            yield Prediction(" ".join(line), names, scores[0].tolist())

    @abstractmethod
    def _input(self, line: list[str]) -> Tensor:
        """(1, C) word ids that stand for a line."""


class LanguageModel(_WordJob):
    """The words before in, the next word out (section 3 of the paper)."""

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
        return NgramExamples(ids, self.config.context, before=self.words.id(END))

    def _input(self, line: list[str]) -> Tensor:
        context = [END] * self.config.context + line
        return torch.from_numpy(self.words.ids(context[-self.config.context :]))[None]


class WordEmbeddings(_WordJob):
    """A word in, all the words around it out; the rows of the output layer are the embeddings.

    The targets of a word are its row of the matrix of positive pointwise mutual information. A word's hidden layer
    starts as its row of UΛ^a, from the largest positive eigenvalues Λ of that matrix. The output layer that fits all
    D·D pairs best is then near UΛ^(1−a), and one pass of Newton's method finds it.
    """

    def encoder(self, config: TrainingConfig) -> nn.Module:
        return WordEncoder(len(self.words), config.width)

    def examples(self, ids: np.ndarray) -> CooccurrenceExamples:
        counts = cooccurrences(
            ids,
            len(self.words),
            self.config.window,
            end=self.words.id(END),
            without=[self.words.unknown_id],
        )
        return CooccurrenceExamples(information(counts, self.config.smoothing))

    @torch.no_grad()
    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Words' rows of UΛ^a."""
        if config.encoder_init != "svd":
            return
        assert isinstance(examples, CooccurrenceExamples)
        assert isinstance(encoder, WordEncoder)
        rows, width = encoder.embeddings.weight, config.width
        values, vectors = positive_eigenpairs(examples.matrix, width, basis=_BASIS * width, seed=config.seed)
        rows.copy_(vectors * values.pow(_POWER))

    def _input(self, line: list[str]) -> Tensor:
        return torch.from_numpy(self.words.ids(line[-1:]))[None]
