"""The one autograd function of the exact head by itself: every output alone and together, against the dense twin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from support.properties import TABLE, Row, batch, dense_loss, make_head, relative
from support.small_head import WIDTH, D, make

import widehead as wh
from widehead.errors import StaleGraphError
from widehead.losses import Loss, SphericalLoss, sum_over_targets

pytestmark = pytest.mark.filterwarnings("ignore::widehead.errors.UnstableStepWarning")

IDS = [[1], [2, 3, 3], [], [40]]
OUTPUTS = ("q", "s", "a")
SUBSETS = [chosen for n in (1, 2, 3) for chosen in combinations(OUTPUTS, n)]
TARGETS = wh.SparseTargets.from_lists(IDS)


def hidden_layer(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(len(IDS), WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def dense_statistics(hidden: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs = hidden @ weight.T
    return {"q": (outputs**2).sum(1), "s": outputs.sum(1), "a": outputs[TARGETS.example_ids, TARGETS.class_ids]}


def mixed(statistics: dict[str, torch.Tensor], chosen: tuple[str, ...]) -> torch.Tensor:
    """A number that mixes examples and statistics."""
    return torch.stack([torch.tanh(0.1 * statistics[name]).cos().prod() for name in chosen]).prod()


def pending_by_weight(head: wh.ExactHead) -> torch.Tensor:
    """(D, d) ∇W of what is pending, by the step of lr 1 that it makes."""
    before = head.weight()
    wh.optim.SGD(head, lr=1.0).step()
    return before - head.weight()


@pytest.mark.parametrize("chosen", SUBSETS, ids="".join)
def test_every_choice_of_statistics_has_the_gradients_of_the_dense_twin(chosen: tuple[str, ...]) -> None:
    head, hidden, twin = make(), hidden_layer(), hidden_layer()
    weight = head.weight().requires_grad_()
    expected = mixed(dense_statistics(twin, weight), chosen)
    expected.backward()
    found = mixed(dict(zip(OUTPUTS, head.statistics(hidden, IDS), strict=True)), chosen)
    found.backward()
    assert relative(found, expected) < 1e-12
    assert relative(hidden.grad, twin.grad) < 1e-10
    assert relative(pending_by_weight(head), weight.grad) < 1e-10


def test_gradcheck_of_the_statistics() -> None:
    head = make().eval()
    assert torch.autograd.gradcheck(lambda h: head.statistics(h, IDS), (hidden_layer(),))


def test_gradcheck_of_statistics_and_losses_in_one_graph() -> None:
    head = make(wh.losses.TaylorSoftmax()).eval()

    def both(h: torch.Tensor) -> torch.Tensor:
        q, s, _ = head.statistics(h, IDS)
        return head(h, IDS, reduction="none") * torch.tanh(q) + s

    assert torch.autograd.gradcheck(both, (hidden_layer(),))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_reductions_with_weights_have_the_gradients_of_the_dense_twin(row: Row, reduction: str) -> None:
    head, weight = make_head(row, WIDTH, D, torch.float64)
    b = batch(row, torch.Generator().manual_seed(4), 6, WIDTH, D)
    of_examples = torch.tensor([1.0, 0.0, 2.0, 0.5, 3.0, 0.25], dtype=torch.float64)
    upstream = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64) if reduction == "none" else torch.ones(())
    losses, twin, leaf = dense_loss(row, weight, b)
    counted = torch.tensor([float(bool(ids) or not row.make().needs_targets) for ids in b.ids]).double()
    factor = {"none": upstream, "sum": 1.0, "mean": 1.0 / (of_examples * counted).sum()}[reduction] * counted
    (losses * of_examples * factor).sum().backward()
    hidden = b.hidden.clone().requires_grad_()
    found = head(hidden, b.targets(), weight=of_examples, reduction=reduction)
    (found * upstream).sum().backward()
    pending = head.pending_gradient()
    assert pending is not None
    assert pending.example_weight is not None
    assert torch.allclose(pending.example_weight, of_examples * factor)
    assert relative(hidden.grad, twin.grad) < 1e-10
    assert relative(pending_by_weight(head), leaf.grad) < 1e-10


def test_statistics_and_losses_of_one_graph_add_up() -> None:
    head, hidden, twin = make(), hidden_layer(), hidden_layer()
    weight = head.weight().requires_grad_()
    loss = head(hidden, IDS, reduction="sum") + mixed(
        dict(zip(OUTPUTS, head.statistics(hidden, IDS), strict=True)), OUTPUTS
    )
    loss.backward()
    dense = dense_statistics(twin, weight)
    merged = TARGETS.coalesced()
    y = merged.values_or_ones(torch.float64)
    at_targets = (twin @ weight.T)[merged.example_ids, merged.class_ids]
    (dense["q"].sum() - 2.0 * (y * at_targets).sum() + mixed(dense, OUTPUTS)).backward()
    assert relative(hidden.grad, twin.grad) < 1e-10
    pending = head.pending_gradient()
    assert pending is not None
    assert pending.example_weight is None  # not known of all, so of none
    assert relative(pending_by_weight(head), weight.grad) < 1e-10


@pytest.mark.parametrize(
    "read", [lambda head, h: head(h, IDS), lambda head, h: head.statistics(h, IDS)[0].sum()], ids=["loss", "statistics"]
)
@pytest.mark.parametrize("loss", [wh.losses.SquaredError(), wh.losses.ZLoss(0.5, 3.0)], ids=["written out", "default"])
def test_a_second_derivative_is_refused(loss: Loss, read: Callable[..., torch.Tensor]) -> None:
    head, hidden = make(loss), hidden_layer()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(read(head, hidden), hidden, create_graph=True)
    assert head.pending_gradient() is None


@pytest.mark.parametrize(
    "change",
    [lambda head: head.load_weight(head.weight()), lambda head: head.float(), lambda head: step(head)],
    ids=["load", "move", "step"],
)
def test_a_stale_graph_of_statistics_is_refused(change: Callable[[wh.ExactHead], object]) -> None:
    head = make()
    q, _, _ = head.statistics(hidden_layer(), IDS)
    change(head)
    with pytest.raises(StaleGraphError, match="changed between forward and backward"):
        q.sum().backward()
    assert head.pending_gradient() is None


def step(head: wh.ExactHead) -> None:
    head(hidden_layer(), IDS).backward()
    wh.optim.SGD(head, lr=0.01).step()


class Refusing(wh.losses.SquaredError):
    """Whoever asks for derivatives wastes time."""

    def partials(self, *_: object) -> wh.losses.Partials:
        raise AssertionError("derivatives that nobody needs")


def test_without_a_backward_pass_to_come_no_derivatives_are_computed() -> None:
    head, hidden = make(Refusing()), hidden_layer()
    with torch.no_grad():
        expected = head(hidden, IDS)
        assert not any(part.requires_grad for part in head.statistics(hidden, IDS))
    with torch.inference_mode():
        assert torch.equal(head(hidden, IDS), expected)
    head.eval()
    loss = head(hidden.detach(), IDS)
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    assert not any(part.requires_grad for part in head.statistics(hidden.detach(), IDS))
    with pytest.raises(AssertionError, match="nobody needs"):
        head(hidden, IDS)


def test_in_eval_mode_the_gradient_reaches_the_hidden_layer_alone() -> None:
    head, hidden, twin = make(wh.losses.ZLoss(0.5, 3.0)), hidden_layer(), hidden_layer()
    head(twin, IDS).backward()
    head.drop_pending()
    head.eval()
    head(hidden, IDS).backward()
    assert torch.equal(hidden.grad, twin.grad)
    assert head.pending_gradient() is None


@pytest.mark.parametrize("loss", [wh.losses.SquaredError(), wh.losses.ZLoss(0.5, 3.0)], ids=["written out", "default"])
def test_a_hidden_layer_that_needs_no_gradient_leaves_the_same_step(loss: Loss) -> None:
    steps = []
    for hidden in (hidden_layer(), hidden_layer().detach()):
        head = make(loss)
        _optimizer = wh.optim.SGD(head)  # so that several backward passes are kept
        head(hidden, IDS).backward()
        (head.statistics(hidden, IDS)[2] ** 2).sum().backward()
        assert hidden.requires_grad == (hidden.grad is not None)
        steps.append(pending_by_weight(head))
    assert torch.equal(*steps)


@pytest.mark.parametrize("storage_dtype", [None, torch.bfloat16], ids=["compiled", "torch"])  # what the step is made of
@pytest.mark.parametrize("loss", [wh.losses.TaylorSoftmax(), wh.losses.ZLoss(0.5, 3.0)], ids=["written out", "default"])
def test_inside_autocast_nothing_is_rounded(loss: Loss, storage_dtype: torch.dtype | None) -> None:
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        head = wh.ExactHead(WIDTH, D, loss, storage_dtype=storage_dtype)
        hidden = hidden_layer(torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = head(hidden, IDS)
            value.backward()
        found.append((value, hidden.grad, pending_by_weight(head)))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def in_place(q: torch.Tensor, s: torch.Tensor, a: torch.Tensor, targets: wh.SparseTargets) -> torch.Tensor:
    return q.mul_(2.0).add_(s.sin_()).add_(sum_over_targets(a.mul_(3.0).exp(), targets))


def out_of_place(q: torch.Tensor, s: torch.Tensor, a: torch.Tensor, targets: wh.SparseTargets) -> torch.Tensor:
    return q * 2.0 + s.sin() + sum_over_targets((a * 3.0).exp(), targets)


def in_double(q: torch.Tensor, s: torch.Tensor, a: torch.Tensor, targets: wh.SparseTargets) -> torch.Tensor:
    return out_of_place(q.double(), s.double(), a.double(), targets)


@pytest.mark.parametrize("kind", ["SGD", "Newton"])
@pytest.mark.parametrize("function", [in_place, in_double])
def test_what_functions_do_to_their_arguments_is_their_own_affair(kind: str, function: Callable[..., object]) -> None:
    ends = []
    for fn in (out_of_place, function):
        head, hidden = make(SphericalLoss(fn), dtype=torch.float32), hidden_layer(torch.float32)  # type: ignore[arg-type]
        optimizer = getattr(wh.optim, kind)(head, lr=1e-3)
        for _ in range(3):
            head(hidden, IDS, reduction="none").double().mul(0.1).sum().backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            ends.append((hidden.grad, head.weight(), head(hidden, IDS).float()))
    for found, expected in zip(*ends, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda q, s, a, t: 3.0 * q,
        lambda q, s, a, t: s**2,
        lambda q, s, a, t: sum_over_targets(a, t),
        lambda q, s, a, t: torch.where(t.counts > 0, q, torch.zeros_like(q)),
    ],
    ids=["q alone", "s alone", "a alone", "some examples"],
)
def test_losses_may_leave_statistics_out(function: Callable[..., torch.Tensor]) -> None:
    head, hidden, twin = make(SphericalLoss(function)), hidden_layer(), hidden_layer()
    weight = head.weight().requires_grad_()
    function(*dense_statistics(twin, weight).values(), TARGETS).mean().backward()
    head(hidden, IDS).backward()
    assert relative(hidden.grad, twin.grad) < 1e-10
    assert relative(pending_by_weight(head), weight.grad) < 1e-10


@pytest.mark.parametrize(
    "function",
    [
        lambda q, s, a, t: q.detach(),
        lambda q, s, a, t: torch.zeros_like(q),
        lambda q, s, a, t: torch.from_numpy(q.detach().numpy() ** 2),
    ],
    ids=["detached", "constant", "numpy"],
)
def test_a_loss_that_autograd_cannot_differentiate_is_named(function: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="Found losses of SphericalLoss that have no gradient"):
        make(SphericalLoss(function))(hidden_layer(), IDS)
