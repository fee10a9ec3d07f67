"""Search in some cells of rows only: the inverted file of FAISS, with its inner product.

Letters: n rows, d width, m queries, c cells (FAISS: nlist).
"""

import itertools
import math
from pathlib import Path

import torch
from torch import Tensor

from widehead.search.faiss import from_host, gpu_index, plain, plain_rows, require_faiss, write
from widehead.search.kmeans import nearest_centroids, spherical_kmeans
from widehead.search.protocol import check_queries
from widehead.search.tuning import check_part, smallest

MOST_ON_GPU = 2_048  # results, and cells, of a query there


class IVFIndex:
    """FAISS IndexIVFFlat over copies of ``rows`` (n, d) in float32; queries may be on any device.

    The copies lie on the CPU; if rows are on a GPU, and FAISS was built for GPUs, there too, and are searched there.

    Rows lie in the cell whose centroid has the largest inner product with them. A query looks at the `probes` cells
    whose centroids have the largest inner products with the query. Centroids come from spherical k-means and stay
    where they are on `refresh`, which costs 2ncd; `train` moves them.

    Args:
        rows: (n, d).
        num_cells: c; None for √n (2√n below 100,000 rows, as assigning the rows costs little there).

    Raises:
        ImportError: FAISS is not installed.
        ValueError: rows of another shape, or more cells than rows.
    """

    def __init__(self, rows: Tensor, num_cells: int | None = None) -> None:
        require_faiss()
        if rows.ndim != 2 or rows.shape[0] < 1:
            raise ValueError(f"Parameter `rows` should have shape (n, d), n ≥ 1. Found {tuple(rows.shape)}.")
        n, self.width = rows.shape
        self._device = rows.device
        default = math.ceil(math.sqrt(n) * (2 if n < 100_000 else 1))
        self.num_cells = min(n, default) if num_cells is None else num_cells
        if not 1 <= self.num_cells <= n:
            raise ValueError(f"Parameter `num_cells` should be in [1, n = {n}]. Found {num_cells}.")
        self.centroids: Tensor | None = None
        #: cells that a query looks at
        self.probes = max(1, self.num_cells // 32)
        self.train(rows)

    def train(self, rows: Tensor) -> None:
        """New centroids for ``rows`` (n, d), going on from the present ones, and hold these rows."""
        faiss = require_faiss()
        host = plain_rows(rows, self.width)
        self.centroids = spherical_kmeans(host, self.num_cells, start=self.centroids)
        self._quantizer = faiss.IndexFlatIP(self.width)
        self._quantizer.add(self.centroids.numpy())
        self._index = faiss.IndexIVFFlat(self._quantizer, self.width, self.num_cells, faiss.METRIC_INNER_PRODUCT)
        self._index.is_trained = True
        self._hold(host)
        self._trained_balance = self.balance

    def refresh(self, rows: Tensor) -> None:
        """Hold ``rows`` (n, d) from now on, in the cells of the present centroids."""
        self._index.reset()
        self._hold(plain_rows(rows, self.width))

    def _hold(self, host: Tensor) -> None:
        faiss = require_faiss()
        assert self.centroids is not None
        cells = nearest_centroids(host, self.centroids)
        #: (n,) the cell of each row
        self.cells = cells
        ids = torch.arange(host.shape[0])
        # The cells are known: add_core does not look for them a second time, as add would.
        arrays = [faiss.swig_ptr(part.numpy()) for part in (host, ids, cells)]
        self._index.add_core(host.shape[0], *arrays)
        self._on_gpu = gpu_index(self._device, self._index)

    @property
    def balance(self) -> float:
        """Σ size² · c / n² over the cells: 1 if all are equal, c if one holds all rows. What a search costs."""
        sizes = torch.bincount(self.cells, minlength=self.num_cells).double()
        return float((sizes**2).sum() * self.num_cells / sizes.sum() ** 2)

    @property
    def out_of_balance(self) -> bool:
        """Whether cells are twice as uneven as they were after training: time to train again."""
        return self.balance > 2.0 * self._trained_balance

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(scores (m, k) float32, ids (m, k)), best first, on the queries' device; id −1 if too few were seen.

        Raises:
            ValueError: queries of another width, or k < 1.
        """
        check_queries(queries, k, self.width)
        if self._on_gpu is not None and k <= MOST_ON_GPU:
            self._on_gpu.nprobe = min(self.probes, MOST_ON_GPU)
            found: tuple[Tensor, Tensor] = self._on_gpu.search(plain(queries, self.width).to(self._device), k)
            return found
        self._index.nprobe = self.probes
        return from_host(self._index.search(plain_rows(queries, self.width).numpy(), k), queries.device)

    def tune(self, rows: Tensor, queries: Tensor, k: int, target: float = 0.9, ceiling: float = 1.0) -> float:
        """Set `probes` to the smallest power of two that finds ``target`` of the best k; returns the recall found.

        Rows without structure (random normal ones) would be searched nearly all: ``ceiling`` is the largest part of
        the cells that is looked at, whatever the recall.

        Args:
            rows: (n, d) that the index holds.
            queries: (m, d) like those to come.
            k: as in `search`.
            target, ceiling: in (0, 1].
        """
        check_part("ceiling", ceiling)

        def put(probes: int) -> None:
            self.probes = probes

        most = max(1, int(ceiling * self.num_cells))
        counts = itertools.chain((2**i for i in range(most.bit_length()) if 2**i < most), [most])
        return smallest(put, counts, self, rows, queries, k, target)

    def save(self, path: Path | str) -> None:
        """Write the index to a file that FAISS reads; OSError if it cannot be written."""
        self._index.nprobe = self.probes
        write(self._index, path)
