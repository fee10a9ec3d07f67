"""Where the rows of X are kept: as they are in a cache, or as they were at a boundary.

Letters (docs/notation.md): D classes, c columns, V (D, c) stored rows, U (c, c), ω (c,), n places of the cache,
S boundaries. A row is x = y + ω, and y = v·T_s·U or stands in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from widehead.blocks import rows_at_once
from widehead.versions import Rows

NUMBERS = 1 << 25  # of all transforms together, and of what stands between rows and their newest version


class CachedRows:
    """Tensors of fixed sizes, so that a captured graph finds them, with what the host knows of them.

    Args:
        rows: V, taken over; X = V + 1ωᵀ.
        boundaries, places: S and n.

    Attributes:
        stamps: (D,) int64, for each class its place in the cache or, if it has none, its row's boundary less S.
        transforms: (c, S, c) what leads from each boundary to the newest.
        cache: (n, c) rows y, the last place first. names: (n,) classes that came there; one that came again has the
            first of its places, which is the largest. Of places that were not used, names are old or none.
        log: (S, n) the names at each boundary.
        next: (1,) the next place; ``used``: how many are, as the host knows it.
        newest: (1,) the newest boundary; ``boundary``: the same, as the host knows it.
        salt: () a number that every `close` and `sweep` changes.
        is_captured: whether what runs is captured for a graph, for which the host knows nothing but sizes.
    """

    def __init__(self, rows: Rows, boundaries: int, places: int = 0) -> None:
        self.rows = rows
        self.stamps = self._whole(rows.num_rows)
        self.salt = self._whole()
        self.allocate(boundaries, places)
        self.is_captured = False

    def allocate(self, boundaries: int, places: int) -> None:
        """Anew, with no row in the cache and all at one boundary: as after `sweep`."""
        c = self.rows.width
        self.transforms = self.rows.zeros(c, boundaries, c)
        self.cache, self.names = self.rows.zeros(places, c), self._whole(places)
        self.log = self._whole(boundaries, places)
        self.next, self.newest = self._whole(1), self._whole(1)
        self._order = torch.arange(places, device=self.rows.device)
        self._begin()
        self.next.fill_(places - 1)
        self.used = 0

    def _begin(self) -> None:
        """All rows stand at boundary 0, the newest."""
        self.stamps.fill_(-self.boundaries)
        self.newest.zero_()
        self.transforms.zero_()
        self.transforms.diagonal(dim1=0, dim2=2)[0].fill_(1.0)
        self.boundary = 0

    def _whole(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=self.rows.device)

    @property
    def boundaries(self) -> int:
        """S."""
        return self.transforms.shape[1]

    @property
    def places(self) -> int:
        """n."""
        return self.cache.shape[0]

    def grow(self, places: int) -> None:
        """A cache of so many places, with the rows that there are."""
        more = places - self.places
        self.stamps.add_((self.stamps >= 0) * more)
        self.cache, self.names = pad(self.cache, (0, 0, more, 0)), pad(self.names, (more, 0))
        self.log = pad(self.log, (more, 0))
        self.next.add_(more)
        self._order = torch.arange(places, device=self.rows.device)

    def enter(self, ids: Tensor, factor: Tensor) -> Tensor:
        """(nnz,) places of classes, which come into the cache if they are not there; there should be room for all."""
        count = ids.shape[0]
        if count == 0:
            return ids
        place = self.next - self._order[:count]
        stamps = self.stamps.index_select(0, ids)
        self.stamps.scatter_reduce_(0, ids, place, "amax")  # who is there already stays there
        self.cache.index_copy_(0, place, self._brought(ids, stamps, factor))
        self.names.index_copy_(0, place, ids)
        self.next.sub_(count)
        self.used += count
        return self.stamps.index_select(0, ids)

    def read(self, ids: Tensor, factor: Tensor) -> Tensor:
        """(k, c) copies of present rows y; nothing is written."""
        stamps = self.stamps.index_select(0, ids)
        brought = self._brought(ids, stamps, factor)
        if self.places == 0:
            return brought
        return torch.where((stamps >= 0)[:, None], self.cache.index_select(0, stamps.clamp(min=0)), brought)

    def outputs(self, hidden: Tensor, factor: Tensor, shift: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Products of ``hidden`` (m, d) with the first d columns of all rows: pairs (first class, (m, k)).

        Rows stay as they are: T_s and U meet the m hidden rows instead, and V is read once.
        """
        d = hidden.shape[1]
        constant, queries = (hidden @ shift[:d])[:, None], self._queries(hidden @ factor[:, :d].T)
        recent = self._recent(hidden, queries, constant) if self.boundary or self.used else None
        for first, stop in self.rows.spans():
            step = rows_at_once(hidden.device, stop - first, hidden.shape[0])
            for start in range(first, stop, step):
                rows = self.rows.stored[start : min(start + step, stop)].to(self.rows.dtype)
                found = (queries[:, :, 0] @ rows.T).add_(constant)
                if recent is not None:
                    _put_recent(found, start, *recent)
                yield start, found

    def _queries(self, hidden: Tensor) -> Tensor:
        """(m, c, S) ``hidden`` (m, c) times T_sᵀ for each boundary, or for the only one there is."""
        if self.boundary == 0:
            return hidden[:, :, None]
        return (hidden @ self.transforms.view(-1, hidden.shape[1]).T).view(*hidden.shape, self.boundaries)

    def _recent(self, hidden: Tensor, queries: Tensor, constant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(m, k) outputs of rows written since the last pass, (k,) their classes, and (D,) where each class is there.

        Places count from 1; 0: it was not written. What a class was before it was written again is there as well.
        """
        logged, names = self.log[1 : self.boundary + 1], self.names
        slots = torch.arange(1, self.boundary + 1, device=logged.device)[:, None] - self.boundaries
        at_home, in_cache = self.stamps[logged] == slots, self.stamps[names] == self._order
        stands = torch.cat([at_home.view(-1), in_cache])
        stored = self.rows.gather(logged.view(-1)).view(*logged.shape, self.rows.width)
        homes = torch.bmm(stored, queries[:, :, 1 : self.boundary + 1].permute(2, 1, 0)).flatten(0, 1).T
        outputs = torch.cat([homes, hidden @ self.cache[:, : hidden.shape[1]].T], dim=1).add_(constant)
        numbers = torch.where(stands, torch.arange(1, 1 + stands.shape[0], device=stands.device), 0)
        classes = torch.cat([logged.view(-1), names])
        return outputs, classes, torch.zeros_like(self.stamps).scatter_reduce_(0, classes, numbers, "amax")

    def _brought(self, ids: Tensor, stamps: Tensor, factor: Tensor) -> Tensor:
        """(k, c) rows v·T_s·U from boundaries ``stamps`` (k,); anything finite for rows of the cache."""
        stored = self.rows.gather(ids)
        if self.boundary == 0 and not self.is_captured:  # all stand at the newest
            return stored @ factor
        at_once = max(1, NUMBERS // (self.boundaries * self.rows.width))
        slots = stamps.clamp(max=-1).add_(self.boundaries)
        parts = zip(stored.split(at_once), slots.split(at_once), strict=True)
        moved = [self._moved(rows, at) for rows, at in parts]
        return (moved[0] if len(moved) == 1 else torch.cat(moved)) @ factor

    def _moved(self, rows: Tensor, slots: Tensor) -> Tensor:
        """(k, c) each row times the transform of its slot: times all of them, of which one is taken."""
        c = self.rows.width
        every = (rows @ self.transforms.view(c, -1)).view(-1, self.boundaries, c)
        return every.gather(1, slots[:, None, None].expand(-1, 1, c)).squeeze(1)

    def close(self, factor: Tensor, stored: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        """Write the rows of the cache home and let all others take U along: U is I from now on.

        Args:
            stored: makes of rows (k, c) of the cache, their classes (k,), and (k, 1) whether a class comes there for
                the first time, what is stored of them.
        """
        c, names = self.rows.width, self.names
        self.newest.add_(1)
        self.salt.add_(1)
        stamps = self.stamps.index_select(0, names)
        cached, held = (stamps >= 0)[:, None], stamps.clamp(min=0)
        first = cached & (held == self._order)[:, None]
        rows = stored(self.cache, names, first).index_select(0, held)
        self.rows.stored.index_copy_(0, names, torch.where(cached, rows, self.rows.stored.index_select(0, names)))
        self.stamps.index_copy_(0, names, torch.where(cached[:, 0], self.newest - self.boundaries, stamps))
        self.log.index_copy_(0, self.newest, names[None])
        self.transforms.copy_((self.transforms.view(-1, c) @ factor).view_as(self.transforms))
        self.transforms.index_copy_(1, self.newest, torch.eye(c, dtype=factor.dtype, device=factor.device)[:, None])
        self.next.fill_(self.places - 1)
        self.used = 0
        self.boundary += 1

    def sweep(self, stored: Callable[[Tensor, Tensor], Tensor]) -> None:
        """All rows to the newest boundary: those written since the last pass by name, the others in one product.

        Args:
            stored: makes of rows (k, c) and their classes (k,) what is stored of them.
        """
        self.salt.add_(1)
        for start, stop in self.rows.spans():
            old, rows = self.stamps[start:stop] == -self.boundaries, self.rows.stored[start:stop].to(self.rows.dtype)
            moved = torch.where(old[:, None], rows @ self.transforms[:, 0], rows)
            self.rows.put(start, stored(moved, torch.arange(start, stop, device=old.device)))
        for slot in range(1, self.boundary + 1):
            names = self.log[slot]
            stays, rows = self.stamps.index_select(0, names) == slot - self.boundaries, self.rows.gather(names)
            moved = torch.where(stays[:, None], rows @ self.transforms[:, slot], rows)
            self.rows.stored.index_copy_(0, names, stored(moved, names))
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        assert not self.is_captured, "nobody copies what is being captured"
        return self.__dict__


def _put_recent(found: Tensor, start: int, outputs: Tensor, classes: Tensor, places: Tensor) -> None:
    """Put `_recent` outputs of the classes from ``start`` on into ``found`` (m, n).

    A class that is not there stands for the one that is nearest to it, so that nobody asks how many there are; whoever
    writes at a place writes the same.
    """
    at = (classes - start).clamp_(0, found.shape[1] - 1)
    place = places[start : start + found.shape[1]].index_select(0, at)
    recent = outputs.index_select(1, (place - 1).clamp_(0))
    found.index_copy_(1, at, torch.where(place > 0, recent, found.index_select(1, at)))
