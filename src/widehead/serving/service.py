"""What a server answers, without a server: requests of names, rows or texts to classes and scores, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from widehead.data.sparse import csr_from_parts
from widehead.errors import DataError
from widehead.jobs import Job
from widehead.models import WideNetwork
from widehead.runs import Run

Kind = Literal["names", "rows", "similar"]


@dataclass(frozen=True)
class Row:
    """A row of the matrix that a run was trained on: columns, and values, ones if None."""

    ids: Sequence[int]
    values: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.values is not None and len(self.values) != len(self.ids):
            raise DataError(f"Expected a value for each id. Found {len(self.values)} and {len(self.ids)}.")


@dataclass(frozen=True)
class Request:
    """Inputs of one kind, and how many classes are wanted for each: names or texts; `Row`s; classes to be near to."""

    kind: Kind
    inputs: Sequence[Any]
    k: int


@dataclass(frozen=True)
class Ranked:
    """Classes, best first, and their scores; names of the input that the run does not know."""

    classes: list[str]
    scores: list[float]
    unknown: list[str]


class Service:
    """A run whose weights are read, with an index of its classes or without. Answers are those of ``Run``.

    Args:
        run: whose weights are read now; CheckpointError if they are damaged.
        index: "exact": all classes are looked at; "ivf" or "hnsw": see `Run.index`.
        recall: that an index should reach.
    """

    def __init__(self, run: Run, index: str = "exact", recall: float = 0.95) -> None:
        self.run, self.job = run, run.job
        self.num_classes, self.num_inputs = run.job.sizes["classes"], run.job.sizes["inputs"]
        self.made = None if index == "exact" else run.index(index, recall)
        self.figures: dict[str, Any] = {"index": "exact"} if self.made is None else self.made.figures
        self.network = run.network if self.made is None else WideNetwork(run.network.encoder, self.made.top)
        self.network.beside = run.network.beside
        self._takes_rows = type(self.job).predict is Job.predict  # not words alone
        self._named = run.class_ids if self.job.exclude_inputs else None

    def __str__(self) -> str:
        found = self.made if self.made is not None else "All classes are looked at."
        return f"{self.num_classes:,} classes, step {self.run.step:,}. {found}"

    def answer(self, requests: Sequence[Request]) -> list[list[Ranked] | Exception]:
        """An answer, a `Ranked` for each input, or an error for each request; requests of a kind are one batch."""
        answers: list[Any] = [None] * len(requests)
        for kind in dict.fromkeys(request.kind for request in requests):
            at = [i for i, request in enumerate(requests) if request.kind == kind]
            for i, answer in zip(at, self._of_kind([requests[i] for i in at]), strict=True):
                answers[i] = answer
        return answers

    def _of_kind(self, requests: Sequence[Request]) -> list[Any]:
        """What one request has wrong is no matter of the others."""
        try:
            return self._together(requests)
        except ValueError as error:
            if len(requests) == 1:
                return [error]
            return [answer for request in requests for answer in self._of_kind([request])]

    def _together(self, requests: Sequence[Request]) -> list[list[Ranked]]:
        compute: dict[Kind, Callable[[list[Any], int], Any]]
        compute = {"names": self._predicted, "rows": self._predicted_rows, "similar": self.run.similar}
        inputs = [one for request in requests for one in request.inputs]
        found = iter(list(compute[requests[0].kind](inputs, max(request.k for request in requests))))
        return [[self._cut(next(found), one, request) for one in request.inputs] for request in requests]

    def _predicted(self, inputs: list[Any], k: int) -> Any:
        """Lists of names become rows here: to read them as a file or table is read would take milliseconds."""
        if self._takes_rows and self._named is not None and all(isinstance(one, list) for one in inputs):
            return self._predicted_rows([Row(self._ids(one)) for one in inputs], k)
        if not self._takes_rows and not all(isinstance(one, str) for one in inputs):
            raise DataError(f"Expected words or phrases. Found {inputs[0]!r}.")
        return self._ranked(inputs, k)

    def _ids(self, names: list[Any]) -> list[int]:
        assert self._named is not None
        found = (self._named.get(str(name)) for name in names)
        return list(dict.fromkeys(i for i in found if i is not None))

    def _ranked(self, inputs: Any, k: int) -> Any:
        return self.job.predict(self.network, inputs, min(k, self.num_classes))

    def _predicted_rows(self, rows: list[Row], k: int) -> Any:
        if not self._takes_rows:
            raise DataError(f"Expected words or phrases. Found {rows[0]!r}.")
        offsets = np.cumsum([0, *(len(row.ids) for row in rows)])
        columns = np.array([i for row in rows for i in row.ids], dtype=np.int64)
        values = np.array(
            [v for row in rows for v in ([1.0] * len(row.ids) if row.values is None else row.values)], dtype=np.float32
        )
        if len(columns) and not 0 <= columns.min() <= columns.max() < self.num_inputs:
            wrong = next(i for i in columns.tolist() if not 0 <= i < self.num_inputs)
            raise DataError(f"Expected ids in [0, {self.num_inputs:,}) of the run's inputs. Found {wrong}.")
        matrix = csr_from_parts(offsets, columns, values, (len(rows), self.num_inputs))
        return self._ranked(matrix, k)

    def _cut(self, found: Any, one: Any, request: Request) -> Ranked:
        unknown: list[str] = []
        if self._named is not None and request.kind == "names" and not isinstance(one, str):
            unknown = [str(name) for name in one if str(name) not in self._named]
        return Ranked(found.classes[: request.k], found.scores[: request.k], unknown)
