"""What users ask for by a name: heads, losses, optimisers and activations.

Nothing is imported until it is looked up, so help, completion and the check of options need no torch.
"""

import importlib
from typing import Any

__all__ = ["ACTIVATIONS", "ENCODERS", "HEADS", "LOSSES", "METHODS", "OPTIMIZERS", "PARAMETER_OPTIMIZERS", "Named"]


class Named(dict[str, Any]):
    """A dict by name of things that are written "module:name", or several of them, until they are looked up."""

    def __getitem__(self, name: str) -> Any:
        return _imported(super().__getitem__(name))

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]


def _imported(thing: Any) -> Any:
    if isinstance(thing, tuple):
        return tuple(map(_imported, thing))
    if not isinstance(thing, str):
        return thing
    module, _, name = thing.partition(":")
    return getattr(importlib.import_module(module), name)


#: constructors by name: (in_features, num_classes, *, own options, bias, device, dtype), the exact head with its loss
HEADS = Named(
    {
        "exact": "widehead.heads:ExactHead",
        "full": "widehead.heads:FullSoftmaxHead",
        "retrieved": "widehead.heads:RetrievedSoftmaxHead",
        "sampled": "widehead.heads:SampledSoftmaxHead",
        "noise-contrastive": "widehead.heads:NoiseContrastiveHead",
        "negative-sampling": "widehead.heads:NegativeSamplingHead",
        "blackout": "widehead.heads:BlackOutHead",
        "hierarchical": "widehead.heads:HierarchicalSoftmaxHead",
        "adaptive": "widehead.heads:AdaptiveSoftmaxHead",
    }
)
#: classes by name, each made with its own options
LOSSES = Named(
    {
        "squared-error": "widehead.losses:SquaredError",
        "weighted-squared-error": "widehead.losses:WeightedSquaredError",
        "spherical-softmax": "widehead.losses:SphericalSoftmax",
        "taylor-softmax": "widehead.losses:TaylorSoftmax",
        "z-loss": "widehead.losses:ZLoss",
    }
)
#: optimisers of the exact head by name: (head, lr, *, own options)
OPTIMIZERS = Named(
    {
        "sgd": "widehead.optim:SGD",
        "newton": "widehead.optim:Newton",
        "shampoo": "widehead.optim:Shampoo",
        "muon": "widehead.optim:Muon",
    }
)
#: optimisers of all other heads by name, (params, lr): for dense gradients, and for gradients with few rows
PARAMETER_OPTIMIZERS = Named(
    {
        "adam": ("torch.optim:Adam", "widehead.optim:RowAdam"),
        "adagrad": ("torch.optim:Adagrad", "widehead.optim:RowAdagrad"),
    }
)
#: what comes after a layer of an encoder, by name
ACTIVATIONS = Named(
    {"none": "torch.nn:Identity", "tanh": "torch.nn:Tanh", "relu": "torch.nn:ReLU", "gelu": "torch.nn:GELU"}
)
#: methods that `widehead bench output-layer` times
METHODS = (
    *("exact", "exact-without-kernels", "exact-captured", "exact-without-autograd"),
    *("exact-momentum", "exact-newton", "exact-shampoo", "exact-muon"),
    *("dense", "dense-tf32", "dense-cross-entropy", "linear-cross-entropy"),
    *(name for name in HEADS if name != "exact"),
)
#: encoders of sequences by name
ENCODERS = ("gru", "lstm", "transformer", "bag", "ngram")
