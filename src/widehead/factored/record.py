"""What every record that stands for W has, however it is kept: what heads and optimisers ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient, SmallState, StepRule
from widehead.factored.audit import Audit, audit, gram_and_sum
from widehead.targets import SparseTargets
from widehead.versions import Rows

if TYPE_CHECKING:
    from widehead.factored.weights import FactoredWeights


@dataclass(kw_only=True)
class WeightRecord(ABC):
    """W (D, d), or X = [W, M] (D, 2d) if a momentum M is kept; c = order·d.

    Attributes:
        rows: V (D, c), what is stored of it, wherever that is.
        small: U, ω, x̄ and Q of the open segment, and U⁻¹ if the record has one.
        order: 1, or 2 if momentum is kept.
        revision: rises whenever W changes.
        layout: rises whenever what is stored changes its meaning while W does not.
        segment_steps: steps since the open segment began.
        steps: since the beginning.
        forward_writes: whether the forward pass of a training step writes, so that nobody may read meanwhile.
    """

    rows: Rows
    small: SmallState
    order: int = 1
    revision: int = 0
    layout: int = 0
    segment_steps: int = 0
    steps: int = 0

    forward_writes: ClassVar[bool] = False

    @property
    def values(self) -> Tensor:
        """(D, order·d) what is stored, as it is stored, which need not be in the working type."""
        return self.rows.stored

    @property
    def dtype(self) -> torch.dtype:
        """The type that everything is computed in."""
        return self.rows.dtype

    @property
    def num_classes(self) -> int:
        return self.rows.num_rows

    @property
    def width(self) -> int:
        """d."""
        return self.rows.width // self.order

    # -- a step -------------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, hidden: Tensor, targets: SparseTargets, *, learns: bool = True) -> Forward:
        """Read what the statistics, their gradient and, if it ``learns``, the step need of W."""

    @abstractmethod
    def plan(
        self,
        gradient: OutputGradient,
        rule: StepRule,
        hr: Tensor | None = None,
        gram_hr: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Any:
        """A step without writing anything; see `plan_step`. ``skip`` () says, if it is not 0, that none is wanted."""

    @abstractmethod
    def apply(self, change: Any, others: tuple[Tensor, ...] = ()) -> Tensor | None:
        """Write a planned step. () whether it was written; None if it surely was.

        Args:
            others: () whether the steps of other heads, made together with this one, may be written.
        """

    # -- W ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def blocks(self, columns: slice | None = None) -> Iterator[tuple[int, Tensor]]:
        """Present W in blocks: pairs (first row, (n, d) rows). Never more than one block in memory.

        ``columns`` reads other columns of X than those of W.
        """

    @abstractmethod
    def consolidate(self) -> None:
        """Bring every row forward, O(D d²): afterwards reading W costs nothing extra."""

    @abstractmethod
    def with_order(self, order: int) -> WeightRecord:
        """The same W with a momentum of zeros (2) or without one (1), O(Dd²); itself if nothing changes."""

    @abstractmethod
    def to(self, device: torch.device, dtype: torch.dtype) -> WeightRecord:
        """The same W on another device or in another type; itself if nothing changes."""

    @abstractmethod
    def factored(self) -> FactoredWeights:
        """The record that states hold, of the same rows; what this one keeps besides comes to its end first."""

    @abstractmethod
    def recount(self) -> None:
        """Q and x̄ from the rows, O(Dc²)."""

    @property
    @abstractmethod
    def closes(self) -> int:
        """Segments closed since the beginning."""

    @property
    @abstractmethod
    def moved_rows(self) -> int:
        """Rows that were rewritten to bring them forward."""

    @property
    @abstractmethod
    def live_boundaries(self) -> int:
        """Boundaries that rows may stand at."""

    def audit(self) -> Audit:
        """Drift of what is kept beside W, recomputed densely."""
        return audit(self)

    def recomputed(self) -> tuple[Tensor, Tensor]:
        """XᵀX (c, c) and Xᵀ1 (c,) in float64, from all rows."""
        blocks = (rows for _, rows in self.blocks(slice(None)))
        return gram_and_sum(blocks, self.small.master.new_zeros(self.rows.width))

    def outputs(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Present outputs HWᵀ of ``hidden`` (m, d) in blocks of classes: pairs (first class, (m, n) outputs)."""
        return ((start, hidden @ rows.T) for start, rows in self.blocks())

    def dense(self, columns: slice | None = None) -> Tensor:
        """(D, d) present W, or other ``columns`` of X."""
        columns = slice(self.width) if columns is None else columns
        width = len(range(*columns.indices(self.order * self.width)))
        out = torch.empty(self.num_classes, width, dtype=self.dtype, device=self.values.device)
        for start, rows in self.blocks(columns):
            out[start : start + rows.shape[0]] = rows
        return out

    def momentum(self) -> Tensor:
        """(D, d) present M, if momentum is kept."""
        return self.dense(slice(self.width, None))
