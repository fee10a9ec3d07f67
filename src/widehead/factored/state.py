"""A factored weight record as named tensors and back: what checkpoints hold, mid-segment and mid-sweep included."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from widehead.factored.generations import CAPACITY, Generations
from widehead.factored.squares import Squares
from widehead.factored.weights import FactoredWeights

__all__ = ["STATE_NAMES", "from_state", "to_state"]

#: every name that a state has; `boundaries` and `counters` hold the integers that are not tensors in the record
STATE_NAMES = ("values", "stamps", "transforms", "squares", "added", "boundaries", "counters")

# In `boundaries` each row is (slot, group): group ≥ 0 is a tier, oldest slot first; the others wait or are swept.
_RETIRED, _SWEEPING = -1, -2


def to_state(weights: FactoredWeights) -> dict[str, Tensor]:
    """Named tensors (not copied) from which `from_state` makes an equal record."""
    gens = weights.generations
    groups = [(slot, level) for level, tier in enumerate(gens.tiers) for slot in tier]
    groups += [(slot, _RETIRED) for slot in gens.retired] + [(slot, _SWEEPING) for slot in gens.sweeping]
    counters = (
        gens.newest,
        gens.cursor,
        gens.steps_per_close,
        gens.closes,
        gens.moved_rows,
        weights.segment_steps,
        weights.steps,
    )
    state = {"values": weights.values, "stamps": gens.stamps, "transforms": gens.transforms}
    state |= {"squares": weights.squares.master, "added": weights.squares.added}
    state["boundaries"] = torch.tensor(groups, dtype=torch.int64)
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
        "squares": (3 * width + 2, width),
        "added": (3 * width + 2, width),
        "boundaries": (state["boundaries"].shape[0], 2),
        "counters": (7,),
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
        segment_steps=int(state["counters"][5]),
        steps=int(state["counters"][6]),
    )
    if rows.is_narrow and state["values"].dtype != rows.stored.dtype:  # they were rounded just now
        made.recount()
    return made


def _generations(state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> Generations:
    pairs = [(int(slot), int(group)) for slot, group in state["boundaries"].tolist()]
    levels = 1 + max((group for _, group in pairs), default=-1)
    made = Generations(
        stamps=state["stamps"].to(device=device, dtype=torch.uint8, copy=True),
        transforms=state["transforms"].to(device=device, dtype=dtype, copy=True),
        tiers=[[slot for slot, group in pairs if group == level] for level in range(levels)],
        retired=[slot for slot, group in pairs if group == _RETIRED],
        sweeping=[slot for slot, group in pairs if group == _SWEEPING],
        newest=int(state["counters"][0]),
        cursor=int(state["counters"][1]),
        steps_per_close=float(state["counters"][2]),
        closes=int(state["counters"][3]),
        moved_rows=int(state["counters"][4]),
    )
    _check_slots(made)
    return made


def _check_slots(generations: Generations) -> None:
    live = generations.live
    carried = torch.bincount(generations.stamps, minlength=1).nonzero().squeeze(1).tolist()
    sound = len(set(live)) == len(live) and generations.newest in live and set(carried) <= set(live)
    if not sound or not all(0 <= slot < min(CAPACITY, generations.transforms.shape[0]) for slot in live):
        raise ValueError(
            f"Rows of an exact head should stand at live boundaries. Found stamps {carried}, live boundaries {live}."
        )
