"""Rows of weights of the output layer, one a class, and which are near one another. Letters: D classes, d width."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from widehead.data.files import shortened
from widehead.errors import DataError
from widehead.heads import ExactHead, LinearHead
from widehead.precision import in_full_precision
from widehead.search.exhaustive import streaming_top_k
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from widehead.runs.run import Run

_BLOCK = 1 << 14
_QUERIES = 1 << 10  # rows that are compared with a block at a time
_COMPARED = 20_000  # names that a misspelt one is compared with


def linear_head(run: Run) -> ExactHead | LinearHead:
    """The head of a run, if it is a linear layer; DataError else."""
    head = run.network.head
    if not isinstance(head, ExactHead | LinearHead):
        raise DataError(f"The run should have one row of weights for each class. Found the head {run.config.head}.")
    return head


def class_rows(head: ExactHead | LinearHead) -> Iterator[tuple[int, Tensor]]:
    """Pairs (first class, (n, d) rows of W, with the bias as last column if there is one): W is held once."""
    if isinstance(head, ExactHead):
        blocks = (rows for _, rows in head.weights.blocks())
    else:
        blocks = iter(head.table.detach().split(_BLOCK))
    start = 0
    for block in blocks:
        for rows in block.split(_BLOCK):
            yield start, rows
            start += len(rows)


def ids_of(names: Sequence[str], known: Mapping[str, int], what: str = "classes") -> Tensor:
    """(n,) int64 ids of some names, by all that there are; errors call them ``what``.

    Raises:
        DataError: a name that is not there; says which are like it.
    """
    if isinstance(names, str):
        raise DataError(f"Expected a list of names. Found the text {shortened(names)}; do [{shortened(names)}].")
    if (unknown := next((name for name in names if name not in known), None)) is not None:
        near = _like(str(unknown), known)
        said = f"; near it {'is' if len(near) == 1 else 'are'} {', '.join(map(shortened, near))}" if near else ""
        raise DataError(f"Expected names of the run's {len(known):,} {what}. Found {shortened(unknown)}{said}.")
    return torch.tensor([known[name] for name in names], dtype=torch.int64)


def similar_classes(head: ExactHead | LinearHead, ids: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """What `nearest_classes` gives for the rows of W of some classes ``ids`` (m,), each without itself."""
    return nearest_classes(head, rows_of(head, ids), n, SparseTargets.from_ids(ids))


@torch.no_grad()
def rows_of(head: ExactHead | LinearHead, ids: Tensor) -> Tensor:
    """(m, d) the rows of W of some classes (m,)."""
    ids = ids.to(head.device)
    found = torch.empty(len(ids), head.in_features, dtype=head.dtype, device=head.device)
    for start, rows in class_rows(head):
        inside = ((ids >= start) & (ids < start + len(rows))).nonzero()[:, 0]
        found[inside] = rows[ids[inside] - start, : head.in_features]
    return found


@torch.no_grad()
@in_full_precision
def nearest_classes(
    head: ExactHead | LinearHead, queries: Tensor, n: int, exclude: SparseTargets
) -> tuple[Tensor, Tensor]:
    """The classes whose rows of W have the largest cosines with ``queries`` (m, d).

    Exact: every row is compared, a block at a time. A row of zeros is near nothing: its cosines are 0.

    Args:
        exclude: for each query the same number of classes that are not among its own.

    Returns:
        (m, n') int64 class ids, best first, and their (m, n') cosines, on the CPU: n' is n, or as many as there are.
    """
    left = head.num_classes - int(exclude.counts.max()) if len(exclude) else 0
    found: list[tuple[Tensor, Tensor]] = []
    for start in range(0, max(1, len(queries)), _QUERIES):
        part = normalize(queries[start : start + _QUERIES])
        blocks = ((first, part @ rows.T) for first, rows in _unit_blocks(head))
        found.append(streaming_top_k(blocks, min(n, left), exclude[start : start + _QUERIES].to(head.device)))
    scores, best = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return best, scores.clamp(-1.0, 1.0)


def _unit_blocks(head: ExactHead | LinearHead) -> Iterator[tuple[int, Tensor]]:
    """Blocks of W without the bias, each row divided by its norm."""
    return ((start, normalize(rows[:, : head.in_features])) for start, rows in class_rows(head))


def _like(name: str, known: Mapping[str, int]) -> list[str]:
    """Up to three names like another one: in other letters, or nearly spelt so."""
    lower = name.lower()
    same = [other for other in known if other.lower() == lower][:3]
    likely = [other for other in known if abs(len(other) - len(name)) < 3 and other[:1].lower() == lower[:1]]
    return same or difflib.get_close_matches(name, likely[:_COMPARED], 3)
