"""A factored weight record as named tensors and back: what checkpoints hold, mid-segment and mid-sweep included.

A state may come from anywhere. All of it is checked before anything is changed: shapes, types, bounds of every number
that says where rows are, and that all numbers are finite. Nothing unchecked reaches the compiled operations.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from widehead import mapped
from widehead.arithmetic import Corrections, SmallState
from widehead.arithmetic.interface import MOST_CORRECTIONS, SLOTS
from widehead.factored.weights import FactoredWeights
from widehead.versions import RowVersions

#: every name that a state has; `boundaries` and `counters` hold the integers that are not tensors in the record
STATE_NAMES = (
    *("values", "versions", "transforms", "corrections", "last_corrections"),
    *("small", "added", "boundaries", "counters"),
)

# In `boundaries` each row is (slot, group, successor or, if there is none, slot). A group ≥ 0 is a
# tier, oldest slot first; the others wait or are swept. Slots that are behind have a second row.
_RETIRED, _SWEEPING, _BEHIND = -1, -2, -3
# the numbers of `RowVersions` that `counters` begins with, with their least values; `segment_steps` and `steps` of the
# record follow
_COUNTERS: dict[str, tuple[type[int] | type[float], float]] = {
    "base": (int, 0),
    "previous": (int, 0),
    "cursor": (int, 0),
    "owed": (float, 0),
    "written_steps": (int, 0),
    "age": (int, 0),
    "steps_per_boundary": (float, 1),
    "closes": (int, 0),
    "moved_rows": (int, 0),
}
_OF_RECORD = ("segment_steps", "steps")


def to_state(weights: FactoredWeights) -> dict[str, Tensor]:
    """Named tensors (not copied) from which `from_state` makes an equal record."""
    versions = weights.versions
    groups = [(slot, level) for level, tier in enumerate(versions.tiers) for slot in tier]
    groups += [(slot, _RETIRED) for slot in versions.retired] + [(slot, _SWEEPING) for slot in versions.sweeping]
    groups += [(slot, _BEHIND) for slot in versions.behind]
    counters = [*(getattr(versions, name) for name in _COUNTERS), *(getattr(weights, name) for name in _OF_RECORD)]
    rows = [(slot, group, versions.successors.get(slot, slot)) for slot, group in groups]
    return {
        "values": weights.values,
        "versions": versions.versions,
        "transforms": versions.transforms,
        "corrections": versions.corrections.both,
        "last_corrections": versions.last.both,
        "small": weights.small.master,
        "added": weights.small.added,
        "boundaries": torch.tensor(rows, dtype=torch.int64),
        "counters": torch.tensor(counters, dtype=torch.float64),
    }


def from_state(state: Mapping[str, Tensor], like: FactoredWeights) -> FactoredWeights:
    """A record from ``state``, on the device and in the type of ``like``, with momentum if the state has one.

    V is copied, block by block, into the rows of ``like``, which stands for nothing afterwards; only if one of the
    two keeps momentum and the other does not, new rows are made. Everything is checked before.

    Raises:
        ValueError: a part is missing, has the wrong shape or type, numbers that are not finite or out of bounds, or
            the parts contradict one another. ``like`` is as it was.
        OSError: there is no room for new rows in a file. ``like`` is as it was.
    """
    missing = [name for name in STATE_NAMES if name not in state]
    if missing:
        raise ValueError(f"The state of an exact head should hold {', '.join(missing)}. Found {sorted(state)}.")
    device, dtype = like.rows.device, like.dtype
    order = 2 if tuple(state["values"].shape) == (like.num_classes, 2 * like.width) else 1  # 2: with momentum
    width = order * like.width
    _check_forms(state, like.num_classes, width)
    _check_numbers(state, like)
    counters = _counters(state["counters"], like.num_classes)
    versions = _row_versions(state, counters, device, dtype)
    small = SmallState.of(
        state["small"].to(device=device, dtype=torch.float64, copy=True),
        dtype,
        state["added"].to(device=device, dtype=dtype, copy=True),
    )
    rows = like.rows if like.rows.width == width else like.rows.empty_like(width=width)
    rows.fill(state["values"])
    made = FactoredWeights(
        rows=rows,
        versions=versions,
        small=small,
        order=order,
        revision=like.revision + 1,
        layout=like.layout + 1,
        **{name: int(counters[name]) for name in _OF_RECORD},
    )
    if rows.is_narrow and state["values"].dtype != rows.stored.dtype:  # they were rounded just now
        made.recount()
    return made


def _check_forms(state: Mapping[str, Tensor], num_classes: int, width: int) -> None:
    """Shapes and types of all parts."""
    slots, corrections, last = (_length(state, name) for name in ("transforms", "corrections", "last_corrections"))
    numbers, whole = "floating-point numbers", "integers"
    forms = {
        "values": ((num_classes, width), numbers),
        "versions": ((num_classes,), "uint8"),
        "transforms": ((min(slots, SLOTS), width, width), numbers),
        "corrections": ((2, min(corrections, MOST_CORRECTIONS), width), numbers),
        "last_corrections": ((2, min(last, MOST_CORRECTIONS), width), numbers),
        "small": ((3 * width + 2, width), numbers),
        "added": ((3 * width + 2, width), numbers),
        "boundaries": ((_length(state, "boundaries"), 3), whole),
        "counters": ((len(_COUNTERS) + len(_OF_RECORD),), numbers),
    }
    for name, (shape, kind) in forms.items():
        part = state[name]
        if tuple(part.shape) != shape:
            raise ValueError(f"`{name}` of an exact head should have shape {shape}. Found {tuple(part.shape)}.")
        if not {numbers: part.is_floating_point(), "uint8": part.dtype == torch.uint8}.get(kind, _is_whole(part)):
            raise ValueError(f"`{name}` of an exact head should be {kind}. Found {part.dtype}.")


def _length(state: Mapping[str, Tensor], name: str) -> int:
    """Slots, corrections or rows that a part has, whatever its form is."""
    shape = state[name].shape
    return shape[1 if "corrections" in name and len(shape) > 1 else 0] if len(shape) else 0


def _is_whole(part: Tensor) -> bool:
    return not part.is_floating_point() and not part.is_complex() and part.dtype != torch.bool


def _check_numbers(state: Mapping[str, Tensor], like: FactoredWeights) -> None:
    """Every number is finite, and its square is so too."""
    largest = torch.finfo(like.dtype).max ** 0.5
    for name in ("values", "transforms", "corrections", "last_corrections", "small", "added"):
        for block in _blocks(state[name], like):
            if block.numel() and not float(block.abs().max()) < largest:  # NaN too
                raise ValueError(
                    f"`{name}` of an exact head should be finite and below {largest:.1e}. Found NaN, infinity or more."
                )


def _blocks(part: Tensor, like: FactoredWeights) -> Iterator[Tensor]:
    """V in blocks, so that a file that it lies in never is in memory whole; other parts as they are."""
    if part.dim() != 2 or part.shape[0] != like.num_classes:
        yield part
        return
    for start in range(0, part.shape[0], like.rows.block_rows):
        block = part[start : start + like.rows.block_rows]
        yield block
        mapped.leave(block)


def _counters(given: Tensor, num_classes: int) -> dict[str, float]:
    """Numbers by their names, in bounds."""
    bounds = {**_COUNTERS, **dict.fromkeys(_OF_RECORD, (int, 0))}
    counters = dict(zip(bounds, given.tolist(), strict=True))
    for name, (kind, least) in bounds.items():
        number, most = counters[name], {"cursor": num_classes}.get(name, math.inf)
        if not (math.isfinite(number) and least <= number <= most and kind(number) == number):
            should = f"a whole number of at least {least}" if kind is int else f"a finite number of at least {least}"
            should += f" and at most {most}" if most < math.inf else ""
            raise ValueError(f"The counter `{name}` of an exact head should be {should}. Found {number}.")
    return counters


def _row_versions(
    state: Mapping[str, Tensor], counters: Mapping[str, float], device: torch.device, dtype: torch.dtype
) -> RowVersions:
    boundaries = state["boundaries"].tolist()
    pairs = [(slot, group) for slot, group, _ in boundaries]
    if not all(_BEHIND <= group < SLOTS for _, group in pairs):
        raise ValueError(f"Tiers of an exact head should be below {SLOTS}. Found {max(group for _, group in pairs)}.")
    levels = 1 + max((group for _, group in pairs), default=-1)
    versions = state["versions"].to(device=device, copy=True)
    written = (versions >= SLOTS).nonzero().squeeze(1)
    made = RowVersions(
        versions=versions,
        transforms=state["transforms"].to(device=device, dtype=dtype, copy=True),
        corrections=Corrections(state["corrections"].to(device=device, dtype=dtype, copy=True)),
        last=Corrections(state["last_corrections"].to(device=device, dtype=dtype, copy=True)),
        tiers=[[slot for slot, group in pairs if group == level] for level in range(levels)],
        retired=[slot for slot, group in pairs if group == _RETIRED],
        sweeping=[slot for slot, group in pairs if group == _SWEEPING],
        behind=[slot for slot, group in pairs if group == _BEHIND],
        successors={slot: successor for slot, _, successor in boundaries if successor != slot},
        written=[written] if written.numel() else [],
    )
    for name, (kind, _) in _COUNTERS.items():
        setattr(made, name, kind(counters[name]))
    _check_slots(made)
    return made


def _check_slots(versions: RowVersions) -> None:
    live, slots = versions.live, range(versions.transforms.shape[0])
    carried = torch.bincount(versions.versions, minlength=1).nonzero().squeeze(1).tolist()
    known = {*live, *range(SLOTS + 1, SLOTS + len(versions.corrections) + 1)}
    successors = versions.successors
    sound = len(set(live)) == len(live) and versions.base in live and set(carried) <= known
    sound = sound and set(versions.behind) <= set(live) - {versions.base}
    sound = (
        sound and set(successors) == {*versions.retired, *versions.sweeping} and set(successors.values()) <= set(live)
    )
    if not sound or not all(slot in slots for slot in [*live, versions.previous]):
        raise ValueError(
            f"Rows of an exact head should stand at live boundaries. Found versions {carried}, live boundaries {live}."
        )
    for slot in successors:
        path = [slot]
        while path[-1] in successors and len(path) <= len(successors):
            path.append(successors[path[-1]])
        if path[-1] in successors:
            raise ValueError(f"Successors of an exact head should end somewhere. Found a circle: {path[:8]}.")
