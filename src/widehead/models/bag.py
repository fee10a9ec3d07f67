"""Encoder of bags of ids: the items of a user, the features of a document.

Letters: m examples, N input ids, nnz ids in all, d width of what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from widehead.arithmetic import choose
from widehead.errors import check_number
from widehead.models.layers import hidden_layers
from widehead.models.row_split_bag import RowSplitBag
from widehead.split import local
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class BagEncoder(nn.Module):
    """A weighted sum of embeddings, then any number of hidden layers: ids (m bags) to (m, width).

    Each layer, the sum included, is followed by the activation and dropout. Without hidden layers and with
    activation "none" it is the linear encoder.

    Args:
        num_inputs: number N of input ids.
        width: d, size of the last layer; the head's ``in_features``.
        hidden: sizes of the layers before the last one; the first is the size of the embeddings.
        activation: "none", "tanh", "relu" or "gelu".
        dropout: probability of dropping a hidden unit.
        input_dropout: probability of dropping an id of a bag while training. A bag never loses all its ids.
        normalize: divide each bag by its Euclidean norm (the root of the number of ids, if they carry no values).
        sparse: sparse gradients of the embeddings, at a cost independent of N.
        kept: (F,) the ids that have embeddings, if those of all others are 0 for good, as in an encoder that is not
            trained; None for all. It saves their memory: ``places`` (N,) says which row an id has, the last one is 0.
        mesh: the processes that the rows of the embeddings are split over (`RowSplitBag`), each with the same first
            weights as one process has; None for all rows here. They are not split if the other layers have more
            numbers.

    Raises:
        ValueError: a parameter out of range; in ``forward``, an id that is not below ``num_inputs``.
    """

    places: Tensor | None

    def __init__(
        self,
        num_inputs: int,
        width: int,
        *,
        hidden: Sequence[int] = (),
        activation: str = "none",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        normalize: bool = True,
        sparse: bool = True,
        kept: Tensor | None = None,
        mesh: DeviceMesh | None = None,
    ) -> None:
        super().__init__()
        check_number("input_dropout", input_dropout, below=1.0)
        sizes = [*hidden, width]
        self.num_inputs = num_inputs
        self.layers = hidden_layers(sizes, activation, dropout)
        rows, std = num_inputs if kept is None else len(kept) + 1, sizes[0] ** -0.5
        options: dict[str, Any] = {"mode": "sum", "sparse": sparse, "include_last_offset": True}
        self.embeddings: nn.EmbeddingBag | RowSplitBag
        # Bags of norm 1 then start as vectors of expected norm 1.
        if mesh is None or rows * sizes[0] <= sum(p.numel() for p in self.layers.parameters()):
            self.embeddings = nn.EmbeddingBag(rows, sizes[0], **options)
            nn.init.normal_(self.embeddings.weight, std=std)
        else:
            state = torch.get_rng_state()
            self.embeddings = RowSplitBag(rows, sizes[0], **options, mesh=mesh)
            for spread in (1.0, std):  # as nn.EmbeddingBag draws before anybody else does
                state = self.embeddings.draw_as_one(state, spread)
            torch.set_rng_state(state)
        self.register_buffer("places", None if kept is None else self._places(kept))
        self.input_dropout = input_dropout
        self.normalize = normalize

    def forward(self, bags: SparseTargets) -> Tensor:
        """(m, width) encodings of m bags; a bag without ids counts as the zero vector."""
        bags.check_classes(self.num_inputs)
        weights = bags.values_or_ones(self.embeddings.weight.dtype)
        if self.normalize:
            weights = unit_values(bags, weights)
        if self.training and self.input_dropout > 0.0:
            bags, weights = drop_ids(bags, weights, self.input_dropout)
        if self.places is not None:
            bags = SparseTargets._trusted(self.places[bags.class_ids], bags.offsets, bags.values)
        if isinstance(self.embeddings, RowSplitBag):
            embedded: Tensor = self.embeddings(bags.class_ids, bags.offsets, weights)
        elif self.embeddings.sparse:
            embedded = _BagSums.apply(self.embeddings.weight, bags, weights)
        else:
            embedded = self.embeddings(bags.class_ids, bags.offsets, per_sample_weights=weights)
        return self.layers(embedded)

    @property
    def is_split(self) -> bool:
        """Whether the rows of the table are split over processes."""
        return isinstance(self.embeddings, RowSplitBag)

    def parts_of(self, places: np.ndarray, processes: int) -> list[int]:
        """How many of some rows of the table, rising, each process has; about as many if all have all rows."""
        bag = self.embeddings
        ends = np.arange(1, processes + 1) * len(places) // processes
        if isinstance(bag, RowSplitBag):
            ends = np.searchsorted(places, np.cumsum(bag.split.counts))
        counts: list[int] = np.diff(ends, prepend=0).tolist()
        return counts

    @property
    def here(self) -> slice:
        """Which rows of the table are in this process."""
        bag = self.embeddings
        return slice(bag.split.first, bag.split.end) if isinstance(bag, RowSplitBag) else slice(0, len(bag.weight))

    def rows(self, ids: Tensor) -> Tensor:
        """(…, c) embeddings of ids (…), if their table is not split; zeros for those that have none."""
        return nn.functional.embedding(ids if self.places is None else self.places[ids], self.embeddings.weight)

    @torch.no_grad()
    def _places(self, kept: Tensor) -> Tensor:
        """(N,) the row of each id, the last one of those that have none, which is 0."""
        last = len(kept)
        local(self.embeddings.weight)[max(0, last - self.here.start) :] = 0.0
        return torch.full((self.num_inputs,), last).scatter_(0, kept, torch.arange(last))


class _BagSums(torch.autograd.Function):
    """Weighted sums of rows of a table (N, c), one a bag: (m, c), as nn.EmbeddingBag gives them.

    The gradient names each row once, and is summed from the m rows of the gradient above: nn.EmbeddingBag would copy
    one of those for each of the nnz ids first, and leave the sums to its optimiser.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, bags: SparseTargets, weights: Tensor) -> Tensor:
        ctx.bags, ctx.weights, ctx.shape = bags, weights, table.shape
        return nn.functional.embedding_bag(
            bags.class_ids, table, bags.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_sums: Tensor) -> Any:
        plan = choose(by_sums, resident=True).plan_targets(ctx.bags)
        rows = plan.transposed_times(ctx.weights, by_sums)
        # The ids rise and differ: nothing to check, nothing to coalesce.
        gradient = torch.sparse_coo_tensor(
            plan.class_ids[None], rows, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return gradient, None, None


def unit_values(bags: SparseTargets, values: Tensor) -> Tensor:
    """(nnz,) values divided by the Euclidean norm of their bag; zeros stay zeros.

    >>> bags = SparseTargets.from_lists([[0, 1], [2]])
    >>> unit_values(bags, torch.tensor([3.0, 4.0, 5.0]))
    tensor([0.6000, 0.8000, 1.0000])
    """
    examples = bags.example_ids
    zeros = torch.zeros_like(bags.counts, dtype=values.dtype)  # as many as bags; len() would fix it in torch.export
    largest = zeros.scatter_reduce(0, examples, values.abs(), "amax")
    # Powers of two change no digit; without them squares of very large or small values are beyond the type.
    values = torch.ldexp(values, -torch.frexp(largest).exponent.clamp(-126, 126)[examples])
    squares = zeros.index_add(0, examples, values.square())
    norms = squares.sqrt()[examples]
    return torch.where(norms > 0, values / norms, values)


def drop_ids(bags: SparseTargets, values: Tensor, p: float) -> tuple[SparseTargets, Tensor]:
    """Drop each id with probability p and scale the values that stay by 1/(1 - p), as dropout does.

    A bag whose ids would all be dropped keeps one, chosen uniformly.

    Returns:
        The thinned bags and their (nnz',) values.
    """
    examples = bags.example_ids
    draws = torch.rand(values.numel(), device=values.device)
    highest = draws.new_zeros(len(bags)).scatter_reduce_(0, examples, draws, "amax")
    kept = (draws >= p) | (draws >= highest[examples])
    counts = torch.bincount(examples[kept], minlength=len(bags))
    offsets = nn.functional.pad(counts.cumsum(0), (1, 0))
    return SparseTargets(bags.class_ids[kept], offsets), values[kept] / (1.0 - p)
