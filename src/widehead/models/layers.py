"""Fully connected layers between an embedding and the output layer."""

import itertools
from collections.abc import Sequence

from torch import nn

from widehead.errors import check_choice, check_number
from widehead.names import ACTIVATIONS


def hidden_layers(sizes: Sequence[int], activation: str, dropout: float) -> nn.Sequential:
    """Activation and dropout after the first layer, then (linear, activation, dropout) for each further size.

    Args:
        sizes: width of the layer that feeds this one, then of each linear layer; the last one is what comes out.
        activation: a name in `ACTIVATIONS`.
        dropout: probability in [0, 1) of dropping a unit, after every activation.

    Raises:
        ValueError: no size or one below 1, an unknown activation, or a probability outside [0, 1).
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"Layer sizes should be positive and at least one. Found {list(sizes)}.")
    check_choice("activation", activation, ACTIVATIONS)
    check_number("dropout", dropout, below=1.0)
    layers = _after(activation, dropout)
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), *_after(activation, dropout)]
    return nn.Sequential(*layers)


def _after(activation: str, dropout: float) -> list[nn.Module]:
    made: list[nn.Module] = [] if activation == "none" else [ACTIVATIONS[activation]()]
    return made if dropout == 0.0 else [*made, nn.Dropout(dropout)]
