"""Maximum inner product search: the oracle against sorting, the index of FAISS against the oracle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from support.played import Device

from widehead import blocks
from widehead.search import (
    ExhaustiveIndex,
    HNSWIndex,
    IVFIndex,
    nearest_centroids,
    recall,
    require_faiss,
    spherical_kmeans,
)


def clustered(n: int = 3000, d: int = 16, groups: int = 60) -> torch.Tensor:
    """Rows around a few directions, of very different lengths, as trained weights are."""
    torch.manual_seed(3)
    centers = torch.randn(groups, d)
    rows = centers[torch.randint(groups, (n,))] + 0.3 * torch.randn(n, d)
    return rows * torch.rand(n, 1).mul(2).exp()


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 50), st.integers(1, 9))
def test_the_oracle_sorts_all_scores(n: int, m: int, k: int, block: int) -> None:
    rows, queries = torch.randn(n, 3, dtype=torch.float64), torch.randn(m, 3, dtype=torch.float64)
    scores, ids = ExhaustiveIndex(rows, block).search(queries, k)
    expected, order = (queries @ rows.T).sort(dim=1, descending=True)
    kept = min(k, n)
    assert scores.shape == ids.shape == (m, k)
    assert torch.equal(ids[:, :kept], order[:, :kept])
    assert torch.allclose(scores[:, :kept], expected[:, :kept])
    assert bool((ids[:, kept:] == -1).all())
    assert bool((scores[:, kept:] == -torch.inf).all())


@pytest.mark.parametrize("at_once", [1 << 26, 64])
def test_the_oracle_on_a_device_is_one_product_a_block(
    played: Device, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    rows, queries = torch.randn(100, 3), torch.randn(5, 3)
    expected = ExhaustiveIndex(rows, 7).search(queries, 9)
    index = ExhaustiveIndex(rows.to("cuda"), 7)
    monkeypatch.setattr(blocks, "_ON_DEVICE", at_once)
    there = queries.to("cuda")
    with played.counting() as seen:
        scores, ids = index.search(there, 9)
    assert seen.waits == []
    assert seen.kernels["mm"] == (1 if at_once > 500 else math.ceil(100 / (64 // 5)))
    assert torch.equal(ids.cpu(), expected[1])
    assert torch.allclose(scores.cpu(), expected[0])


def test_the_oracle_sees_changes_in_place_and_refresh() -> None:
    rows = torch.zeros(5, 2)
    index = ExhaustiveIndex(rows)
    rows[3] = 1.0
    assert index.search(torch.ones(1, 2), 1)[1].tolist() == [[3]]
    index.refresh(torch.eye(2))
    assert index.search(torch.tensor([[0.0, 1.0]]), 1)[1].tolist() == [[1]]


def test_recall_counts_what_was_found() -> None:
    found, best = torch.tensor([[1, 2, -1], [7, 8, 9]]), torch.tensor([[1, 3], [9, 8]])
    assert recall(found, best, 10) == pytest.approx(0.75)
    # The other query's finds are of no account.
    assert recall(torch.tensor([[5], [6]]), torch.tensor([[6], [5]]), 10) == 0.0
    assert recall(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 2, dtype=torch.int64), 10) == 1.0


def test_spherical_kmeans_finds_well_separated_directions() -> None:
    torch.manual_seed(0)
    directions = torch.eye(6)
    truth = torch.arange(6).repeat(50)
    rows = (directions[truth] + 0.02 * torch.randn(300, 6)) * torch.rand(300, 1).add(0.1)
    start = directions + 0.3 * torch.randn(6, 6)
    centroids = spherical_kmeans(rows, 6, start=start)
    assert torch.allclose(centroids.norm(dim=1), torch.ones(6))
    assert torch.equal(nearest_centroids(rows, centroids), truth)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 60))
def test_nearest_centroids_are_those_of_all_scores(n: int, c: int, entries: int) -> None:
    rows, centroids = torch.randn(n, 3, dtype=torch.float64), torch.randn(c, 3, dtype=torch.float64)
    assert torch.equal(nearest_centroids(rows, centroids, entries), (rows @ centroids.T).argmax(1))


@pytest.mark.parametrize("rounds", [1, 3])
def test_spherical_kmeans_is_lloyds_with_the_cosine(rounds: int) -> None:
    """However long rows are, they count alike."""
    torch.manual_seed(0)
    rows = torch.randn(300, 4, dtype=torch.float64) * torch.randn(300, 1, dtype=torch.float64).exp()
    expected = start = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1)
    for _ in range(rounds):
        cells = (rows @ expected.T).argmax(1)
        means = [(rows[cells == c] / rows[cells == c].norm(dim=1, keepdim=True)).mean(0) for c in range(5)]
        expected = torch.stack([mean / mean.norm() for mean in means])
    found = spherical_kmeans(rows, 5, start=start, rounds=rounds, rows_per_cell=60)
    assert torch.allclose(found, expected)
    assert not torch.allclose(spherical_kmeans(rows, 5, start=start, rounds=rounds + 1), expected)


def test_cells_that_lost_their_rows_start_again() -> None:
    torch.manual_seed(0)
    rows = torch.randn(200, 4)
    start = torch.tensor([[1.0, 0, 0, 0]]).repeat(8, 1)  # all alike: the first takes every row
    cells = nearest_centroids(rows, spherical_kmeans(rows, 8, start=start, rounds=12))
    assert int((torch.bincount(cells, minlength=8) > 0).sum()) >= 7


def test_bad_input_of_the_oracle() -> None:
    with pytest.raises(ValueError, match=r"`rows` should have shape \(n, d\)"):
        ExhaustiveIndex(torch.ones(3))
    index = ExhaustiveIndex(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"`queries` should have shape \(m, 2\)"):
        index.search(torch.ones(1, 3), 1)
    with pytest.raises(ValueError, match="`k` should be at least 1"):
        index.search(torch.ones(1, 2), 0)


class TestIVF:
    @pytest.fixture(autouse=True)
    def _faiss(self) -> None:
        pytest.importorskip("faiss", reason="needs FAISS: pip install 'widehead[retrieval]'")
        torch.manual_seed(0)

    def test_looking_at_all_cells_is_exact(self) -> None:
        rows = clustered()
        index = IVFIndex(rows, 30)
        index.probes = 30
        queries = torch.randn(20, 16)
        scores, ids = index.search(queries, 25)
        expected, best = ExhaustiveIndex(rows).search(queries, 25)
        assert recall(ids, best, 3000) > 0.999  # ties apart
        assert torch.allclose(scores, expected, rtol=1e-4, atol=1e-3)

    def test_tuning_reaches_the_recall_with_few_cells(self) -> None:
        rows = clustered()
        index = IVFIndex(rows)
        queries = rows[torch.randint(3000, (64,))] + 0.1 * torch.randn(64, 16)
        found = index.tune(rows, queries, 10, target=0.9)
        _, best = ExhaustiveIndex(rows).search(queries, 10)
        assert found == pytest.approx(recall(index.search(queries, 10)[1], best, 3000))
        assert found >= 0.9
        assert index.probes <= index.num_cells // 2

    def test_tuning_stops_at_the_ceiling_where_there_is_no_structure(self) -> None:
        rows = torch.randn(4000, 64)
        index = IVFIndex(rows, 64)
        found = index.tune(rows, torch.randn(32, 64), 50, target=0.99, ceiling=0.125)
        assert index.probes == 8
        assert 0.1 < found < 0.99

    def test_tuning_looks_no_further_than_the_target(self) -> None:
        rows = torch.eye(8).repeat_interleave(20, 0) * torch.rand(160, 1).add(0.5)
        index = IVFIndex(rows, 8)
        index.centroids = torch.eye(8)
        index.train(rows)
        assert index.tune(rows, torch.eye(8), 20, target=1.0) == 1.0
        assert index.probes == 1
        assert index.tune(rows, torch.eye(8), 1000, target=1.0) == 1.0  # as many as there are

    def test_training_goes_on_from_the_present_centroids(self) -> None:
        rows = clustered()
        index = IVFIndex(rows, 60)
        before = index.cells
        index.train(rows)
        assert float((index.cells == before).double().mean()) > 0.8

    @pytest.mark.parametrize(("n", "cells"), [(1, 1), (2, 2), (900, 60), (99_999, 633), (100_000, 317)])
    def test_default_cells(self, n: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(IVFIndex, "train", lambda *_: None)
        assert IVFIndex(torch.zeros(n, 1)).num_cells == cells

    def test_ids_are_padded_where_cells_hold_too_few(self) -> None:
        index = IVFIndex(clustered(), 100)
        index.probes = 1
        _, ids = index.search(torch.randn(10, 16), 1000)
        assert bool((ids == -1).any())
        for row in ids:
            kept = row[row >= 0]
            assert len(kept.unique()) == len(kept)

    def test_refresh_holds_new_rows_on_the_same_centroids(self) -> None:
        rows = clustered()
        index = IVFIndex(rows, 30)
        centroids = index.centroids
        moved = rows.flip(0).contiguous()
        index.refresh(moved)
        index.probes = 30
        assert index.centroids is centroids
        assert index._index.ntotal == 3000
        queries = torch.randn(5, 16)
        assert torch.equal(index.search(queries, 1)[1], ExhaustiveIndex(moved).search(queries, 1)[1])
        assert torch.equal(index.cells, nearest_centroids(moved, index.centroids))

    def test_balance_tells_when_all_rows_fall_into_one_cell(self) -> None:
        index = IVFIndex(torch.randn(2000, 8), 20)
        assert 1.0 <= index.balance < 2.0
        assert not index.out_of_balance
        index.refresh(torch.ones(2000, 8))
        assert index.balance == pytest.approx(20.0)
        assert index.out_of_balance
        index.train(torch.randn(2000, 8))
        assert not index.out_of_balance
        index.train(torch.ones(2000, 8))  # cells cannot be more even, so that more training is of no use
        assert index.balance == pytest.approx(20.0)
        assert not index.out_of_balance

    def test_other_types_and_parameters_are_taken(self) -> None:
        rows = torch.nn.Parameter(torch.randn(200, 4, dtype=torch.float64))
        index = IVFIndex(rows, 5)
        _, ids = index.search(torch.randn(3, 4, dtype=torch.float64, requires_grad=True), 2)
        assert ids.shape == (3, 2)
        assert index.search(torch.empty(0, 4), 2)[1].shape == (0, 2)

    def test_the_same_seed_gives_the_same_index(self) -> None:
        rows, queries = clustered(), torch.randn(10, 16)
        found = []
        for _ in range(2):
            torch.manual_seed(5)
            found.append(IVFIndex(rows, 40).search(queries, 20)[1])
        assert torch.equal(*found)

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"`num_cells` should be in \[1, n = 3\]. Found 4"):
            IVFIndex(torch.ones(3, 2), 4)
        index = IVFIndex(torch.randn(10, 2), 2)
        with pytest.raises(ValueError, match=r"`rows` should have shape \(n, 2\)"):
            index.refresh(torch.ones(10, 3))
        with pytest.raises(ValueError, match=r"`target` should be in \(0, 1\]"):
            index.tune(torch.randn(10, 2), torch.ones(1, 2), 1, target=1.5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@given(
    exponent=st.integers(-30, 30),
    n=st.integers(1, 40),
    d=st.integers(1, 5),
    cells=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_cells_are_those_of_scikit_learn(
    exponent: int, n: int, d: int, cells: int, dtype: torch.dtype, seed: int
) -> None:
    """On rows of length 1 that Euclidean k-means and the cosine put into the same cells, whatever the rows' size."""
    generator = torch.Generator().manual_seed(seed)
    cells = min(cells, n)
    units = torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)
    rows = (units * 10.0**exponent).to(dtype)
    start = units[:cells] + 0.1 * torch.randn(cells, d, generator=generator, dtype=torch.float64)
    start = torch.nn.functional.normalize(start, dim=1)
    twin = KMeans(cells, init=start.numpy(), n_init=1, max_iter=1, algorithm="lloyd").fit(units.numpy())
    nearest = (units @ start.T).argmax(1)
    found = spherical_kmeans(rows, cells, start=start, rounds=1, rows_per_cell=n)
    taken = [cell for cell in range(cells) if bool((nearest == cell).any())]
    sums = torch.stack([units[nearest == cell].sum(0) for cell in taken])
    expected = torch.nn.functional.normalize(sums, dim=1)
    clear = sums.norm(dim=1) > 1e-3  # the direction of a sum of nothing is rounding
    assert torch.allclose(found[taken][clear].double(), expected[clear], atol=1e-4)
    if len(taken) == cells:  # scikit-learn gives an empty cell the farthest row at once
        centers = torch.nn.functional.normalize(torch.from_numpy(twin.cluster_centers_), dim=1)
        assert torch.allclose(found[clear].double(), centers[clear], atol=1e-4)


@pytest.mark.parametrize("kind", [IVFIndex, HNSWIndex])
def test_an_index_is_tuned_to_what_is_wanted_and_kept_in_a_file(kind: Any, tmp_path: Path) -> None:
    faiss = require_faiss()
    rows = clustered()
    queries = torch.nn.functional.normalize(rows[::40]) + 0.1 * torch.randn(75, 16)
    best = ExhaustiveIndex(rows).search(queries, 10)[1]
    index, spent = kind(rows), []
    for target in (0.5, 0.9, 1.0):
        found = index.tune(rows, queries, 10, target)
        assert found >= target
        assert found == recall(index.search(queries, 10)[1], best, len(rows))
        spent.append(index.probes if kind is IVFIndex else index.effort)
    assert spent[0] < spent[2]
    assert spent == sorted(spent)
    index.tune(rows, queries, 10, 0.9)
    expected = index.search(queries, 10)
    index.save(tmp_path / "rows.faiss")
    scores, ids = faiss.read_index(str(tmp_path / "rows.faiss")).search(queries.numpy(), 10)
    assert torch.equal(torch.from_numpy(ids), expected[1])
    assert torch.equal(torch.from_numpy(scores), expected[0])
    with pytest.raises(OSError, match="rows"):
        index.save(tmp_path / "none" / "rows.faiss")


def test_a_graph_of_fewer_rows_than_are_asked_for() -> None:
    pytest.importorskip("faiss")
    index = HNSWIndex(torch.eye(3))
    ids = index.search(torch.tensor([[3.0, 2.0, 1.0]]), 5)[1]
    assert ids.tolist() == [[0, 1, 2, -1, -1]]
    index.refresh(torch.eye(3).flip(0))
    assert index.search(torch.tensor([[3.0, 2.0, 1.0]]), 1)[1].tolist() == [[2]]
    for wrong in (torch.zeros(3), torch.zeros(3, 4)):
        with pytest.raises(ValueError, match="shape"):
            index.refresh(wrong)
    with pytest.raises(ValueError, match="neighbours"):
        HNSWIndex(torch.eye(3), neighbours=1)
