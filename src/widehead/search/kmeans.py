"""Spherical k-means: cells of rows that point the same way.

Spherical, because in maximum inner product search a cell is judged by h·c, so that a long centroid would always win.
``faiss.Kmeans`` finds cells as good in half the time, but in float32 on the CPU alone; this runs on any device, in any
type and without FAISS, and starts an empty cell again at a row.
"""

import torch
from torch import Tensor

from widehead.blocks import at_once


@torch.no_grad()
def nearest_centroids(rows: Tensor, centroids: Tensor, entries: int = 1 << 22) -> Tensor:
    """(n,) for each of ``rows`` (n, d) the one of ``centroids`` (c, d) with the largest inner product.

    About ``entries`` products are held at a time on the CPU.
    """
    step = max(1, at_once(rows.device, entries) // centroids.shape[0])
    parts = [(rows[a : a + step] @ centroids.T).argmax(1) for a in range(0, rows.shape[0], step)]
    return torch.cat(parts)


@torch.no_grad()
def spherical_kmeans(
    rows: Tensor, num_cells: int, *, start: Tensor | None = None, rounds: int = 8, rows_per_cell: int = 64
) -> Tensor:
    """Centroids (num_cells, d) of length 1, by Lloyd's rounds with the cosine as likeness.

    Args:
        rows: (n, d), n ≥ num_cells.
        start: (num_cells, d) centroids to go on from; None: rows chosen at random.
        rounds: at least 1.
        rows_per_cell: at most this many rows a cell are looked at, chosen at random.
    """
    n = rows.shape[0]
    sample = torch.randperm(n, device=rows.device)[: num_cells * rows_per_cell]
    units = _units(rows[sample])
    centroids = units[:num_cells] if start is None else start.to(units)
    for _ in range(rounds):
        cells = nearest_centroids(units, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, cells, units)
        # A cell that lost all its rows starts again at a row: it would stay empty for ever.
        empty = torch.bincount(cells, minlength=num_cells) == 0
        spare = units[torch.randint(units.shape[0], (num_cells,), device=rows.device)]
        centroids = _units(torch.where(empty[:, None], spare, sums))
    return centroids


def _units(rows: Tensor) -> Tensor:
    """(n, d) rows divided by their length, of whatever size their entries are; rows of zeros stay."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    return torch.nn.functional.normalize(rows / torch.where(largest > 0.0, largest, 1.0), dim=1)
