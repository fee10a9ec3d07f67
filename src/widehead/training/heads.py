"""The heads that runs can have, by name, and what each is made with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.data import Examples
from widehead.heads.names import HEADS

__all__ = [
    "EXACT_OPTIMIZERS",
    "HEADS",
    "HEAD_OPTIMIZERS",
    "OTHER_OPTIMIZERS",
    "class_frequencies",
    "head_parameters",
    "needs_frequencies",
]

# Optimisers of the exact head, and those of all others.
EXACT_OPTIMIZERS, OTHER_OPTIMIZERS = ("sgd", "newton", "shampoo", "muon"), ("adam", "adagrad")
HEAD_OPTIMIZERS = (*EXACT_OPTIMIZERS, *OTHER_OPTIMIZERS)

# Parameters that other options or the data give.
_GIVEN = frozenset(
    {"in_features", "num_classes", "loss", "bias", "storage", "storage_dtype", "device", "dtype", "frequencies"}
)
_WITHOUT_FREQUENCIES = ("log-uniform", "uniform", "quadratic")  # samplers that have no use for them
_CHUNK = 1 << 16  # examples that are counted at a time


def head_parameters(head: str) -> list[str]:
    """Names of the parameters that are a head's own."""
    return [name for name in inspect.signature(HEADS[head]).parameters if name not in _GIVEN]


def needs_frequencies(head: str, options: Mapping[str, Any]) -> bool:
    """Whether a head with these options is made with the frequencies of the classes."""
    takes = "frequencies" in inspect.signature(HEADS[head]).parameters
    return takes and options.get("sampler") not in _WITHOUT_FREQUENCIES


def class_frequencies(examples: Examples, num_classes: int) -> Tensor:
    """(D,) float64: how often each class is a target of the examples."""
    counts = np.zeros(num_classes, dtype=np.float64)
    for start in range(0, len(examples), _CHUNK):
        _, targets = examples.batch(np.arange(start, min(start + _CHUNK, len(examples))))
        counts += np.bincount(targets.class_ids.numpy(), minlength=num_classes)
    return torch.from_numpy(counts)
