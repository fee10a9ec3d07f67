"""What jobs on text share."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from widehead.data import END, UNKNOWN, Examples, Vocabulary, count_words, encode, read_words, subsample
from widehead.data.files import first_lines, is_file, listed, named
from widehead.data.foreign import refuse_foreign
from widehead.data.memory import sentences_of
from widehead.data.text import Text
from widehead.errors import DataError
from widehead.jobs.base import Job, JobData
from widehead.jobs.judging import Given, WordTest
from widehead.options import TrainingConfig
from widehead.split import Share
from widehead.training.folder import RunFolder


class WordJob(Job):
    """One vocabulary, for inputs and classes. Letters: m examples, C words that are the input of one."""

    def __init__(self, words: Vocabulary, config: TrainingConfig) -> None:
        self.words = words
        self.config = config

    @property
    def context(self) -> int:
        """C."""
        return 1

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": len(self.words), "classes": len(self.words)}

    @property
    def class_names(self) -> Sequence[str]:
        return self.words.names

    @classmethod
    def of(cls, config: TrainingConfig, train: Any, share: Share | None = None) -> JobData:
        text = cls._text(config, train)
        counts = count_words(text, config.tokens)
        words = Vocabulary.from_counts(counts, minimum=config.minimum_count, unknown=UNKNOWN, keep=[END])
        job = cls(words, config)
        ids = encode(text, words, config.tokens)
        reading = job._reading(counts, ids)
        if config.test is not None:
            return JobData(job, job.examples(job._thinned(ids)), job.read_test(config.test), reading)
        kept = len(ids) - round(config.holdout * len(ids))
        test = None
        if kept < len(ids):
            test = job._judged(ids[kept:], f"the last {len(ids) - kept:,} words are held out.")
        elif config.holdout > 0.0:
            reading += "; none are held out, as there are too few"
        return JobData(job, job.examples(job._thinned(ids[:kept])), test, reading)

    def _reading(self, counts: Counter[str], ids: np.ndarray) -> str:
        distinct, lines = len(counts.keys() - {END}), counts[END]
        rare = int((ids == self.words.unknown_id).sum())
        return (
            f"{len(ids) - lines:,} words on {lines:,} lines, {distinct:,} different ones; {rare:,} are rarer than "
            f"--minimum-count {self.config.minimum_count} (unknown); first words "
            + listed(word for word in counts if word != END)
        )

    @staticmethod
    def _text(config: TrainingConfig, data: Any) -> Text:
        """A file that may be text, or the words of each line."""
        if not is_file(data):
            return list(sentences_of(data, config.tokens))
        refuse_foreign(data, first_lines(data), "plain text", text=True)
        return data

    @abstractmethod
    def examples(self, ids: np.ndarray) -> Examples:
        """Examples of a text of word ids."""

    def _judged(self, ids: np.ndarray, reading: str, *, fits: bool = True) -> WordTest:
        """A text of word ids to judge by."""
        return WordTest(self.examples(ids), reading, fits)

    def _thinned(self, ids: np.ndarray) -> np.ndarray:
        """Training text without some of its frequent words, if the option says so."""
        threshold = self.config.subsample
        return ids if threshold is None else subsample(ids, threshold, self.config.seed)

    def save(self, folder: RunFolder) -> None:
        folder.keep("words.txt", self.words.save)

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        return cls(Vocabulary.load(folder.vocabulary_path("words.txt"), UNKNOWN), config)

    def read_test(self, data: Any) -> WordTest:
        ids = encode(self._text(self.config, data), self.words, self.config.tokens)
        words = int((ids != self.words.id(END)).sum())
        unknown = int((ids == self.words.unknown_id).sum())
        if unknown == words:
            raise DataError(f"{named(data)}: expected words of the training data. Found none among {words:,}.")
        reading = f"{words:,} words to judge by, of which {unknown:,} are unknown."
        return self._judged(ids, reading, fits=unknown == 0)

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        first = "perplexity" if self.config.has_probabilities else "mean_rank"
        return [first, *(f"recall@{k}" for k in at)]

    def given(self, data: Any) -> Given:
        """Lines of words, of which the last C count, line ends in the place of those that are missing."""
        lines = list(read_words(data, self.config.tokens) if is_file(data) else sentences_of(data, self.config.tokens))
        before = [END] * self.context
        ids = [self.words.ids((before + line)[-self.context :]) for line in lines]
        rows = np.array(ids, dtype=np.int64).reshape(-1, self.context)
        known = np.asarray(np.isin(rows, self.words.ids([END, UNKNOWN]), invert=True).any(axis=1))
        return Given([" ".join(line) for line in lines], rows, known)
