"""A job of a made-up kind, in one file: a word without its last letter in, that letter out."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import nn

from widehead.data import RowExamples
from widehead.data.files import is_file
from widehead.data.sparse import CSR, csr_from_pairs
from widehead.jobs import Job, JobData
from widehead.jobs.judging import Given, RankingTest
from widehead.jobs.network import bag_encoder
from widehead.options import Preset, TrainingConfig
from widehead.split import Share
from widehead.training import RunFolder

LETTERS = string.ascii_lowercase


def matrices(words: list[str]) -> tuple[CSR, CSR]:
    """(n, 26) the letters of words but the last, and that one."""
    rows = np.repeat(np.arange(len(words)), [len(word) - 1 for word in words])
    inputs = [LETTERS.index(letter) for word in words for letter in word[:-1]]
    shape = (len(words), len(LETTERS))
    targets = csr_from_pairs(np.arange(len(words)), [LETTERS.index(word[-1]) for word in words], None, shape)
    return csr_from_pairs(rows, inputs, None, shape), targets


class LastLetters(Job):
    """A file holds one word a line."""

    name = "last-letters"
    command = name
    title = "A guesser of last letters"
    help = "Learn to guess the last letter of a word."
    compared = "words.txt --holdout 0.1 --heads exact,full"
    takes = ("hidden", "activation", "dropout", "input_dropout")
    presets = (
        Preset(
            "small",
            "A small network.",
            {"width": 16, "loss": "spherical-softmax", "head_optimizer": "newton", "encoder_lr": 0.02, "at": (1,)},
        ),
    )

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": len(LETTERS), "classes": len(LETTERS)}

    @property
    def class_names(self) -> Sequence[str]:
        return LETTERS

    @classmethod
    def of(cls, config: TrainingConfig, train: Any, share: Share | None = None) -> JobData:
        job = cls()
        examples = RowExamples(*matrices(Path(train).read_text().split()))
        return JobData(job, examples, None if config.test is None else job.read_test(config.test))

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        return cls()

    def save(self, folder: RunFolder) -> None:
        folder.keep("letters.txt", lambda path: path.write_text(LETTERS) and None)

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        return bag_encoder(len(LETTERS), config)

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"recall@{k}" for k in at]

    def read_test(self, data: Any) -> RankingTest:
        inputs, targets = matrices(Path(data).read_text().split())
        return RankingTest(inputs, targets, np.zeros(targets.shape[0], dtype=np.int64), exclude_inputs=False)

    def given(self, data: Any) -> Given:
        words = Path(data).read_text().split() if is_file(data) else list(data)
        return Given.bags(words, matrices([word + "a" for word in words])[0])
