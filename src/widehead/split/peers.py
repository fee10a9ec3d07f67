"""The processes that train one run together: what they tell one another besides rows of W.

Letters: P processes, m examples of a batch of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, distributed

from widehead.errors import ProcessesError
from widehead.split.processes import Formed, RowSplit

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_NONE, _DENSE = -1, 1 << 62  # in the place of a number of rows
_BLOCK = 1 << 18  # numbers that are drawn together, a multiple of the 16 that torch makes at a time


@dataclass(frozen=True)
class Member:
    """One of ``size`` processes that a program starts on this machine, and an empty folder in which they meet."""

    rank: int
    size: int
    place: str

    def joined(self) -> DeviceMesh | None:
        """Their mesh, once all are here; None for one process."""
        if self.size == 1:
            return None
        from torch.distributed.device_mesh import init_device_mesh  # it takes long to import

        meeting = f"file://{self.place}/meeting"
        distributed.init_process_group("gloo", init_method=meeting, rank=self.rank, world_size=self.size)
        return init_device_mesh("cpu", (self.size,))


class Peers:
    """The processes of a mesh, each of which makes the same run; or this one alone, which then asks nobody.

    Args:
        mesh: of one dimension; None for one process.

    Attributes:
        rank: of this process, below ``size`` P.
        is_first: whether this is the one that writes and talks.
    """

    def __init__(self, mesh: DeviceMesh | None = None) -> None:
        self.mesh = mesh
        self._split = None if mesh is None else RowSplit(mesh, mesh.size())
        self.rank, self.size = (0, 1) if self._split is None else (self._split.rank, self._split.size)
        self.is_first = self.rank == 0

    def share(self, count: int) -> slice:
        """Which of ``count`` things in a row are this process's."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    # -- what all do alike --------------------------------------------------------------------------------------

    @contextmanager
    def alike(self) -> Iterator[None]:
        """What fails in one process fails in all, once all have left the block, in which nobody asks others.

        Raises:
            ProcessesError: it failed in another process; says in which, and why.
        """
        failure = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is raised below
            failure = error
        told = self.told(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        if (failed := next((rank for rank, text in enumerate(told) if text is not None), None)) is not None:
            raise ProcessesError(f"Rank {failed}: {told[failed]}")

    def check_same(self, what: str, found: Any) -> None:
        """Raise ProcessesError, on all, if ``found`` differs between them."""
        told = self.told(str(found))
        if len(set(told)) > 1:
            other = next(text for text in told if text != told[0])
            raise ProcessesError(
                f"All processes should have the same {what}. Found {told[0]} on rank 0 and {other} on rank "
                f"{told.index(other)}."
            )

    def told(self, mine: Any) -> list[Any]:
        """What each process says, by rank."""
        return [mine] if self._split is None else self._split.told(mine)

    def said_by_first(self, mine: Any) -> Any:
        """What rank 0 says in the place of ``mine``."""
        return self.told(mine)[0]

    # -- numbers ------------------------------------------------------------------------------------------------

    def sums(self, *numbers: float) -> list[float]:
        """Each number summed over the processes, the same bits on all."""
        if self._split is None:
            return list(numbers)
        return self._split.sum_(torch.tensor(numbers, dtype=torch.float64), "numbers").tolist()

    @torch.no_grad()
    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Write what rank 0 has into ``tensors``."""
        if self._split is not None:
            for tensor in tensors:
                self._split.from_first_(tensor.data)

    def average(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The averages of all processes' gradients, the same bits on all; None only if all have none.

        Dense ones are one message. One that is sparse in its rows, each of them once, is two.
        """
        split = self._split
        assert split is not None
        table = self._kinds(gradients)
        made: list[Tensor | None] = [None] * len(parameters)
        dense = [i for i, counts in enumerate(table) if max(counts) == _DENSE]
        if dense:
            parts = [torch.zeros_like(parameters[i]) if (g := gradients[i]) is None else g for i in dense]
            flat = split.sum_(torch.cat([part.flatten() for part in parts]), "gradients").div_(self.size)
            for i, part in zip(dense, flat.split([part.numel() for part in parts]), strict=True):
                made[i] = part.view_as(parameters[i])
        for i, counts in enumerate(table):
            if _NONE < max(counts) < _DENSE:
                made[i] = self._average_rows(parameters[i], gradients[i], [max(0, count) for count in counts])
        return made

    def _kinds(self, gradients: Sequence[Tensor | None]) -> list[list[int]]:
        """What each process has of each gradient: none, all, or how many rows."""
        kinds = [_NONE if g is None else g._indices().shape[1] if g.is_sparse else _DENSE for g in gradients]
        assert self._split is not None
        told = self._split.all_rows(torch.tensor([kinds], dtype=torch.int64), [1] * self.size, "gradients")
        return told.T.tolist()

    def _average_rows(self, parameter: Tensor, gradient: Tensor | None, counts: list[int]) -> Tensor:
        assert self._split is not None
        ids, rows = parameter.new_empty(0, dtype=torch.int64), parameter.new_empty(0, *parameter.shape[1:])
        if gradient is not None:
            ids, rows = gradient._indices()[0], gradient._values()
        all_ids = self._split.all_rows(ids, counts, "gradients")
        all_rows = self._split.all_rows(rows, counts, "gradients").div_(self.size)
        return torch.sparse_coo_tensor(all_ids[None], all_rows, parameter.shape, check_invariants=False).coalesce()

    # -- chance -------------------------------------------------------------------------------------------------

    def seed_step(self, seed: int, step: int) -> None:
        """Draws of this step, such as dropout's, are its own and this process's, whatever was drawn before.

        So a run that goes on is the run that did not stop. One process goes on with its generator instead.
        """
        if self._split is not None:
            entropy = np.random.SeedSequence([seed, step, self.rank, self.size])
            torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


def draw_as_one(split: RowSplit, rows: Formed, std: float, state: Tensor, put: Callable[[int, Tensor], None]) -> Tensor:
    """Give rows the numbers that one process would draw from a generator; what follows them in it is returned.

    Each process draws all of them, and keeps its own.

    Args:
        rows: those here.
        state: of torch's generator of the CPU, the same everywhere; and so is what is returned.
        put: takes the place of the first of some rows, among those here, and their numbers.
    """
    generator = torch.Generator()
    generator.set_state(state)
    for start, drawn in drawn_in_blocks(generator, (split.num_rows, rows.width), rows.dtype, std):
        first, end = max(start, split.first), min(start + len(drawn), split.end)
        if first < end:
            put(first - split.first, drawn[first - start : end - start].to(rows.device))
    return generator.get_state()


def drawn_in_blocks(
    generator: torch.Generator, shape: tuple[int, int], dtype: torch.dtype, std: float = 1.0
) -> Iterator[tuple[int, Tensor]]:
    """(number of the first, rows) of normal numbers that torch would draw at once, some rows at a time."""
    num_rows, width = shape
    step = max(16, _BLOCK // max(1, width) // 16 * 16)
    starts = range(0, max(1, num_rows - 16), step)  # torch draws fewer than 16 numbers in another way
    for number, start in enumerate(starts):
        stop = num_rows if number + 1 == len(starts) else start + step
        yield start, torch.empty(stop - start, width, dtype=dtype).normal_(std=std, generator=generator)
