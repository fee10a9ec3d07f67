"""A factored weight record as named tensors and back: what checkpoints hold, mid-segment and mid-sweep included.

A state may come from anywhere. All of it is checked before anything is changed: shapes, types, bounds of every number
that says where rows are, and that all numbers are finite. Nothing unchecked reaches the compiled operations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from widehead import mapped
from widehead.arithmetic import Corrections, SmallState
from widehead.arithmetic.interface import MOST_CORRECTIONS, SLOTS
from widehead.factored.record import WeightRecord
from widehead.factored.weights import FactoredWeights
from widehead.versions import Rows, RowVersions

#: what has an entry for each class
ROWS = ("values", "versions")
#: every name that a state has; `boundaries` and `counters` hold the integers that are not tensors in the record
_NAMES = (*(*ROWS, "transforms", "corrections", "last_corrections"), *("small", "added", "boundaries", "counters"))

# In `boundaries` each row is (slot, group, successor or, if there is none, slot). A group ≥ 0 is a
# tier, oldest slot first; the others wait or are swept. Slots that are behind have a second row.
_RETIRED, _SWEEPING, _BEHIND = -1, -2, -3
# the numbers of `RowVersions` that `counters` begins with, with their least values; `segment_steps` and `steps` of the
# record follow
COUNTERS: dict[str, tuple[type[int] | type[float], float]] = {
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
_MOST = 2.0**53  # counters are whole up to here in float64
_NUMBERS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def to_state(weights: FactoredWeights) -> dict[str, Tensor]:
    """Named tensors (not copied) from which `from_state` makes an equal record."""
    versions = weights.versions
    groups = [(slot, level) for level, tier in enumerate(versions.tiers) for slot in tier]
    groups += [(slot, _RETIRED) for slot in versions.retired] + [(slot, _SWEEPING) for slot in versions.sweeping]
    groups += [(slot, _BEHIND) for slot in versions.behind]
    counters = [*(getattr(versions, name) for name in COUNTERS), *(getattr(weights, name) for name in _OF_RECORD)]
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

    If ``like`` is on the device "meta", where nothing is, it is on that of the state's values.

    V is copied, block by block, into the rows of ``like``, which stands for nothing afterwards; only if one of the
    two keeps momentum and the other does not, new rows are made. Everything is checked before.

    Raises:
        ValueError: a part is missing, has the wrong shape or type, numbers that are not finite or out of bounds, or
            the parts contradict one another. ``like`` is as it was.
        OSError: there is no room for new rows in a file. ``like`` is as it was.
    """
    missing = [name for name in _NAMES if name not in state]
    if missing:
        raise ValueError(f"The state of an exact head should hold {', '.join(missing)}. Found {sorted(state)}.")
    _check_tensors(state)
    device = state["values"].device if like.rows.device.type == "meta" else like.rows.device
    dtype = like.dtype
    num_rows = like.rows.num_rows
    order = 2 if tuple(state["values"].shape) == (num_rows, 2 * like.width) else 1  # 2: with momentum
    width = order * like.width
    _check_forms(state, num_rows, width)
    _check_numbers(state, like)
    counters = _counters(state["counters"], num_rows)
    versions = _row_versions(state, counters, device, dtype)
    small = SmallState.of(_copied(state["small"], device, torch.float64), dtype, _copied(state["added"], device, dtype))
    _check_sums(like, state["values"], versions, small)
    stays = like.rows.width == width and like.rows.device == device
    rows = like.rows if stays else like.rows.empty_like(width=width, device=device)
    rows.fill(state["values"])
    made = replace(
        like,
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


def part_of(state: Mapping[str, Tensor], num_rows: int, rows: range) -> dict[str, Tensor]:
    """The state of some of the ``num_rows`` rows; parts that are not there, or of other rows already, are left so."""
    part = dict(state)
    for name in ROWS:
        found = part.get(name)
        if isinstance(found, Tensor) and found.ndim and found.shape[0] == num_rows:
            part[name] = found[rows.start : rows.stop]
    if "counters" in part:
        part["counters"], cursor = part["counters"].clone(), list(COUNTERS).index("cursor")
        part["counters"][cursor] = (part["counters"][cursor] - rows.start).clamp(0, len(rows))
    return part


def recount_if_drifted(weights: WeightRecord) -> None:
    """Q and w̄ from the rows if `from_state` would refuse them, O(Dd), or then O(Dd²).

    They keep the rounding of the largest W there was, which is too much once W has shrunk far.
    """
    present = weights.factored()
    try:
        _check_sums(present, present.values, present.versions, present.small)
    except ValueError:
        weights.recount()


# How far Q, x̄ and U⁻¹ may be from those of the rows, by the type of the values. Drift is below 1e-5 in float32.
_INCONSISTENT = {torch.float64: 1e-6, torch.float32: 1e-3}


def _check_sums(like: FactoredWeights, values: Tensor, versions: RowVersions, small: SmallState) -> None:
    """ValueError if Q, x̄ or U⁻¹ are not those of the rows, all of which are seen along one direction p, in O(Dc).

    Σ(x·p)² = pᵀQp and Σ x·p = x̄·p for rows x = vA + ω, so v·(Ap) is all that is needed of a row, and Ap is found once
    for each version. An average of two states, each part by itself, does not stand for the average of their W.
    """
    master, c = small.flushed().master, small.columns
    factor, (shift,), (total,), gram, inverse = master.split([c, 1, 1, c, c])
    p = torch.cos(1.7 * torch.arange(1.0, c + 1.0, dtype=torch.float64, device=master.device))
    p /= torch.linalg.vector_norm(p)
    seen = torch.zeros(2, dtype=torch.float64, device=master.device)
    along = _along(versions, factor @ p, small.base.dtype)
    step = like.rows.block_rows
    for start in range(0, values.shape[0], step):
        block = values[start : start + step].to(along)
        by_version = along[versions.versions[start : start + step].long()]
        outputs = torch.linalg.vecdot(block, by_version).double() + shift @ p
        seen += torch.stack([outputs.square().sum(), outputs.sum()])
        mapped.leave(values[start : start + step])
    seen = like.total(seen)
    square = torch.maximum(p @ gram @ p, torch.trace(gram) / c).clamp_min(0.0)
    least = torch.finfo(torch.float32).tiny
    drifts = {
        "Q": (seen[0] - p @ gram @ p).abs() / (square + least),
        "w̄": (seen[1] - total @ p).abs() / (like.num_classes * square + least).sqrt(),
        "U⁻¹": torch.linalg.vector_norm(factor @ (inverse.T @ p) - p),
    }
    limit = _INCONSISTENT.get(values.dtype, 1e-2)
    for name, drift in drifts.items():
        if not float(drift) <= limit:
            raise ValueError(
                f"{name} of an exact head's state should be that of its rows. Found a relative difference of "
                f"{float(drift):.1e}: parts of different states, or an average of several, which stands for no "
                "average of weights. Average weights with widehead.heads.AveragedModel."
            )


def _along(versions: RowVersions, direction: Tensor, dtype: torch.dtype) -> Tensor:
    """(256, c) for each version the vector u with v·u = (v brought to the newest boundary)·direction."""
    c = versions.columns
    used = torch.bincount(versions.versions, minlength=256).nonzero().squeeze(1)
    units = torch.eye(c, dtype=dtype, device=direction.device).repeat(used.numel(), 1)
    numbered = replace(versions, versions=used.to(torch.uint8).repeat_interleave(c))
    brought = numbered.rows_at_newest(Rows(units), torch.arange(units.shape[0], device=direction.device))
    found = torch.zeros(256, c, dtype=dtype, device=direction.device)
    found[used] = (brought.double() @ direction).to(dtype).view(-1, c)
    return found


def _check_tensors(state: Mapping[str, Any]) -> None:
    """Every part is a tensor with numbers in memory."""
    for name in _NAMES:
        part = state[name]
        if not isinstance(part, Tensor) or part.layout != torch.strided or part.is_meta:
            found = f"as {part.layout if isinstance(part, Tensor) else type(part).__name__}"
            found = "on the device meta" if isinstance(part, Tensor) and part.is_meta else found
            raise ValueError(f"The state of an exact head should hold dense numbers. Found `{name}` {found}.")


def _copied(part: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy, row-major whatever the strides of ``part`` are: compiled operations know no others."""
    return part.to(device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format)


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
        "counters": ((len(COUNTERS) + len(_OF_RECORD),), numbers),
    }
    for name, (shape, kind) in forms.items():
        part = state[name]
        if tuple(part.shape) != shape:
            raise ValueError(f"`{name}` of an exact head should have shape {shape}. Found {tuple(part.shape)}.")
        if not {numbers: part.dtype in _NUMBERS, "uint8": part.dtype == torch.uint8}.get(kind, _is_whole(part)):
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
    if part.dim() != 2 or part.shape[0] != like.rows.num_rows:
        yield part
        return
    for start in range(0, part.shape[0], like.rows.block_rows):
        block = part[start : start + like.rows.block_rows]
        yield block
        mapped.leave(block)


def _counters(given: Tensor, num_classes: int) -> dict[str, float]:
    """Numbers by their names, in bounds."""
    bounds = {**COUNTERS, **dict.fromkeys(_OF_RECORD, (int, 0))}
    counters = dict(zip(bounds, given.tolist(), strict=True))
    for name, (kind, least) in bounds.items():
        number, most = counters[name], {"cursor": num_classes}.get(name, _MOST)
        if not (least <= number <= most and kind(number) == number):  # NaN too
            should = f"a {'whole' if kind is int else 'finite'} number of at least {least} and at most {most:.15g}"
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
    versions = _copied(state["versions"], device, torch.uint8)
    written = (versions >= SLOTS).nonzero().squeeze(1)
    made = RowVersions(
        versions=versions,
        transforms=_copied(state["transforms"], device, dtype),
        corrections=Corrections(_copied(state["corrections"], device, dtype)),
        last=Corrections(_copied(state["last_corrections"], device, dtype)),
        tiers=[[slot for slot, group in pairs if group == level] for level in range(levels)],
        retired=[slot for slot, group in pairs if group == _RETIRED],
        sweeping=[slot for slot, group in pairs if group == _SWEEPING],
        behind=[slot for slot, group in pairs if group == _BEHIND],
        successors={slot: successor for slot, _, successor in boundaries if successor != slot},
        written=[written] if written.numel() else [],
    )
    for name, (kind, _) in COUNTERS.items():
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
