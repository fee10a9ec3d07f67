"""Which rows a process has, and what the processes of a head tell one another, by torch.distributed alone.

Letters: P processes, D classes, m examples of one process, M of all.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad

from widehead.errors import NonFiniteError, ProcessesError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from widehead.versions import Rows

_KINDS = ("float32", "float64", "bfloat16", "float16")
_NUMBERS = 4  # that a process tells at the beginning of an exchange
_ALIGNED = 8  # bytes of the longest numbers
_DRAWN = 1 << 12  # rows that are drawn together
_reduce_scatter: Any = (
    getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
)  # in older ones
_WHAT = (
    *("forward", "backward", "step", "reading again", "counting", "top_k", "scores", "weight", "consolidate", "audit"),
    *("what it was given", "reading rows", "drawing", "bags"),
)


class Formed(Protocol):
    """What a process says of its rows at the beginning of an exchange."""

    @property
    def width(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...


class Form(NamedTuple):
    """That of rows which are a tensor."""

    width: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, table: Tensor) -> Form:
        return cls(table.shape[1], table.dtype, table.device)


class RowSplit:
    """Contiguous blocks of ⌈D/P⌉ rows, one a process (`Shard(0)` of torch's DTensor); the last may have fewer or none.

    Every exchange begins with a few whole numbers from each process: what it is doing, with which head. So processes
    that do different things all find out, at once, and raise the same error.

    Args:
        mesh: a `torch.distributed.device_mesh.DeviceMesh` with one dimension.
        num_rows: D.

    Attributes:
        rank: of this process in the mesh, below ``size`` P.
        first, end: its rows are those from ``first`` to before ``end``.
        counts: how many each process has, by rank.
        sent: bytes that this process gave to each kind of exchange.
    """

    def __init__(self, mesh: DeviceMesh, num_rows: int) -> None:
        if getattr(mesh, "ndim", None) != 1:
            found = f"{mesh.ndim} dimensions" if hasattr(mesh, "ndim") else type(mesh).__name__
            raise ValueError(
                "Parameter `mesh` should be a torch.distributed.device_mesh.DeviceMesh of one dimension, such as "
                f"init_device_mesh('cpu', (world_size,)). Found {found}."
            )
        self.mesh, self.num_rows = mesh, num_rows
        self.rank, self.size = mesh.get_local_rank(), mesh.size()
        block = -(-num_rows // self.size)
        bounds = [min(r * block, num_rows) for r in range(self.size + 1)]
        self.first, self.end = bounds[self.rank : self.rank + 2]
        self.counts = [end - first for first, end in itertools.pairwise(bounds)]
        self.sent: Counter[str] = Counter()
        self._group = mesh.get_group()

    def __deepcopy__(self, memo: dict[int, Any]) -> RowSplit:
        """Copies of a head talk to those of the same processes."""
        return self

    @property
    def rows(self) -> range:
        """The classes whose rows are here."""
        return range(self.first, self.end)

    def draw(self, rows: Rows, std: float) -> None:
        """Normal numbers by rank 0's seed, the same for a class whatever P is."""
        for start, made in self.drawn(rows, std):
            rows.put(start, made)

    def drawn(self, form: Formed, std: float) -> Iterator[tuple[int, Tensor]]:
        """The same as pairs (first row of those here, (n, width) numbers)."""
        seed = torch.randint(2**62, (1,), device=form.device)
        generator, begin = torch.Generator(form.device), int(self.from_first_(seed))
        for start in range(self.first - self.first % _DRAWN, self.end, _DRAWN):
            generator.manual_seed(begin + start)
            made = torch.empty(_DRAWN, form.width, dtype=form.dtype, device=form.device)
            made.normal_(std=std, generator=generator)
            yield max(start, self.first) - self.first, made[max(0, self.first - start) : self.end - start]

    # -- tensors of rows ----------------------------------------------------------------------------------------

    def tensor(self, part: Tensor) -> Tensor:
        """The rows here as a DTensor of all rows, with the same memory."""
        from torch.distributed.tensor import DTensor, Shard  # it takes long to import

        shape = torch.Size([self.num_rows, *part.shape[1:]])
        return DTensor.from_local(part, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=part.stride())

    def part_of(self, given: Any) -> Any:
        """Of a DTensor the rows here if it is split alike, else all rows; other tensors as they are."""
        if not hasattr(given, "to_local"):
            return given
        return given.to_local() if given.device_mesh.size() == self.size else given.full_tensor()

    # -- exchanges ----------------------------------------------------------------------------------------------

    def meet(self, what: str, *numbers: int, rows: Formed, failure: Exception | None = None) -> list[list[int]]:
        """The ``numbers`` of every process, by rank, once all of them have come here.

        Args:
            what: this process is doing.
            rows: those here, for their width, type and device.
            failure: why this process cannot go on.

        Raises:
            ProcessesError: one cannot go on; or they are doing different things, or have different heads.
            NonFiniteError: one cannot go on because of it; it is named.
        """
        form = (self.num_rows, rows.width, _KINDS.index(str(rows.dtype).removeprefix("torch.")))
        filled = (*numbers, *[0] * (_NUMBERS - len(numbers)))  # as long whatever they do
        mine = [_WHAT.index(what), *form, failure is not None, *filled]
        given = torch.tensor(mine, dtype=torch.int64)
        table = self._gathered(given.to(rows.device), "numbers").view(self.size, -1).tolist()
        if failed := [rank for rank, row in enumerate(table) if row[4]]:
            self._fail(failed, failure)
        if any(row[:4] != table[0][:4] for row in table):
            raise ProcessesError(
                "All processes of a head should call the same of its methods in the same order, and have the same "
                f"head. Found {'; '.join(f'rank {rank}: {_named(row)}' for rank, row in enumerate(table))}."
            )
        return [row[5:] for row in table]

    def tell(self, fault: Exception, rows: Formed) -> None:
        """The others hear in whatever they call next that this process refuses something."""
        with suppress(ProcessesError):
            self.meet("what it was given", rows=rows, failure=fault)

    def check_same(self, made: str) -> None:
        """Raise ProcessesError, on all processes, if ``made`` is not the same text on all."""
        told = self.told(made)
        if len(set(told)) > 1:
            raise ProcessesError(
                "All processes should make the same head. Found "
                f"{'; '.join(f'rank {told.index(text)}: {text}' for text in dict.fromkeys(told))}."
            )

    def _fail(self, ranks: list[int], failure: Exception | None) -> None:
        """Raise, on all processes, what went wrong on some of them."""
        told = self.told(None if failure is None else (isinstance(failure, NonFiniteError), str(failure)))
        kind = NonFiniteError if all(told[rank][0] for rank in ranks) else ProcessesError
        texts = {told[rank][1]: rank for rank in reversed(ranks)}
        if len(ranks) == self.size and len(texts) == 1:  # of what all know
            raise kind(*texts) from failure
        raise kind(" ".join(f"Rank {rank}: {text}" for text, rank in texts.items())) from failure

    def told(self, mine: Any) -> list[Any]:
        """What each process says, by rank."""
        told: list[Any] = [None] * self.size
        with telling():
            distributed.all_gather_object(told, mine, group=self._group)
        return told

    def all_rows(self, part: Tensor, counts: Sequence[int], what: str) -> Tensor:
        """(Σ counts, …) the parts of all processes, one below the other; that of rank r has counts[r] rows."""
        most = max(counts)
        if part.shape[0] < most:
            part = torch.cat([part, part.new_zeros(most - part.shape[0], *part.shape[1:])])
        found = self._gathered(part.contiguous(), what)
        if min(counts) == most:
            return found
        return torch.cat([found[r * most : r * most + count] for r, count in enumerate(counts)])

    def all_of(self, parts: Sequence[Tensor], lengths: Sequence[Sequence[int]], what: str) -> list[Tensor]:
        """Each of several tensors as `all_rows` of it, in one message; those with the longest numbers stand first.

        Args:
            lengths: rows of each tensor, by rank.
        """
        widths = [part.element_size() * math.prod(part.shape[1:]) for part in parts]
        by_rank = [[n * width for n, width in zip(of, widths, strict=True)] for of in zip(*lengths, strict=True)]
        totals = [sum(sizes) for sizes in by_rank]
        totals = [total + -total % _ALIGNED for total in totals]
        mine = torch.cat([_bytes_of(part) for part in parts])
        told = self.all_rows(pad(mine, (0, totals[self.rank] - len(mine))), totals, what).split(totals)
        pieces = [of_one[: sum(sizes)].split(sizes) for of_one, sizes in zip(told, by_rank, strict=True)]
        return [
            torch.cat([piece.view(part.dtype) for piece in column]).view(sum(of), *part.shape[1:])
            for part, of, column in zip(parts, lengths, zip(*pieces, strict=True), strict=True)
        ]

    def sum_(self, part: Tensor, what: str) -> Tensor:
        """``part``, in place, summed over the processes: the same bits on all."""
        self.sent[what] += part.numel() * part.element_size()
        with telling():
            distributed.all_reduce(part, group=self._group)
        return part

    def sums_of_parts(self, part: Tensor, counts: Sequence[int], what: str) -> Tensor:
        """Its own counts[rank] rows, on each process, of ``part`` (Σ counts, …) summed over the processes."""
        most = max(counts)
        if min(counts) < most:
            part = torch.cat([pad(one, (0, 0, 0, most - len(one))) for one in part.split(list(counts))])
        found = part.new_empty(most, *part.shape[1:])
        self.sent[what] += part.numel() * part.element_size()
        if part.numel():
            with telling():
                _reduce_scatter(found, part.contiguous(), group=self._group)
        return found[: counts[self.rank]]

    def largest_(self, part: Tensor) -> Tensor:
        """``part``, in place, the largest of all processes by entry."""
        self.sent["largest"] += part.numel() * part.element_size()
        with telling():
            distributed.all_reduce(part, distributed.ReduceOp.MAX, group=self._group)
        return part

    def from_first_(self, part: Tensor) -> Tensor:
        """``part``, in place, as the process of rank 0 has it."""
        self.sent["of rank 0"] += part.numel() * part.element_size()
        with telling():
            distributed.broadcast(part, group=self._group, group_src=0)
        return part

    def _gathered(self, part: Tensor, what: str) -> Tensor:
        self.sent[what] += part.numel() * part.element_size()
        found = part.new_empty(self.size * part.shape[0], *part.shape[1:])
        if part.numel():
            with telling():
                distributed.all_gather(list(found.chunk(self.size)), part, group=self._group)
        return found


def split_by(mesh: DeviceMesh, num_rows: int, device: torch.device) -> RowSplit:
    """ValueError if there is no memory to split."""
    if device.type == "meta":
        raise ValueError("A head whose rows are split (`mesh`) should be made on its device. Found meta.")
    return RowSplit(mesh, num_rows)


def _named(row: Sequence[int]) -> str:
    what, rows, width, kind = row[:4]
    return f"{_WHAT[what]} (D = {rows}, width = {width}, {_KINDS[kind]})"


@contextmanager
def telling() -> Iterator[None]:
    """What torch says if another process is gone, in words that a user can do something with."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessesError(
            "All processes of a head should be there, and answer within the timeout of init_process_group. Found that "
            "one has ended, or waits elsewhere; its own log says why. Start again from the last checkpoint."
        ) from error


def _bytes_of(part: Tensor) -> Tensor:
    """The numbers of a tensor as bytes; of one number the stride may be anything, and torch looks at it."""
    return part.contiguous().as_strided((part.numel(),), (1,)).view(torch.uint8)
