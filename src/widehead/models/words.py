"""Encoders of words: the n-gram network of the paper, and one embedding row a word.

Letters: m examples, C context words, E size of an embedding, d width of what comes out.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from widehead.models.layers import hidden_layers


class ContextEncoder(nn.Module):
    """The C preceding words, embedded and concatenated, then hidden layers: ids (m, C) to (m, width).

    Args:
        num_words: number of word ids.
        context: C, words that each example gives.
        width: d, size of the last layer; the head's ``in_features``.
        embedding: E, size of a word's embedding.
        hidden: sizes of the layers between the C·E concatenated numbers and the last layer.
        activation: "none", "tanh", "relu" or "gelu", after each linear layer.
        dropout: probability of dropping a unit, after each linear layer.
        sparse: sparse gradients of the embeddings, at a cost independent of the number of words.

    Raises:
        ValueError: a parameter out of range; in ``forward``, ids of another shape than (m, context).
    """

    def __init__(
        self,
        num_words: int,
        context: int,
        width: int,
        *,
        embedding: int = 128,
        hidden: Sequence[int] = (256,),
        activation: str = "tanh",
        dropout: float = 0.0,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        sizes = [*hidden, width]
        self.context = context
        self.first = nn.Linear(context * embedding, sizes[0])
        self.layers = hidden_layers(sizes, activation, dropout)
        self.embeddings = nn.Embedding(num_words, embedding, sparse=sparse)
        nn.init.normal_(self.embeddings.weight, std=embedding**-0.5)

    def forward(self, words: Tensor) -> Tensor:
        """(m, width) encodings of (m, C) word ids."""
        if words.ndim != 2 or words.shape[1] != self.context:
            raise ValueError(f"Word ids should have shape (m, {self.context}). Found {tuple(words.shape)}.")
        return self.layers(self.first(self.embeddings(words).flatten(1)))


class WordEncoder(nn.Module):
    """One embedding row for each word: ids (m,) to (m, width), for word embeddings.

    Args:
        num_words: number of word ids.
        width: d, size of a row; the head's ``in_features``.
        sparse: sparse gradients of the rows, at a cost independent of the number of words.
    """

    def __init__(self, num_words: int, width: int, *, sparse: bool = True) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(num_words, width, sparse=sparse)
        nn.init.normal_(self.embeddings.weight, std=width**-0.5)

    def forward(self, words: Tensor) -> Tensor:
        """(m, width) rows of (m,) word ids; ids of shape (m, 1) are taken too."""
        if words.ndim == 2 and words.shape[1] == 1:
            words = words[:, 0]
        if words.ndim != 1:
            raise ValueError(f"Word ids should have shape (m,) or (m, 1). Found {tuple(words.shape)}.")
        return self.embeddings(words)
