"""The life of the index that a head retrieves classes with: built when first asked, refreshed, trained again."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from widehead.errors import RetrievalWarning, check_choice, check_number, warn_user
from widehead.heads.tail import CellTail
from widehead.search import ExhaustiveIndex, IVFIndex, require_faiss
from widehead.search.faiss import has_gpu
from widehead.search.ivf import MOST_ON_GPU

IndexKind = Literal["auto", "exhaustive", "ivf"]

_SMALL = 2_000  # rows up to which looking at all of them is about as fast as FAISS, on the CPU
_SMALL_ON_GPU = 1_000_000  # the same on a GPU; estimated, not measured: the product reads all rows once
_CEILING = 16.0  # times √n: rows that a query looks at, at most, about
_TRAIN_EVERY = 20  # refreshes
_QUERIES = 32  # that probes are tuned with


class Upkeep:
    """Searches a table that changes; what is found may be out of date or incomplete, never invalid.

    The index of FAISS holds copies of the rows, renewed every ``refresh_every`` searches, and earlier if the
    scores that it finds differ from fresh ones by ``drift_limit``, but at most every ``refresh_every``/10.
    At each 20th refresh, or if cells became twice as uneven, k-means goes on from the centroids that there are.

    Args:
        kind: "exhaustive", "ivf", or "auto": ivf for more than 2,000 rows on the CPU, or a million on a GPU that FAISS
            was built for, else exhaustive. Without such a FAISS, "ivf" on a GPU looks at all rows there, and says so.
        recall: what probes are tuned to, up to about 16√n rows that a query looks at.
        refresh_every: searches.
        drift_limit: in units of logits.
        with_cells: whether `cell_tail` is wanted.
    """

    def __init__(
        self, kind: IndexKind, recall: float, refresh_every: int, drift_limit: float, with_cells: bool
    ) -> None:
        check_choice("index", kind, get_args(IndexKind))
        if with_cells and kind == "exhaustive":
            raise ValueError('A tail of "cells" needs the cells of an index: index="ivf". Found "exhaustive".')
        if not 0.0 < recall <= 1.0:
            raise ValueError(f"Parameter `recall` should be in (0, 1]. Found {recall}.")
        check_number("refresh_every", refresh_every, 1)
        if not drift_limit > 0.0:
            raise ValueError(f"Parameter `drift_limit` should be above 0. Found {drift_limit}.")
        self.kind, self.recall, self.with_cells = kind, recall, with_cells
        self.refresh_every, self.drift_limit = refresh_every, drift_limit
        self._has_told = False
        if kind == "ivf" or with_cells:
            require_faiss()
        self.forget()

    def forget(self) -> None:
        """Drop the index: the table was replaced."""
        self.index: IVFIndex | None = None
        self.cell_tail: CellTail | None = None
        self.age = self.refreshes = 0

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles leave the index out, as state_dict does; it is built anew at the first search.
        bare = Upkeep.__new__(Upkeep)
        bare.__dict__ = dict(self.__dict__)
        bare.forget()
        return bare.__dict__

    def looks_at_all(self, table: Tensor) -> bool:
        """Whether searches of this table are exhaustive, and so exact.

        RetrievalWarning, once, if an index was asked for on a GPU that FAISS was not built for.
        """
        on_gpu = table.device.type != "cpu"
        if self.kind == "auto" and not self.with_cells:
            few = table.shape[0] <= (_SMALL_ON_GPU if on_gpu else _SMALL)
            return few or (on_gpu and not has_gpu(table.device))
        if self.kind == "exhaustive" or not on_gpu or has_gpu(table.device):
            return self.kind == "exhaustive"
        if not self._has_told:
            self._has_told = True
            how = "on the CPU, which its cells need" if self.with_cells else f"at all rows on {table.device}"
            warn_user(
                f"A search by an index on {table.device} needs FAISS built for GPUs (faiss-gpu). Found none: it looks "
                f"{how}.",
                RetrievalWarning,
            )
        return not self.with_cells

    @torch.no_grad()
    def search(self, table: Tensor, queries: Tensor, k: int, drift: Tensor) -> tuple[Tensor, Tensor]:
        """(scores (m, k), ids (m, k)) as an index gives them.

        Args:
            table: (n, d).
            queries: (m, d).
            drift: () how far scores found last are from fresh ones.
        """
        if self.looks_at_all(table) or (k > MOST_ON_GPU and has_gpu(table.device)):
            return ExhaustiveIndex(table).search(queries, k)
        if self.index is None:
            self.index = IVFIndex(table)
            self._renewed(table, queries, k)
        elif self._is_due(drift):
            self.refresh(table, queries, k)
        self.age += 1
        return self.index.search(queries, k)

    def _is_due(self, drift: Tensor) -> bool:
        if self.age >= self.refresh_every:
            return True
        early = self.age >= math.ceil(self.refresh_every / 10)
        return early and float(drift) > self.drift_limit

    def refresh(self, table: Tensor, queries: Tensor, k: int) -> None:
        """Bring an index that there is up to date."""
        assert self.index is not None
        self.refreshes += 1
        if self.refreshes % _TRAIN_EVERY == 0 or self.index.out_of_balance:
            self.index.train(table)
        else:
            self.index.refresh(table)
        self._renewed(table, queries, k)

    def _renewed(self, table: Tensor, queries: Tensor, k: int) -> None:
        assert self.index is not None
        self.age = 0
        if queries.shape[0] > 0:
            ceiling = min(1.0, _CEILING / math.sqrt(table.shape[0]))
            self.index.tune(table, queries[:_QUERIES], k, self.recall, ceiling)
        if self.with_cells:
            self.cell_tail = CellTail(table.detach(), self.index.cells, self.index.num_cells)
