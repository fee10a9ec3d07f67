"""The quadratic kernel's tree against the dense distribution, fresh and stale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from widehead.sampling import QuadraticSampler

D, WIDTH = 150, 5


def dense(hidden: Tensor, table: Tensor, scale: float = 100.0) -> Tensor:
    """(D,) mean over examples of (α o² + 1) / Σ (α o² + 1)."""
    kernel = scale * (hidden @ table.T) ** 2 + 1.0
    return (kernel / kernel.sum(1, keepdim=True)).mean(0)


def make(num_classes: int = D, **options: int) -> tuple[QuadraticSampler, Tensor, Tensor]:
    torch.manual_seed(0)
    sampler = QuadraticSampler(num_classes, WIDTH, dtype=torch.float64, **{"block": 8, **options})
    hidden = 0.3 * torch.randn(3, WIDTH, dtype=torch.float64)
    return sampler, hidden, 0.3 * torch.randn(num_classes, WIDTH, dtype=torch.float64)


def told(ids: Tensor, log_q: Tensor, num_classes: int) -> Tensor:
    """(D,) the log-probabilities that came with the draws; every class should have been drawn."""
    assert ids.unique().numel() == num_classes
    return log_q.new_zeros(num_classes).index_put((ids,), log_q)


TOPS = pytest.mark.parametrize("top", [4, 1024], ids=["tree", "two levels"])


@TOPS
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("num_classes", [1, 7, 64, 150])
def test_a_fresh_tree_draws_from_the_dense_distribution(examples: int, num_classes: int, top: int) -> None:
    sampler, hidden, table = make(num_classes, top=top)
    ids, log_q = sampler.sample(200_000, hidden[:examples], table)
    q = dense(hidden[:examples], table)
    torch.testing.assert_close(told(ids, log_q, num_classes).exp(), q)
    counts = torch.bincount(ids, minlength=num_classes)
    assert num_classes == 1 or stats.chisquare(counts, 200_000 * q).pvalue > 1e-4


@TOPS
def test_a_stale_tree_tells_the_probabilities_it_draws_with(top: int) -> None:
    sampler, hidden, table = make(refresh_every=10, top=top)
    sampler.sample(1, hidden, table)
    moved = table + 0.5 * torch.randn_like(table)
    ids, log_q = sampler.sample(400_000, hidden, moved)
    q = told(ids, log_q, D).exp()
    assert float(q.sum()) == pytest.approx(1.0, abs=1e-9)
    assert stats.chisquare(torch.bincount(ids, minlength=D), 400_000 * q).pvalue > 1e-4
    assert float((q - dense(hidden, moved)).abs().max()) > 1e-3  # it is stale indeed
    sampler.refresh(moved)
    ids, log_q = sampler.sample(1000, hidden, moved)
    torch.testing.assert_close(log_q.exp(), dense(hidden, moved)[ids])


def test_the_tree_is_made_again_when_due() -> None:
    sampler, hidden, table = make(refresh_every=3)
    ages = []
    for step in range(7):
        table = table + 0.3
        ids, log_q = sampler.sample(5, hidden, table)
        ages.append(int(sampler.age))
        fresh = torch.allclose(log_q.exp(), dense(hidden, table)[ids])
        assert fresh == (step % 3 == 0)
    assert ages == [1, 2, 3, 1, 2, 3, 1]


def test_a_sampler_that_was_made_without_memory_is_due_once_it_has_some() -> None:
    with torch.device("meta"):
        sampler = QuadraticSampler(D, WIDTH, refresh_every=3, dtype=torch.float64)
    sampler.to_empty(device="cpu")
    _, hidden, table = make()
    ids, log_q = sampler.sample(5, hidden, table)
    torch.testing.assert_close(log_q.exp(), dense(hidden, table)[ids])


def test_sums_of_a_stale_tree_are_those_of_its_blocks() -> None:
    sampler, _, table = make()
    sampler.refresh(table)
    upper, left = torch.triu_indices(WIDTH, WIDTH)
    rows = table[16:24]
    torch.testing.assert_close(sampler.grams[2], (rows.T @ rows)[upper, left])


def test_rows_may_be_read_in_any_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, hidden, table = make()
    other, _, _ = make()
    sampler.refresh(table)
    monkeypatch.setattr(QuadraticSampler, "_limit", lambda *_: 2)
    other.refresh(table)
    torch.testing.assert_close(other.grams, sampler.grams)
    ids, log_q = other.sample(1000, hidden, table)
    torch.testing.assert_close(log_q.exp(), dense(hidden, table)[ids])


@settings(max_examples=40)
@given(num_classes=st.integers(1, 70), block=st.integers(1, 20), examples=st.integers(0, 4), n=st.integers(0, 30))
def test_any_shape(num_classes: int, block: int, examples: int, n: int) -> None:
    sampler, _, table = make(num_classes, block=block)
    hidden = torch.randn(examples, WIDTH, dtype=torch.float64)
    ids, log_q = sampler.sample(n, hidden, table)
    assert ids.shape == log_q.shape == (n,)
    q = dense(hidden if examples else hidden.new_zeros(1, WIDTH), table)
    torch.testing.assert_close(log_q.exp(), q[ids])


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e4])
def test_hostile_scales_in_single_precision(size: float) -> None:
    torch.manual_seed(0)
    sampler = QuadraticSampler(D, WIDTH)
    hidden, table = size * torch.randn(3, WIDTH), torch.randn(D, WIDTH)
    ids, log_q = sampler.sample(500, hidden, table)
    assert bool(((ids >= 0) & (ids < D)).all())
    torch.testing.assert_close(log_q.exp(), dense(hidden.double(), table.double())[ids], rtol=1e-3, atol=1e-9)


def test_a_state_goes_on_with_the_same_draws() -> None:
    sampler, hidden, table = make(refresh_every=100)
    sampler.sample(3, hidden, table)
    moved = table + 0.1
    other, _, _ = make(refresh_every=100)
    other.load_state_dict(sampler.state_dict())
    torch.manual_seed(3)
    first = sampler.sample(20, hidden, moved)
    torch.manual_seed(3)
    second = other.sample(20, hidden, moved)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_wrong_input_is_named() -> None:
    sampler, hidden, table = make()
    for name, options in (
        ("scale", {"scale": 0.0}),
        ("block", {"block": 0}),
        ("refresh_every", {"refresh_every": 1.5}),
    ):
        with pytest.raises(ValueError, match=f"Parameter `{name}`"):
            QuadraticSampler(D, WIDTH, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`table` should have shape \(150, 5\)"):
        sampler.sample(1, hidden, table[1:])
    with pytest.raises(ValueError, match=r"`hidden` should have shape \(m, 5\)"):
        sampler.sample(1, hidden[:, 1:], table)
    with pytest.raises(ValueError, match="Parameter `n`"):
        sampler.sample(-1, hidden, table)
