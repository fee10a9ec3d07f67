"""Encoders of sequences: at each place, what stands there and before it, but nothing that comes later.

One pass over a sequence so gives the hidden layers of all its prefixes.

Letters: m sequences, n places in all, L places of one, N input ids, E size of an embedding, d width of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import PackedSequence

from widehead.errors import check_choice, check_number, check_whole
from widehead.heads import LinearHead
from widehead.models.layers import hidden_layers
from widehead.targets import SparseTargets

_HEAD_UNITS = 64  # of one head of attention


class SequenceEncoder(nn.Module):
    """Embeddings of what stands at each place, mixed with those before it: ids (m sequences) to (n, width).

    Sequences come as SparseTargets, whose ids are in the order of the sequence. If these have values, only places with
    another value than 0 are encoded, and n is their number.

    Args:
        num_inputs: N.
        width: d, size of what comes out; the head's ``in_features``.
        kind: "gru" or "lstm", torch's recurrent layers; "transformer", torch's layers of attention to places before;
            "bag", the mean of the embeddings so far; "ngram", the last ``context`` embeddings, concatenated.
        context: most places that the encoder sees; a transformer takes no longer sequences, and the others than ngram
            any.
        embedding: E; None: d.
        layers: of gru, lstm and transformer.
        hidden: sizes of layers before the last one, for bag and ngram. activation: after each of them, and after
            the last one of ngram: see `hidden_layers`.
        dropout: probability of dropping a unit, of what comes out and between layers.
        input_dropout: probability of dropping a unit of an embedding.
        norm: the Euclidean norm that all that comes out is scaled to, and embeddings to 1; None: what comes out is as
            it is, and embeddings are times √E, as in "Attention is all you need", section 3.4.
        sparse: sparse gradients of the embeddings, at a cost independent of N.

    Raises:
        ValueError: a parameter out of range; in ``forward``, an id that is not below N, or too long a sequence.

    >>> encoder = SequenceEncoder(10, 4, kind="gru")
    >>> encoder(SparseTargets.from_lists([[3, 1, 3], [], [7]])).shape
    torch.Size([4, 4])
    """

    def __init__(
        self,
        num_inputs: int,
        width: int,
        *,
        kind: str,
        context: int = 50,
        embedding: int | None = None,
        layers: int = 1,
        hidden: Sequence[int] = (),
        activation: str = "none",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        norm: float | None = None,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, MIXERS)
        check_number("dropout", dropout, below=1.0)
        check_number("input_dropout", input_dropout, below=1.0)
        check_whole("layers", layers)
        check_whole("context", context)
        self.size = size = width if embedding is None else embedding
        self.num_inputs, self.norm = num_inputs, norm
        self.embeddings: nn.Module = nn.Embedding(num_inputs, size, sparse=sparse)
        nn.init.normal_(self.embeddings.weight, std=size**-0.5)
        self.dropped = nn.Dropout(input_dropout)
        self.mixer = MIXERS[kind](
            size=size,
            width=width,
            context=context,
            layers=layers,
            hidden=hidden,
            activation=activation,
            dropout=dropout,
        )

    def tie(self, head: LinearHead) -> None:
        """Take the rows of W as embeddings, from now on: both are then trained as one table, by the head's optimiser.

        Raises:
            ValueError: embeddings of another number or size.
        """
        own, other = (self.num_inputs, self.size), (head.num_classes, head.in_features)
        if own != other:
            raise ValueError(f"Tied embeddings should be as many and as large as W's rows, {other}. Found {own}.")
        self.embeddings = _Rows(head)

    def forward(self, sequences: SparseTargets) -> Tensor:
        """(n, width) encodings of the places, sequence after sequence."""
        sequences.check_classes(self.num_inputs)
        rows = self.embeddings(sequences.class_ids)
        # Units of about one, as W's rows have a length of about one, and what mixes them begins with weights for that.
        rows = self.size**0.5 * rows if self.norm is None else normalize(rows, dim=1)
        mixed = self.mixer(self.dropped(rows), sequences)
        if sequences.values is not None:
            mixed = mixed[sequences.values != 0]
        return mixed if self.norm is None else self.norm * normalize(mixed, dim=1)


class _Rows(nn.Module):
    """Rows of a head's W, which stay the head's parameters."""

    def __init__(self, head: LinearHead) -> None:
        super().__init__()
        self._head = (head,)  # no module of this one

    def forward(self, ids: Tensor) -> Tensor:
        return self._head[0].rows(ids)


class Recurrent(nn.Module):
    """torch's recurrent layers over packed sequences: (n, E) to (n, d).

    The last linear layer leaves the head any direction, as a state is within ±1.
    """

    def __init__(
        self, rnn: Callable[..., nn.RNNBase], *, size: int, width: int, layers: int, dropout: float, **_: Any
    ) -> None:
        super().__init__()
        self.rnn = rnn(size, width, layers, dropout=dropout if layers > 1 else 0.0)
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width, bias=False))

    def forward(self, rows: Tensor, sequences: SparseTargets) -> Tensor:
        if len(rows) == 0:
            return self.last(rows[:, :1].expand(0, self.rnn.hidden_size))  # so that rows have a gradient, of nothing
        places, sizes = packed_places(sequences)
        order = torch.empty_like(places).scatter_(0, places, torch.arange(len(places), device=places.device))
        states, _ = self.rnn(PackedSequence(rows[order], sizes))
        return self.last(states.data[places])


class Attention(nn.Module):
    """torch's transformer layers, each place attending to itself and those before: (n, E) to (n, d)."""

    def __init__(self, *, size: int, width: int, context: int, layers: int, dropout: float, **_: Any) -> None:
        super().__init__()
        heads = next(h for h in range(max(1, size // _HEAD_UNITS), 0, -1) if size % h == 0)
        self.positions = nn.Embedding(context, size)
        nn.init.normal_(self.positions.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(size, heads, 4 * size, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(size, width, bias=False))

    def forward(self, rows: Tensor, sequences: SparseTargets) -> Tensor:
        return self.last(by_length(self._attended, rows, sequences))

    def _attended(self, table: Tensor) -> Tensor:
        length, most = table.shape[1], self.positions.num_embeddings
        if length > most:
            raise ValueError(f"Sequences should have at most {most} places, the parameter `context`. Found {length}.")
        mask = nn.Transformer.generate_square_subsequent_mask(length, table.device, table.dtype)
        return self.layers(table + self.positions.weight[:length], mask=mask, is_causal=True)


class Means(nn.Module):
    """The mean of the embeddings so far, then hidden layers: (n, E) to (n, d)."""

    def __init__(
        self, *, size: int, width: int, hidden: Sequence[int], activation: str, dropout: float, **_: Any
    ) -> None:
        super().__init__()
        self.last = hidden_layers([size, *hidden, width], activation, dropout)

    def forward(self, rows: Tensor, sequences: SparseTargets) -> Tensor:
        return self.last(by_length(_means, rows, sequences))


class Window(nn.Module):
    """The last C embeddings, concatenated, then hidden layers: (n, E) to (n, d). Before the first is one of its own."""

    def __init__(
        self, *, size: int, width: int, context: int, hidden: Sequence[int], activation: str, dropout: float, **_: Any
    ) -> None:
        super().__init__()
        sizes = [*hidden, width]
        self.before = nn.Parameter(torch.zeros(1, size))
        self.first = nn.Linear(context * size, sizes[0])
        self.layers = hidden_layers(sizes, activation, dropout)
        self.context = context

    def forward(self, rows: Tensor, sequences: SparseTargets) -> Tensor:
        back = torch.arange(self.context - 1, -1, -1, device=rows.device)
        at = torch.arange(1, len(rows) + 1, device=rows.device)[:, None] - back
        picked = torch.where(places_of(sequences)[:, None] >= back, at, 0)
        return self.layers(self.first(torch.cat([self.before, rows])[picked].flatten(1)))


MIXERS: Mapping[str, Callable[..., nn.Module]] = {
    "gru": lambda **sizes: Recurrent(nn.GRU, **sizes),
    "lstm": lambda **sizes: Recurrent(nn.LSTM, **sizes),
    "transformer": Attention,
    "bag": Means,
    "ngram": Window,
}


def places_of(sequences: SparseTargets) -> Tensor:
    """(n,) the place of each id in its sequence, from 0."""
    ids = sequences.class_ids
    return torch.arange(ids.numel(), device=ids.device) - sequences.offsets[:-1][sequences.example_ids]


def packed_places(sequences: SparseTargets) -> tuple[Tensor, Tensor]:
    """(n,) where each id stands in a PackedSequence, and its batch sizes, on the CPU; long sequences come first."""
    lengths = sequences.counts
    order = torch.argsort(lengths, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    shorter = torch.bincount(lengths, minlength=1).cumsum(0)[:-1]
    sizes = len(lengths) - shorter
    starts = sizes.cumsum(0) - sizes
    return starts[places_of(sequences)] + rank[sequences.example_ids], sizes.cpu()


def by_length(mix: Callable[[Tensor], Tensor], rows: Tensor, sequences: SparseTargets) -> Tensor:
    """(n, e') what ``mix`` makes of tables (k, L, E) of sequences, where no place sees those after it.

    Sequences of one table differ in length by less than a factor of two, so that less than half of it is filling.
    """
    # A part of the rows, so that these have a gradient even if there are none: others may wait for it.
    found, places = rows[:0], rows.new_zeros(0, dtype=torch.int64)
    for table in _tables(sequences):
        filled = table >= 0
        found = torch.cat([found, mix(rows[table.clamp_min(0)])[filled]])
        places = torch.cat([places, table[filled]])
    return torch.empty_like(found).index_copy(0, places, found)


def _tables(sequences: SparseTargets) -> Iterator[Tensor]:
    """(k, L) numbers of the ids of k sequences, −1 for filling."""
    lengths = sequences.counts
    groups = torch.frexp(lengths.double()).exponent
    for group in torch.unique(groups[lengths > 0]).tolist():
        chosen = (groups == group).nonzero()[:, 0]
        steps = torch.arange(int(lengths[chosen].max()), device=lengths.device)
        numbers = sequences.offsets[chosen][:, None] + steps
        yield torch.where(steps < lengths[chosen][:, None], numbers, -1)


def _means(table: Tensor) -> Tensor:
    counts = torch.arange(1, table.shape[1] + 1, device=table.device, dtype=table.dtype)
    return table.cumsum(1) / counts[:, None]
