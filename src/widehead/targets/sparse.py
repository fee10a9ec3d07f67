"""Targets of examples in compressed rows.

Letters: m examples, D classes, nnz targets in all (an example may have none, and may name a class twice).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from widehead.devices import moved
from widehead.raw import INTEGER, as_tensor, flat_values, integers, reals, row_of
from widehead.targets.parts import check_ids, examples_at, offsets_message, offsets_of, sorted_stably, starts_run

TargetsLike: TypeAlias = "SparseTargets | Tensor | np.ndarray | Sequence[Sequence[int]] | Any"
#: what encoders take: a bag of ids for each example, or an (m, n) int64 tensor of ids
Inputs: TypeAlias = "SparseTargets | Tensor"


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

    __slots__ = ("_counts", "_examples", "_is_coalesced", "_known", "_sorted", "class_ids", "offsets", "values")

    class_ids: Tensor
    offsets: Tensor
    values: Tensor | None
    # A number that all ids are below, one that no value is below, and one that no example has more targets than, as was
    # found on the host; None if nobody looked. A GPU that holds the targets need not be waited for again.
    _known: tuple[int, float, int] | None
    # Found when first asked for, as several parts of a step ask for them.
    _counts: Tensor | None
    _examples: Tensor | None
    _sorted: tuple[Tensor, Tensor] | None
    _is_coalesced: bool

    def __init__(self, class_ids: Any, offsets: Any, values: Any = None) -> None:
        self.class_ids = integers("class_ids", class_ids)
        self.offsets = integers("offsets", offsets, device=self.class_ids.device)
        self.values = None if values is None else reals("values", values, self.class_ids)
        self._counts = self._examples = self._sorted = None
        self._is_coalesced = False
        self._known = None
        self._known = (self if self.class_ids.device.type == "cpu" else self.to("cpu"))._checked()

    def _checked(self) -> tuple[int, float, int]:
        """What is then known, if all parts are as they should be."""
        nnz = self.class_ids.numel()
        if self.offsets.numel() == 0:
            raise ValueError("Parameter `offsets` should have one entry more than there are examples. Found none.")
        steps = self.offsets.diff()
        if self.offsets[0] != 0 or self.offsets[-1] != nnz or bool((steps < 0).any()):
            raise ValueError(offsets_message(self.offsets, nnz))
        below = check_ids(self.class_ids, None)
        if self.values is not None and not bool(torch.isfinite(self.values).all()):
            at = int((~torch.isfinite(self.values)).nonzero()[0])
            raise ValueError(
                f"Parameter `values` should be finite. Found values[{at}] = {self.values[at].item()} "
                f"(class {int(self.class_ids[at])})."
            )
        least = 1.0 if self.values is None or nnz == 0 else float(self.values.min())
        return below, least, int(steps.max()) if len(self) > 0 else 0

    @classmethod
    def _trusted(
        cls, class_ids: Tensor, offsets: Tensor, values: Tensor | None, known: tuple[int, float, int] | None = None
    ) -> SparseTargets:
        """Build from parts that are already known to be valid."""
        made = cls.__new__(cls)
        made.class_ids, made.offsets, made.values, made._known = class_ids, offsets, values, known
        made._counts = made._examples = made._sorted = None
        made._is_coalesced = False
        return made

    @classmethod
    def from_ids(cls, ids: Any, ignore_index: int = -100) -> SparseTargets:
        """Targets from an (m,) or (m, K) integer tensor; entries equal to ``ignore_index`` are left out.

        >>> SparseTargets.from_ids(torch.tensor([[5, -100], [2, 7]])).to_lists()
        [[5], [2, 7]]
        """
        table = as_tensor("ids", ids)
        if table.dtype not in INTEGER:
            hint = " Make a table of all classes a sparse matrix: to_sparse()." if table.ndim > 1 else ""
            raise TypeError(f"Parameter `ids` should hold integers. Found dtype {table.dtype}.{hint}")
        if table.ndim not in (1, 2):
            raise ValueError(f"Parameter `ids` should have shape (m,) or (m, K). Found {tuple(table.shape)}.")
        if table.device.type != "cpu":  # one wait for all that follows
            return cls.from_ids(table.cpu(), ignore_index).to(table.device)
        table = table.to(torch.int64)
        table = table[:, None] if table.ndim == 1 else table
        kept = table != ignore_index
        class_ids, offsets = table[kept], offsets_of(kept.sum(1))
        hint = f" Entries to leave out should equal ignore_index = {ignore_index}."
        return cls._trusted(class_ids, offsets, None, (check_ids(class_ids, None, offsets, hint), 1.0, table.shape[1]))

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
        return cls(columns[order], offsets_of(counts), matrix._values()[order])

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
        rows = [row_of(b, row) for b, row in enumerate(lists)]
        flat = [c for row in rows for c in row]
        offsets = np.cumsum([0, *(len(row) for row in rows)])
        if values is None:
            return cls(torch.tensor(flat, dtype=torch.int64), offsets)
        numbers = flat_values(list(values), [len(row) for row in rows])
        return cls(torch.tensor(flat, dtype=torch.int64), offsets, torch.tensor(numbers, dtype=torch.float64))

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
        """Raise ValueError naming the first class id that is not below ``num_classes``.

        On a GPU, ids that were checked before they came there are not read again. In torch.export there are no numbers
        to check yet.
        """
        if torch.compiler.is_exporting():
            return
        known = None if self.class_ids.device.type == "cpu" else self._known
        if known is None or known[0] > num_classes:
            check_ids(self.class_ids.cpu(), num_classes, offsets=self.offsets.cpu())

    def check_weights(self) -> None:
        """Raise ValueError if a value is negative: for losses that weigh an example's targets by their values."""
        known = None if self.class_ids.device.type == "cpu" else self._known
        if self.values is None or (known is not None and known[1] >= 0.0):
            return
        values = self.values.cpu()
        if bool((values < 0).any()):
            at = int((values < 0).nonzero()[0])
            raise ValueError(
                "This loss weighs targets by their values, which should be at least 0. "
                f"Found values[{at}] = {values[at]}."
            )

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @property
    def counts(self) -> Tensor:
        """(m,) number of targets of each example."""
        if self._counts is None:
            self._counts = self.offsets[1:] - self.offsets[:-1]  # a third of the time of diff()
        return self._counts

    @property
    def most(self) -> int:
        """A number that no example has more targets than, and the largest of them if they were not given as a table."""
        if self._known is not None:
            return self._known[2]
        return int(self.counts.max()) if len(self) > 0 else 0

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
            self._sorted = sorted_stably(self.class_ids)
        return self._sorted

    def values_or_ones(self, dtype: torch.dtype) -> Tensor:
        """(nnz,) values, ones if none were given."""
        if self.values is None:
            return torch.ones(self.class_ids.numel(), dtype=dtype, device=self.class_ids.device)
        return self.values.to(dtype)

    def fresh(self) -> SparseTargets:
        """The same targets, of which nothing was found yet, such as their order by class: what a loader gives."""
        return SparseTargets._trusted(self.class_ids, self.offsets, self.values, self._known)

    def to(self, device: torch.device | str) -> SparseTargets:
        """The same targets on another device; themselves if they are there. The host does not wait for a GPU."""
        if self.class_ids.device == torch.device(device):
            return self
        class_ids, offsets = moved([self.class_ids, self.offsets], torch.device(device))
        values = None if self.values is None else moved([self.values], torch.device(device))[0]
        made = SparseTargets._trusted(class_ids, offsets, values, self._known)
        made._is_coalesced = self._is_coalesced
        return made

    def pin_memory(self, device: Any = None) -> SparseTargets:
        """The same targets in pinned memory, from which a GPU copies on its own, as a DataLoader with it asks for."""
        values = None if self.values is None else self.values.pin_memory()
        made = SparseTargets._trusted(self.class_ids.pin_memory(), self.offsets.pin_memory(), values, self._known)
        made._is_coalesced = self._is_coalesced
        return made

    def is_pinned(self) -> bool:
        """Whether they are in pinned memory."""
        return self.class_ids.is_pinned()

    def __getitem__(self, index: Any) -> SparseTargets:
        """The targets of some examples: of one, of a slice, of integer indices (n,), or of a mask (m,), as in torch.

        Raises:
            IndexError: an example that is not there, or a mask of another length.
            TypeError: another kind of index.

        >>> targets = SparseTargets.from_lists([[3], [], [1, 2]])
        >>> targets[-1].to_lists(), targets[:2].to_lists(), targets[[2, 0]].to_lists()
        ([[1, 2]], [[3], []], [[1, 2], [3]])
        """
        return self.select(examples_at(index, len(self)).to(self.class_ids.device))

    def select(self, examples: Tensor) -> SparseTargets:
        """The targets of ``examples`` (integer indices (n,)), in that order."""
        counts = self.counts[examples]
        offsets = offsets_of(counts)
        nnz = int(offsets[-1])
        starts = torch.repeat_interleave(self.offsets[:-1][examples] - offsets[:-1], counts, output_size=nnz)
        picked = starts + torch.arange(nnz, device=starts.device)
        values = None if self.values is None else self.values[picked]
        return SparseTargets._trusted(self.class_ids[picked], offsets, values, self._known)

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
        return cls._trusted(torch.cat([batch.class_ids for batch in batches]), offsets_of(counts), values)

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
        if self.class_ids.numel() == 0 or self.most < 2:
            return self
        # Sorted by class, and in the order of examples within one, repeated pairs stand side by side.
        ids, order = self.sorted_by_class()
        starts = starts_run(ids, self.example_ids.index_select(0, order))
        if bool(starts.all()):
            return self
        groups, again = (flags.nonzero().squeeze(1) for flags in (starts, starts.logical_not()))
        dropped = order.index_select(0, again)
        first = order.index_select(0, groups.index_select(0, torch.searchsorted(groups, again) - 1))
        dtype = torch.get_default_dtype() if self.values is None else self.values.dtype
        values = self.values_or_ones(dtype).clone()
        values.index_add_(0, first, values.index_select(0, dropped))
        stays = torch.ones_like(starts).index_fill_(0, dropped, False)
        kept = stays.nonzero().squeeze(1)
        counts = self.counts - torch.bincount(self.example_ids.index_select(0, dropped), minlength=len(self))
        known = self._known if self._known is not None and self._known[1] >= 0.0 else None  # sums are larger then
        parts = (self.class_ids.index_select(0, kept), offsets_of(counts), values.index_select(0, kept))
        made = SparseTargets._trusted(*parts, known)
        places = stays.cumsum(0).sub_(1).index_select(0, order.index_select(0, groups))
        made._sorted = ids.index_select(0, groups), places
        return made

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


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Inputs, or another tensor, on a device; the host does not wait for a GPU."""
    if isinstance(inputs, Tensor):
        return moved([inputs.flatten()], device)[0].view(inputs.shape)
    return inputs.to(device)
