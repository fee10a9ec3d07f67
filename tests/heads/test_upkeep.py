"""The upkeep of a retrieval index, without a head: when it is refreshed, when trained, how many cells it looks at."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from widehead.heads import upkeep
from widehead.heads.upkeep import Upkeep

D, WIDTH, K = 600, 5, 10
NO_DRIFT, DRIFT = torch.tensor(0.0), torch.tensor(1.0)


@pytest.fixture(autouse=True)
def _faiss() -> None:
    pytest.importorskip("faiss", reason="needs FAISS: pip install 'widehead[retrieval]'")
    torch.manual_seed(0)


def make(recall: float = 0.9, refresh_every: int = 1, with_cells: bool = False) -> Upkeep:
    return Upkeep("ivf", recall, refresh_every, 0.4, with_cells)


def search(kept: Upkeep, table: Tensor, drift: Tensor = NO_DRIFT) -> None:
    scores, ids = kept.search(table, torch.randn(8, table.shape[1]), K, drift)
    assert scores.shape == ids.shape == (8, K)


@pytest.mark.parametrize("refresh_every", [1, 3, 10, 25])
@pytest.mark.parametrize("drift", [0.0, 0.39, 0.41], ids=["none", "below the limit", "above it"])
def test_searches_between_refreshes(refresh_every: int, drift: float) -> None:
    kept, table = make(refresh_every=refresh_every), torch.randn(D, WIDTH)
    every = math.ceil(refresh_every / 10) if drift > 0.4 else refresh_every
    for i in range(30):
        search(kept, table, torch.tensor(drift))
        assert kept.refreshes == i // every


def test_centroids_move_at_each_twentieth_refresh_alone() -> None:
    kept, table = make(), torch.randn(D, WIDTH)
    search(kept, table)
    assert kept.index is not None
    for _ in range(2 * upkeep._TRAIN_EVERY):
        before = kept.index.centroids
        search(kept, table)
        assert (kept.index.centroids is before) == (kept.refreshes % upkeep._TRAIN_EVERY != 0)
    assert kept.refreshes == 2 * upkeep._TRAIN_EVERY


def test_uneven_cells_are_trained_again_at_the_next_refresh() -> None:
    kept = make()
    search(kept, torch.randn(D, WIDTH))
    assert kept.index is not None
    first = kept.index.centroids
    moved = torch.randn(D, WIDTH) * 0.2 + torch.eye(WIDTH)[0]  # all in the few cells of one direction
    search(kept, moved)
    assert kept.index.centroids is first
    assert kept.index.out_of_balance
    search(kept, moved)
    assert kept.index.centroids is not first
    assert not kept.index.out_of_balance


def test_probes_are_tuned_to_the_recall_asked_for() -> None:
    table = torch.randn(D, WIDTH)
    probes = []
    for recall in (0.2, 1.0):
        kept = make(recall)
        search(kept, table)
        assert kept.index is not None
        probes.append(kept.index.probes)
    assert probes[0] < probes[1]


def test_rows_without_structure_are_not_all_looked_at() -> None:
    """About 16√n of n = 3,000 rows a query, whatever the recall."""
    kept = make(1.0)
    search(kept, torch.randn(3000, 64))
    assert kept.index is not None
    assert kept.index.probes == int(16.0 / math.sqrt(3000) * kept.index.num_cells)


def test_the_tail_by_cells_follows_the_weights() -> None:
    kept, table, hidden = make(with_cells=True), torch.randn(D, WIDTH), torch.randn(2, WIDTH)
    search(kept, table)
    assert kept.cell_tail is not None
    before = kept.cell_tail.log_cell_weights(hidden, shared=False)
    search(kept, 2.0 * table)
    after = kept.cell_tail.log_cell_weights(hidden, shared=False)
    assert not torch.allclose(before, after)
