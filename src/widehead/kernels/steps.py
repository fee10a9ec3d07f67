"""The kernels as functions of tensors: the same numbers as their twins in factored/, or None where they do not apply.

Letters: m examples, d width, D classes, n distinct target classes, nnz targets.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widehead.kernels.library import available, library

__all__ = [
    "BENT",
    "GIVEN",
    "Deflated",
    "StepOutputs",
    "applies",
    "backward",
    "class_plan",
    "deflate",
    "forward",
    "step",
]

# Larger systems of m × m numbers are inverted sooner by all threads together, and where m is larger products are
# nearly all there is.
_MOST_EXAMPLES = 256
#: what a step is given, in the order of `Step` in step.c
GIVEN = (
    *("hidden", "right", "curvature", "constant", "sparse"),
    *("offsets", "positions", "class_offsets", "by_class", "examples_by_class"),
    *("products", "left", "others", "by_hidden", "values", "squares_base", "squares_added", "inverse_rows"),
)

#: what a bend is given, in the order of `Deflation` in bend.c
BENT = (
    *("master", "squares_added", "solved", "right", "values", "sparse"),
    *("class_offsets", "by_class", "examples_by_class"),
)


def applies(hidden: Tensor, table: Tensor) -> bool:
    """Whether the kernels are for ``hidden`` (m, d) and V (D, d) as it is stored."""
    m, d = hidden.shape
    return (
        hidden.dtype == table.dtype == torch.float32
        and hidden.device.type == table.device.type == "cpu"
        and table.shape[1] == d
        and 0 < m <= _MOST_EXAMPLES
        and available()
    )


def class_plan(sorted_ids: Tensor, by_class: Tensor, examples: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Class ids (n,), class offsets (n + 1,), positions (nnz,) and examples by class (nnz,) of a TargetPlan."""
    nnz = sorted_ids.numel()
    if sorted_ids.device.type != "cpu" or not available():
        return None
    made = sorted_ids.new_empty(4 * nnz + 1)
    positions, by_examples, ids, offsets = made[:nnz], made[nnz : 2 * nnz], made[2 * nnz : 3 * nnz], made[3 * nnz :]
    n = library().widehead_plan(
        nnz,
        sorted_ids.data_ptr(),
        by_class.data_ptr(),
        examples.contiguous().data_ptr(),
        ids.data_ptr(),
        offsets.data_ptr(),
        positions.data_ptr(),
        by_examples.data_ptr(),
    )
    return ids[:n], offsets[: n + 1], positions, by_examples


def forward(
    hidden: Tensor,
    squares: Tensor,
    table: Tensor,
    stamps: Tensor,
    newest: int,
    classes: tuple[Tensor, Tensor, Tensor],
    elsewhere: Callable[[], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Products (m, 2d + 2), values (n, d), q (m,) and a (nnz,) of a Forward.

    Args:
        hidden: (m, d), contiguous.
        squares: (3d + 2, d).
        table, stamps: (D, d) V and (D,) where its rows stand.
        newest: the stamp of rows that stand where all should be.
        classes: class ids (n,), offsets (m + 1,) and positions (nnz,) of a TargetPlan.
        elsewhere: gives the values where some rows stand elsewhere.
    """
    lib, (m, d), (class_ids, offsets, positions) = library(), hidden.shape, classes
    n, nnz = class_ids.numel(), positions.numel()
    products, values = hidden.new_empty(m, 2 * d + 2), hidden.new_empty(n, d)
    squared_norm, outputs = hidden.new_empty(m), hidden.new_empty(nnz)
    read = (offsets.data_ptr(), positions.data_ptr())
    stale = lib.widehead_forward(
        *(torch.get_num_threads(), m, d, n, hidden.data_ptr(), squares.data_ptr(), table.data_ptr()),
        *(stamps.data_ptr(), newest, class_ids.data_ptr(), *read, products.data_ptr(), values.data_ptr()),
        *(squared_norm.data_ptr(), outputs.data_ptr()),
    )
    if stale:
        values = elsewhere()
        pointers = (*read, products.data_ptr(), values.data_ptr(), outputs.data_ptr())
        lib.widehead_outputs(torch.get_num_threads(), m, d, *pointers)
    return products, values, squared_norm, outputs


def backward(
    hidden: Tensor,
    curvature: Tensor,
    constant: Tensor | None,
    sparse: Tensor,
    classes: tuple[Tensor, Tensor],
    values: Tensor,
    products: Tensor,
    squares: Tensor,
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """Left (m, d + 1 or, with ``constant``, d + 2), others (m, d) and by_hidden (m, d) of an OutputGradient; Σ|λ|‖h‖².

    Args:
        hidden: (m, d), contiguous.
        curvature, constant: (m,) λ and σ.
        sparse: (nnz,) g.
        classes: offsets (m + 1,) and positions (nnz,) of a TargetPlan.
        values, products: of a Forward.
        squares: (3d + 2, d).
    """
    lib, (m, d) = library(), hidden.shape
    left = values.new_empty(m, d + 1 if constant is None else d + 2)
    others, by_hidden = values.new_empty(m, d), values.new_empty(m, d)
    # Contiguous copies have to live until the call is over.
    given = [None if part is None else part.contiguous() for part in (curvature, constant, sparse)]
    read = [None if part is None else part.data_ptr() for part in (hidden, *given, *classes, values, products, squares)]
    made = [part.data_ptr() for part in (left, others, by_hidden)]
    bound = lib.widehead_backward(torch.get_num_threads(), m, d, *read, *made)
    return (left, others, by_hidden), bound


def _structure(given: tuple[str, ...], numbers: tuple[str, ...], made: tuple[str, ...]) -> Any:
    """A structure of C: m, d and n, pointers to what is given, numbers, pointers to what is made."""
    fields: list[tuple[str, Any]] = [(name, ctypes.c_int64) for name in ("m", "d", "n")]
    fields += [(name, ctypes.c_void_p) for name in given]
    fields += [(name, ctypes.c_double) for name in numbers]
    fields += [(name, ctypes.c_void_p) for name in made]
    return type("Structure", (ctypes.Structure,), {"_fields_": fields})


# `Step` of step.c and `Deflation` of bend.c
_Step = _structure(GIVEN, ("num_classes", "gain"), ("solved", "added", "value", "rows", "work", "figures"))
_Deflation = _structure(
    BENT,
    ("gain", "smallest"),
    ("new_master", "base", "x", "b", "new_solved", "new_values", "rows", "work", "figures"),
)


@dataclass(frozen=True)
class StepOutputs:
    """C (m, d), new squares as added and value (3d + 2, d), new target rows (n, d), and what tells how sound they are.

    ``figures`` are ‖U‖²_F, ‖U⁻¹‖²_F, max ‖C_b‖/‖(HR)_b‖, the sum of ω, w̄ and Q, and that of the rows.
    """

    solved: Tensor
    added: Tensor
    value: Tensor
    rows: Tensor
    figures: tuple[float, float, float, float, float]


def step(parts: Mapping[str, Any], num_classes: int, gain: float) -> StepOutputs | None:
    """All new values of a step; None where Λ has a negative or huge entry, or U would be contracted to nothing.

    Args:
        parts: what `GIVEN` names, of a Forward, an OutputGradient, a TargetPlan and Squares; right is (m, d) HR,
            inverse_rows (d, d) the rows U⁻ᵀ of the squares.
        num_classes: D.
        gain: f of the rule, whose p is 1.
    """
    kept = [None if part is None else part.contiguous() for part in (parts[name] for name in GIVEN)]
    hidden, values, sparse, old = (parts[name] for name in ("hidden", "values", "sparse", "squares_added"))
    assert isinstance(hidden, Tensor)
    lib, (m, d), threads = library(), hidden.shape, torch.get_num_threads()
    n, nnz = len(values), len(sparse)
    solved, rows = hidden.new_empty(m, d), hidden.new_empty(n, d)
    added, value = torch.empty_like(old), torch.empty_like(old)
    work = hidden.new_empty(lib.widehead_step_work(threads, m, d, nnz))
    figures = (ctypes.c_double * 5)()
    read = [None if part is None else part.data_ptr() for part in kept]
    made = [part.data_ptr() for part in (solved, added, value, rows, work)]
    given = _Step(m, d, n, *read, num_classes, gain, *made, ctypes.addressof(figures))
    if lib.widehead_step(threads, ctypes.byref(given)) != 0:
        return None
    return StepOutputs(solved, added, value, rows, tuple(figures))


@dataclass(frozen=True)
class Deflated:
    """Folded squares as master and base (3d + 2, d), x and b (d,), C (m, d), V's target rows before and after (n, d).

    ``figures`` as in `StepOutputs`.
    """

    master: Tensor
    base: Tensor
    x: Tensor
    b: Tensor
    solved: Tensor
    values: Tensor
    rows: Tensor
    figures: tuple[float, float, float, float, float]


def deflate(parts: Mapping[str, Tensor], gain: float, smallest: float) -> Deflated | None:
    """The numbers of a step without the direction in which U is smallest; None where it is too small or not finite.

    Args:
        parts: what `BENT` names, of the step, a TargetPlan and Squares; right is (m, d) HR.
        gain: f of the rule.
        smallest: part of U's size that the direction should have.
    """
    kept = [parts[name].contiguous() for name in BENT]
    lib, (m, d), master, values = library(), parts["right"].shape, parts["master"], parts["values"]
    sums, base = torch.empty_like(master), torch.empty_like(parts["squares_added"])
    x, b, solved = values.new_empty(d), values.new_empty(d), values.new_empty(m, d)
    before, after = torch.empty_like(values), torch.empty_like(values)
    work, figures = master.new_empty(lib.widehead_deflate_work(d)), (ctypes.c_double * 5)()
    pointers = [part.data_ptr() for part in (sums, base, x, b, solved, before, after, work)]
    read = [part.data_ptr() for part in kept]
    given = _Deflation(m, d, len(values), *read, gain, smallest, *pointers, ctypes.addressof(figures))
    if lib.widehead_deflate(torch.get_num_threads(), ctypes.byref(given)) != 0:
        return None
    return Deflated(sums, base, x, b, solved, before, after, tuple(figures))
