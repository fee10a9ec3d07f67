"""The next item: the items of a session or history so far in, the item that comes next out."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from torch import nn

from widehead.data import Histories, SequenceExamples, Sequences, Vocabulary, pieces, read_sequences
from widehead.data.files import named
from widehead.errors import DataError
from widehead.jobs.base import Job, JobData
from widehead.jobs.judging import Given, WordTest
from widehead.jobs.network import sequence_encoder
from widehead.kinds import next_item as kind
from widehead.options import TrainingConfig
from widehead.training.folder import RunFolder


class NextItem(kind.NextItem, Job):
    """The items so far in, the next item out.

    Args:
        items: of the training data. context: how many last items count.
    """

    def __init__(self, items: Vocabulary, context: int) -> None:
        self.items, self.context = items, context

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": len(self.items), "classes": len(self.items)}

    @property
    def class_names(self) -> Sequence[str]:
        return self.items.names

    @classmethod
    def of(cls, config: TrainingConfig, train: Any) -> JobData:
        found = read_sequences(train)
        job, reading = cls(found.items, config.context), str(found)
        kept = found.order[np.diff(found.offsets)[found.order] > 1]
        if len(kept) == 0:
            raise DataError(
                f"{named(train)}: expected sequences of two items or more. Found none among {len(found):,}."
            )
        test = None if config.test is None else job.read_test(config.test)
        held = round(config.holdout * len(kept)) if test is None else 0
        if 0 < held < len(kept):
            kept, last = np.split(kept, [-held])
            told = f"the last {held:,} sequences are held out."
            test = WordTest(job._examples(found, last), told, places=config.context)
        elif test is None and config.holdout > 0.0:
            reading += "; none are held out, as there are too few"
        return JobData(job, job._examples(found, np.sort(kept)), test, reading)

    def _examples(self, found: Sequences, rows: np.ndarray) -> SequenceExamples:
        """Every place of some sequences, whose items are all known."""
        return SequenceExamples(found.ids, *pieces(found.offsets[:-1][rows], found.offsets[1:][rows], self.context))

    def save(self, folder: RunFolder) -> None:
        folder.keep("items.txt", self.items.save)

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        return cls(Vocabulary.load(folder.vocabulary_path("items.txt")), config.context)

    def encoder(self, config: TrainingConfig) -> nn.Module:
        return sequence_encoder(len(self.items), config)

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"{kind}@{k}" for k in at for kind in ("recall", "mrr")]

    def read_test(self, data: Any) -> WordTest:
        """The last item of each sequence is to be found from those before it, of which the known ones count.

        Sequences of one item ask for nothing; those whose last item is not known, or of whose others none is, count as
        missed.
        """
        found = read_sequences(data, self.items)
        asking = np.diff(found.offsets) > 1
        known = found.ids >= 0
        ids, offsets = _known(found)
        fit = asking & known[np.maximum(found.offsets[1:] - 1, 0)] & (np.diff(offsets) > 1)
        count, missed = int(asking.sum()), int((asking & ~fit).sum())
        if count == missed:
            raise DataError(
                f"{named(data)}: expected sequences of two items or more that the run knows. Found none among "
                f"{len(found):,}; {found}"
            )
        reading = f"{count:,} sequences whose last item is to be found"
        if strange := int((~known).sum()):
            reading += f"; {strange:,} items are unknown, so that {missed:,} sequences count as missed"
        if alone := len(found) - count:
            reading += f"; {alone:,} of fewer than two items are left out"
        starts, ends = np.maximum(offsets[:-1], offsets[1:] - self.context - 1)[fit], offsets[1:][fit]
        examples = SequenceExamples(ids, starts, ends, asked=1)
        return WordTest(examples, f"{reading}; {found.layout}.", fits=not (strange or alone), missed=missed)

    def given(self, data: Any) -> Given:
        """Sequences, of whose items the known ones count."""
        found = read_sequences(data, self.items)
        ids, offsets = _known(found)
        assert found.names is not None
        return Given(found.names, Histories(ids, offsets, self.context), np.diff(offsets) > 0)


def _known(found: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Ids and offsets of sequences without the items that are not known."""
    known = found.ids >= 0
    return found.ids[known], np.concatenate([[0], np.cumsum(known)])[found.offsets]
