"""Exact training of very wide output layers: 10^5 to 10^8 classes at a cost that does not depend on their number.

>>> import torch, widehead as wh
>>> head = wh.ExactHead(16, 100_000, loss=wh.losses.SphericalSoftmax())
>>> optimizer = wh.optim.SGD(head, lr=0.1)
>>> loss = head(torch.randn(4, 16), torch.tensor([5, 17, 99_999, 0]))
>>> loss.backward()
>>> optimizer.step()
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from widehead.version import __version__

if TYPE_CHECKING:
    from widehead import cuda, errors, losses, optim
    from widehead.estimators import MultiLabel, NextItem, Recommender, WordVectors
    from widehead.heads import (
        AdaptiveSoftmaxHead,
        BlackOutHead,
        ExactHead,
        FullSoftmaxHead,
        HierarchicalSoftmaxHead,
        NegativeSamplingHead,
        NoiseContrastiveHead,
        RetrievedSoftmaxHead,
        SampledSoftmaxHead,
        restore_linear,
        swap_head,
    )
    from widehead.models import RowSplitBag
    from widehead.runs import Run
    from widehead.targets import SparseTargets

__all__ = [
    "AdaptiveSoftmaxHead",
    "BlackOutHead",
    "ExactHead",
    "FullSoftmaxHead",
    "HierarchicalSoftmaxHead",
    "MultiLabel",
    "NegativeSamplingHead",
    "NextItem",
    "NoiseContrastiveHead",
    "Recommender",
    "RetrievedSoftmaxHead",
    "RowSplitBag",
    "Run",
    "SampledSoftmaxHead",
    "SparseTargets",
    "WordVectors",
    "__version__",
    "cuda",
    "errors",
    "losses",
    "optim",
    "restore_linear",
    "swap_head",
]

#: rooms of names that are no heads
_HOMES = {
    **dict.fromkeys(("MultiLabel", "NextItem", "Recommender", "WordVectors"), "estimators"),
    **dict.fromkeys(("restore_linear", "swap_head"), "heads"),
    "RowSplitBag": "models",
    "Run": "runs",
    "SparseTargets": "targets",
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are asked for: the command line answers without torch, and all but `Run` and the
    estimators do without more than torch and numpy.
    """
    home = _HOMES.get(name, "heads" if name.endswith("Head") and name in __all__ else None)
    if home is not None:
        found = getattr(importlib.import_module(f"widehead.{home}"), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"widehead.{name}") is not None:
        found = importlib.import_module(f"widehead.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
