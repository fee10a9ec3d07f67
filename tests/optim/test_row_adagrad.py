"""RowAdagrad: its rule on one row at a time, rows without a gradient left alone, state that comes back."""

from __future__ import annotations

import copy

import pytest
import torch

from widehead.optim import RowAdagrad


def sparse(ids: list[int], rows: int, width: int) -> torch.Tensor:
    values = torch.randn(len(ids), width, dtype=torch.float64)
    return torch.sparse_coo_tensor(torch.tensor([ids]), values, (rows, width), check_invariants=True)


def steps(optimizer: torch.optim.Optimizer, table: torch.nn.Parameter, gradients: list[torch.Tensor]) -> None:
    for gradient in gradients:
        table.grad = gradient.clone()
        optimizer.step()


def test_each_row_follows_its_own_sum_of_squares() -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(9, 3, dtype=torch.float64))
    expected, sums = table.detach().clone(), [0.0] * 9
    gradients = [sparse([8, 0, 3], 9, 3), sparse([3, 3, 1, 8], 9, 3), sparse([], 9, 3), sparse([0, 2, 5], 9, 3)]
    for gradient in gradients:
        dense = gradient.to_dense()
        for row in set(gradient._indices()[0].tolist()):
            sums[row] += float(dense[row].square().sum()) / 3
            expected[row] -= 0.05 * dense[row] / (sums[row] ** 0.5 + 1e-3)
    steps(RowAdagrad([table], lr=0.05, eps=1e-3), table, gradients)
    torch.testing.assert_close(table.detach(), expected, rtol=1e-13, atol=1e-13)


def test_with_rows_of_one_number_it_is_adagrad() -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(9, 1, dtype=torch.float64))
    twin = torch.nn.Parameter(table.detach().clone())
    gradients = [sparse([8, 0, 3], 9, 1), sparse([3, 3, 1, 8], 9, 1), sparse([0, 2, 5], 9, 1)]
    steps(RowAdagrad([table], lr=0.05), table, gradients)
    steps(torch.optim.Adagrad([twin], lr=0.05), twin, gradients)
    torch.testing.assert_close(table, twin, rtol=1e-13, atol=1e-13)


def test_rows_without_a_gradient_stay_as_they_are() -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(9, 3))
    before, optimizer = table.detach().clone(), RowAdagrad([table], lr=0.1)
    steps(optimizer, table, [sparse([7, 2], 9, 3).float(), sparse([4], 9, 3).float()])
    assert (table != before).any(1).nonzero().flatten().tolist() == [2, 4, 7]
    assert optimizer.state[table]["sum"].nonzero().flatten().tolist() == [2, 4, 7]


def test_its_state_comes_back() -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(9, 3, dtype=torch.float64))
    optimizer = RowAdagrad([table], lr=0.1)
    steps(optimizer, table, [sparse([1, 5], 9, 3)])
    twin = torch.nn.Parameter(table.detach().clone())
    restored = RowAdagrad([twin], lr=0.3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    gradients = [sparse([5, 6], 9, 3)]
    steps(optimizer, table, gradients)
    steps(restored, twin, gradients)
    torch.testing.assert_close(table, twin, rtol=0.0, atol=0.0)


def test_a_dense_gradient_and_a_negative_lr_are_refused() -> None:
    table = torch.nn.Parameter(torch.ones(2, 3))
    table.grad = torch.ones(2, 3)
    with pytest.raises(TypeError, match=r"RowAdagrad should be given .* torch\.optim\.Adagrad"):
        RowAdagrad([table]).step()
    assert bool((table == 1).all())
    with pytest.raises(ValueError, match="`lr`"):
        RowAdagrad([table], lr=-1.0)
