"""`wh.cuda.GraphedStep` on the played device: captured steps are those that are made one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.played import Device
from support.properties import TABLE, Row, relative
from torch import Tensor, nn

import widehead as wh
from widehead.errors import NonFiniteError

D, WIDTH, INPUTS, M = 300, 10, 5, 7
OPTIMIZERS: dict[str, Callable[[wh.ExactHead], Any]] = {
    "sgd": lambda head: wh.optim.SGD(head, lr=0.05),
    "decay and clipping": lambda head: wh.optim.SGD(head, lr=0.05, weight_decay=0.1, max_grad_norm=0.5),
    "momentum": lambda head: wh.optim.SGD(head, lr=0.05, momentum=0.9),
    "newton": wh.optim.Newton,
    "shampoo": wh.optim.Shampoo,
    "muon": wh.optim.Muon,
}


class Trained:
    """An encoder and an exact head on the device, with their optimisers."""

    def __init__(self, row: Row, optimizer: str, *, bias: bool = False) -> None:
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh()).to("cuda")
        self.head = wh.ExactHead(WIDTH, D, row.make(), bias=bias, device="cuda")
        self.of_encoder = torch.optim.SGD(self.encoder.parameters(), lr=0.05)
        self.of_head = OPTIMIZERS[optimizer](self.head)

    def graphed(self) -> wh.cuda.GraphedStep:
        return wh.cuda.GraphedStep(self.encoder, self.head, [self.of_encoder, self.of_head])

    def step(self, inputs: Tensor, targets: wh.SparseTargets) -> Tensor:
        """The same, one operation after the other."""
        self.of_encoder.zero_grad()
        self.of_head.zero_grad()
        loss: Tensor = self.head(self.encoder(inputs.to("cuda")), targets)
        loss.backward()
        self.of_encoder.step()
        self.of_head.step()
        return loss.detach()

    def weight(self) -> Tensor:
        return self.head.weight().cpu()


def batches(row: Row, count: int, *, most: int = 4) -> list[tuple[Tensor, wh.SparseTargets]]:
    """Ragged, some examples without targets."""
    generator, made = torch.Generator().manual_seed(3), []
    for _ in range(count):
        counts = torch.randint(0, most, (M,), generator=generator).tolist()
        ids = [torch.randint(0, D, (k,), generator=generator).tolist() for k in counts]
        values = [(0.5 + torch.rand(len(i), generator=generator)).tolist() for i in ids] if row.valued else None
        made.append((torch.randn(M, INPUTS, generator=generator), wh.SparseTargets.from_lists(ids, values)))
    return made


def row_of(name: str) -> Row:
    return next(row for row in TABLE if row.name == name)


@pytest.mark.parametrize(
    ("name", "optimizer"), [*(("squared, values", kind) for kind in OPTIMIZERS), ("spherical softmax", "newton")]
)
def test_captured_steps_are_those_made_one_by_one(played: Device, name: str, optimizer: str) -> None:
    row = row_of(name)
    one, other = Trained(row, optimizer, bias=True), Trained(row, optimizer, bias=True)
    step = other.graphed()
    for inputs, targets in batches(row, 32):
        assert relative(step(inputs, targets), one.step(inputs, targets).cpu()) < 1e-5
    assert other.head.weights.closes >= 1, "it should go on through ends of segments"
    assert relative(other.weight(), one.weight()) < 2e-5
    for mine, theirs in zip(other.encoder.parameters(), one.encoder.parameters(), strict=True):
        assert relative(mine, theirs.cpu()) < 2e-5


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_loss_is_captured(played: Device, row: Row) -> None:
    one, other = Trained(row, "sgd"), Trained(row, "sgd")
    step = other.graphed()
    for inputs, targets in batches(row, 12):
        step(inputs, targets)
        one.step(inputs, targets)
    assert relative(other.weight(), one.weight()) < 1e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_replay_is_one_launch_and_some_copies_and_no_wait(played: Device, optimizer: str) -> None:
    row = row_of("squared")
    step = Trained(row, optimizer).graphed()
    drawn = batches(row, 40, most=2)
    for inputs, targets in drawn:  # until there is a graph for steps that renew R, and one for those that do not
        step(inputs, targets)
    inputs, targets = drawn[-1]
    with played.counting() as seen:
        step(inputs, targets)
    assert seen.waits == []
    assert seen.kernels["graph"] == 1
    assert seen.launches <= 6, dict(seen.kernels)


def test_batches_with_more_targets_than_ever_before(played: Device) -> None:
    """The cache grows, so that graphs that know the old one are captured anew."""
    row = row_of("squared")
    one, other = Trained(row, "sgd"), Trained(row, "sgd")
    step = other.graphed()
    for most in (2, 40, 3, 200):
        for inputs, targets in batches(row, 6, most=most):
            step(inputs, targets)
            one.step(inputs, targets)
    assert relative(other.weight(), one.weight()) < 1e-5


def test_the_host_counts_places_of_the_cache_as_the_device_does(played: Device) -> None:
    """What is captured is not made, so that it counts for nothing."""
    row = row_of("squared")
    trained = Trained(row, "sgd")
    step, seen = trained.graphed(), 0
    for inputs, targets in batches(row, 14):
        step(inputs, targets)
        kept = trained.head.weights.kept
        assert kept.used == kept.places - 1 - int(kept.next)
        seen = max(seen, kept.used)
    assert seen > 0
    assert step._graphs


def test_steps_of_both_ways_in_turn(played: Device) -> None:
    row = row_of("squared")
    one, other = Trained(row, "newton"), Trained(row, "newton")
    step = other.graphed()
    for number, (inputs, targets) in enumerate(batches(row, 40)):
        one.step(inputs, targets)
        (other.step if number % 5 == 4 else step)(inputs, targets)
        if number % 11 == 10:
            other.head.state_dict()  # ends the segment
    assert relative(other.weight(), one.weight()) < 1e-5


def test_a_step_that_is_not_finite_is_left_out_and_reported_by_a_later_call(played: Device) -> None:
    row = row_of("squared")
    one, other = Trained(row, "sgd"), Trained(row, "sgd")
    step = other.graphed()
    drawn = batches(row, 20)
    for inputs, targets in drawn[:10]:
        one.step(inputs, targets)
        step(inputs, targets)
    with torch.no_grad():
        kept = [p.clone() for p in other.encoder.parameters()]
    step(torch.full((M, INPUTS), torch.nan), drawn[9][1])
    with torch.no_grad():  # torch's own optimisers have taken the NaN
        for parameter, before in zip(other.encoder.parameters(), kept, strict=True):
            parameter.copy_(before)
    with pytest.raises(NonFiniteError, match="step 11"):
        step(*drawn[10])
    for inputs, targets in drawn[10:]:
        step(inputs, targets)
        one.step(inputs, targets)
    assert relative(other.weight(), one.weight()) < 1e-5, "as if the step had not been asked for"


def test_a_learning_rate_on_the_device_is_read_by_each_replay(played: Device) -> None:
    row = row_of("squared")
    one, other = Trained(row, "sgd"), Trained(row, "sgd")
    other.of_head = wh.optim.SGD(other.head, lr=0.05, capturable=True)
    step = other.graphed()
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in (one.of_head, other.of_head)]
    for inputs, targets in batches(row, 16, most=2):
        one.step(inputs, targets)
        step(inputs, targets)
        for scheduler in schedulers:
            scheduler.step()
    assert isinstance(other.of_head.param_groups[0]["lr"], Tensor)
    assert len(step._graphs) <= 2, "a graph for each padded size, none for each lr"
    assert relative(other.weight(), one.weight()) < 1e-5


def test_negative_weights_of_targets_are_refused_of_captured_steps_too(played: Device) -> None:
    trained = Trained(row_of("spherical softmax"), "sgd")
    step, inputs = trained.graphed(), torch.ones(M, INPUTS)
    for _ in range(6):
        step(inputs, wh.SparseTargets.from_lists([[1]] * M, [[0.5]] * M))
    before = trained.weight()
    with pytest.raises(ValueError, match="at least 0"):
        step(inputs, wh.SparseTargets.from_lists([[1]] * M, [[0.5]] * (M - 1) + [[-0.5]]))
    assert torch.equal(trained.weight(), before)


def test_what_it_cannot_capture_is_refused(played: Device) -> None:
    trained = Trained(row_of("squared"), "sgd")
    with pytest.raises(ValueError, match="CUDA device"):
        wh.cuda.GraphedStep(nn.Identity(), wh.ExactHead(3, 9, wh.losses.SquaredError()), [])
    both = wh.optim.SGD([trained.head, Trained(row_of("squared"), "sgd").head], lr=0.1)
    for optimizers in ([trained.of_encoder], [trained.of_head, both], [both]):
        with pytest.raises(ValueError, match="of this head alone"):
            wh.cuda.GraphedStep(trained.encoder, trained.head, optimizers)
    with pytest.raises(ValueError, match="warm_up"):
        wh.cuda.GraphedStep(nn.Identity(), trained.head, [trained.of_head], warm_up=0)
    step = wh.cuda.GraphedStep(nn.Identity(), trained.head, [trained.of_head])
    with pytest.raises(TypeError, match="Found list"):
        step([[1.0]] * M, [[1]] * M)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"shape \(7, 10\)"):
        step(torch.zeros(M, 3), [[1]] * M)
    with pytest.raises(ValueError, match=r"in \[0, 300\)"):
        step(torch.zeros(M, WIDTH), [[D]] * M)
    with pytest.raises(ValueError, match="Found none"):
        step(torch.zeros(0, WIDTH), wh.SparseTargets.from_lists([]))


def test_a_head_that_does_not_train_is_refused(played: Device) -> None:
    trained = Trained(row_of("squared"), "sgd")
    step = trained.graphed()
    inputs, targets = batches(row_of("squared"), 1)[0]
    for change, back in ((trained.head.eval, trained.head.train), (freeze(trained.head), freeze(trained.head, False))):
        change()
        with pytest.raises(RuntimeError, match="frozen, or in eval mode"):
            step(inputs, targets)
        back()
    step(inputs, targets)


def freeze(module: nn.Module, frozen: bool = True) -> Callable[[], object]:
    return lambda: module.requires_grad_(not frozen)


def reload(trained: Trained) -> None:
    """States as they are, in tensors of their own, as when a run goes on."""
    trained.of_head.load_state_dict(copy.deepcopy(trained.of_head.state_dict()))
    trained.of_encoder.load_state_dict(copy.deepcopy(trained.of_encoder.state_dict()))


CHANGES: dict[str, Callable[[Trained], object]] = {
    "states that are loaded": reload,
    "a head's state": lambda t: t.head.load_state_dict(copy.deepcopy(t.head.state_dict())),
    "the lr of the encoder": lambda t: t.of_encoder.param_groups[0].update(lr=0.2),
    "the lr of the head": lambda t: t.of_head.param_groups[0].update(lr=0.01),
    "a frozen layer": lambda t: t.encoder[0].bias.requires_grad_(False),
    "dropout that ends": lambda t: t.encoder.eval(),
    "another clipping": lambda t: t.of_head.param_groups[0].update(max_grad_norm=0.01),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_a_capture_is_seen(played: Device, change: str) -> None:
    row = row_of("squared")
    pair = [Trained(row, "newton"), Trained(row, "newton")]
    for trained in pair:
        trained.of_encoder = torch.optim.SGD(trained.encoder.parameters(), lr=0.05, momentum=0.5)
        if change == "dropout that ends":
            trained.encoder.append(Doubled().to("cuda"))
    one, other = pair
    step = other.graphed()
    for number, (inputs, targets) in enumerate(batches(row, 24, most=2)):
        if number == 12:
            for trained in pair:
                CHANGES[change](trained)
        one.step(inputs, targets)
        step(inputs, targets)
    assert relative(other.weight(), one.weight()) < 1e-5
    for mine, theirs in zip(other.encoder.parameters(), one.encoder.parameters(), strict=True):
        assert relative(mine, theirs.cpu()) < 1e-5


class Doubled(nn.Module):
    """Other numbers in train mode, as of dropout, but no random ones."""

    def forward(self, hidden: Tensor) -> Tensor:
        return 2.0 * hidden if self.training else hidden
