"""What each head is made with, besides what other options and the data give."""

import inspect
from collections.abc import Mapping
from typing import Any

from widehead.names import HEADS

# Parameters that other options or the data give.
_GIVEN = frozenset(
    {"in_features", "num_classes", "loss", "bias", "frequencies", "device", "dtype"}
    | {"storage", "storage_owner", "storage_dtype", "mesh"}
)
WITHOUT_ROWS = ("exact", "hierarchical", "adaptive")
"""Heads whose classes have no rows that embeddings could be: of the exact one they are no parameters."""

_WITHOUT_FREQUENCIES = ("log-uniform", "uniform", "quadratic")  # samplers that have no use for them


def head_parameters(head: str) -> list[str]:
    """Names of the parameters that are a head's own."""
    return [name for name in inspect.signature(HEADS[head]).parameters if name not in _GIVEN]


def needs_frequencies(head: str, options: Mapping[str, Any]) -> bool:
    """Whether a head with these options is made with the frequencies of the classes."""
    takes = "frequencies" in inspect.signature(HEADS[head]).parameters
    return takes and options.get("sampler") not in _WITHOUT_FREQUENCIES


def split_heads() -> list[str]:
    """Those whose rows are split in runs of several processes, each of which has the whole of another head."""
    return [name for name, head in HEADS.items() if hasattr(head, "draw_as_one")]
