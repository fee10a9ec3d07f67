"""The operations in C, for float32 rows in the CPU's memory; what they do not apply to is left to torch's operations.

Letters: m examples, d width, D classes, n distinct target classes, nnz targets.
"""

import ctypes
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.arithmetic import buffers
from widehead.arithmetic import step as steps
from widehead.arithmetic.compiled_plan import CompiledPlan
from widehead.arithmetic.correct import SMALLEST, Corrected
from widehead.arithmetic.gradient import Forward, OutputGradient
from widehead.arithmetic.interface import LIMITS, SLOTS, STRUCTURES
from widehead.arithmetic.reference import AdamRule, Arithmetic, GradientParts, Outputs
from widehead.arithmetic.row_table import RowTable
from widehead.arithmetic.small_state import SmallState
from widehead.arithmetic.step import Figures, RowSums, StepMade
from widehead.arithmetic.step_rule import StepRule
from widehead.arithmetic.sums import ExampleSums
from widehead.arithmetic.target_plan import TargetPlan
from widehead.targets import SparseTargets

_MOST_EXAMPLES = 512  # larger systems of m × m numbers are inverted sooner by all threads together
_FIGURES, _NOWHERE = LIMITS["FIGURES"], LIMITS["NOWHERE"]
# what structures hold, but for the figures, which are the last
_PARTS = {name: [field for field, *_ in kind._fields_[:-1]] for name, kind in STRUCTURES.items()}


class Compiled(Arithmetic):
    """See `Arithmetic`. For rows that are float32, on the CPU, in memory, one behind the other.

    Args:
        library: the loaded library.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._lib = library

    def fits(self, table: Tensor, *, resident: bool) -> bool:
        return resident and table.dtype == torch.float32 and table.device.type == "cpu" and table.is_contiguous()

    def plan_targets(self, targets: SparseTargets) -> TargetPlan:
        return CompiledPlan.of(targets) if targets.class_ids.device.type == "cpu" else super().plan_targets(targets)

    def bring_rows(self, table: RowTable, ids: Tensor, *, to_base: bool = True) -> tuple[Tensor, Tensor]:
        return self._brought(table, ids, to_base, None)

    def _brought(self, table: RowTable, ids: Tensor, to_base: bool, reading: Any) -> tuple[Tensor, Tensor]:
        """`bring_rows`; with a structure ``reading`` of targets, whose classes are ``ids``, their outputs too."""
        threads, n, c = torch.get_num_threads(), ids.numel(), table.table.shape[1]
        ids, last, corrections = ids.contiguous(), table.last.both.contiguous(), table.corrections.both.contiguous()
        behind, successors = np.zeros(SLOTS, dtype=np.uint8), np.full(SLOTS, _NOWHERE, dtype=np.int16)
        behind[list(table.behind)] = 1
        successors[list(table.successors.keys())] = list(table.successors.values())
        tensors = (table.table, table.versions, table.transforms)
        given = STRUCTURES["RowTable"](
            *(len(table.table), c, len(table.transforms)),
            *(part.data_ptr() for part in tensors),
            *(behind.ctypes.data, successors.ctypes.data, last.data_ptr(), corrections.data_ptr()),
            *(table.base, table.previous, len(table.last), len(table.corrections)),
        )
        out, reached = buffers.empty(n, c), table.versions.new_empty(n)
        work = torch.empty(self._lib.widehead_bring_work(threads, n, c), dtype=torch.uint8, device="cpu")
        made = (out.data_ptr(), reached.data_ptr(), work.data_ptr())
        _check(self._lib.widehead_bring(threads, n, ids.data_ptr(), ctypes.byref(given), to_base, *made, reading))
        return out, reached

    def read_outputs(self, hidden: Tensor, small: SmallState, table: RowTable, plan: TargetPlan) -> Outputs:
        if not _applies(hidden, small):
            return super().read_outputs(hidden, small, table, plan)
        (m, d), c, n, threads = hidden.shape, small.columns, plan.class_ids.numel(), torch.get_num_threads()
        hidden, class_ids = hidden.contiguous(), plan.class_ids.contiguous()
        products, values = buffers.empty(m, 2 * c + 2), buffers.empty(n, c)
        squared_norm, outputs = hidden.new_empty(m), hidden.new_empty(plan.positions.numel())
        kept = _contiguous(plan.class_offsets, plan.by_class, plan.examples_by_class, products, outputs)
        square = ctypes.c_double()
        reading = STRUCTURES["Reading"](2 * c + 2, *_pointers(kept), ctypes.addressof(square))
        given = (table.table.data_ptr(), table.versions.data_ptr(), table.newest)
        made = (products.data_ptr(), values.data_ptr(), squared_norm.data_ptr(), ctypes.addressof(reading))
        stale = self._lib.widehead_read(
            *(threads, m, d, c, n, hidden.data_ptr(), small.value.data_ptr(), len(table.table)),
            *(*given, class_ids.data_ptr(), *made),
        )
        _check(stale)
        if stale:
            values = self._brought(table, plan.class_ids, True, ctypes.addressof(reading))[0]
        return Outputs(products, values, squared_norm, outputs, math.sqrt(square.value))

    def gradient(
        self, read: Forward, small: SmallState, by_squared_norm: Tensor, constant: Tensor | None, sparse: Tensor
    ) -> GradientParts:
        if not _applies(read.hidden, small):
            return super().gradient(read, small, by_squared_norm, constant, sparse)
        (m, d), c = read.hidden.shape, small.columns
        left = buffers.empty(m, c + 1 if constant is None else c + 2)
        others, by_hidden = buffers.empty(m, d), buffers.empty(m, d)
        partials = (by_squared_norm, constant, sparse)
        classes = (read.plan.offsets, read.plan.positions)
        kept = _contiguous(read.hidden, *partials, *classes, read.values, read.products, small.value)
        made = (left.data_ptr(), others.data_ptr(), by_hidden.data_ptr())
        bound = self._lib.widehead_gradient(torch.get_num_threads(), m, d, c, *_pointers(kept), *made)
        return GradientParts(left, others, by_hidden, bound)

    def step(
        self, gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor, gram_hr: Tensor | None
    ) -> StepMade:
        """By torch's operations also if Λ has a negative or huge entry, or the step overshoots."""
        made, sums = None, None
        m, d = hr.shape
        if gram_hr is None and _applies(hr, small) and (m > d or m <= _MOST_EXAMPLES):
            made, sums = self._step(gradient, rule, small, hr)
        return steps.step(gradient, rule, small, hr, gram_hr, sums) if made is None else made

    def _step(
        self, gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor
    ) -> tuple[StepMade | None, ExampleSums | None]:
        """The step, or None if C does not apply; and the sums that it is made of, if m > d."""
        inverse, read, (m, d), c = rule.inverse(), gradient.read, hr.shape, small.columns
        if inverse is None:
            return None, None
        function, sizes = ("columns", (m, d, c)) if m > d else ("step", (torch.get_num_threads(), m, d, c))
        work = buffers.empty(1, getattr(self._lib, f"widehead_{function}_work")(*sizes))
        solved, value, rows = buffers.empty(m, c), buffers.empty(*small.value.shape), None
        if read.size is None:  # where rows are split
            rows = buffers.empty(*read.values.shape)
        known = [*chain(*rule.mix), *rule.gain, *rule.carried(), *chain(*inverse)]
        numbers: dict[str, float] = {"m": m, "d": d, "c": c, "n": len(read.values), "num_classes": read.num_classes}
        numbers |= {"norm": read.size or 0.0}
        new, state = _summed(rule, small, value)
        before = small.value.contiguous()  # C reads U and Q in front of U⁻ᵀ, too
        state |= {"inverse_rows": before[2 * c + 2 :], "rule": torch.tensor(known, dtype=torch.float64)}
        made = {"solved": solved, "value": value, "rows": rows, "work": work, "hr": hr}
        parts = vars(read) | vars(gradient) | vars(read.plan) | numbers | state | made | {"first": 0, "end": m}
        sums = None
        if m > d:
            share = read.share(gradient, small, hr)
            parts |= vars(share.plan) | {"others": share.others, "sparse": share.sparse}
            parts |= {"first": share.examples.start, "end": share.examples.stop}
            self._call("example_sums", "Step", parts)
            told = work[0, : (c + 2 * d) * d].view(c + 2 * d, d)
            share.add_up([told])
            sums = ExampleSums(*told.split([d, c, d]))
        figures = self._call(function, "Step", parts)
        if figures is None:
            return None, sums
        assert isinstance(read.plan, TargetPlan), "a record for a GPU makes its own steps"
        made_later = RowSums(read.plan, gradient.sparse, solved, read.values)
        return StepMade(new, solved, made_later if rows is None else rows, figures), sums

    def correct(
        self, gradient: OutputGradient, rule: StepRule, small: SmallState, solved: Tensor, hr: Tensor, values: Tensor
    ) -> Corrected | None:
        if not _applies(hr, small):
            return super().correct(gradient, rule, small, solved, hr, values)
        (m, d), n, base = hr.shape, len(values), torch.empty_like(small.base)
        work = small.master.new_empty(self._lib.widehead_correct_work(d))
        x, b, master, new_solved = (
            hr.new_empty(d),
            hr.new_empty(d),
            torch.empty_like(small.master),
            hr.new_empty(m, d),
        )
        new_values, rows = torch.empty_like(values), torch.empty_like(values)
        numbers = {"m": m, "d": d, "n": n, "gain": rule.gain[0], "smallest": SMALLEST[torch.float32]}
        given = {"master": small.master, "small_added": small.added, "solved": solved, "hr": hr, "values": values}
        made = {"new_master": master, "base": base, "x": x, "b": b, "new_solved": new_solved, "work": work}
        made |= {"new_values": new_values, "rows": rows, "sparse": gradient.sparse}
        figures = self._call("correct", "Correction", vars(gradient.read.plan) | numbers | given | made)
        if figures is None:
            return None
        changed = SmallState(master, base, torch.zeros_like(base), base)
        return Corrected(changed, new_solved, x, b, new_values, rows, figures)

    def _call(self, function: str, structure: str, parts: Mapping[str, Any]) -> Figures | None:
        """Call a function of one structure, whose fields stand among ``parts``; None if it says that it does not apply.

        What is made has to be contiguous; of what is given contiguous copies are made.
        """
        kept, pointers, found = [], [], (ctypes.c_double * _FIGURES)()
        for name in _PARTS[structure]:
            part = parts[name]
            if isinstance(part, Tensor):
                kept.append(part := part.contiguous())  # lives until the call is over
                part = part.data_ptr()
            pointers.append(part)
        filled = STRUCTURES[structure](*pointers, ctypes.addressof(found))
        failed = getattr(self._lib, f"widehead_{function}")(torch.get_num_threads(), ctypes.byref(filled))
        return None if failed else _figures(found, int(parts["d"]), int(parts.get("c", parts["d"])) // int(parts["d"]))

    def write_rows(
        self, table: Tensor, versions: Tensor, ids: Tensor, rows: Tensor | RowSums, version: int | Tensor
    ) -> None:
        ids = ids.contiguous()
        if isinstance(rows, RowSums):
            self._write_sums(table, versions, ids, rows, version)
            return
        rows = rows.contiguous()
        given = (0, version.data_ptr()) if isinstance(version, Tensor) else (version, None)
        pointers = (ids.data_ptr(), rows.data_ptr(), *given, table.data_ptr(), versions.data_ptr())
        threads, (num_rows, c) = torch.get_num_threads(), table.shape
        _check(self._lib.widehead_write(threads, num_rows, c, ids.numel(), *pointers))

    def _write_sums(self, table: Tensor, versions: Tensor, ids: Tensor, rows: RowSums, version: int | Tensor) -> None:
        assert not isinstance(version, Tensor), "rows that are made as they are written stand at one version"
        plan, (n, c) = rows.plan, rows.values.shape
        order = (plan.class_offsets, plan.examples_by_class, plan.by_class)
        kept = _contiguous(ids, *order, rows.sparse, rows.solved, rows.values)
        pointers = (*_pointers(kept), version, table.data_ptr(), versions.data_ptr())
        _check(self._lib.widehead_write_sums(torch.get_num_threads(), len(table), c, n, *pointers))

    def find_rows(
        self, versions: Tensor, start: int, stop: int, wanted: Sequence[int], most: int
    ) -> tuple[Tensor, int]:
        assert 0 <= start <= stop <= versions.numel(), "rows to look at should be rows"
        flags = np.zeros(256, dtype=np.uint8)
        flags[list(wanted)] = 1
        found, seen = versions.new_empty(min(most, stop - start), dtype=torch.int64), ctypes.c_int64()
        pointers = (flags.ctypes.data, len(found), found.data_ptr(), ctypes.addressof(seen))
        count = self._lib.widehead_find(versions.data_ptr(), start, stop, *pointers)
        return found[:count], seen.value

    def move_by_adam(
        self, table: Tensor, means: Tensor, squares: Tensor, ids: Tensor, gradient: Tensor, rule: AdamRule
    ) -> None:
        if not (_moves(table, ids, gradient, means, squares) and means.shape == squares.shape == table.shape):
            super().move_by_adam(table, means, squares, ids, gradient, rule)
            return
        kept = _contiguous(ids, gradient)
        moved = (means.data_ptr(), squares.data_ptr(), table.data_ptr())
        threads, c = torch.get_num_threads(), gradient[:1].numel()
        _check_rows(self._lib.widehead_adam(threads, len(table), c, ids.numel(), *_pointers(kept), *rule, *moved))
        _written(table, means, squares)

    def move_by_adagrad(
        self, table: Tensor, sums: Tensor, ids: Tensor, gradient: Tensor, lr: float, eps: float
    ) -> None:
        if not (_moves(table, ids, gradient, sums) and sums.shape == table.shape[:1]):
            super().move_by_adagrad(table, sums, ids, gradient, lr, eps)
            return
        kept, moved = _contiguous(ids, gradient), (sums.data_ptr(), table.data_ptr())
        threads, c = torch.get_num_threads(), gradient[:1].numel()
        _check_rows(self._lib.widehead_adagrad(threads, len(table), c, ids.numel(), *_pointers(kept), lr, eps, *moved))
        _written(table, sums)


def _applies(hidden: Tensor, small: SmallState) -> bool:
    """Whether steps are for ``hidden`` (m, d), beside rows that are float32 on the CPU."""
    return hidden.dtype == torch.float32 and hidden.device.type == "cpu" and len(hidden) > 0


def _moves(table: Tensor, ids: Tensor, gradient: Tensor, *state: Tensor) -> bool:
    """Whether C moves rows of embeddings, all of them and their ``state`` float32 and in order in the CPU's memory."""
    if gradient.shape != (ids.numel(), *table.shape[1:]) or gradient.dtype != torch.float32:
        return False
    return all(p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous() for p in (table, *state))


def _written(*parts: Tensor) -> None:
    """Tell autograd, as torch's own operations do, that a graph which needs the numbers of before is stale."""
    for part in parts:
        if not part.is_inference():
            torch.autograd.graph.increment_version(part)


def _summed(rule: StepRule, small: SmallState, value: Tensor) -> tuple[SmallState, dict[str, Tensor | None]]:
    """The small state that C fills, with ``value``, and what it is given of the old one: see `Step` in interface.h."""
    if rule.keeps:
        new = SmallState(small.master, small.base, torch.empty_like(small.added), value)
        sums: dict[str, Tensor | None] = {"master": None, "new_master": None}
    else:
        small = small.flushed()
        doubles = buffers.empty(2 * len(value), value.shape[1]).view(-1).view(torch.float64).view(value.shape)
        new = SmallState(doubles, value, small.added, value)  # in which nothing is added
        sums = {"master": small.master, "new_master": doubles}
    return new, sums | {"small_base": small.base, "small_added": small.added, "added": new.added}


def _contiguous(*parts: Tensor | None) -> list[Tensor | None]:
    return [None if part is None else part.contiguous() for part in parts]


def _pointers(parts: Sequence[Tensor | None]) -> list[int | None]:
    return [None if part is None else part.data_ptr() for part in parts]


def _figures(found: Any, d: int, order: int) -> Figures:
    size = order**2
    norms = tuple(math.sqrt(square / d) if square >= 0.0 else math.nan for square in found[: 2 * size])
    growth, (known, rows, contraction) = found[2 * size : 2 * size + order], found[2 * size + order :][:3]
    return Figures(norms[:size], norms[size:], tuple(growth), (known, rows), contraction)


def _check_rows(result: int) -> None:
    if result < 0:
        raise RuntimeError("A gradient of embeddings should name rows that there are. Found others: nothing was moved.")


def _check(result: int) -> None:
    """Nothing that a user gives should come so far: an id that is no row, a version that does not exist."""
    if result < 0:
        raise RuntimeError(
            "Rows of an exact head should have versions that exist, and ids below their number. Found others: the "
            "head's record contradicts itself."
        )
