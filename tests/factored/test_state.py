"""States from anywhere: what is not what it should be is refused by name, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widehead import factored
from widehead.arithmetic import TORCH, Arithmetic, StepRule, find_compiled, using
from widehead.arithmetic.interface import MOST_CORRECTIONS, SLOTS
from widehead.factored import FactoredWeights, from_state, to_state, unpack
from widehead.factored.state import _NAMES as NAMES
from widehead.factored.state import part_of
from widehead.targets import SparseTargets

D, WIDTH = 60, 5
ARITHMETIC = [TORCH, pytest.param(find_compiled(), marks=pytest.mark.skipif(find_compiled() is None, reason="no C"))]
State = dict[str, torch.Tensor]


def stepped(weights: FactoredWeights, steps: int, seed: int = 1) -> FactoredWeights:
    """After steps that close segments, correct V and leave a sweep half way."""
    generator = torch.Generator().manual_seed(seed)
    weights.versions.fanouts = (3, 3)
    for _ in range(steps):
        hidden = torch.randn(4, WIDTH, generator=generator) + 1.5
        ids = torch.randint(0, D, (4,), generator=generator)
        read = factored.forward(weights, hidden, SparseTargets(ids, torch.arange(5)))
        lam, sparse = torch.full((4,), 0.5), torch.full((4,), -0.5)
        gradient = factored.output_gradient(weights, read, lam, None, sparse)
        factored.apply_step(weights, factored.plan_step(weights, gradient, StepRule.sgd(0.06)))
    return weights


def trained(steps: int = 90) -> FactoredWeights:
    weights = FactoredWeights.from_dense(torch.randn(D, WIDTH, generator=torch.Generator().manual_seed(0)))
    return stepped(weights, steps)


@cache
def _saved(steps: int) -> State:
    return state_of(trained(steps))


def saved(steps: int = 90) -> State:
    """The state after so many steps, which are made once."""
    return {name: part.clone() for name, part in _saved(steps).items()}


def state_of(weights: FactoredWeights) -> State:
    return {name: part.clone() for name, part in to_state(weights).items()}


def test_the_state_of_these_tests_has_something_of_everything() -> None:
    met = {"successors": 0, "behind": 0, "corrections": 0, "last": 0, "retired": 0}
    weights = trained(0)
    for step in range(90):
        stepped(weights, 1, seed=step)
        for name in met:
            met[name] += len(getattr(weights.versions, name)) > 0
    assert all(met.values()), met


def _with(name: str, place: object, value: float) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[name][place] = value  # type: ignore[index]

    return change


def _spoilt(name: str, bad: float) -> Callable[[State], None]:
    """One number of a part is another, the last one; a part of none has one row then."""

    def change(state: State) -> None:
        if not state[name].numel():
            state[name] = torch.zeros(2, 1, WIDTH)
        state[name].view(-1)[-1] = bad

    return change


def _another(name: str, make: Callable[[torch.Tensor], object]) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[name] = make(state[name])  # type: ignore[assignment]

    return change


def _long(name: str, count: int) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[name] = torch.zeros(2, count, WIDTH)

    return change


def _circle(state: State) -> None:
    """Two slots that are emptied, each the other's successor."""
    state["boundaries"] = torch.tensor([[0, 0, 0], [1, -1, 2], [2, -1, 1]])
    state["transforms"] = torch.eye(WIDTH).repeat(3, 1, 1)
    state["versions"].zero_()
    state["counters"][:2] = 0.0
    for name in ("corrections", "last_corrections"):
        state[name] = torch.zeros(2, 0, WIDTH)


def _longer(part: torch.Tensor) -> torch.Tensor:
    return torch.cat([part, part[-1:]]) if part.numel() else part[None]


COUNTERS = ("base", "previous", "cursor", "owed", "written_steps", "age", "steps_per_boundary", "closes", "moved_rows")
NUMBERS = ("values", "transforms", "small", "added", "corrections", "last_corrections")
DAMAGE: dict[str, tuple[Callable[[State], None], str]] = {
    **{
        f"{count} {name}": (_long(name, count), f"`{name}` .* shape")
        for name in ("corrections", "last_corrections")
        for count in (MOST_CORRECTIONS + 1, 65, 600, 5_000)
    },
    "a circle": (_circle, "circle"),
    **{
        f"{name} {bad}": (_with("counters", i, bad), f"`{name}`")
        for i, name in enumerate(COUNTERS)
        for bad in (-5, -1e9)
    },
    **{f"{name} infinite": (_with("counters", i, torch.inf), f"`{name}`") for i, name in enumerate(COUNTERS)},
    **{f"{name} no number": (_with("counters", i, torch.nan), f"`{name}`") for i, name in enumerate(COUNTERS)},
    **{f"{name} beyond whole numbers": (_with("counters", i, 1e300), f"`{name}`") for i, name in enumerate(COUNTERS)},
    **{f"{name} none": (_another(name, lambda part: None), f"Found `{name}` as NoneType") for name in NAMES},
    **{f"{name} a list": (_another(name, torch.Tensor.tolist), f"Found `{name}` as list") for name in NAMES},
    **{f"{name} without memory": (_another(name, lambda p: p.to("meta")), f"`{name}` on .* meta") for name in NAMES},
    **{f"{name} sparse": (_another(name, torch.Tensor.to_sparse), f"`{name}` as .*sparse_coo") for name in NAMES},
    **{f"{name} complex": (_another(name, lambda p: p.cfloat()), f"`{name}` .*complex64") for name in NAMES},
    **{f"{name} truth values": (_another(name, lambda p: p.bool()), f"`{name}` .*bool") for name in NAMES},
    **{
        f"{name} in a byte each": (_another(name, lambda p: p.to(torch.float8_e5m2)), f"`{name}` .*float8")
        for name in NAMES
    },
    **{
        f"{name} with a row more": (_another(name, _longer), "of an exact head should")
        for name in NAMES
        if name != "transforms"
    },
    "a cursor beyond the rows": (_with("counters", 2, D + 1), "`cursor` .* at most 60"),
    "half a step": (_with("counters", -1, 0.5), "`steps` .* whole"),
    "a base without a slot": (_with("counters", 0, 200), "live boundaries"),
    "a previous one without a slot": (_with("counters", 1, 200), "live boundaries"),
    **{
        f"{name} {bad}": (_spoilt(name, bad), f"`{name}` .* finite")
        for name in NUMBERS
        for bad in (torch.nan, -torch.inf, 1e38)
    },
    "a version without a slot": (_with("versions", 3, 77), "live boundaries"),
    "a version without a correction": (_with("versions", 3, 255), "live boundaries"),
    "a slot twice": (lambda state: state.update(boundaries=state["boundaries"][[0, 0]]), "live boundaries"),
    "a slot too many": (_with("boundaries", (0, 0), SLOTS), "live boundaries"),
    "a tier too many": (_with("boundaries", (0, 1), 1 << 40), "Tiers"),
    "a group of no kind": (_with("boundaries", (0, 1), -9), "Tiers"),
    "too many slots": (
        lambda state: state.update(transforms=torch.eye(WIDTH).repeat(SLOTS + 1, 1, 1)),
        "`transforms` .* shape",
    ),
    "versions of another type": (lambda state: state.update(versions=state["versions"].long()), "uint8"),
    "boundaries of another type": (lambda state: state.update(boundaries=state["boundaries"].float()), "integers"),
    "values of another type": (lambda state: state.update(values=state["values"].int()), "floating-point"),
    "a scalar": (lambda state: state.update(transforms=torch.tensor(1.0)), "`transforms` .* shape"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused_and_nothing_changes(damage: str) -> None:
    change, message = DAMAGE[damage]
    state, like = saved(), trained(3)
    before = state_of(like)
    change(state)
    with pytest.raises(ValueError, match=message):
        from_state(state, like)
    for name, part in to_state(like).items():
        assert torch.equal(part, before[name]), name


@settings(max_examples=100)
@given(data=st.data())
def test_whatever_a_state_says_it_is_refused_or_can_be_trained(data: st.DataObject) -> None:
    """Some integers of it are others: what loads goes on without a crash, and is read without a fault."""
    state, like = saved(), trained(3)
    for _ in range(data.draw(st.integers(1, 3))):
        part = state[data.draw(st.sampled_from(["versions", "boundaries", "counters"]))]
        place = data.draw(st.integers(0, part.numel() - 1))
        bound = 255 if part.dtype == torch.uint8 else 300
        part.view(-1)[place] = data.draw(st.integers(0 if bound == 255 else -5, bound))
    try:
        made = from_state(state, like)
    except ValueError:
        return
    stepped(made, 20)
    made.consolidate()
    assert bool(torch.isfinite(made.dense()).all())


def strided(part: torch.Tensor) -> torch.Tensor:
    """The same numbers, the last ones of each column side by side, and in every second place of the memory."""
    turned = part.movedim(0, -1).contiguous().movedim(-1, 0)
    spread = torch.zeros(*part.shape[:-1], 2 * part.shape[-1], dtype=part.dtype)[..., ::2]
    return turned if part.ndim > 1 and part.shape[0] > 1 else spread.copy_(part)


@pytest.mark.parametrize("arithmetic", ARITHMETIC, ids=["torch", "compiled"])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_lie_otherwise_in_memory_mean_the_same(name: str, arithmetic: Arithmetic) -> None:
    state = saved(25)
    with using(arithmetic):
        expected = stepped(from_state(state, trained(0)), 12)
        found = stepped(from_state({**state, name: strided(state[name])}, trained(0)), 12)
    assert torch.equal(found.dense(), expected.dense())


def test_values_that_lie_otherwise_in_memory_are_left_to_torch() -> None:
    dense = torch.randn(WIDTH, D).T
    weights, twin = FactoredWeights.from_dense(dense), FactoredWeights.from_dense(dense.contiguous())
    assert torch.allclose(stepped(weights, 12).dense(), stepped(twin, 12).dense(), atol=1e-4)


@pytest.mark.parametrize(
    "given",
    [None, [0] * 48, "bytes", torch.zeros(48, dtype=torch.uint8).to_sparse()],
    ids=["none", "list", "text", "sparse"],
)
def test_bytes_that_are_none_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="should be the bytes"):
        unpack(given)  # type: ignore[arg-type]


def test_the_state_of_some_rows_is_swept_where_the_whole_was() -> None:
    weights = FactoredWeights.from_dense(torch.randn(41, 3, dtype=torch.float64))
    weights.versions.cursor = 25
    state, name = to_state(weights), list(COUNTERS).index("cursor")
    parts = [part_of(state, 41, rows) for rows in (range(10), range(21, 41), range(41, 41))]
    assert [int(part["counters"][name]) for part in parts] == [10, 4, 0]
    assert int(state["counters"][name]) == 25
    for part, rows in zip(parts, (slice(10), slice(21, 41), slice(41, 41)), strict=True):
        assert torch.equal(part["values"], state["values"][rows])
        assert torch.equal(part["versions"], state["versions"][rows])
        assert part["small"] is state["small"]
