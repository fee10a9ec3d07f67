"""Singular vectors of a sparse matrix whose rows are dealt out to processes; each gets some rows of the vectors.

Letters as in ``singular``: X (m, n), of which m_r rows are here; blocks have rows of X if m < n, else columns of X.
Of rows of X each process has its own in a block, of columns as many as it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.models.singular import Products, columns_at_a_time
from widehead.models.sparse import product_of
from widehead.split import Share, drawn_in_blocks


class SharedMatrix:
    """X (m, n) for products with dense blocks.

    Args:
        matrix: (m_r, n) scipy sparse matrix, the rows of a share.
        share: of the rows.
        num_rows: m.
        columns: how many of the n rows of the vectors each process has, by rank.
        dtype: of its numbers, and of what is made from them.
    """

    def __init__(
        self, matrix: Any, share: Share, num_rows: int, columns: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> None:
        self.shape: tuple[int, int] = (num_rows, matrix.shape[1])
        self.dtype, self.share, self.columns = dtype, share, list(columns)
        values = matrix.data.astype(np.float64)
        self.scale = share.largest(float(np.abs(values).max(initial=0.0)))[0] or 1.0
        with np.errstate(invalid="ignore"):  # infinity is refused by those who ask for vectors
            values /= self.scale
        self.here = scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)

    def dense_gram(self) -> Tensor:
        """(s, s) float64 A, the same on all processes."""
        products = _SharedProducts(self, torch.float64)
        block = products.rows_of(torch.eye(min(self.shape), dtype=torch.float64))
        products.gram_into(block, block)
        return products.all_rows(block)

    def products(self, dtype: torch.dtype) -> Products:
        """What multiplies with it, in a type."""
        return _SharedProducts(self, dtype)


class _SharedProducts(Products):
    """What all processes do together, each with its rows of a block."""

    def __init__(self, matrix: SharedMatrix, dtype: torch.dtype) -> None:
        (m, n), self.share, self.dtype = matrix.shape, matrix.share, dtype
        self.is_wide, self.size = m < n, min(m, n)
        self.split, self.columns = self.share.split, matrix.columns
        self.counts = [len(range(rank, m, self.share.size)) for rank in range(self.share.size)]
        self.counts = self.counts if self.is_wide else self.columns
        self.by_rows, self.by_columns = (
            product_of(part, "cpu", dtype) for part in (matrix.here, matrix.here.T.tocsr())
        )
        self.height, self.block = self.columns[self.share.rank], columns_at_a_time(max(m, n))

    def gram_times(self, block: Tensor) -> Tensor:
        if self.is_wide:
            return self.by_rows(self.split.sum_(self.by_columns(block), "products"))
        whole = self.split.all_rows(block, self.columns, "products")
        return self.split.sums_of_parts(self.by_columns(self.by_rows(whole)), self.columns, "products")

    def image(self, block: Tensor) -> Tensor:
        return self.split.sums_of_parts(self.by_columns(block), self.columns, "products")

    def start(self, columns: int) -> Tensor:
        """The numbers that one process draws."""
        generator, parts = torch.Generator(), [torch.empty(0, columns, dtype=self.dtype)]
        generator.set_state(torch.get_rng_state())
        for first, drawn in drawn_in_blocks(generator, (self.size, columns), self.dtype):
            parts.append(drawn[self._places(first, first + len(drawn))])
        torch.set_rng_state(generator.get_state())
        return torch.cat(parts)

    def rows_of(self, whole: Tensor) -> Tensor:
        return whole[self._places(0, self.size)].contiguous()

    def _places(self, first: int, end: int) -> slice:
        """Of rows from ``first`` to before ``end`` those of this process."""
        rank, size = self.share.rank, self.share.size
        if self.is_wide:
            return slice((rank - first) % size, end - first, size)
        begin = sum(self.columns[:rank])
        bounds = [min(max(place - first, 0), end - first) for place in (begin, begin + self.columns[rank])]
        return slice(*bounds)

    def all_rows(self, block: Tensor) -> Tensor:
        """(s, b) the rows of all."""
        told = self.split.all_rows(block, self.counts, "products")
        if not self.is_wide:
            return told
        order = np.argsort(np.arange(self.size) % self.share.size, kind="stable")
        found = torch.empty_like(told)
        found[torch.from_numpy(order)] = told
        return found

    def orthonormal(self, block: Tensor) -> Tensor:
        """By the triangles of all parts (Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and
        sequential QR and LU factorizations", SIAM J. Sci. Comput. 34, 2012)."""
        basis, triangle = torch.linalg.qr(block)
        counts = [min(count, block.shape[1]) for count in self.counts]
        turn: Tensor = torch.linalg.qr(self.split.all_rows(triangle, counts, "triangles"))[0]
        begin = sum(counts[: self.share.rank])
        return basis @ self.split.from_first_(turn.contiguous())[begin : begin + len(triangle)]

    def eigh(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """As rank 0 finds them: machines may round in other ways."""
        values, vectors = (part.contiguous() for part in super().eigh(matrix))
        return self.split.from_first_(values), self.split.from_first_(vectors)

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        found = left.T @ right
        return self.split.sum_(found, "products") if found.numel() else found

    def lengths(self, block: Tensor) -> Tensor:
        squares = torch.linalg.vector_norm(block, dim=0).to(torch.float64).square()
        return self.split.sum_(squares, "products").sqrt().to(block.dtype)

    def largest(self, block: Tensor) -> Tensor:
        parts = (block.amax(0), -block.amin(0)) if len(block) else (block.new_full((block.shape[1],), -torch.inf),) * 2
        highest, lowest = (self.split.largest_(part.clone()) for part in parts)
        return torch.where(highest >= lowest, highest, -lowest)
