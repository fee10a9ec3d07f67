"""RowAdam: the numbers of torch's SparseAdam, rows without a gradient left alone, state that comes back."""

from __future__ import annotations

import copy

import pytest
import torch

from widehead.arithmetic import reference
from widehead.optim import RowAdam


def sparse(ids: list[int], rows: int, width: int, *, coalesced: bool = False) -> torch.Tensor:
    values = torch.randn(len(ids), width, dtype=torch.float64)
    made = torch.sparse_coo_tensor(torch.tensor([ids]), values, (rows, width), check_invariants=True)
    return made.coalesce() if coalesced else made


def steps(optimizer: torch.optim.Optimizer, table: torch.nn.Parameter, gradients: list[torch.Tensor]) -> None:
    for gradient in gradients:
        table.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("block", [1, 7, 1 << 17])
def test_the_numbers_are_those_of_sparse_adam(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_NUMBERS_AT_ONCE", block)
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(9, 3, dtype=torch.float64))
    twin = torch.nn.Parameter(table.detach().clone())
    gradients = [sparse([8, 0, 3], 9, 3), sparse([3, 3, 1, 8], 9, 3), sparse([0, 2, 5], 9, 3, coalesced=True)]
    settings = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3}
    optimizer = RowAdam([table], **settings)
    steps(optimizer, table, gradients)
    steps(torch.optim.SparseAdam([twin], **settings), twin, gradients)
    torch.testing.assert_close(table, twin, rtol=1e-13, atol=1e-13)


def test_rows_without_a_gradient_stay_as_they_are() -> None:
    table = torch.nn.Parameter(torch.randn(9, 3, dtype=torch.float64))
    before, optimizer = table.detach().clone(), RowAdam([table], lr=0.1)
    steps(optimizer, table, [sparse([7, 2], 9, 3), sparse([], 9, 3), sparse([2, 4], 9, 3)])
    assert (table != before).any(1).nonzero().flatten().tolist() == [2, 4, 7]
    assert (optimizer.state[table]["exp_avg_sq"] != 0).any(1).nonzero().flatten().tolist() == [2, 4, 7]


def test_state_goes_to_and_fro_between_it_and_sparse_adam() -> None:
    table = torch.nn.Parameter(torch.randn(9, 3, dtype=torch.float64))
    gradients = [sparse([1, 5], 9, 3), sparse([5, 6], 9, 3)]
    optimizer = torch.optim.SparseAdam([table], lr=0.1)
    steps(optimizer, table, gradients)
    twin = torch.nn.Parameter(table.detach().clone())
    restored = RowAdam([twin], lr=0.3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert restored.param_groups[0]["lr"] == 0.1
    steps(optimizer, table, gradients)
    steps(restored, twin, gradients)
    torch.testing.assert_close(table, twin, rtol=1e-13, atol=1e-13)


def test_parameters_without_a_gradient_are_left_out() -> None:
    used, unused = (torch.nn.Parameter(torch.ones(4, 2, dtype=torch.float64)) for _ in range(2))
    used.grad = sparse([1], 4, 2)
    assert RowAdam([used, unused]).step(lambda: 3.0) == 3.0
    assert torch.equal(unused, torch.ones_like(unused))


def test_dense_gradients_are_refused_before_anything_changes() -> None:
    first, second = (torch.nn.Parameter(torch.ones(4, 2, dtype=torch.float64)) for _ in range(2))
    first.grad, second.grad = sparse([1], 4, 2), torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"torch\.strided.*torch\.optim\.Adam"):
        RowAdam([first, second]).step()
    assert torch.equal(first, torch.ones_like(first))


@pytest.mark.parametrize(
    ("settings", "name"), [({"lr": -1.0}, "lr"), ({"betas": (0.9, 1.0)}, "betas"), ({"eps": -1.0}, "eps")]
)
def test_wrong_settings(settings: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        RowAdam([torch.nn.Parameter(torch.ones(2, 2))], **settings)
