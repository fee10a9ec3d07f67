"""Every loss × dtype against every property of an exact head."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from support.properties import (
    DEVICE,
    DTYPES,
    TABLE,
    Batch,
    Row,
    batch,
    dense_loss,
    dense_mean,
    head_loss,
    make_head,
    relative,
)

import widehead as wh
from widehead import factored
from widehead.errors import NonFiniteError, StaleGraphError, UnstableStepWarning

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
D = 60
SHAPES = {"m < d": (5, 8), "m = d": (8, 8), "m > d": (19, 8), "online": (1, 8), "narrow": (6, 1)}


def gen(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@ROWS
@TYPES
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_hidden_gradient_equal_the_dense_ones(row: Row, dtype: torch.dtype, shape: str) -> None:
    m, d = SHAPES[shape]
    if row.name == "z-loss" and d == 1:
        pytest.skip("z does not depend on a hidden layer of one unit: its gradient is 0")
    head, weight = make_head(row, d, D, dtype)
    b = batch(row, gen(), m, d, D)
    losses, hidden = head_loss(head, b, reduction="none")
    expected, dense_hidden, _ = dense_loss(row, weight, b)
    assert relative(losses, expected) < TOLERANCE[dtype]
    losses.sum().backward()
    expected.sum().backward()
    assert relative(hidden.grad, dense_hidden.grad) < TOLERANCE[dtype]


@ROWS
def test_gradcheck(row: Row) -> None:
    head, _ = make_head(row, 4, 20, torch.float64)
    b = batch(row, gen(), 3, 4, 20)
    head.eval()
    hidden = b.hidden.to(DEVICE).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: head(h, b.targets(), reduction="none"), hidden)


@ROWS
@TYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("steps", [8, pytest.param(20, marks=pytest.mark.long)])
def test_steps_equal_dense_sgd(row: Row, dtype: torch.dtype, shape: str, decay: float, steps: int) -> None:
    m, d = SHAPES[shape]
    head, weight = make_head(row, d, D, dtype)
    optimizer = wh.optim.SGD(head, lr=0.05, weight_decay=decay)
    generator = gen(2)
    for _ in range(steps):
        b = batch(row, generator, m, d, D)
        loss, _ = head_loss(head, b)
        optimizer.zero_grad()
        loss.backward()
        expected, _, leaf = dense_loss(row, weight, b)
        dense_mean(expected, row, b).backward()
        assert leaf.grad is not None
        assert abs(float(head.grad_norm()) - float(leaf.grad.norm())) <= 1e-5 * float(leaf.grad.norm()) + 1e-12
        optimizer.step()
        weight = (1 - 0.05 * decay) * weight - 0.05 * leaf.grad
        assert relative(loss, dense_mean(expected, row, b)) < 10 * TOLERANCE[dtype]
    assert relative(head.weight(), weight) < TOLERANCE[dtype]
    drift = head.audit()
    assert drift.finite
    assert max(drift.gram, drift.column_sum, drift.inverse) < TOLERANCE[dtype]


@ROWS
@TYPES
def test_an_equal_torch_layer_goes_the_same_way(row: Row, dtype: torch.dtype) -> None:
    """The twin here is torch itself: to_linear, torch.optim.SGD with decay, clipping by torch's own norm."""
    d, lr, decay, most = 6, 0.1, 0.05, 0.7
    head, _ = make_head(row, d, D, dtype)
    linear = head.to_linear().double()
    ours = wh.optim.SGD(head, lr=lr, weight_decay=decay, max_grad_norm=most)
    theirs = torch.optim.SGD(linear.parameters(), lr=lr, weight_decay=decay)
    generator = gen(3)
    for _ in range(20):
        b = batch(row, generator, 7, d, D)
        head_loss(head, b)[0].backward()
        ours.step()
        theirs.zero_grad()
        losses = row.dense(linear(b.hidden.to(DEVICE)).cpu(), b.ids, b.values)
        dense_mean(losses, row, b).backward()
        torch.nn.utils.clip_grad_norm_(linear.parameters(), most)
        theirs.step()
    assert relative(head.weight(), linear.weight.cpu()) < TOLERANCE[dtype]


def special_batches(row: Row, d: int) -> dict[str, Batch]:
    def values(ids: list[list[int]]) -> list[list[float]] | None:
        return [[1.0] * len(i) for i in ids] if row.valued else None

    hidden = 0.3 * torch.randn(6, d, generator=gen(4), dtype=torch.float64)
    many = [torch.randint(0, D, (300,), generator=gen(5)).tolist() for _ in range(6)]
    cases = {
        "empty batch": (hidden[:0], []),
        "no targets at all": (hidden, [[] for _ in range(6)]),
        "one class for all": (hidden, [[7] for _ in range(6)]),
        "one class, repeated": (hidden, [[7, 7, 7], [], [7, 7], [7], [], [7]]),
        "hundreds of targets": (hidden, many),
        "hidden layer of zeros": (0 * hidden, [[1], [2, 3], [], [4], [5], [59]]),
    }
    return {name: Batch(h, ids, values(ids)) for name, (h, ids) in cases.items()}


@ROWS
@TYPES
@pytest.mark.parametrize("d", [4, 9])
@pytest.mark.parametrize("case", list(special_batches(TABLE[0], 2)))
def test_ordinary_though_special(row: Row, dtype: torch.dtype, d: int, case: str) -> None:
    if row.name == "z-loss" and case == "hidden layer of zeros":
        pytest.skip("outputs that are all alike have no z: see the test of hostile scales")
    b = special_batches(row, d)[case]
    head, weight = make_head(row, d, D, dtype)
    optimizer = wh.optim.SGD(head, lr=0.02, weight_decay=0.1)
    for _ in range(3):
        loss, hidden = head_loss(head, b)
        loss.backward()
        optimizer.step()
        losses, dense_hidden, leaf = dense_loss(row, weight, b)
        expected = dense_mean(losses, row, b)
        expected.backward()
        gradient = torch.zeros_like(weight) if leaf.grad is None else leaf.grad
        weight = (1 - 0.02 * 0.1) * weight - 0.02 * gradient
        assert abs(float(loss) - float(expected)) <= 1e-5 * (1 + abs(float(expected)))
        assert relative(hidden.grad, dense_hidden.grad) < 1e-5
    assert relative(head.weight(), weight) < TOLERANCE[dtype]


@ROWS
@TYPES
def test_several_backward_passes_add_up(row: Row, dtype: torch.dtype) -> None:
    head, weight = make_head(row, 6, D, dtype)
    optimizer = wh.optim.SGD(head, lr=0.05)
    generator = gen(6)
    for _ in range(5):
        parts = [batch(row, generator, m, 6, D) for m in (3, 1, 9)]
        total = torch.zeros_like(weight)
        for part in parts:
            head_loss(head, part)[0].backward()
            losses, _, leaf = dense_loss(row, weight, part)
            dense_mean(losses, row, part).backward()
            total += leaf.grad
        assert abs(float(head.grad_norm()) / float(total.norm()) - 1) < 1e-5
        optimizer.step()
        weight = weight - 0.05 * total
    assert relative(head.weight(), weight) < TOLERANCE[dtype]


def train(head: wh.ExactHead, optimizer: wh.optim.SGD, row: Row, first: int, steps: int, lr: float = 0.3) -> None:
    """Steps with batches that depend on the step's number only; large enough to close segments and sweep."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    for t in range(first, first + steps):
        b = batch(row, gen(100 + t), 5, head.in_features, head.num_classes, dominant=4.0)
        optimizer.zero_grad()
        head_loss(head, b)[0].backward()
        optimizer.step()


@ROWS
@TYPES
def test_state_dict_goes_on_bit_equal_from_the_middle(row: Row, dtype: torch.dtype) -> None:
    warnings.simplefilter("ignore", UnstableStepWarning)
    lr = 0.5 if row.quadratic else 0.05
    head, _ = make_head(row, 8, D, dtype)
    optimizer = wh.optim.SGD(head, lr=lr)
    train(head, optimizer, row, 0, 37, lr)
    saved = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    saved_optimizer = copy.deepcopy(optimizer.state_dict())
    twin = copy.deepcopy(head)
    other = wh.ExactHead(8, D, row.make(), dtype=dtype, device=DEVICE)
    other_optimizer = wh.optim.SGD(other, lr=99.0)
    other.load_state_dict(saved)
    other_optimizer.load_state_dict(saved_optimizer)
    assert other_optimizer.param_groups[0]["lr"] == lr
    train(head, optimizer, row, 37, 15, lr)
    train(other, other_optimizer, row, 37, 15, lr)
    train(twin, wh.optim.SGD(twin, lr=lr), row, 37, 15, lr)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
        assert torch.equal(tensor, twin.state_dict()[name]), name
    if row.quadratic:
        assert head.audit().closes >= 2  # otherwise this test would prove little


@ROWS
@TYPES
def test_top_k_agrees_with_the_scores_of_all_classes(row: Row, dtype: torch.dtype) -> None:
    head, _ = make_head(row, 6, 1000, dtype)
    hidden = torch.randn(9, 6, generator=gen(7), dtype=torch.float64).to(DEVICE, dtype)
    everything = head.scores(hidden)
    for exclude in (None, [[int(i)] for i in everything.argmax(1)], [[] for _ in range(9)]):
        expected = everything.clone()
        for b, banned in enumerate(exclude or []):
            expected[b, banned] = -torch.inf
        scores, ids = head.top_k(hidden, 13, exclude=exclude)
        assert torch.allclose(scores, expected.topk(13, dim=1).values, rtol=1e-6)
        assert torch.allclose(everything.gather(1, ids), scores, rtol=1e-6)
        assert all(len(set(line)) == 13 for line in ids.tolist())
    some = torch.tensor([[3, 3], [999, 0]] + [[1, 2]] * 7, device=DEVICE)
    assert torch.allclose(head.scores(hidden, some), everything.gather(1, some), rtol=1e-4, atol=1e-5)


@ROWS
def test_log_prob_is_a_distribution_over_all_classes(row: Row) -> None:
    head, _ = make_head(row, 6, D, torch.float64)
    hidden = torch.randn(3, 6, generator=gen(8), dtype=torch.float64).to(DEVICE)
    ids = torch.arange(D, device=DEVICE).expand(3, D)
    if not row.make().has_probabilities:
        with pytest.raises(TypeError, match="no probabilities"):
            head.log_prob(hidden, ids)
        return
    log_p = head.log_prob(hidden, ids)
    assert torch.allclose(log_p.exp().sum(1), torch.ones(3, dtype=torch.float64, device=DEVICE), rtol=1e-12)
    ragged = wh.SparseTargets.from_lists([[5], [], [7, 9]])
    assert torch.allclose(head.log_prob(hidden, ragged), torch.stack([log_p[0, 5], log_p[2, 7], log_p[2, 9]]))
    assert torch.allclose(head.log_prob(hidden, ids[:, 4]), log_p[:, 4])


def plain_error(row: Row, weight: torch.Tensor, b: Batch, dtype: torch.dtype, truth: torch.Tensor) -> float:
    """Error of the hidden layer's gradient that ordinary dense arithmetic in ``dtype`` makes."""
    hidden = b.hidden.to(dtype, copy=True).requires_grad_()
    losses = row.dense((hidden @ weight.to(dtype).T).to(dtype), b.ids, b.values)
    dense_mean(losses, row, b).backward()
    return relative(hidden.grad, truth)


@ROWS
@TYPES
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1e-4, 1e4])
def test_hostile_scales_of_the_hidden_layer(row: Row, dtype: torch.dtype, scale: float) -> None:
    head, weight = make_head(row, 6, D, dtype)
    optimizer = wh.optim.SGD(head, lr=1e-3 / (1 + scale**2))
    b = batch(row, gen(9), 7, 6, D)
    b = Batch(b.hidden * scale, b.ids, b.values)
    loss, hidden = head_loss(head, b)
    loss.backward()
    losses, dense_hidden, leaf = dense_loss(row, weight, b)
    expected = dense_mean(losses, row, b)
    expected.backward()
    degenerate = row.name == "z-loss" and scale == 0.0  # outputs all alike have no z: the dense twin is NaN there
    assert torch.isfinite(loss)
    if not degenerate:
        plain = plain_error(row, weight, b, dtype, dense_hidden.grad)
        assert abs(float(loss) - float(expected)) <= 1e-4 * (1 + abs(float(expected)))
        assert relative(hidden.grad, dense_hidden.grad) < TOLERANCE[dtype] + 20 * plain
    optimizer.step()
    if not degenerate:
        assert relative(head.weight(), weight - optimizer.param_groups[0]["lr"] * leaf.grad) < TOLERANCE[dtype]


def held(head: wh.ExactHead) -> dict[str, torch.Tensor]:
    """All that stands for W. A GPU counts steps before anybody knows whether they are left out."""
    state = head.state_dict()
    found = {**factored.unpack(state.pop("_extra_state")), **state}
    if DEVICE != "cpu":
        del found["counters"]
    return found


@ROWS
@TYPES
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_failed_step_raises_and_changes_nothing(row: Row, dtype: torch.dtype, poison: float) -> None:
    head, _ = make_head(row, 6, D, dtype)
    optimizer = wh.optim.SGD(head, lr=0.05)
    train(head, optimizer, row, 0, 3, 0.05)
    before = {name: tensor.clone() for name, tensor in held(head).items()}
    b = batch(row, gen(10), 7, 6, D)
    b.hidden[3, 2] = poison
    head_loss(head, b)[0].backward()
    with pytest.raises(NonFiniteError, match="hidden layer"):  # noqa: PT012  a GPU tells it late
        optimizer.step()
        head.consolidate()
    for name, tensor in held(head).items():
        assert torch.equal(tensor, before[name]), name
    optimizer.zero_grad()
    train(head, optimizer, row, 3, 1, 0.05)  # and it goes on
    assert head.audit().finite


@ROWS
def test_weights_must_not_change_between_forward_and_backward(row: Row) -> None:
    head, _ = make_head(row, 6, D, torch.float64)
    optimizer = wh.optim.SGD(head, lr=0.05)
    b = batch(row, gen(11), 7, 6, D)
    early, _ = head_loss(head, b)
    train(head, optimizer, row, 0, 1, 0.05)
    with pytest.raises(StaleGraphError, match="changed between forward and backward"):
        early.backward()


@ROWS
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.long)], ids=str)
@pytest.mark.parametrize("optimizer_kind", ["SGD", "Newton", "Shampoo", "Muon"])
def test_the_defaults_train(row: Row, dtype: torch.dtype, optimizer_kind: str) -> None:
    """From its own initial weights and lr, on data that can be learnt, every loss falls and stays finite."""
    if row.name.endswith(", values"):
        pytest.skip("no target here has a value: the steps would be those of another row")
    torch.manual_seed(0)
    d, classes = 16, 300
    head = wh.ExactHead(d, classes, row.make(), dtype=dtype, device=DEVICE)
    encoder = torch.nn.Sequential(torch.nn.Embedding(classes, d), torch.nn.Linear(d, d), torch.nn.Tanh()).to(
        DEVICE, dtype
    )
    optimizer = getattr(wh.optim, optimizer_kind)(head)
    encoder_optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)
    history = []
    for step in range(70):
        x = torch.randint(0, classes, (64,), generator=gen(step)).to(DEVICE)
        loss = head(encoder(x), x)
        optimizer.zero_grad()
        encoder_optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        encoder_optimizer.step()
        history.append(float(loss))
    first, last = sum(history[:10]) / 10, sum(history[-10:]) / 10
    assert last < first - 0.05 * abs(first), (first, last)
    assert head.audit().finite
