"""A head in the place of a model's last linear layer, and the layer back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from widehead.heads.base import Head
from widehead.heads.exact import ExactHead

_H = TypeVar("_H", bound=Head)


def swap_head(model: nn.Module, name: str, head: _H | Callable[..., _H], *, sparse: bool = True, **options: Any) -> _H:
    """Put a head in the place of an nn.Linear, with its weights, and make gradients of the input embedding sparse.

    In training ``model.lm_head(hidden, targets)`` is the loss then. In eval mode ``model.lm_head(hidden)`` are scores,
    so that programs that call the model to generate go on as before. Embeddings with a row for each class have sparse
    gradients from then on: a step writes the rows of a batch, and no other. `widehead.optim.RowAdam` trains them;
    torch.optim.Adam refuses them.

    Args:
        model: changed in place.
        name: of the layer, as "lm_head" or "decoder.out".
        head: a head, or what makes one of (in_features, num_classes, *, bias, device, dtype): a class of
            heads. It takes the weights of the layer, unless it has no single layer of weights, as trees of classes.
        sparse: whether to make the embedding's gradients sparse.
        options: given to what makes the head, such as ``loss`` of ExactHead.

    Returns:
        The head.

    Raises:
        AttributeError: there is nothing of this name.
        TypeError: it is no nn.Linear.
        ValueError: its weight is tied to another module's, or the head does not fit. The model is as it was.

    >>> model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 100))
    >>> from widehead import SampledSoftmaxHead
    >>> head = swap_head(model, "1", SampledSoftmaxHead, negatives=5)
    >>> model[1](model[0](torch.tensor([3, 4])), torch.tensor([4, 5])).backward()
    >>> model[0].weight.grad.is_sparse
    True
    """
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"`{name}` should be an nn.Linear. Found {type(layer).__name__}.")
    if not layer.weight.is_floating_point():
        raise TypeError(
            f"`{name}` should have weights of floating point. Found {layer.weight.dtype}, as of quantised ones."
        )
    if isinstance(head, Head) and options:
        raise TypeError(f"Options should come with what makes a head. Found {sorted(options)} with one that is there.")
    _refuse_tied(model, name, layer)
    made: Any = head if isinstance(head, Head) else _made(head, layer, options)
    _check_fits(made, layer)
    if hasattr(made, "load_weight") and not layer.weight.is_meta:  # as from_pretrained makes models, and fills them
        made.load_weight(layer.weight, layer.bias)
    made.train(layer.training).requires_grad_(layer.weight.requires_grad)
    model.set_submodule(name, made)
    for embedding in _embeddings(model, made.num_classes) if sparse else []:
        embedding.sparse = True
    return made


def restore_linear(model: nn.Module, name: str) -> nn.Linear:
    """Put an ordinary nn.Linear with the weights of a head in its place, and dense gradients of the input embedding.

    Returns:
        The layer.

    Raises:
        AttributeError: there is nothing of this name.
        TypeError: it is no head, or one that is no linear layer. The model is as it was.

    Warns:
        RankingWarning: classes are not ranked by the layer's outputs.
    """
    head: Any = model.get_submodule(name)
    if not isinstance(head, Head):
        raise TypeError(f"`{name}` should be a head of widehead. Found {type(head).__name__}.")
    to_linear: Callable[[], nn.Linear] = getattr(head, "to_linear")  # noqa: B009  a tree's raises
    layer = to_linear().train(head.training)
    layer.requires_grad_(all(parameter.requires_grad for parameter in head.parameters()))
    model.set_submodule(name, layer)
    for embedding in _embeddings(model, head.num_classes):
        embedding.sparse = False
    return layer


def _made(kind: Callable[..., _H], layer: nn.Linear, options: dict[str, Any]) -> _H:
    dtype = layer.weight.dtype
    is_exact = ExactHead in (kind, getattr(kind, "func", None))
    if is_exact and dtype not in (torch.float32, torch.float64):
        dtype = torch.float32  # an exact head works in no other
    like = {"bias": layer.bias is not None, "device": layer.weight.device, "dtype": dtype}
    return kind(layer.in_features, layer.out_features, **{**like, **getattr(kind, "keywords", {}), **options})


def _check_fits(head: Head, layer: nn.Linear) -> None:
    expected = layer.in_features, layer.out_features
    if (head.in_features, head.num_classes) != expected:
        raise ValueError(
            f"The head should have in_features, num_classes = {expected}, as the layer. Found "
            f"{(head.in_features, head.num_classes)}."
        )
    if layer.bias is not None and not head.has_bias and hasattr(head, "load_weight"):
        raise ValueError("The head of a layer with a bias should have one. Found none: make it with bias=True.")


def _refuse_tied(model: nn.Module, name: str, layer: nn.Linear) -> None:
    if others := _tied_to(model, f"{name}.weight", layer.weight):
        raise ValueError(
            f"The weight of `{name}` should be its own: a head keeps W in its own form. Found it tied to {others[0]}. "
            f"Part them: model.{name}.weight = torch.nn.Parameter(model.{name}.weight.detach().clone()), and in models "
            "of transformers model.config.tie_word_embeddings = False before that."
        )


def _tied_to(model: nn.Module, own: str, weight: Tensor) -> list[str]:
    """Names of the parameters that are this one, or share its memory, or that transformers would tie to it."""
    named = dict(model.named_parameters(remove_duplicate=False))
    found = [
        name for name, p in named.items() if p is weight or (_place(p) is not None and _place(p) == _place(weight))
    ]
    if getattr(getattr(model, "config", None), "tie_word_embeddings", False):
        keys: Any = getattr(model, "_tied_weights_keys", None) or {}
        found += [keys[own]] if own in keys and isinstance(keys, dict) else []
    return [name for name in found if name != own]


def _place(parameter: Tensor) -> int | None:
    return None if parameter.is_meta or parameter.numel() == 0 else parameter.data_ptr()


def _embeddings(model: nn.Module, classes: int) -> list[Any]:
    """Those with a row for each class, and the one that a model of transformers says its inputs go to."""
    found = [part for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    asked = getattr(model, "get_input_embeddings", lambda: None)()
    return [part for part in found if part.num_embeddings == classes or part is asked]
