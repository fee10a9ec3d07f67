"""SGD as a torch optimiser: schedulers, groups, closures, warnings, failures."""

from __future__ import annotations

import warnings

import pytest
import torch

import widehead as wh
from widehead.errors import NonFiniteError, UnstableStepWarning
from widehead.optim.sgd import cautious_lr

D, WIDTH = 50, 6


def make(classes: int = D) -> wh.ExactHead:
    torch.manual_seed(0)
    return wh.ExactHead(WIDTH, classes, wh.losses.SquaredError(), dtype=torch.float64)


def backward(head: wh.ExactHead, scale: float = 1.0) -> torch.Tensor:
    hidden = scale * torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = head(hidden, torch.arange(4))
    loss.backward()
    return hidden


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=10, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1.0 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
    ],
)
def test_lr_schedulers_of_torch_work(schedule: object) -> None:
    head = make()
    linear = head.to_linear()
    ours, theirs = wh.optim.SGD(head, lr=0.05), torch.optim.SGD(linear.parameters(), lr=0.05)
    ours_schedule, theirs_schedule = schedule(ours), schedule(theirs)  # type: ignore[operator]
    for _ in range(8):
        hidden = backward(head)
        ours.step()
        theirs.zero_grad()
        ((linear(hidden) - torch.eye(4, D)) ** 2).sum(1).mean().backward()
        theirs.step()
        ours_schedule.step()
        theirs_schedule.step()
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
    assert torch.allclose(head.weight(), linear.weight, rtol=1e-9)


def test_reduce_on_plateau_and_state_round_trip() -> None:
    optimizer = wh.optim.SGD([make(), make(20)], lr=0.1, weight_decay=0.01, max_grad_norm=2.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.1
    other = wh.optim.SGD([make(), make(20)], lr=1.0)
    other.load_state_dict(optimizer.state_dict())
    for group, loaded in zip(optimizer.param_groups, other.param_groups, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {k: v for k, v in loaded.items() if k != "params"}


def test_default_lr_is_the_losss_own() -> None:
    heads = [make(), wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())]
    optimizer = wh.optim.SGD(heads)
    assert [group["lr"] for group in optimizer.param_groups] == [cautious_lr(h.loss, WIDTH, WIDTH) for h in heads]
    slower = wh.optim.SGD(heads, momentum=0.75)
    for group, head in zip(slower.param_groups, heads, strict=True):
        assert group["lr"] == 0.25 * cautious_lr(head.loss, WIDTH, WIDTH)


def test_zero_grad_drops_the_pending_step_and_step_uses_it_up() -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=0.1)
    before = head.weight()
    backward(head)
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(head.weight(), before)
    backward(head)
    optimizer.step()
    after = head.weight()
    assert not torch.equal(after, before)
    optimizer.step()
    assert torch.equal(head.weight(), after)


def test_closure() -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        backward(head)
        return 3.0

    assert optimizer.step(closure) == 3.0
    assert head.weights.steps == 1


def test_the_norm_of_encoder_and_heads_together() -> None:
    """clip_grad_norm scales everything by one factor, as torch does for parameters."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(3, WIDTH).double()
    head = make()
    linear = head.to_linear()
    twin = torch.nn.Linear(3, WIDTH).double()
    twin.load_state_dict(encoder.state_dict())
    x = torch.randn(4, 3, dtype=torch.float64)
    head(encoder(x), torch.arange(4)).backward()
    ((linear(twin(x)) - torch.eye(4, D)) ** 2).sum(1).mean().backward()
    found = wh.optim.clip_grad_norm_(encoder.parameters(), head, 0.1)
    expected = torch.nn.utils.clip_grad_norm_([*twin.parameters(), *linear.parameters()], 0.1)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)
    assert torch.allclose(encoder.weight.grad, twin.weight.grad, rtol=1e-9)
    assert float(head.grad_norm()) == pytest.approx(float(linear.weight.grad.norm()), rel=1e-9)


def test_a_norm_below_the_limit_is_left_alone() -> None:
    plain, clipped, scaled = make(), make(), make()
    for head in (plain, clipped, scaled):
        backward(head)
    wh.optim.clip_grad_norm_([], scaled, 1e6)
    for head, limit in ((plain, None), (clipped, 1e6), (scaled, None)):
        wh.optim.SGD(head, lr=0.1, max_grad_norm=limit).step()
    assert torch.equal(clipped.weight(), plain.weight())
    assert torch.equal(scaled.weight(), plain.weight())


def test_the_norm_of_sparse_gradients_counts_repeated_rows_together() -> None:
    encoder = torch.nn.EmbeddingBag(7, WIDTH, mode="sum", sparse=True, dtype=torch.float64)
    twin = torch.nn.EmbeddingBag.from_pretrained(encoder.weight.detach().clone(), freeze=False, mode="sum")
    ids = torch.tensor([[0, 1], [0, 2], [0, 0], [3, 1]])
    norms = []
    for bag in (encoder, twin):
        head = make()
        head(bag(ids), torch.arange(4)).backward()
        norms.append(float(wh.optim.clip_grad_norm_(bag.parameters(), head, 0.1)))
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    assert torch.allclose(encoder.weight.grad.to_dense(), twin.weight.grad, rtol=1e-12)


def test_an_unstable_step_warns_once_and_names_the_largest_stable_lr() -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=10.0)
    hidden = backward(head)
    stable = 2.0 / float(torch.linalg.eigvalsh(2.0 / 4 * hidden.T @ hidden)[-1])
    with pytest.warns(UnstableStepWarning, match=f"largest stable lr for this batch is {stable:.3g}"[:-1]):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backward(head)
        optimizer.step()


def test_a_stable_step_does_not_warn() -> None:
    head = make()
    hidden = backward(head)
    stable = 2.0 / float(torch.linalg.eigvalsh(2.0 / 4 * hidden.T @ hidden)[-1])
    optimizer = wh.optim.SGD(head, lr=0.99 * stable)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            optimizer.step()
            backward(head)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.5, False), (0.9, False), (0.5, True), (0.9, True)])
def test_momentum_moves_the_limit_of_the_warning(momentum: float, nesterov: bool) -> None:
    """Where a step is stable the roots z of the recurrence of one direction with curvature λ are inside the circle."""
    head = make()
    hidden = backward(head)
    curvature = float(torch.linalg.eigvalsh(2.0 / 4 * hidden.T @ hidden)[-1])

    def grows(lr: float) -> bool:
        """Whether x and m grow: m ← μm + λx, x ← x − lr·m, or x − lr·(λx + μm)."""
        by_x, by_m = (curvature * (1 + momentum), momentum**2) if nesterov else (curvature, momentum)
        step = torch.tensor([[1 - lr * by_x, -lr * by_m], [curvature, momentum]], dtype=torch.float64)
        return float(torch.linalg.eigvals(step).abs().max()) > 1.0

    scale = (2 + 2 * momentum) / (1 + 2 * momentum if nesterov else 1) / curvature
    assert not grows(0.999 * scale)
    assert grows(1.001 * scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wh.optim.SGD(head, lr=0.98 * scale, momentum=momentum, nesterov=nesterov).step()
    head = make()
    backward(head)
    with pytest.warns(UnstableStepWarning, match=f"largest stable lr for this batch is {scale:.3g}"[:-1]):
        wh.optim.SGD(head, lr=1.02 * scale, momentum=momentum, nesterov=nesterov).step()


def test_each_head_is_warned_of_once() -> None:
    heads = [make(), make(20)]
    optimizer = wh.optim.SGD(heads, lr=10.0)
    for head in heads:
        backward(head)
        with pytest.warns(UnstableStepWarning):
            optimizer.step()
    for head in heads:
        backward(head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_where_one_head_fails_no_head_moves() -> None:
    heads = [make(), make(20)]
    optimizer = wh.optim.SGD(heads, lr=0.1)
    before = [head.weight() for head in heads]
    backward(heads[0])
    backward(heads[1], scale=float("nan"))
    with pytest.raises(NonFiniteError, match="hidden layer"):
        optimizer.step()
    assert all(torch.equal(head.weight(), old) for head, old in zip(heads, before, strict=True))
    assert heads[0].pending_gradient() is not None


@pytest.mark.parametrize("lr", [1e30, 1e300])
def test_an_absurd_lr_is_a_named_error(lr: float) -> None:
    head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError())
    optimizer = wh.optim.SGD(head, lr=lr)
    head(torch.randn(4, WIDTH), torch.arange(4)).backward()
    with pytest.raises(NonFiniteError, match="too large"):
        optimizer.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "`lr`"),
        ({"lr": float("nan")}, "`lr`"),
        ({"lr": 0.1, "weight_decay": -0.1}, "`weight_decay`"),
        ({"lr": 0.1, "max_grad_norm": 0.0}, "`max_grad_norm`"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wh.optim.SGD(make(), **options)


def test_only_heads_are_taken_and_each_once() -> None:
    with pytest.raises(TypeError, match="ExactHead"):
        wh.optim.SGD(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    head = make()
    with pytest.raises(ValueError, match="once"):
        wh.optim.SGD([head, head])


def test_two_runs_are_bit_equal() -> None:
    results = []
    for _ in range(2):
        head = make()
        optimizer = wh.optim.SGD(head, lr=0.25)
        for _ in range(30):
            backward(head)
            optimizer.step()
        results.append(head.state_dict())
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_a_head_that_changes_its_type_goes_on_being_watched() -> None:
    """What is kept of the curvature between steps is of the old type."""
    head = wh.ExactHead(6, 30, wh.losses.SquaredError())
    optimizer = wh.optim.SGD(head, lr=1.9 / 12.0)  # λmax of 2HHᵀ/m is 12
    for _ in range(2):
        hidden = torch.ones(5, 6, dtype=head.dtype)
        head(hidden, torch.arange(5)).backward()
        optimizer.step()
        head.double()
    assert head.dtype == torch.float64
