"""Ragged sparse targets: the one data type that readers, losses, heads and metrics share.

Letters: m examples, D classes, nnz targets in all (an example may have none, and may name a class twice).
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

TargetsLike: TypeAlias = "SparseTargets | Tensor | np.ndarray | Sequence[Sequence[int]] | Any"
#: what encoders take: a bag of ids for each example, or an (m, n) int64 tensor of ids
Inputs: TypeAlias = "SparseTargets | Tensor"

_INTEGER = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)
_LARGEST_ID = 2**63 - 1


class SparseTargets:
    """Targets of m examples in compressed rows: example b has ``class_ids[offsets[b]:offsets[b + 1]]``.

    Args:
        class_ids: (nnz,) integer class ids.
        offsets: (m + 1,) integers, from 0 to nnz, never decreasing.
        values: (nnz,) real value of each target, or None for ones.

    Raises:
        TypeError: an argument is not a tensor (or array, or list) of the right kind.
        ValueError: wrong shape, negative id, unsorted offsets or a value that is not finite; names the first offender.

    >>> targets = SparseTargets([3, 1, 4], [0, 2, 2, 3])
    >>> len(targets), targets.counts.tolist()
    (3, [2, 0, 1])
    """

    __slots__ = ("_counts", "_examples", "_is_coalesced", "_sorted", "class_ids", "offsets", "values")

    class_ids: Tensor
    offsets: Tensor
    values: Tensor | None
    # Found when first asked for, as several parts of a step ask for them.
    _counts: Tensor | None
    _examples: Tensor | None
    _sorted: tuple[Tensor, Tensor] | None
    _is_coalesced: bool

    def __init__(self, class_ids: Any, offsets: Any, values: Any = None) -> None:
        self.class_ids = _integers("class_ids", class_ids)
        self.offsets = _integers("offsets", offsets, device=self.class_ids.device)
        self.values = None if values is None else _reals("values", values, self.class_ids)
        self._counts = self._examples = self._sorted = None
        self._is_coalesced = False
        self._check()

    def _check(self) -> None:
        nnz = self.class_ids.numel()
        if self.offsets.numel() == 0:
            raise ValueError("Parameter `offsets` should have one entry more than there are examples. Found none.")
        steps = self.offsets.diff()
        if self.offsets[0] != 0 or self.offsets[-1] != nnz or bool((steps < 0).any()):
            raise ValueError(_offsets_message(self.offsets, nnz))
        _check_ids(self.class_ids, None)
        if self.values is not None and not bool(torch.isfinite(self.values).all()):
            at = int((~torch.isfinite(self.values)).nonzero()[0])
            raise ValueError(
                f"Parameter `values` should be finite. Found values[{at}] = {self.values[at].item()} "
                f"(class {int(self.class_ids[at])})."
            )

    @classmethod
    def _trusted(cls, class_ids: Tensor, offsets: Tensor, values: Tensor | None) -> SparseTargets:
        """Build from parts that are already known to be valid."""
        made = cls.__new__(cls)
        made.class_ids, made.offsets, made.values = class_ids, offsets, values
        made._counts = made._examples = made._sorted = None
        made._is_coalesced = False
        return made

    @classmethod
    def from_ids(cls, ids: Any, ignore_index: int = -100) -> SparseTargets:
        """Targets from an (m,) or (m, K) integer tensor; entries equal to ``ignore_index`` are left out.

        >>> SparseTargets.from_ids(torch.tensor([[5, -100], [2, 7]])).to_lists()
        [[5], [2, 7]]
        """
        table = _as_tensor("ids", ids)
        if table.dtype not in _INTEGER:
            hint = " Make a table of all classes a sparse matrix: to_sparse()." if table.ndim > 1 else ""
            raise TypeError(f"Parameter `ids` should hold integers. Found dtype {table.dtype}.{hint}")
        if table.ndim not in (1, 2):
            raise ValueError(f"Parameter `ids` should have shape (m,) or (m, K). Found {tuple(table.shape)}.")
        table = table.to(torch.int64)
        table = table[:, None] if table.ndim == 1 else table
        kept = table != ignore_index
        class_ids, offsets = table[kept], _offsets_of(kept.sum(1))
        hint = f" Entries to leave out should equal ignore_index = {ignore_index}."
        _check_ids(class_ids, None, offsets, hint)
        return cls._trusted(class_ids, offsets, None)

    @classmethod
    def from_csr(cls, matrix: Any) -> SparseTargets:
        """Targets from an (m, D) torch sparse CSR or COO tensor, or any scipy sparse matrix; stored zeros are kept."""
        if isinstance(matrix, Tensor):
            return cls._from_torch_sparse(matrix)
        if not hasattr(matrix, "tocsr") or matrix.ndim != 2:
            raise TypeError(
                f"Parameter `matrix` should be a two-dimensional torch or scipy sparse matrix. "
                f"Found {type(matrix).__name__}."
            )
        rows = matrix.tocsr()
        return cls(
            np.asarray(rows.indices, dtype=np.int64), np.asarray(rows.indptr, dtype=np.int64), np.asarray(rows.data)
        )

    @classmethod
    def _from_torch_sparse(cls, matrix: Tensor) -> SparseTargets:
        hybrid = matrix.layout == torch.sparse_coo and matrix.dense_dim() > 0
        if matrix.layout not in (torch.sparse_csr, torch.sparse_coo) or matrix.ndim != 2 or hybrid:
            raise TypeError(
                f"Parameter `matrix` should be a two-dimensional sparse CSR or COO tensor. "
                f"Found layout {matrix.layout} with {matrix.ndim} dimensions{', some of them dense' if hybrid else ''}."
            )
        if matrix.layout == torch.sparse_csr:
            return cls(matrix.col_indices(), matrix.crow_indices(), matrix.values())
        # Not coalesced: coalescing would add up repeated entries, which are separate targets here.
        rows, columns = matrix._indices()
        order = torch.argsort(rows, stable=True)
        counts = torch.bincount(rows, minlength=matrix.shape[0])
        return cls(columns[order], _offsets_of(counts), matrix._values()[order])

    @classmethod
    def from_lists(
        cls, lists: Iterable[Iterable[int]], values: Iterable[Iterable[float]] | None = None
    ) -> SparseTargets:
        """Targets from one list of class ids an example (and, optionally, one list of values an example).

        >>> SparseTargets.from_lists([[3], [], [1, 2]]).offsets.tolist()
        [0, 1, 1, 3]
        """
        if not isinstance(lists, Iterable):
            raise TypeError(f"Parameter `lists` should hold lists of class ids. Found {type(lists).__name__}.")
        rows = [_row(b, row) for b, row in enumerate(lists)]
        flat = [c for row in rows for c in row]
        offsets = np.cumsum([0, *(len(row) for row in rows)])
        if values is None:
            return cls(torch.tensor(flat, dtype=torch.int64), offsets)
        flat_values = _flat_values(list(values), [len(row) for row in rows])
        return cls(torch.tensor(flat, dtype=torch.int64), offsets, torch.tensor(flat_values, dtype=torch.float64))

    @classmethod
    def convert(cls, targets: TargetsLike, ignore_index: int = -100) -> SparseTargets:
        """Any raw form of targets as SparseTargets: itself, id tensor or array, sparse matrix, lists."""
        if isinstance(targets, SparseTargets):
            return targets
        if isinstance(targets, Tensor):
            return cls.from_ids(targets, ignore_index) if targets.layout == torch.strided else cls.from_csr(targets)
        if hasattr(targets, "tocsr"):
            return cls.from_csr(targets)
        if isinstance(targets, np.ndarray):
            return cls.from_ids(targets, ignore_index)
        if isinstance(targets, Sequence) and not isinstance(targets, str | bytes):
            if all(isinstance(t, int | np.integer) for t in targets) and len(targets) > 0:
                return cls.from_ids(np.asarray(targets), ignore_index)
            return cls.from_lists(targets)
        raise TypeError(
            "Targets should be SparseTargets, an integer tensor (m,) or (m, K), a sparse (m, D) matrix or a list of "
            f"lists of class ids. Found {type(targets).__name__}."
        )

    def check_classes(self, num_classes: int) -> None:
        """Raise ValueError naming the first class id that is not below ``num_classes``."""
        _check_ids(self.class_ids, num_classes, offsets=self.offsets)

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @property
    def counts(self) -> Tensor:
        """(m,) number of targets of each example."""
        if self._counts is None:
            self._counts = self.offsets[1:] - self.offsets[:-1]  # a third of the time of diff()
        return self._counts

    @property
    def example_ids(self) -> Tensor:
        """(nnz,) the example that each target belongs to."""
        if self._examples is None:
            self._examples = torch.repeat_interleave(self.counts, output_size=self.class_ids.numel())
        return self._examples

    def sorted_by_class(self) -> tuple[Tensor, Tensor]:
        """(nnz,) class ids, rising, and (nnz,) the places they have here; equal ids keep their order. Sorts once.

        >>> SparseTargets([3, 1, 3], [0, 3]).sorted_by_class()
        (tensor([1, 3, 3]), tensor([1, 0, 2]))
        """
        if self._sorted is None:
            ids, places = torch.sort(self.class_ids, stable=True)
            self._sorted = ids, places
        return self._sorted

    def values_or_ones(self, dtype: torch.dtype) -> Tensor:
        """(nnz,) values, ones if none were given."""
        if self.values is None:
            return torch.ones(self.class_ids.numel(), dtype=dtype, device=self.class_ids.device)
        return self.values.to(dtype)

    def to(self, device: torch.device | str) -> SparseTargets:
        """The same targets on another device; themselves if they are there."""
        if self.class_ids.device == torch.device(device):
            return self
        values = None if self.values is None else self.values.to(device)
        made = SparseTargets._trusted(self.class_ids.to(device), self.offsets.to(device), values)
        made._is_coalesced = self._is_coalesced
        return made

    def select(self, examples: Tensor) -> SparseTargets:
        """The targets of ``examples`` (integer indices (n,)), in that order."""
        counts = self.counts[examples]
        offsets = _offsets_of(counts)
        nnz = int(offsets[-1])
        starts = torch.repeat_interleave(self.offsets[:-1][examples] - offsets[:-1], counts, output_size=nnz)
        picked = starts + torch.arange(nnz, device=starts.device)
        values = None if self.values is None else self.values[picked]
        return SparseTargets._trusted(self.class_ids[picked], offsets, values)

    @classmethod
    def concatenate(cls, batches: Sequence[SparseTargets]) -> SparseTargets:
        """The examples of several batches (at least one), one batch after the other.

        >>> SparseTargets.concatenate(
        ...     [SparseTargets.from_lists([[1], []]), SparseTargets.from_lists([[2, 3]])]
        ... ).to_lists()
        [[1], [], [2, 3]]
        """
        values, types = None, [batch.values.dtype for batch in batches if batch.values is not None]
        if types:
            widest = functools.reduce(torch.promote_types, types)
            values = torch.cat([batch.values_or_ones(widest) for batch in batches])
        counts = torch.cat([batch.counts for batch in batches])
        return cls._trusted(torch.cat([batch.class_ids for batch in batches]), _offsets_of(counts), values)

    def coalesced(self) -> SparseTargets:
        """The same targets with the values of a class named twice by one example added up (1 each if none are given).

        Itself if nothing is repeated.

        >>> SparseTargets([2, 5, 2], [0, 3]).coalesced().values.tolist()
        [2.0, 1.0]
        """
        if self._is_coalesced:
            return self
        made = self._coalesced()
        made._is_coalesced = True
        return made

    def _coalesced(self) -> SparseTargets:
        if self.class_ids.numel() == 0 or int(self.counts.max()) < 2:
            return self
        ids, order = self.sorted_by_class()
        examples = self.example_ids[order]
        if not bool(((ids[1:] == ids[:-1]) & (examples[1:] == examples[:-1])).any()):
            return self
        order = order[torch.argsort(examples, stable=True)]
        ids, examples = self.class_ids[order], self.example_ids[order]
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = (ids[1:] != ids[:-1]) | (examples[1:] != examples[:-1])
        dtype = torch.get_default_dtype() if self.values is None else self.values.dtype
        groups = first.nonzero().squeeze(1)
        lengths = torch.nn.functional.pad(groups, (0, 1), value=ids.numel()).diff()
        values = torch.segment_reduce(self.values_or_ones(dtype)[order], "sum", lengths=lengths)
        counts = torch.bincount(examples[groups], minlength=len(self))
        return SparseTargets._trusted(ids[groups], _offsets_of(counts), values)

    def to_lists(self) -> list[list[int]]:
        """One list of class ids an example."""
        ids, offsets = self.class_ids.tolist(), self.offsets.tolist()
        return [ids[a:b] for a, b in itertools.pairwise(offsets)]

    def to_csr(self, num_classes: int) -> Any:
        """An (m, num_classes) scipy CSR matrix of the values; repeated classes of one example add up."""
        import scipy.sparse

        self.check_classes(num_classes)
        data = self.values_or_ones(torch.float64).cpu().numpy()
        shape = (len(self), num_classes)
        parts = (data, self.class_ids.cpu().numpy(), self.offsets.cpu().numpy())
        # A copy: sum_duplicates sorts in place, and these arrays are the memory of the tensors.
        matrix = scipy.sparse.csr_matrix(parts, shape, copy=True)
        matrix.sum_duplicates()
        return matrix

    def __repr__(self) -> str:
        valued = "" if self.values is None else ", with values"
        return f"SparseTargets({len(self)} examples, {self.class_ids.numel()} targets{valued})"


def _row(b: int, row: Any) -> list[int]:
    try:
        ids = [_index(c) for c in row]
    except TypeError as error:
        raise TypeError(
            f"Parameter `lists` should hold one list of integer class ids an example. Found lists[{b}] = {row!r}."
        ) from error
    if max(ids, default=0) > _LARGEST_ID or min(ids, default=0) < -_LARGEST_ID:
        raise ValueError(f"Class ids should be at most {_LARGEST_ID}. Found lists[{b}] = {row!r}.")
    return ids


def _index(c: Any) -> int:
    if isinstance(c, bool) or getattr(c, "dtype", None) == torch.bool:
        raise TypeError(f"{c!r} is not an integer")
    return operator.index(c)


def _flat_values(rows: list[Any], lengths: list[int]) -> list[float]:
    if len(rows) != len(lengths):
        raise ValueError(
            f"Parameter `values` should have as many rows as `lists`. Found {len(rows)} and {len(lengths)}."
        )
    flat: list[float] = []
    for b, row in enumerate(rows):
        try:
            numbers = [float(v) for v in row]
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"Parameter `values` should hold one list of numbers an example. Found values[{b}] = {row!r}."
            ) from error
        if len(numbers) != lengths[b]:
            raise ValueError(
                f"Parameter `values` should have as many entries in each row as `lists`. "
                f"Found {len(numbers)} and {lengths[b]} in row {b}."
            )
        flat += numbers
    return flat


def _offsets_of(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"Parameter `{name}` should be a dense tensor. Found layout {value.layout}.")
        return value.detach()
    try:
        array = np.asarray(value)
        if array.size == 0 and not isinstance(value, np.ndarray):
            array = array.astype(np.int64)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        # torch takes neither negative strides nor, without a warning, memory that may not be written.
        ready = all(step > 0 for step in array.strides) and array.flags.writeable
        return torch.from_numpy(array if ready else array.copy())
    except (TypeError, ValueError) as error:
        raise TypeError(f"Parameter `{name}` should be a tensor of numbers. Found {type(value).__name__}.") from error


def _integers(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    tensor = _as_tensor(name, value)
    if tensor.dtype not in _INTEGER:
        raise TypeError(f"Parameter `{name}` should hold integers. Found dtype {tensor.dtype}.")
    if tensor.ndim != 1:
        raise ValueError(f"Parameter `{name}` should have one dimension. Found shape {tuple(tensor.shape)}.")
    return tensor.to(device=device or tensor.device, dtype=torch.int64)


def _reals(name: str, value: Any, like: Tensor) -> Tensor:
    tensor = _as_tensor(name, value)
    if tensor.dtype.is_complex or tensor.shape != like.shape:
        raise ValueError(
            f"Parameter `{name}` should hold one real number a target, shape {tuple(like.shape)}. "
            f"Found shape {tuple(tensor.shape)}, dtype {tensor.dtype}."
        )
    tensor = tensor.to(like.device)
    return tensor if tensor.dtype.is_floating_point else tensor.to(torch.get_default_dtype())


def _check_ids(class_ids: Tensor, num_classes: int | None, offsets: Tensor | None = None, hint: str = "") -> None:
    if class_ids.numel() == 0:
        return
    low, high = (int(x) for x in torch.aminmax(class_ids))
    if low >= 0 and (num_classes is None or high < num_classes):
        return
    wrong = class_ids < 0 if num_classes is None else (class_ids < 0) | (class_ids >= num_classes)
    at = int(wrong.nonzero()[0])
    where = "" if offsets is None else f" in example {int(torch.searchsorted(offsets, at, right=True)) - 1}"
    limit = "at least 0" if num_classes is None else f"in [0, {num_classes})"
    raise ValueError(f"Class ids should be {limit}. Found class_ids[{at}] = {int(class_ids[at])}{where}.{hint}")


def _offsets_message(offsets: Tensor, nnz: int) -> str:
    should = f"Parameter `offsets` should rise from 0 to nnz = {nnz} without decreasing."
    falls = (offsets.diff() < 0).nonzero()
    if offsets[0] != 0:
        return f"{should} Found offsets[0] = {int(offsets[0])}."
    if len(falls):
        at = int(falls[0])
        return f"{should} Found offsets[{at}] = {int(offsets[at])} > offsets[{at + 1}] = {int(offsets[at + 1])}."
    return f"{should} Found offsets[{offsets.numel() - 1}] = {int(offsets[-1])}."
