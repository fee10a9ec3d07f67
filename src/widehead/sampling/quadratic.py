"""The quadratic kernel: classes in proportion to α o² + 1, drawn through a tree of Gram matrices.

Letters: m examples, D classes, d width, n draws; H (m, d) hidden, W (D, d) table, O = HWᵀ outputs.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor, nn

from widehead.errors import check_whole
from widehead.sampling.base import checked_draws


class QuadraticSampler(nn.Module):
    """q_j = (1/m) Σ_b (α o_bj² + 1)/Z_b with Z_b = Σ_j (α o_bj² + 1): Blanc and Rendle (ICML 2018), for a batch.

    Blanc and Rendle draw for each example by its own outputs. Here all examples share the draws, which come from the
    mean of the examples' distributions; for one example both are the same. That mean is again a quadratic form,
    q_j = w_jᵀ M w_j + c with M = (α/m) Σ_b h_b h_bᵀ/Z_b and c = (1/m) Σ_b 1/Z_b, so the part of a set of rows is ⟨M, G⟩
    plus c for each row; G = Σ w wᵀ is the rows' Gram matrix. A binary tree holds the Gram matrices of blocks of
    rows, of pairs of blocks, and so on up to at most ``top`` nodes; a draw walks down it to a block in O(d² log D),
    then takes one of the block's rows by the rows as they are now, in O(block · d²).

    The tree is made again every ``refresh_every`` calls of `sample`; between, W moves and the tree does not. The
    log-probabilities given with the draws are those of the walk that was made, stale tree included: estimates
    corrected with them stay unbiased, and staleness costs only variance.

    The tree takes D/block · d(d + 1) numbers, about as much memory as W if block = d. It is part of the state_dict,
    so that training goes on from a checkpoint with the same draws.

    Args:
        num_classes: D.
        width: d, the number of columns of W (with a bias column if there is one).
        scale: α > 0.
        block: rows in a block.
        refresh_every: calls of `sample` from one tree to the next.
        top: nodes at most on the tree's top level, all of which are looked at in each draw.
        device, dtype: as in torch; those of W.

    Raises:
        ValueError: wrong sizes or scale.
    """

    grams: Tensor
    age: Tensor

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        scale: float = 100.0,
        block: int = 64,
        refresh_every: int = 300,
        top: int = 1024,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_whole("num_classes", num_classes)
        for name, size in (("width", width), ("block", block), ("refresh_every", refresh_every)):
            check_whole(name, size)
        if not 0.0 < scale < float("inf"):
            raise ValueError(f"Parameter `scale` should be above 0 and finite. Found {scale}.")
        self.num_classes, self.width, self.scale = num_classes, width, float(scale)
        self.block, self.refresh_every = block, refresh_every
        self._sizes = _level_sizes(-(-num_classes // block), top)
        entries = width * (width + 1) // 2
        self.register_buffer("grams", torch.zeros(sum(self._sizes), entries, device=device, dtype=dtype))
        self.register_buffer("age", torch.tensor(refresh_every, device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The age stays on the host, which asks for it at each draw.
        age = self.age
        super()._apply(fn, recurse)
        self.age = age
        return self

    # -- the tree -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, table: Tensor) -> None:
        """Make the tree again from ``table`` (D, d), in O(D d²)."""
        levels = list(self._levels())
        upper, left = torch.triu_indices(self.width, self.width, device=table.device)
        step = self._limit(max(self.block, self.width))
        for start in range(0, self._sizes[0], step):
            rows = table[start * self.block : (start + step) * self.block]
            rows = nn.functional.pad(rows, (0, 0, 0, -rows.shape[0] % self.block)).view(-1, self.block, self.width)
            levels[0][start : start + step] = (rows.mT @ rows)[:, upper, left]
        for children, parents in itertools.pairwise(levels):
            parents.copy_(children[0::2])
            parents[: children.shape[0] // 2] += children[1::2]
        self.age.zero_()

    def _levels(self) -> Iterator[Tensor]:
        """The nodes of each level, blocks first: views of ``grams``, (nodes, d(d + 1)/2) upper triangles."""
        start = 0
        for size in self._sizes:
            yield self.grams[start : start + size]
            start += size

    # -- drawing ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, hidden: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """n draws with replacement, (n,) int64 class ids, and (n,) float64 log q of each.

        Args:
            n: at least 0.
            hidden: (m, d); without examples q is uniform.
            table: (D, d), W as it is now.

        Raises:
            ValueError: another n or shape.
        """
        self._check(checked_draws(n), hidden, table)
        if int(self.age) >= self.refresh_every:
            self.refresh(table)
        self.age += 1
        form, constant = self._form(hidden.to(table.dtype))
        blocks, log_block = self._walk(n, form, constant)
        some, at = blocks.unique(return_inverse=True)
        parts = [self._parts_of_rows(few, form, constant, table) for few in some.split(self._limit(self.block))]
        rows, log_row = _choose(torch.cat(parts)[at])
        return blocks * self.block + rows[:, 0], log_block + log_row[:, 0]

    def _form(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """M (d, d) and c () of the examples' mean distribution, with Z_b by the tree."""
        if hidden.shape[0] == 0:
            hidden = hidden.new_zeros(1, self.width)
        *_, top = self._levels()
        upper, left = torch.triu_indices(self.width, self.width, device=hidden.device)
        root = hidden.new_zeros(self.width, self.width)
        root[upper, left] = top.sum(0)
        root = root + root.triu(1).mT
        squares = ((hidden @ root) * hidden).sum(1).clamp_min(0.0)
        inverse = 1.0 / (self.scale * squares + self.num_classes)
        scaled = hidden * (self.scale * inverse / hidden.shape[0]).sqrt()[:, None]
        return scaled.mT @ scaled, inverse.mean()

    def _walk(self, n: int, form: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) blocks drawn through the tree and (n,) the log-probability of each walk."""
        upper, left = torch.triu_indices(self.width, self.width, device=form.device)
        packed = form[upper, left] * torch.where(upper == left, 1.0, 2.0).to(form.dtype)
        levels = list(self._levels())
        depth = len(levels) - 1
        every = torch.arange(self._sizes[depth], device=form.device)
        nodes, log_walk = (x[0] for x in _choose(self._parts(levels[depth], depth, every, packed, constant)[None], n))
        for level in range(depth - 1, -1, -1):
            pair = 2 * nodes[:, None] + torch.arange(2, device=form.device)
            child, log_child = _choose(self._parts(levels[level], level, pair, packed, constant))
            nodes, log_walk = 2 * nodes + child[:, 0], log_walk + log_child[:, 0]
        return nodes, log_walk

    def _parts(self, grams: Tensor, level: int, nodes: Tensor, packed: Tensor, constant: Tensor) -> Tensor:
        """The unnormalised probability of ``nodes`` of a level, in their shape, float64; 0 for nodes not there."""
        rows = self.block << level
        held = (self.num_classes - nodes * rows).clamp(0, rows)
        there = nodes.clamp_max(grams.shape[0] - 1)
        whole = grams.shape[0] <= nodes.numel()  # then a product with all of them is less to read than a copy
        squares = (grams @ packed)[there] if whole else (grams.index_select(0, there.flatten()) @ packed).view_as(nodes)
        parts = squares.clamp_min(0.0).to(torch.float64) + held * constant.to(torch.float64)
        return torch.where(held > 0, parts, 0.0)

    def _parts_of_rows(self, blocks: Tensor, form: Tensor, constant: Tensor, table: Tensor) -> Tensor:
        """(len(blocks), block) the unnormalised probability of the rows of ``blocks`` as they are now, float64."""
        ids = blocks[:, None] * self.block + torch.arange(self.block, device=blocks.device)
        held = ids.clamp_max(self.num_classes - 1).flatten()
        rows = table.index_select(0, held).view(-1, self.block, self.width)
        squares = ((rows @ form) * rows).sum(2).clamp_min(0.0)
        parts = squares.to(torch.float64) + constant.to(torch.float64)
        return torch.where(ids < self.num_classes, parts, 0.0)

    def _limit(self, rows: int) -> int:
        """How many pieces of ``rows`` rows to read at a time, so that a copy of them has at most about 2^24 numbers."""
        return max(1, (1 << 24) // (rows * self.width))

    def _check(self, n: int, hidden: Tensor, table: Tensor) -> None:
        if tuple(table.shape) != (self.num_classes, self.width):
            expected = (self.num_classes, self.width)
            raise ValueError(f"`table` should have shape {expected}. Found {tuple(table.shape)}.")
        if hidden.ndim != 2 or hidden.shape[1] != self.width:
            raise ValueError(f"`hidden` should have shape (m, {self.width}). Found {tuple(hidden.shape)}.")

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, width={self.width}, scale={self.scale}, block={self.block}"


def _level_sizes(blocks: int, top: int) -> list[int]:
    sizes = [blocks]
    while sizes[-1] > top:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _choose(parts: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """(r, n) indices drawn in each row of ``parts`` (r, k) in proportion to it, and (r, n) their log-probabilities."""
    cumulative = parts.cumsum(1)
    total = cumulative[:, -1:]
    uniform = torch.rand(parts.shape[0], n, dtype=parts.dtype, device=parts.device)
    # A draw that rounds up to the total falls to the last index that has a part.
    limit = (cumulative < total).sum(1, keepdim=True)
    chosen = torch.searchsorted(cumulative, uniform * total, right=True).minimum(limit)
    return chosen, (parts.gather(1, chosen) / total).log()
