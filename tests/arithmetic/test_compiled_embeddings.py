"""Rows of embeddings moved by C beside torch's operations: the same numbers, and nothing else is touched."""

from __future__ import annotations

import pytest
import torch
from support.compiled_steps import COMPILED

from widehead.arithmetic import TORCH, AdamRule, Arithmetic, using
from widehead.optim import RowAdagrad, RowAdam

pytestmark = pytest.mark.skipif(COMPILED is None, reason="needs a C compiler, and Linux")
RULES = {
    "adam": lambda table: RowAdam([table], lr=0.03, betas=(0.8, 0.95), eps=1e-3),
    "adagrad": lambda table: RowAdagrad([table], lr=0.05, eps=1e-3),
}


def moved(rule: str, shape: tuple[int, ...], steps: int = 4, count: int = 0) -> list[torch.Tensor]:
    """Rows and state after some steps, each of other rows, ``count`` of them or as many as they happen to be."""
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(shape))
    optimizer = RULES[rule](table)
    for _ in range(steps):
        ids = torch.randperm(shape[0])[: count or int(torch.randint(1, shape[0] + 1, ()))]
        values = torch.randn(len(ids), *shape[1:])
        table.grad = torch.sparse_coo_tensor(ids[None], values, shape, check_invariants=True)
        optimizer.step()
    return [table.detach(), *(part for part in optimizer.state[table].values() if isinstance(part, torch.Tensor))]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(1, 1), (9, 3), (300, 16), (257, 33), (130, 512), (40,), (12, 3, 5)])
def test_the_numbers_are_those_of_the_twin(rule: str, shape: tuple[int, ...], threads: int) -> None:
    found = moved(rule, shape)
    with using(TORCH):
        expected = moved(rule, shape)
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("rule", RULES)
def test_it_is_c_that_moves_them(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("torch's operations were called")

    monkeypatch.setattr(Arithmetic, f"move_by_{rule}", refuse)
    moved(rule, (20, 4))
    with using(TORCH), pytest.raises(AssertionError):
        moved(rule, (20, 4))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_gradient_that_is_no_number_is_seen_in_its_row_alone(rule: str, bad: str) -> None:
    table = torch.nn.Parameter(torch.ones(5, 3))
    optimizer = RULES[rule](table)
    values = torch.ones(2, 3)
    values[0, 1] = float(bad)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[1, 4]]), values, (5, 3), check_invariants=True)
    optimizer.step()
    assert not table[1].isfinite().all()
    assert table[[0, 2, 3, 4]].isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_what_lies_between_other_numbers_is_left_to_torch(rule: str) -> None:
    """A part of the columns of a table; the others stay."""
    torch.manual_seed(0)
    whole = torch.randn(20, 8)
    before = whole.clone()
    table = torch.nn.Parameter(whole[:, 2:5])
    assert not table.is_contiguous()
    values = torch.randn(2, 3)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[3, 7]]), values, (20, 3), check_invariants=True)
    RULES[rule](table).step()
    changed = (whole != before).nonzero().tolist()
    assert changed == [[row, column] for row in (3, 7) for column in (2, 3, 4)]


@pytest.mark.parametrize("rule", RULES)
def test_autograd_hears_of_it(rule: str) -> None:
    table = torch.nn.Parameter(torch.ones(6, 2))
    loss = (table.square()).sum()
    table.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1, 2), (6, 2), check_invariants=True)
    RULES[rule](table).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_rows_that_there_are_not_are_refused_before_anything_moves() -> None:
    table, state = torch.ones(4, 2), torch.zeros(4, 2)
    ids, gradient, rule = torch.tensor([0, 4]), torch.ones(2, 2), AdamRule(0.9, 0.999, 1e-8, 0.1)
    assert COMPILED is not None
    with pytest.raises(RuntimeError, match="nothing was moved"):
        COMPILED.move_by_adam(table, state, state.clone(), ids, gradient, rule)
    with pytest.raises(RuntimeError, match="nothing was moved"):
        COMPILED.move_by_adagrad(table, torch.zeros(4), torch.tensor([-1, 0]), gradient, 0.1, 1e-8)
    assert torch.equal(table, torch.ones(4, 2))
    assert not state.any()


@pytest.mark.parametrize("rule", RULES)
def test_a_state_of_another_size_never_reaches_c(rule: str) -> None:
    table = torch.nn.Parameter(torch.ones(6, 4))
    optimizer = RULES[rule](table)
    gradient = torch.sparse_coo_tensor(torch.tensor([[5]]), torch.ones(1, 4), (6, 4), check_invariants=True)
    table.grad = gradient
    optimizer.step()
    state, before = optimizer.state[table], table.detach().clone()
    for name, part in state.items():
        if isinstance(part, torch.Tensor):
            state[name] = part[:2].clone()
    table.grad = gradient
    with pytest.raises((IndexError, RuntimeError)):
        optimizer.step()
    assert torch.equal(table, before)


@pytest.mark.parametrize("odd", ["table", "means", "squares", "gradient of one number a row"])
def test_what_c_cannot_read_is_left_to_torch(odd: str) -> None:
    """Tensors that are not in order, of the state too, and a gradient that torch spreads over the row."""
    ids, rule = torch.tensor([2, 5]), AdamRule(0.9, 0.999, 1e-8, 0.1)
    assert COMPILED is not None
    found = []
    for arithmetic in (COMPILED, TORCH):
        torch.manual_seed(0)
        parts = {name: torch.rand(6, 4) for name in ("table", "means", "squares")}
        gradient = torch.rand(2, 4)
        if odd in parts:
            parts[odd] = torch.rand(4, 6).T
        else:
            gradient = gradient[:, :1]
        arithmetic.move_by_adam(parts["table"], parts["means"], parts["squares"], ids, gradient, rule)
        found.append(torch.stack(list(parts.values())))
    torch.testing.assert_close(*found, rtol=2e-6, atol=2e-6)
