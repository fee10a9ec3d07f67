"""Products of rank-one corrections, against the dense matrices that they stand for."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from widehead.arithmetic import Corrections, without_denormals

SEEDS = st.integers(0, 2**32)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(seed: int, k: int, c: int) -> tuple[Corrections, list[Tensor]]:
    """k corrections, and I + x·bᵀ (c, c) of each."""
    product, dense = Corrections.none(c, normal(0, 1)), []
    for x, b in zip(normal(seed, k, c), normal(seed + 1, k, c), strict=True):
        product = product.then(x, b)
        dense.append(torch.eye(c, dtype=torch.float64) + torch.outer(x, b))
    return product, dense


def product_from(dense: list[Tensor], first: int, c: int) -> Tensor:
    out = torch.eye(c, dtype=torch.float64)
    for matrix in dense[first:]:
        out = out @ matrix
    return out


@given(seed=SEEDS, k=st.integers(0, 7), c=st.integers(1, 6), n=st.integers(0, 5))
def test_rows_meet_the_product_of_all(seed: int, k: int, c: int, n: int) -> None:
    corrections, dense = made(seed, k, c)
    rows = normal(seed + 2, n, c)
    assert len(corrections) == k
    torch.testing.assert_close(corrections.applied(rows), rows @ product_from(dense, 0, c), rtol=1e-10, atol=1e-8)


@given(data=st.data(), seed=SEEDS, k=st.integers(0, 7), c=st.integers(1, 6))
def test_each_row_meets_those_that_came_after_it(data: st.DataObject, seed: int, k: int, c: int) -> None:
    corrections, dense = made(seed, k, c)
    first = data.draw(st.lists(st.integers(0, k), max_size=6))
    rows = normal(seed + 2, len(first), c)
    expected = [row @ product_from(dense, j, c) for row, j in zip(rows, first, strict=True)]
    found = corrections.applied(rows, torch.tensor(first, dtype=torch.int64))
    torch.testing.assert_close(found, torch.stack(expected) if first else rows, rtol=1e-10, atol=1e-8)


@given(seed=SEEDS, k=st.integers(1, 5), c=st.integers(1, 6))
def test_one_more_leaves_what_was_there_as_it_was(seed: int, k: int, c: int) -> None:
    corrections, _ = made(seed, k, c)
    before, rows = corrections.both.clone(), normal(seed + 2, 3, c)
    given_rows = rows.clone()
    more = corrections.then(rows[0], rows[1])
    more.applied(rows, torch.tensor([0, 1, k]))
    assert torch.equal(corrections.both, before)
    assert torch.equal(rows, given_rows)
    assert len(more) == k + 1


def test_a_correction_and_its_inverse_are_the_identity() -> None:
    """(I + xbᵀ)⁻¹ = I − xbᵀ/(1 + bᵀx), by Sherman and Morrison."""
    x, b = normal(1, 5), normal(2, 5)
    both = Corrections.none(5, x).then(x, b).then(x, -b / (1.0 + torch.dot(b, x)))
    rows = normal(3, 4, 5)
    torch.testing.assert_close(both.applied(rows), rows, rtol=1e-12, atol=1e-12)


def test_denormal_numbers_become_zero_and_others_stay() -> None:
    given_numbers = torch.tensor([1e-31, -1e-40, 0.0, 2e-30, -3.0, float("inf")], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0, 0.0, 2e-30, -3.0, float("inf")], dtype=torch.float64)
    assert torch.equal(without_denormals(given_numbers), expected)


def test_rows_of_m_that_shrink_to_nothing_become_zero() -> None:
    """Corrections that contract the same direction again and again: the first of M shrinks by 1e-10 with each."""
    x = torch.tensor([1.0, 0.0], dtype=torch.float64)
    product = Corrections.none(2, x).then(x, x)
    for _ in range(4):
        product = product.then(x, (1e-10 - 1.0) * x)
    assert torch.equal(product.both[1][0], torch.zeros(2, dtype=torch.float64))
    assert float(product.both[1][-1].abs().max()) > 0.9


@given(seed=SEEDS, k=st.integers(0, 7), c=st.integers(1, 6))
def test_the_size_of_the_product(seed: int, k: int, c: int) -> None:
    corrections, dense = made(seed, k, c)
    expected = torch.linalg.matrix_norm(product_from(dense, 0, c)) / c**0.5
    assert abs(corrections.size() - float(expected)) <= 1e-6 * (1.0 + float(expected))
