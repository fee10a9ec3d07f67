"""A factored weight record as named tensors and back: what checkpoints hold, mid-segment and mid-sweep included."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from widehead.factored.bends import Bends
from widehead.factored.generations import SLOTS, Generations
from widehead.factored.squares import Squares
from widehead.factored.weights import FactoredWeights

__all__ = ["STATE_NAMES", "from_state", "to_state"]

#: every name that a state has; `boundaries` and `counters` hold the integers that are not tensors in the record
STATE_NAMES = ("values", "stamps", "transforms", "bends", "last", "squares", "added", "boundaries", "counters")

# In `boundaries` each row is (slot, group, heir or, where there is none, slot). A group ≥ 0 is a
# tier, oldest slot first; the others wait or are swept. Pending slots have a second row.
_RETIRED, _SWEEPING, _PENDING = -1, -2, -3
# the numbers of `Generations` that `counters` begins with; `segment_steps` and `steps` of the record follow
_COUNTERS = {
    "base": int,
    "waypoint": int,
    "cursor": int,
    "owed": float,
    "young_steps": int,
    "age": int,
    "steps_per_boundary": float,
    "closes": int,
    "moved_rows": int,
}


def to_state(weights: FactoredWeights) -> dict[str, Tensor]:
    """Named tensors (not copied) from which `from_state` makes an equal record."""
    gens = weights.generations
    groups = [(slot, level) for level, tier in enumerate(gens.tiers) for slot in tier]
    groups += [(slot, _RETIRED) for slot in gens.retired] + [(slot, _SWEEPING) for slot in gens.sweeping]
    groups += [(slot, _PENDING) for slot in gens.pending]
    counters = [*(getattr(gens, name) for name in _COUNTERS), weights.segment_steps, weights.steps]
    state = {"values": weights.values, "stamps": gens.stamps, "transforms": gens.transforms}
    state |= {"bends": gens.bends.both, "last": gens.last.both}
    state |= {"squares": weights.squares.master, "added": weights.squares.added}
    rows = [(slot, group, gens.heirs.get(slot, slot)) for slot, group in groups]
    state["boundaries"] = torch.tensor(rows, dtype=torch.int64)
    state["counters"] = torch.tensor(counters, dtype=torch.float64)
    return state


def from_state(state: Mapping[str, Tensor], like: FactoredWeights) -> FactoredWeights:
    """A record from ``state``, on the device and in the type of ``like``, with momentum where the state has one.

    V is copied, block by block, into the rows of ``like``, which stands for nothing afterwards; only where one of the
    two keeps momentum and the other does not, new rows are made. Everything is checked before.

    Raises:
        ValueError: a part is missing, has the wrong shape or type, or the parts contradict one another.
        OSError: there is no room for new rows in a file. ``like`` is as it was.
    """
    missing = [name for name in STATE_NAMES if name not in state]
    if missing:
        raise ValueError(f"The state of an exact head should hold {', '.join(missing)}. Found {sorted(state)}.")
    device, dtype, num_classes = like.rows.device, like.dtype, like.num_classes
    order = 2 if tuple(state["values"].shape) == (num_classes, 2 * like.width) else 1  # 2: with momentum
    width = order * like.width
    slots = state["transforms"].shape[0]
    shapes = {
        "values": (num_classes, width),
        "stamps": (num_classes,),
        "transforms": (slots, width, width),
        "bends": (2, state["bends"].shape[1], width),
        "last": (2, state["last"].shape[1], width),
        "squares": (3 * width + 2, width),
        "added": (3 * width + 2, width),
        "boundaries": (state["boundaries"].shape[0], 3),
        "counters": (len(_COUNTERS) + 2,),
    }
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise ValueError(f"`{name}` of an exact head should have shape {shape}. Found {tuple(state[name].shape)}.")
    if not state["values"].is_floating_point():
        raise ValueError(f"`values` of an exact head should be floating-point numbers. Found {state['values'].dtype}.")
    squares = Squares.of(
        state["squares"].to(device=device, dtype=torch.float64, copy=True),
        dtype,
        state["added"].to(device=device, dtype=dtype, copy=True),
    )
    generations = _generations(state, device, dtype)
    rows = like.rows if like.rows.width == width else like.rows.empty_like(width=width)
    rows.fill(state["values"])
    made = FactoredWeights(
        rows=rows,
        generations=generations,
        squares=squares,
        order=order,
        version=like.version + 1,
        layout=like.layout + 1,
        segment_steps=int(state["counters"][-2]),
        steps=int(state["counters"][-1]),
    )
    if rows.is_narrow and state["values"].dtype != rows.stored.dtype:  # they were rounded just now
        made.recount()
    return made


def _generations(state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> Generations:
    boundaries = state["boundaries"].tolist()
    pairs = [(slot, group) for slot, group, _ in boundaries]
    levels = 1 + max((group for _, group in pairs), default=-1)
    stamps = state["stamps"].to(device=device, dtype=torch.uint8, copy=True)
    young = (stamps >= SLOTS).nonzero().squeeze(1)
    made = Generations(
        stamps=stamps,
        transforms=state["transforms"].to(device=device, dtype=dtype, copy=True),
        bends=Bends(state["bends"].to(device=device, dtype=dtype, copy=True)),
        last=Bends(state["last"].to(device=device, dtype=dtype, copy=True)),
        tiers=[[slot for slot, group in pairs if group == level] for level in range(levels)],
        retired=[slot for slot, group in pairs if group == _RETIRED],
        sweeping=[slot for slot, group in pairs if group == _SWEEPING],
        pending=[slot for slot, group in pairs if group == _PENDING],
        heirs={slot: heir for slot, _, heir in boundaries if heir != slot},
        young=[young] if young.numel() else [],
        **{name: kind(number) for (name, kind), number in zip(_COUNTERS.items(), state["counters"], strict=False)},
    )
    _check_slots(made)
    return made


def _check_slots(gens: Generations) -> None:
    live = gens.live
    carried = torch.bincount(gens.stamps, minlength=1).nonzero().squeeze(1).tolist()
    known = {*live, *range(SLOTS + 1, SLOTS + len(gens.bends) + 1)}
    sound = len(set(live)) == len(live) and gens.base in live and set(carried) <= known
    sound = sound and set(gens.pending) <= set(live) - {gens.base}
    sound = sound and set(gens.heirs) == {*gens.retired, *gens.sweeping} and set(gens.heirs.values()) <= set(live)
    slots = [*live, gens.waypoint]
    if not sound or not all(0 <= slot < min(SLOTS, gens.transforms.shape[0]) for slot in slots):
        raise ValueError(
            f"Rows of an exact head should stand at live boundaries. Found stamps {carried}, live boundaries {live}."
        )
