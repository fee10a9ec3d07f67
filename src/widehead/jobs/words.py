"""What jobs on text share."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from widehead.data import END, UNKNOWN, Examples, Vocabulary, count_words, encode_spans, read_words
from widehead.data.files import first_lines, is_file, listed, named
from widehead.data.foreign import refuse_foreign
from widehead.data.memory import sentences_of
from widehead.data.text import Text
from widehead.errors import DataError
from widehead.jobs.base import Job, JobData
from widehead.jobs.judging import Given, WordTest
from widehead.options import TrainingConfig
from widehead.split import Share, alike
from widehead.training.folder import RunFolder


@dataclass(frozen=True)
class TextPart:
    """What a process needs of a text.

    Attributes:
        span: first and end of these words.
        made: their (n,) ids to the examples of the whole text, or those of a share.
    """

    span: tuple[int, int]
    made: Callable[[np.ndarray], Examples]


class WordJob(Job):
    """One vocabulary, for inputs and classes. Letters: m examples, C words that are the input of one.

    Args:
        share: of the examples, which this process has alone; None for all. Every process makes the job then.
    """

    by_shares = True

    def __init__(self, words: Vocabulary, config: TrainingConfig, share: Share | None = None) -> None:
        self.words, self.config, self._share = words, config, share

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
        with alike(share):
            text = cls._text(config, train)
            counts = count_words(text, config.tokens)
            words = Vocabulary.from_counts(counts, minimum=config.minimum_count, unknown=UNKNOWN, keep=[END])
            job, total = cls(words, config, share), counts.total()
            held = 0 if config.test is not None else round(config.holdout * total)
            part, judged = job.part(total - held, share), job.judged_part(held, share)
            later = tuple(total - held + place for place in judged.span)
            ids, last = encode_spans(text, words, [part.span, (later[0], later[1])], config.tokens)
        if share is not None:
            share.peers.check_same("training data", f"{total} words, {len(words)} different ones")
        reading, test = job._reading(counts), None
        if config.test is not None:
            test = job._read_test(config.test, share)
        elif held:
            test = job._tested(judged.made(last), f"the last {held:,} words are held out.")
        elif config.holdout > 0.0:
            reading += "; none are held out, as there are too few"
        return JobData(job, part.made(ids), test, reading, share=share)

    def _reading(self, counts: Counter[str]) -> str:
        distinct, lines = len(counts.keys() - {END}), counts[END]
        return (
            f"{counts.total() - lines:,} words on {lines:,} lines, {distinct:,} different ones; "
            f"{self._unknown(counts):,} are rarer than "
            f"--minimum-count {self.config.minimum_count} (unknown); first words "
            + listed(word for word in counts if word != END)
        )

    def _unknown(self, counts: Counter[str]) -> int:
        """How many words of a text are not known."""
        return sum(count for word, count in counts.items() if self.words.id(word) == self.words.unknown_id)

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

    def part(self, total: int, share: Share | None = None) -> TextPart:
        """What is needed of a text of so many words to train on."""
        return TextPart((0, total), self.examples)

    def judged_part(self, total: int, share: Share | None = None) -> TextPart:
        """What is needed of one to judge by."""
        return self.part(total, share)

    def _tested(self, examples: Examples, reading: str, *, fits: bool = True) -> WordTest:
        """By examples of `judged_part`."""
        return WordTest(examples, reading, fits)

    def save(self, folder: RunFolder) -> None:
        with alike(self._share):
            if self._share is None or self._share.peers.is_first:
                folder.keep("words.txt", self.words.save)

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        return cls(Vocabulary.load(folder.vocabulary_path("words.txt"), UNKNOWN), config)

    def read_test(self, data: Any) -> WordTest:
        return self._read_test(data, None)

    def _read_test(self, data: Any, share: Share | None) -> WordTest:
        with alike(share):
            text = self._text(self.config, data)
            counts = count_words(text, self.config.tokens)
            words, unknown = counts.total() - counts[END], self._unknown(counts)
            if unknown == words:
                raise DataError(f"{named(data)}: expected words of the training data. Found none among {words:,}.")
            part = self.judged_part(counts.total(), share)
            ids = encode_spans(text, self.words, [part.span], self.config.tokens)[0]
        reading = f"{words:,} words to judge by, of which {unknown:,} are unknown."
        return self._tested(part.made(ids), reading, fits=unknown == 0)

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
