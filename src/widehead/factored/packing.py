"""A factored weight record in few tensors: the rows, their versions, and all the rest as bytes.

The rest has shapes that change with the steps, and some parts that are empty. Tools that look after modules
(safetensors, accelerate, transformers) tell tensors apart by their memory, which empty ones have not, compare shapes
with those of a new module, and cast numbers.
"""

import math

import torch
from torch import Tensor

from widehead.factored.state import to_state
from widehead.factored.weights import FactoredWeights

_LENGTHS = 5  # numbers before the parts: those that `_forms` takes


def pack(weights: FactoredWeights) -> Tensor:
    """(n,) bytes on the CPU of all but the rows and their versions, none on the device meta, where nothing is."""
    if weights.values.is_meta:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    state = to_state(weights)
    lengths = [state["transforms"].shape[1], state["transforms"].shape[0]]
    lengths += [state["corrections"].shape[1], state["last_corrections"].shape[1], state["boundaries"].shape[0]]
    parts = [torch.tensor(lengths), *(state[name] for name in _forms(*lengths)), state["counters"]]
    # float64 holds every number of a record exactly
    return torch.cat([part.detach().double().cpu().flatten() for part in parts]).view(torch.uint8)


def _forms(columns: int, slots: int, corrections: int, last: int, boundaries: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parts, the counters left out, which are what remains."""
    return {
        "transforms": (slots, columns, columns),
        "corrections": (2, corrections, columns),
        "last_corrections": (2, last, columns),
        "small": (3 * columns + 2, columns),
        "added": (3 * columns + 2, columns),
        "boundaries": (boundaries, 3),
    }


def unpack(packed: Tensor) -> dict[str, Tensor]:
    """The parts that `pack` put together as bytes, by the names of `to_state`; copies on the CPU.

    Raises:
        ValueError: other bytes; whether the parts are sound, `from_state` says.
    """
    if not isinstance(packed, Tensor) or packed.layout != torch.strided:
        raise _refusal(f"{packed.layout if isinstance(packed, Tensor) else type(packed).__name__}")
    if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.is_meta:
        raise _refusal(f"{packed.dtype} of shape {tuple(packed.shape)}")
    if packed.numel() % 8 or packed.numel() < 8 * _LENGTHS:
        raise _refusal(f"{packed.numel()} bytes")
    numbers = packed.cpu().clone().view(torch.float64)
    lengths = numbers[:_LENGTHS].tolist()
    if not all(0 <= n < 2**24 and n == int(n) for n in lengths):  # NaN too
        raise _refusal("numbers that are no lengths")
    forms = _forms(*(int(n) for n in lengths))
    sizes = [math.prod(shape) for shape in forms.values()]
    if sum(sizes) > numbers.numel() - _LENGTHS:
        raise _refusal(f"{packed.numel()} bytes, which are too few")
    *parts, counters = numbers[_LENGTHS:].split([*sizes, numbers.numel() - _LENGTHS - sum(sizes)])
    state = {name: part.view(forms[name]) for name, part in zip(forms, parts, strict=True)}
    whole = state["boundaries"].nan_to_num(0.5).clamp(-(2.0**53), 2.0**53)
    if not torch.equal(whole, whole.round()):
        raise _refusal("boundaries that are no whole numbers")
    return {**state, "boundaries": whole.to(torch.int64), "counters": counters}


def _refusal(found: str) -> ValueError:
    return ValueError(
        f"`_extra_state` of an exact head should be the bytes (uint8) that its state_dict holds. Found {found}: states "
        "can be neither averaged nor cast, only loaded as they are."
    )
