"""Draws of classes outside a set, with known probabilities and without rejection.

Letters: n classes, r rows (one set of classes each), s classes in a set at most, l draws a row, c cells.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_UNIFORM = 0.1  # part of the draws that does not heed the cells, so that importance weights stay bounded


class Complement:
    """The numbers of [0, n) that are outside each row of ``members`` (r, s), counted from the smallest.

    Args:
        members: (r, s) numbers in [−1, n); −1 and repeats are of no account.
        n: at least 1.
    """

    def __init__(self, members: Tensor, n: int) -> None:
        self.n = n
        #: (r, s) the members in order
        self.ordered = members.sort(dim=1).values
        #: (r, s) whether a place of `ordered` holds a member that was not met before
        self.first = self.ordered >= 0
        self.first[:, 1:] &= self.ordered[:, 1:] != self.ordered[:, :-1]
        self._met = self.first.cumsum(1)
        # Numbers outside the set that are smaller than the member: constant over repeats, never decreasing.
        self._below = torch.where(self.ordered >= 0, self.ordered - self._met + 1, -1)
        #: (r,) how many numbers are outside
        self.sizes = n - self.first.sum(1)

    def numbers(self, ranks: Tensor) -> Tensor:
        """(r, l) the numbers outside the set of the given ranks, 0 for the smallest; ranks < `sizes`.

        The number of rank u has u numbers of the complement below it and as many members as have at most u such.
        """
        passed = torch.searchsorted(self._below, ranks, right=True)
        met = torch.nn.functional.pad(self._met, (1, 0)).gather(1, passed)
        return ranks + met

    def ranks_below(self, edges: Tensor) -> Tensor:
        """(r, e) how many numbers outside the set are below each of ``edges`` (e,), rising."""
        met = torch.nn.functional.pad(self._met, (1, 0))
        passed = torch.searchsorted(self.ordered, edges.expand(self.ordered.shape[0], -1).contiguous())
        return edges - met.gather(1, passed)


@dataclass(frozen=True)
class Drawn:
    """Classes (r, l) drawn with replacement and log of 1/(l q) of each (r, l), q its probability in one draw."""

    ids: Tensor
    log_weights: Tensor


def uniform_tail(members: Tensor, n: int, draws: int, dtype: torch.dtype) -> Drawn:
    """``draws`` classes a row, all outside ``members`` (r, s) alike; weight (n − |S'|)/l, 0 if nothing is outside.

    Args:
        members: (r, s) class ids, −1 for none.
    """
    outside = Complement(members, n)
    sizes = outside.sizes[:, None]
    uniform = torch.rand(members.shape[0], draws, dtype=torch.float64, device=members.device)
    ranks = torch.minimum((uniform * sizes).long(), sizes - 1).clamp_min(0)
    log_weights = (sizes.to(dtype) / draws).log().expand(-1, draws)
    return Drawn(outside.numbers(ranks).clamp_max(n - 1), log_weights)


class CellTail:
    """Classes drawn by cell: q_j ∝ 0.9 exp(h·mean of j's cell)/Σ + 0.1/n for classes j outside a set.

    One draw takes a cell with probability ∝ (classes of the cell outside the set) · weight, then one of those classes,
    all alike; so q is known exactly, whatever the cells are.

    Args:
        rows: (n, d).
        cells: (n,) the cell of each row, in [0, num_cells).
    """

    def __init__(self, rows: Tensor, cells: Tensor, num_cells: int) -> None:
        cells = cells.to(rows.device)
        sizes = torch.bincount(cells, minlength=num_cells)
        sums = torch.zeros(num_cells, rows.shape[1], dtype=rows.dtype, device=rows.device)
        sums.index_add_(0, cells, rows)
        self._means = sums / sizes.clamp_min(1)[:, None].to(rows.dtype)
        self._sizes = sizes
        #: classes in the order of their cells, and where each stands in it
        self._classes = cells.argsort(stable=True)
        self._places = torch.empty_like(cells)
        self._places[self._classes] = torch.arange(rows.shape[0], device=rows.device)
        self._edges = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))

    def log_cell_weights(self, hidden: Tensor, *, shared: bool) -> Tensor:
        """(m, c) log of the weight of one class of each cell; (1, c), the mean over the batch, if ``shared``."""
        n = self._classes.numel()
        outputs = hidden @ self._means.T
        sizes = self._sizes.to(outputs.dtype)
        log_part = outputs - torch.logsumexp(outputs + sizes.log(), dim=1, keepdim=True)
        if shared:
            log_part = torch.logsumexp(log_part, dim=0, keepdim=True) - math.log(max(1, log_part.shape[0]))
        uniform = torch.full_like(log_part, math.log(_UNIFORM / n))
        return torch.logaddexp(log_part + math.log(1.0 - _UNIFORM), uniform)

    def draw(self, members: Tensor, log_cell_weights: Tensor, draws: int) -> Drawn:
        """``draws`` classes a row outside ``members`` (r, s), with ``log_cell_weights`` (r, c)."""
        n = self._classes.numel()
        places = torch.where(members >= 0, self._places[members.clamp_min(0)], -1)
        outside = Complement(places, n)
        edges = outside.ranks_below(self._edges)
        # In float64: a draw by a cumulative sum is as uniform as the sum is exact.
        weights = (log_cell_weights - log_cell_weights.amax(1, keepdim=True)).double().exp()
        cumulative = (edges.diff(dim=1) * weights).cumsum(1)
        total = cumulative[:, -1:]
        uniform = torch.rand(members.shape[0], draws, dtype=torch.float64, device=members.device) * total
        picked = torch.searchsorted(cumulative, uniform, right=True).clamp_max(weights.shape[1] - 1)
        start, stop = edges.gather(1, picked), edges.gather(1, picked + 1)
        within = torch.rand(members.shape[0], draws, dtype=torch.float64, device=members.device)
        ranks = torch.minimum(start + (within * (stop - start)).long(), stop - 1).clamp_min(0)
        ids = self._classes[outside.numbers(ranks).clamp_max(n - 1)]
        log_weights = (total / (draws * weights.gather(1, picked))).log()
        return Drawn(ids, log_weights.to(log_cell_weights.dtype))
