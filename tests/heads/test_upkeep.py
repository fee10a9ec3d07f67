"""The upkeep of a retrieval index, without a head: when it is refreshed, when trained, how many cells it looks at."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import pytest
import torch
from support.played import Device
from torch import Tensor

from widehead.errors import RetrievalWarning
from widehead.heads import upkeep
from widehead.heads.upkeep import Upkeep
from widehead.search import require_faiss

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


class OnGPU:
    """What FAISS gives for an index on a GPU, as far as it is asked."""

    def __init__(self, index: Any) -> None:
        self.index, self.nprobe = index, 1

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        assert queries.device.type == "cuda"
        self.index.nprobe = self.nprobe
        scores, ids = self.index.search(queries.cpu().numpy(), k)
        return torch.from_numpy(scores).to("cuda"), torch.from_numpy(ids).to("cuda")


@pytest.fixture
def faiss_gpu(monkeypatch: pytest.MonkeyPatch, played: Device) -> list[int]:
    """FAISS as if it was built for GPUs; the devices that indices were moved to."""
    faiss, moved = require_faiss(), []
    monkeypatch.setitem(sys.modules, "faiss.contrib.torch_utils", faiss)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)

    def move(resources: object, device: int, index: Any) -> OnGPU:
        moved.append(device)
        return OnGPU(index)

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    return moved


@pytest.mark.parametrize("with_cells", [False, True])
def test_an_index_is_on_the_gpu_if_faiss_was_built_for_it(faiss_gpu: list[int], with_cells: bool) -> None:
    kept, table = make(1.0, refresh_every=2, with_cells=with_cells), torch.randn(D, WIDTH)
    on_gpu, queries = table.to("cuda"), torch.randn(8, WIDTH).to("cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            scores, ids = kept.search(on_gpu, queries, K, NO_DRIFT)
    assert faiss_gpu == [0, 0, 0]
    assert ids.device.type == "cuda"
    assert torch.allclose(scores.cpu(), (queries.cpu() @ table.T).gather(1, ids.cpu()), atol=1e-5)
    assert make(1.0).index is None


def test_more_than_an_index_on_a_gpu_can_find_is_found_by_one_product(faiss_gpu: list[int]) -> None:
    table = torch.randn(3_000, WIDTH)
    _, ids = make().search(table.to("cuda"), torch.ones(1, WIDTH).to("cuda"), 2_500, NO_DRIFT)
    assert torch.equal(ids.cpu()[0], table.sum(1).topk(2_500).indices)
    assert faiss_gpu == []


@pytest.mark.parametrize(("with_cells", "how"), [(False, "all rows on cuda"), (True, "on the CPU")])
def test_an_index_that_faiss_has_for_cpus_alone_is_told_of_once(played: Device, with_cells: bool, how: str) -> None:
    kept, table, queries = make(1.0, with_cells=with_cells), torch.randn(D, WIDTH), torch.randn(8, WIDTH)
    with pytest.warns(RetrievalWarning, match=how):
        kept.search(table.to("cuda"), queries.to("cuda"), K, NO_DRIFT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, ids = kept.search(table.to("cuda"), queries.to("cuda"), K, NO_DRIFT)
    assert ids.device.type == "cuda"
    assert (kept.index is not None) == with_cells
    if not with_cells:
        assert torch.equal(ids.cpu(), (queries @ table.T).topk(K).indices)


def test_auto_takes_one_product_on_a_gpu(played: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Upkeep("auto", 0.9, 1, 0.4, False)
    table = torch.randn(3_000, WIDTH, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.looks_at_all(table)
        monkeypatch.setattr(upkeep, "_SMALL_ON_GPU", 2_000)
        assert kept.looks_at_all(table)
        monkeypatch.setattr(upkeep, "has_gpu", lambda device: True)
        assert not kept.looks_at_all(table)
