"""Exact search: every row is looked at, a block of rows at a time."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from widehead.blocks import rows_at_once
from widehead.search.protocol import check_queries
from widehead.targets import SparseTargets

_GROUP, _MANY = 8, 4  # scores of a group; groups for each that is wanted, with fewer of which groups gain nothing


class ExhaustiveIndex:
    """Exact search on any device, ``block`` rows at a time on the CPU: 2nd operations and (m, block) scores a batch.

    It holds the memory of ``rows`` (n, d) itself, not a copy, so changes of the rows in place are seen at once.
    """

    def __init__(self, rows: Tensor, block: int = 1 << 16) -> None:
        self.block = block
        self.refresh(rows)

    def refresh(self, rows: Tensor) -> None:
        """Hold ``rows`` (n, d) from now on."""
        if rows.ndim != 2:
            raise ValueError(f"Parameter `rows` should have shape (n, d). Found {tuple(rows.shape)}.")
        self.rows = rows.detach()

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(scores (m, k), ids (m, k)), best first; (−inf, −1) past the n-th.

        Raises:
            ValueError: queries of another width, or k < 1.
        """
        check_queries(queries, k, self.rows.shape[1])
        scores, ids = streaming_top_k(products(queries.to(self.rows), self.rows, self.block), k)
        missing = (0, k - ids.shape[1])
        return pad(scores, missing, value=-torch.inf), pad(ids, missing, value=-1)


def products(queries: Tensor, rows: Tensor, on_cpu: int) -> Iterator[tuple[int, Tensor]]:
    """Products of ``queries`` (m, d) with all of ``rows`` (n, d), in blocks: pairs (first id, (m, block)).

    A block has ``on_cpu`` rows on the CPU; see `rows_at_once`.
    """
    step = rows_at_once(rows.device, on_cpu, *queries.shape)
    return ((start, queries @ rows[start : start + step].T) for start in range(0, max(1, rows.shape[0]), step))


def streaming_top_k(
    blocks: Iterable[tuple[int, Tensor]], k: int, exclude: SparseTargets | None = None
) -> tuple[Tensor, Tensor]:
    """(scores (m, k), ids (m, k)), best first, of scores in blocks (first id, (m, block)), which are written to.

    Memory is one block, whatever the number of scores. ``exclude`` names for each query the ids that score −inf. If
    there are fewer than k scores, there are as many columns. Nothing waits for a device.
    """
    best: tuple[Tensor, Tensor] | None = None
    for start, scores in blocks:
        if exclude is not None:
            ban(scores, exclude, start)
        top, at = _largest(scores, min(k, scores.shape[1]))
        found = top, at.add_(start)
        best = found if best is None else _merged(best, found, k)
    assert best is not None, "there is a first block"
    return best


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of (m, n) scores, falling, and their places, as topk finds them.

    They are in the k groups of the largest maxima, which are found as fast as memory is read. So topk, which would take
    nearly as long as a product with 128 units, sees an eighth of the scores and the members of k groups.
    """
    groups = scores.shape[1] // _GROUP
    if scores.device.type != "cpu" or groups < _MANY * k:
        return scores.topk(k, dim=1)
    peaks = scores[:, : groups * _GROUP].unflatten(1, (_GROUP, groups)).amax(1)
    chosen = peaks.topk(k, dim=1, sorted=False).indices
    ids = (chosen[:, :, None] + groups * torch.arange(_GROUP)).flatten(1)
    rest = torch.arange(groups * _GROUP, scores.shape[1]).expand(len(scores), -1)
    ids = torch.cat([ids, rest], dim=1)
    top, at = scores.gather(1, ids).topk(k, dim=1)
    return top, ids.gather(1, at)


def _merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The best k of two rankings, (scores, ids) each."""
    scores, ids = (torch.cat(parts, dim=1) for parts in zip(first, second, strict=True))
    best, order = scores.topk(min(k, scores.shape[1]), dim=1)
    return best, ids.gather(1, order)


def ban(scores: Tensor, exclude: SparseTargets, start: int = 0, first: int = 0) -> None:
    """−inf at excluded pairs in contiguous ``scores`` (m, n), those of the ids from ``start``, examples from ``first``.

    Nothing waits for a device.
    """
    m, n = scores.shape
    if scores.device.type == "cpu":
        banned, places = exclude.sorted_by_class()
        a, b = torch.searchsorted(banned, torch.tensor([start, start + n])).tolist()
        examples, ids = exclude.example_ids[places[a:b]] - first, banned[a:b] - start
        inside = (examples >= 0) & (examples < m)
        scores[examples[inside], ids[inside]] = -torch.inf
        return
    # How many pairs are inside only the device knows. So all get a limit, which is above everything for the others.
    examples, ids = exclude.example_ids, exclude.class_ids - start
    inside = (ids >= 0) & (ids < n)
    if m < len(exclude):
        examples = examples - first
        inside &= (examples >= 0) & (examples < m)
        examples = examples.clamp(0, m - 1)
    limits = torch.where(inside, -torch.inf, torch.inf).to(scores.dtype)
    scores.view(-1).scatter_reduce_(0, examples * n + ids.clamp(0, n - 1), limits, "amin")
