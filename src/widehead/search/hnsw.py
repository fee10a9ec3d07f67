"""Search along a graph of near rows: the hierarchical navigable small world of FAISS, with its inner product.

Letters: n rows, d width, m queries.
"""

import itertools
from pathlib import Path

from torch import Tensor

from widehead.errors import check_whole
from widehead.search.faiss import from_host, plain_rows, require_faiss, write
from widehead.search.protocol import check_queries
from widehead.search.tuning import smallest


class HNSWIndex:
    """FAISS IndexHNSWFlat over copies of ``rows`` (n, d) in float32 on the CPU (Malkov and Yashunin, 2018).

    Inner products are no distances, so that rows of very different lengths are found less well than by `IVFIndex`.
    A search is fast, and looks at few rows; to build the graph takes minutes for 10^6 rows.

    Args:
        rows: (n, d).
        neighbours: links of a row (FAISS: M), at least 2.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: rows of another shape, or fewer neighbours.
    """

    def __init__(self, rows: Tensor, neighbours: int = 32) -> None:
        require_faiss()
        check_whole("neighbours", neighbours, 2)
        self.width, self.neighbours = rows.shape[1] if rows.ndim == 2 else 0, neighbours
        #: rows that a search keeps in sight (FAISS: efSearch)
        self.effort = 64
        self.refresh(rows)

    def refresh(self, rows: Tensor) -> None:
        """Hold ``rows`` (n, d) from now on, in a new graph."""
        faiss = require_faiss()
        host = plain_rows(rows, self.width)
        self._index = faiss.IndexHNSWFlat(self.width, self.neighbours, faiss.METRIC_INNER_PRODUCT)
        self._index.add(host.numpy())

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(scores (m, k) float32, ids (m, k)), best first, on the queries' device; id −1 if too few were seen.

        Raises:
            ValueError: queries of another width, or k < 1.
        """
        check_queries(queries, k, self.width)
        self._index.hnsw.efSearch = max(self.effort, k)
        return from_host(self._index.search(plain_rows(queries, self.width).numpy(), k), queries.device)

    def tune(self, rows: Tensor, queries: Tensor, k: int, target: float = 0.9) -> float:
        """Set `effort` to the smallest power of two that finds ``target`` of the best k; returns the recall found.

        Args:
            rows: (n, d) that the index holds.
            queries: (m, d) like those to come.
            k: as in `search`.
            target: in (0, 1].
        """

        def put(effort: int) -> None:
            self.effort = effort

        n = rows.shape[0]
        efforts = itertools.chain((2**i for i in range(3, n.bit_length()) if 2**i >= k), [n])
        return smallest(put, efforts, self, rows, queries, k, target)

    def save(self, path: Path | str) -> None:
        """Write the index to a file that FAISS reads; OSError if it cannot be written."""
        self._index.hnsw.efSearch = self.effort
        write(self._index, path)
