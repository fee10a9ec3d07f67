"""A recommender of the next item of a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Self

import numpy as np

from widehead.data import read_sequences
from widehead.data.files import is_file, shortened
from widehead.data.memory import is_table
from widehead.data.session_tables import item_cells
from widehead.errors import DataError, check_whole
from widehead.estimators.base import Estimator
from widehead.estimators.names import kind_of, padded
from widehead.jobs.judging import best_classes
from widehead.jobs.next_item import NextItem as Job


class NextItem(Estimator):
    """What `widehead train next-item` learns, from sequences in memory.

    Sequences are lists of items, one for each session or user, in their order; or a DataFrame of pandas or polars with
    columns of users or sessions, items and, perhaps, times. Items are called as the data call them.

    >>> weeks = [["Mon", "Tue", "Wed", "Thu"], ["Wed", "Thu", "Fri", "Sat"], ["Sat", "Sun", "Mon", "Tue"]] * 40
    >>> model = NextItem(width=16, batch_size=16, epochs=10, warmup_steps=0, encoder_lr=0.02, at=(1,)).fit(weeks)
    >>> ids, scores = model.recommend([["Sun", "Mon"], ["Fri"]], 1)
    >>> ids.tolist()
    [['Tue'], ['Sat']]
    """

    job = Job.name

    def fit(self, sequences: Any, y: Any = None) -> Self:
        """Learn what comes after what.

        Args:
            sequences: lists of items, or a table. y: is not looked at.

        Raises:
            DataError: they are something else, or none has two items. ValueError: an option does not fit.
        """
        if is_file(sequences):
            raise DataError(f"Expected lists of items, or a table. Found {shortened(sequences)}; read the file first.")
        if isinstance(sequences, Iterator):
            sequences = list(sequences)
        read_sequences(sequences)  # so that names are looked at of what is as it should be
        items = item_cells(sequences) if is_table(sequences) else chain.from_iterable(sequences)
        self._train(sequences, {"kind": kind_of(items)})
        return self

    @property
    def items_(self) -> np.ndarray:
        """(D,) what the items are called."""
        return self._names.array

    def recommend(self, sequences: Any, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The n items that come next, for each sequence.

        Args:
            sequences: as `fit` takes them, of new users or sessions too. n: how many.

        Returns:
            (m, n) items as the data call them, best first, and their (m, n) float64 scores. Places that no item takes
            hold −1 (None if items are called by texts) and −inf: all of a sequence of whose items none is known.

        Raises:
            DataError: the sequences are not what they should be. ValueError: n is below 1.
        """
        check_whole("n", n)
        run = self._fitted()
        found = list(best_classes(run.network, run.job.given(sequences), min(n, run.job.sizes["classes"])))
        ids = padded([ids for ids, _ in found], n, -1).astype(np.int64)
        return self._names.of(ids), padded([scores for _, scores in found], n, -np.inf)

    def score(self, sequences: Any, y: Any = None) -> float:
        """The first metric of the option ``at``, recall@20 by default: how often the last item is found.

        Args:
            sequences: as `fit` takes them; of each the last item is to be found from those before. y: is not looked at.

        Raises:
            DataError: nothing is left to judge by.
        """
        run = self._fitted()
        name = run.job.metric_names(run.config.at)[0]
        return run.job.read_test(sequences).metrics(run.network, [name], None, run.config.seed)[name]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.sparse = False, False
        return tags
