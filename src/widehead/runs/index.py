"""An index of a run's classes, which looks at some of them, and how much it finds of what an exact search does.

Letters: m queries, D classes, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from widehead.errors import DataError, check_choice
from widehead.heads import ExactHead, Head, LinearHead
from widehead.heads.indexed import IndexedTopK, check_indexable
from widehead.precision import in_full_precision
from widehead.runs.rows import class_rows, linear_head
from widehead.search import HNSWIndex, IVFIndex, recall
from widehead.targets import on_device

if TYPE_CHECKING:
    from widehead.runs.run import Run

KINDS = ("ivf", "hnsw")
_QUERIES, _BEST = 1_000, 10  # what the recall is measured on, half of it, and the other half tuned


@dataclass(frozen=True)
class RunIndex:
    """An index of FAISS over the rows of a run's output layer.

    Attributes:
        top: the best classes by it, as the run's head gives them.
        figures: "index", its kind; what it looks at ("nlist", "nprobe", "M", "efSearch"); "recall@10", the part of an
            exact search's ten best classes that it finds; "queries", what that was measured on.
    """

    top: IndexedTopK
    index: IVFIndex | HNSWIndex
    figures: dict[str, Any]

    def save(self, path: Path | str) -> None:
        """Write the index to a file that FAISS reads; OSError if it cannot be written."""
        self.index.save(path)

    def __str__(self) -> str:
        looks = ", ".join(f"{name} {value:,}" for name, value in self.figures.items() if isinstance(value, int))
        found = f"recall@{_BEST} {self.figures[f'recall@{_BEST}']:.4f} against exact"
        return f"Index {self.figures['index']}: {looks}; {found}, on {self.figures['queries']}."


@torch.no_grad()
@in_full_precision
def build_index(run: Run, kind: str, wanted: float = 0.95) -> RunIndex:
    """An index of a run's classes that looks at as few of them as give the recall that is wanted.

    It is tuned on some of the run's training inputs and measured on others, by the ranking of the run's loss. If the
    training data are not there any more, rows of W are the queries.

    Args:
        kind: "ivf" (`IVFIndex`) or "hnsw" (`HNSWIndex`).
        wanted: recall@10 in (0, 1].

    Raises:
        DataError: the head has no row of weights for each class, or a loss with a score that an index cannot rank by.
        ImportError: FAISS is not installed.
        ValueError: another kind, or recall.
    """
    check_choice("kind", kind, KINDS)
    head = linear_head(run)
    try:
        check_indexable(head)
    except TypeError as error:
        raise DataError(str(error)) from error
    rows = _all_rows(head)
    index = IVFIndex(rows) if kind == "ivf" else HNSWIndex(rows)
    hidden, queries = _queries(run, head, rows)
    tuned, measured = hidden[::2], hidden[1::2] if len(hidden) > 1 else hidden
    asked = head._widened(tuned)
    both = isinstance(head, ExactHead) and head.loss.ranks_both_ways
    index.tune(rows, torch.cat([asked, -asked]) if both else asked, _BEST, wanted)
    top, k = IndexedTopK(head, index), min(_BEST, head.num_classes)
    found = recall(top.top_k(measured, k)[1], head.top_k(measured, k)[1], head.num_classes)
    figures = {"index": kind, **_looked_at(index), f"recall@{_BEST}": found, "queries": f"{len(measured):,} {queries}"}
    return RunIndex(top, index, figures)


def _looked_at(index: IVFIndex | HNSWIndex) -> dict[str, int]:
    if isinstance(index, IVFIndex):
        return {"nlist": index.num_cells, "nprobe": index.probes}
    return {"M": index.neighbours, "efSearch": index.effort}


def _all_rows(head: ExactHead | LinearHead) -> Tensor:
    """(D, d) W, or (D, d + 1) with the bias, on the CPU."""
    rows = torch.empty(head.num_classes, head.in_features + head.has_bias)
    for start, block in class_rows(head):
        rows[start : start + len(block)] = block
    return rows


def _queries(run: Run, head: Head, rows: Tensor) -> tuple[Tensor, str]:
    """(m, d) hidden layers, and of what."""
    try:
        examples = run.data.examples
    except (DataError, OSError):
        found = rows[_chosen(head.num_classes)][:, : head.in_features].to(head.device)
        return found, "rows of W, as the training data are not there"
    inputs = on_device(examples.batch(_chosen(len(examples)))[0], head.device)
    return run.network.hidden(inputs), "of the run's training inputs"


def _chosen(count: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(count, min(_QUERIES, count), replace=False))
