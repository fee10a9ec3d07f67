"""What every record that stands for W has, however it is kept: what heads and optimisers ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient, SmallState, StepRule
from widehead.factored.audit import Audit, audit, gram_and_sum
from widehead.factored.reading import output_gradient
from widehead.search.exhaustive import streaming_top_k
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

    def read_again(self, hidden: Tensor, targets: SparseTargets) -> Forward:
        """What `forward` reads, of the examples of an earlier pass."""
        return self.forward(hidden, targets)

    def gradient(self, read: Forward, *parts: Any) -> OutputGradient:
        """T of a pass, from the derivatives by what `forward` gave: see `output_gradient`."""
        return output_gradient(self, read, *parts)

    def by_hidden(self, gradient: OutputGradient, read: Forward) -> Tensor:
        """(m, d) the gradient by the hidden layer that was given to `forward`, which gave ``read``."""
        return gradient.by_hidden

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

    @property
    def first(self) -> int:
        """The class of the first row in ``rows``."""
        return 0

    @abstractmethod
    def fresh(self, rows: Rows, order: int = 1) -> WeightRecord:
        """A record in the place of this one of other rows, which are W, or X with ``order`` 2; O(Dc²)."""

    def draw(self, rows: Rows, std: float) -> None:
        """Fill new rows with normal numbers."""
        rows.draw(std)

    def tell(self, fault: Exception) -> None:  # noqa: B027 - of most records nobody waits
        """Say to whom it concerns that a method was given what it cannot take."""

    def agree(self, fault: str | None) -> None:
        """Raise ValueError if there is a fault in what was given."""
        if fault is not None:
            raise ValueError(fault)

    def whole(self, part: Tensor) -> Tensor:
        """(D, …) what is computed of each class, from that of the classes in ``rows``."""
        return part

    @abstractmethod
    def blocks(self, columns: slice | None = None) -> Iterator[tuple[int, Tensor]]:
        """Present W in blocks: pairs (first row, (n, d) rows). Never more than one block in memory.

        ``columns`` reads other columns of X than those of W.
        """

    @abstractmethod
    def consolidate(self) -> None:
        """Bring every row forward, O(D d²): afterwards reading W costs nothing extra."""

    @abstractmethod
    def with_order(self, order: int, basis: float = 0.0) -> WeightRecord:
        """The same W with a momentum of zeros (2) or without one (1), O(Dd²); itself if nothing changes.

        Args:
            basis: r of `StepRule.basis`, if it is known which steps are to come: rows are best kept so at once.
        """

    @abstractmethod
    def to(self, device: torch.device, dtype: torch.dtype) -> WeightRecord:
        """The same W on another device or in another type; itself if nothing changes."""

    @abstractmethod
    def factored(self) -> FactoredWeights:
        """The record that states hold, of the same rows; what this one keeps besides comes to its end first."""

    # -- states: see `widehead.heads.exact_state` ---------------------------------------------------------------

    def for_state(self) -> FactoredWeights:
        """The record that a state is made of."""
        return self.factored()

    def as_saved(self, part: Tensor) -> Tensor:
        """What a state holds of the classes in ``rows``, as what a state has of all classes."""
        return part

    def own_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state of all classes as one of those in ``rows``."""
        return state

    def is_filled_in_place(self) -> bool:
        """Whether a state with the memory of ``rows`` may be another one, which was read into them."""
        return False

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
        found = self.total(torch.cat(gram_and_sum(blocks, self.small.master.new_zeros(1, self.rows.width))))
        return found[:-1], found[-1]

    def total(self, part: Tensor) -> Tensor:
        """The sum over all rows, from that over those in ``rows``."""
        return part

    def best(
        self, hidden: Tensor, k: int, banned: SparseTargets | None, ranking: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(m, k) the largest numbers that ``ranking`` makes of outputs, and their classes, best first."""
        blocks = ((start, ranking(outputs)) for start, outputs in self.outputs(hidden))
        return streaming_top_k(blocks, k, banned)

    def all_outputs(self, hidden: Tensor) -> Tensor:
        """(m, D) HWᵀ."""
        return torch.cat([outputs for _, outputs in self.outputs(hidden)], dim=1)

    def outputs(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Present outputs HWᵀ of ``hidden`` (m, d) in blocks of classes: pairs (first class, (m, n) outputs)."""
        return ((start, hidden @ rows.T) for start, rows in self.blocks())

    def dense(self, columns: slice | None = None) -> Tensor:
        """(D, d) present W, or other ``columns`` of X."""
        columns = slice(self.width) if columns is None else columns
        width = len(range(*columns.indices(self.order * self.width)))
        out = torch.empty(self.rows.num_rows, width, dtype=self.dtype, device=self.values.device)
        for start, rows in self.blocks(columns):
            out[start - self.first :][: rows.shape[0]] = rows
        return self.whole(out)

    def momentum(self) -> Tensor:
        """(D, d) present M, if momentum is kept."""
        return self.dense(slice(self.width, None))
