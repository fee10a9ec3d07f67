"""What all heads do alike: checks of what they are given, and the reduction of examples' losses."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from widehead.errors import check_choice
from widehead.targets import SparseTargets, TargetsLike

Reduction = Literal["mean", "sum", "none"]


def checked_targets(hidden: Tensor, targets: TargetsLike, in_features: int, num_classes: int) -> SparseTargets:
    """The targets of ``hidden`` (m, in_features), on its device.

    Raises:
        TypeError, ValueError: wrong shapes, types or class ids.
    """
    if not isinstance(hidden, Tensor) or hidden.ndim != 2 or hidden.shape[1] != in_features:
        found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ValueError(f"`hidden` should be a tensor of shape (m, {in_features}). Found {found}.")
    if not hidden.dtype.is_floating_point:
        raise TypeError(f"`hidden` should hold floating-point numbers. Found {hidden.dtype}.")
    converted = SparseTargets.convert(targets)
    if len(converted) != hidden.shape[0]:
        raise ValueError(f"There should be targets for {hidden.shape[0]} examples. Found {len(converted)}.")
    converted.check_classes(num_classes)
    return converted.to(hidden.device)


def reduced(losses: Tensor, counted: Tensor | None, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """Losses (m,) times ``weight``, as they are, or their sum, or their mean Σ w ℓ / Σ w; that over nothing is 0.

    Args:
        losses: (m,).
        counted: (m,) whether an example has a loss, or None if all have.
        weight: (m,) or None for ones.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: a weight of another shape, or another word.
    """
    check_choice("reduction", reduction, get_args(Reduction))
    if weight is not None and weight.shape != losses.shape:
        raise ValueError(f"`weight` should have shape {tuple(losses.shape)}. Found {tuple(weight.shape)}.")
    if weight is not None:
        weight = weight.to(losses) if counted is None else weight.to(losses) * counted
    elif counted is not None:
        weight = counted.to(losses.dtype)
    losses = losses if weight is None else losses * weight
    if reduction == "none":
        return losses
    if reduction == "mean" and weight is None and losses.numel() > 0:
        return losses.mean()
    total = losses.sum()
    if reduction == "sum" or weight is None:
        return total
    among = weight.sum()
    return total / torch.where(among == 0, 1.0, among)


def as_table(class_ids: Tensor | SparseTargets) -> SparseTargets:
    """Class ids (m,), (m, K) or ragged, as SparseTargets with an example a row."""
    if isinstance(class_ids, SparseTargets):
        return class_ids
    table = class_ids if class_ids.ndim == 2 else class_ids[:, None]
    offsets = torch.arange(table.shape[0] + 1, device=table.device) * table.shape[1]
    return SparseTargets(table.reshape(-1), offsets)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """An nn.Linear that holds ``weight`` (D, d) and ``bias`` (D,) or None themselves, not copies."""
    linear = nn.Linear(weight.shape[1], 1, bias=bias is not None, device="meta")
    linear.out_features = weight.shape[0]
    linear.weight = nn.Parameter(weight)
    linear.bias = None if bias is None else nn.Parameter(bias)  # type: ignore[assignment]
    return linear


def checked_weight(weight: Tensor, bias: Tensor | None, like: Tensor, has_bias: bool) -> Tensor:
    """A copy of ``weight`` (D, d), with the bias (D,), zeros if None, as last column of a head that has one.

    Args:
        like: (D, d) or (D, d + 1), a tensor of the type and on the device of what is made.

    Raises:
        ValueError: another shape, a bias on a head that has none, or NaN or infinity.
    """
    check_shapes(weight, bias, (like.shape[0], like.shape[1] - has_bias), has_bias)
    values = weight.detach().to(device=like.device, dtype=like.dtype, copy=True)
    if has_bias:
        column = torch.zeros_like(values[:, :1]) if bias is None else bias.detach().to(values)[:, None]
        values = torch.cat([values, column], dim=1)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("`weight` and `bias` should be finite. Found NaN or infinity.")
    return values


def check_shapes(weight: Tensor, bias: Tensor | None, shape: tuple[int, int], has_bias: bool) -> None:
    """ValueError unless ``weight`` is of ``shape`` (D, d), and ``bias`` (D,) or None on a head that may have one."""
    if tuple(weight.shape) != shape:
        raise ValueError(f"`weight` should have shape {shape}. Found {tuple(weight.shape)}.")
    if bias is not None and (not has_bias or tuple(bias.shape) != shape[:1]):
        raise ValueError(f"`bias` should have shape ({shape[0]},), on a head with bias=True.")


def less_normalizer(scores: Tensor, normalizer: Tensor, class_ids: Tensor | SparseTargets) -> Tensor:
    """log p: scores in the shape of ``class_ids``, less their examples' log-normaliser (m,)."""
    if isinstance(class_ids, SparseTargets):
        return scores - normalizer[class_ids.to(scores.device).example_ids]
    return scores - normalizer.view(-1, *[1] * (scores.ndim - 1))
