"""Every head × the properties of arguments, state, weights and learning that all of them share."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import safetensors.torch
import torch
from support.head_table import (
    BIAS,
    LINEAR,
    RAGGED,
    ROWS,
    TABLE,
    TYPES,
    WIDTH,
    D,
    M,
    Row,
    frequencies,
    gradients,
    hidden_of,
    loss_of,
    make,
    small_blocks,
    valued,
)
from torch import Tensor

import widehead as wh
from widehead.names import HEADS

__all__ = ["small_blocks"]  # a fixture that runs by itself


@ROWS
def test_wrong_arguments_are_refused(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    for k in (0, -1, D + 1):
        with pytest.raises(ValueError, match=r"Parameter `k` should be in \[1, num_classes = 60\]"):
            head.top_k(hidden, k)
    for wrong in (hidden[:, :-1], hidden[0, 0], hidden.T[None], [[1.0] * WIDTH] * M):
        with pytest.raises(ValueError, match=r"`hidden` should be a tensor of shape \(m, 8\)"):
            head(wrong, RAGGED)
    with pytest.raises(TypeError, match="floating-point"):
        head(torch.ones(M, WIDTH, dtype=torch.int64), RAGGED)
    with pytest.raises(ValueError, match=r"Class ids should be in \[0, 60\). Found class_ids\[2\] = 60 in example 3"):
        head(hidden, [[1], [], [2], [60], [], []])
    with pytest.raises(ValueError, match="Class ids should be at least 0"):
        head(hidden, torch.tensor([1, 2, -1, 3, 4, 5]))
    with pytest.raises(ValueError, match="targets for 6 examples"):
        head(hidden, RAGGED[:-1])
    with pytest.raises(ValueError, match="`reduction`"):
        head(hidden, RAGGED, reduction="average")
    with pytest.raises(ValueError, match=r"`weight` should have shape \(6,\)"):
        head(hidden, RAGGED, weight=torch.ones(M, 1))
    with pytest.raises(ValueError, match=r"Class ids should be in \[0, 60\)"):
        head.top_k(hidden, 3, exclude=[[60]] * M)
    for sizes in ((0, D), (WIDTH, 0), (WIDTH, -3)):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            row.make(*sizes, torch.float32, False)


@ROWS
@TYPES
@BIAS
def test_state_goes_through_a_file_into_another_head(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, other = make(row, dtype, bias), make(row, dtype, bias, seed=99)
    hidden = hidden_of(dtype=dtype).detach()
    assert not torch.equal(head.scores(hidden), other.scores(hidden))
    state = head.state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())
    starts = [t.untyped_storage().data_ptr() for t in state.values() if t.numel()]
    assert len(set(starts)) == len(starts)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    assert torch.equal(head.scores(hidden), other.scores(hidden))
    assert torch.equal(loss_of(head, hidden, RAGGED), loss_of(other, hidden, RAGGED))
    assert torch.equal(head.top_k(hidden, 9)[1], other.top_k(hidden, 9)[1])


@ROWS
@TYPES
def test_the_same_seed_gives_the_same_bits(row: Row, dtype: torch.dtype) -> None:
    found = []
    for _ in range(2):
        head, hidden = make(row, dtype), hidden_of(dtype=dtype)
        losses = loss_of(head, hidden, valued(), reduction="none")
        losses.sum().backward()
        found.append([losses, *gradients(head, hidden)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def optimizer_for(row: Row, head: Any) -> torch.optim.Optimizer:
    if row.exact_lr is not None:
        return wh.optim.SGD(head, lr=row.exact_lr)
    kind = torch.optim.SparseAdam if head.sparse else torch.optim.Adam
    return kind(head.parameters(), lr=0.05)


@ROWS
@TYPES
def test_sixty_steps_learn(row: Row, dtype: torch.dtype) -> None:
    """40 classes, each a direction with noise around it: a linear head can tell nearly all held-out examples apart."""
    classes, d = 40, 24
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(classes, d, generator=generator)

    def examples(m: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(0, classes, (m,), generator=generator)
        return (centres[ids] + 0.3 * torch.randn(m, d, generator=generator)).to(dtype), ids

    head = make(row, dtype, d=d, n=classes)
    optimizer = optimizer_for(row, head)
    for _ in range(60):
        hidden, ids = examples(64)
        optimizer.zero_grad()
        head(hidden, ids).backward()
        optimizer.step()
    hidden, ids = examples(400)
    found = head.eval().top_k(hidden, 1)[1].squeeze(1)
    assert (found == ids).double().mean() > row.recall


@ROWS
@BIAS
def test_a_deep_copy_is_another_head(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of()
    twin, before = copy.deepcopy(head), head.scores(hidden)
    assert torch.equal(twin.scores(hidden), before)
    optimizer = optimizer_for(row, twin)
    loss_of(twin, hidden, RAGGED).backward()
    optimizer.step()
    assert torch.equal(head.scores(hidden), before)
    assert not torch.allclose(twin.scores(hidden), before)


@ROWS
@BIAS
def test_a_head_changes_its_type(row: Row, bias: bool) -> None:
    head, hidden = make(row, torch.float32, bias), hidden_of().detach()
    before = head.scores(hidden)
    assert before.dtype == torch.float32
    head.to(torch.float64)
    assert head.dtype == torch.float64
    after = head.scores(hidden.float())
    assert after.dtype == torch.float64
    assert torch.allclose(after.float(), before, rtol=1e-4, atol=1e-5)
    assert loss_of(head, hidden.float(), RAGGED).dtype == torch.float64


@ROWS
@TYPES
@BIAS
def test_a_linear_layer_ranks_alike_where_there_is_one(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype).detach()
    if not hasattr(head, "load_weight"):
        with pytest.raises(TypeError, match="no single nn"):
            head.to_linear()
        return
    linear = head.to_linear()
    assert (linear.bias is not None) == bias
    outputs = linear(hidden)
    other = make(row, dtype, bias, seed=7)
    other.load_weight(linear.weight, linear.bias)
    assert torch.allclose(other.to_linear()(hidden), outputs)
    if row.exact_lr is None:
        assert torch.allclose(head.scores(hidden), outputs, rtol=1e-4, atol=1e-5)


@LINEAR
@BIAS
def test_weights_are_copied_in_and_out(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of().detach()
    weight = torch.randn(D, WIDTH, dtype=torch.float64)
    given = weight.clone()
    head.load_weight(given)
    given.zero_()
    assert torch.allclose(head.weight(), weight)
    before = head.scores(hidden)
    head.weight().zero_()
    linear = head.to_linear()
    torch.nn.init.ones_(linear.weight)
    if bias:
        assert torch.equal(head.bias(), torch.zeros(D, dtype=torch.float64))
        head.bias().fill_(1.0)
        torch.nn.init.ones_(linear.bias)
    assert torch.equal(head.scores(hidden), before)


@LINEAR
@BIAS
def test_weights_of_another_shape_or_infinite_are_refused(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of().detach()
    before, weight = head.scores(hidden), torch.randn(D, WIDTH, dtype=torch.float64)
    infinite = weight.clone()
    infinite[3, 1] = torch.inf
    with pytest.raises(ValueError, match="should be finite"):
        head.load_weight(infinite)
    with pytest.raises(ValueError, match=r"`weight` should have shape \(60, 8\)"):
        head.load_weight(weight[1:])
    for wrong in [torch.zeros(D + 1), torch.zeros(D, 1), *([] if bias else [torch.zeros(D)])]:
        with pytest.raises(ValueError, match=r"`bias` should have shape \(60,\)"):
            head.load_weight(weight, wrong)
    assert torch.equal(head.scores(hidden), before)


@LINEAR
def test_a_bias_is_0_at_first(row: Row) -> None:
    if row.exact_lr is not None:
        pytest.skip("an exact head draws it like the weights")
    assert torch.equal(row.make(WIDTH, D, torch.float64, True).bias(), torch.zeros(D, dtype=torch.float64))


@ROWS
@pytest.mark.parametrize("sizes", [(5, 2), (4, 3), (7, 5)], ids=str)
def test_small_layers(row: Row, sizes: tuple[int, int]) -> None:
    d, n = sizes
    head, hidden = make(row, d=d, n=n), hidden_of(4, d)
    loss = loss_of(head, hidden, [[0], [n - 1], [], [0, 1]])
    loss.backward()
    assert torch.isfinite(loss)
    assert head.scores(hidden).shape == (4, n)
    assert head.top_k(hidden, n)[1].sort(dim=1).values.tolist() == [list(range(n))] * 4


@ROWS
@BIAS
def test_autocast_changes_nothing(row: Row, bias: bool) -> None:
    targets, found = torch.tensor([3, 17, 4, 0, 33, 59]), []
    for enabled in (False, True):
        head, hidden = make(row, torch.float32, bias), hidden_of(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = loss_of(head, hidden, targets)
            read = [head.scores(hidden, targets[:, None]), *head.top_k(hidden, 5)]
        loss.backward()
        if isinstance(head, wh.ExactHead):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                wh.optim.SGD(head, lr=0.1).step()
            read.append(head.weight())
        found.append([loss, *gradients(head, hidden), *read])
    for plain, cast in zip(*found, strict=True):
        torch.testing.assert_close(cast, plain, rtol=0.0, atol=0.0)


def test_backward_inside_autocast_is_exact_too() -> None:
    found = []
    for enabled in (False, True):
        head, hidden = make(TABLE[0], torch.float32), hidden_of(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss_of(head, hidden, RAGGED).backward()
            wh.optim.Newton(head).step()
        found.append([hidden.grad, head.weight()])
    torch.testing.assert_close(found[1], found[0], rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"loss": wh.losses.SquaredError()} if name == "exact" else {}) for name in HEADS),
        *((name, {"frequencies": frequencies(D)}) for name in ("adaptive", "hierarchical")),
        *(("hierarchical", {"tree": "huffman", "frequencies": given}) for given in (None, frequencies(D))),
    ],
)
def test_a_head_made_without_memory_is_the_one_whose_state_it_takes(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        head = HEADS[name](WIDTH, D, **options)
    whole = HEADS[name](WIDTH, D, **options)
    head.to_empty(device="cpu").load_state_dict(whole.state_dict())
    hidden = torch.randn(M, WIDTH)
    assert torch.equal(head.eval().scores(hidden), whole.eval().scores(hidden))
