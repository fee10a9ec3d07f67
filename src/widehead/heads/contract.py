"""What all heads do alike: checks of what they are given, and the reduction of examples' losses.

Letters: m examples; … their dimensions if they have several, lead in the code.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from widehead.errors import check_choice
from widehead.targets import SparseTargets, TargetsLike

Reduction = Literal["mean", "sum", "none"]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def opaque(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, which torch.compile calls as it is and does not look into.

    A head's time is in few large operations already; its bookkeeping, which depends on numbers, would be cut into
    many graphs, and made anew for each size of the targets.
    """
    # torch.compiler.disable would import the compiler for those too who compile nothing; it takes as long as torch.
    unseen: Callable[_P, _R] = torch._disable_dynamo(function)  # type: ignore[attr-defined]

    @wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return (unseen if torch.compiler.is_compiling() else function)(*args, **kwargs)

    return wrapper


def told(method: Callable[Concatenate[Any, _P], _R]) -> Callable[Concatenate[Any, _P], _R]:
    """The same method of a head, which tells the head if it refuses what it was given: other processes may wait."""

    @wraps(method)
    def telling(head: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(head, *args, **kwargs)
        except (TypeError, ValueError) as error:
            if not hasattr(error, "_was_told"):  # by a method that this one called
                error._was_told = True  # type: ignore[union-attr]
                head.refused(error)
            raise

    return telling


def checked_hidden(hidden: Tensor, in_features: int, device: torch.device) -> tuple[Tensor, torch.Size]:
    """A hidden layer (…, in_features) on ``device`` as (m, in_features), and its lead.

    Raises:
        TypeError, ValueError: another shape, type or device.
    """
    if not isinstance(hidden, Tensor) or hidden.ndim == 0 or hidden.shape[-1] != in_features:
        found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ValueError(
            f"`hidden` should be a tensor of shape (m, {in_features}). Found {found}. Before the last dimension there "
            "may be others than m."
        )
    if not hidden.dtype.is_floating_point:
        raise TypeError(f"`hidden` should hold floating-point numbers. Found {hidden.dtype}.")
    if hidden.device != device:
        raise ValueError(
            f"`hidden` should be on the head's device, {device}. Found {hidden.device}: move the head or the network "
            "with .to(device), before its optimiser is made."
        )
    lead = hidden.shape[:-1]
    return hidden if hidden.ndim == 2 else hidden.reshape(lead.numel(), in_features), lead


def checked_targets(targets: TargetsLike, lead: torch.Size, num_classes: int) -> SparseTargets:
    """The targets of a hidden layer (*lead, d) with one example after the other, on the device that they are on.

    They are checked on the host, so that it waits for a GPU once if a tensor of ids lies there, else not at all.

    Raises:
        TypeError, ValueError: wrong shapes, types or class ids.
    """
    raw = _by_example(targets.cpu() if isinstance(targets, Tensor) else targets, lead)
    converted = SparseTargets.convert(raw)
    if len(converted) != lead.numel():
        raise ValueError(f"There should be targets for {lead.numel()} examples. Found {len(converted)}.")
    converted.check_classes(num_classes)
    if converted.class_ids.numel() == lead.numel() * num_classes and _is_table(raw):
        _refuse_multi_hot(converted, num_classes, isinstance(raw, Sequence))
    return converted


def _is_table(targets: TargetsLike) -> bool:
    is_dense = isinstance(targets, Tensor) and targets.layout == torch.strided
    return is_dense or isinstance(targets, np.ndarray | Sequence)


def _refuse_multi_hot(targets: SparseTargets, num_classes: int, are_lists: bool) -> None:
    """ValueError if a table with as many columns as there are classes holds zeros and ones alone.

    As ids it would name the classes 0 and 1 over and over. The list [[0, 1]] of two classes does not.
    """
    if num_classes < 2 + are_lists or len(targets) == 0 or int(targets.class_ids.max()) > 1:
        return
    if bool((targets.counts == num_classes).all()):
        raise ValueError(
            f"Targets should be class ids (m,) or (m, K), lists of ids, or a sparse (m, {num_classes}) matrix. Found "
            f"{num_classes} zeros and ones for each example: make a sparse matrix of such a table, table.to_sparse() "
            "or scipy.sparse.csr_matrix(table), or say that they are ids, SparseTargets.from_ids(table)."
        )


def _by_example(targets: TargetsLike, lead: torch.Size) -> TargetsLike:
    """Tables and lists whose first dimensions are those of the hidden layer, with one dimension in their place."""
    if len(lead) == 1 or not _is_table(targets):
        return [targets] if isinstance(targets, int) and not lead else targets
    if isinstance(targets, Tensor | np.ndarray):
        _check_lead(tuple(targets.shape[: len(lead)]), lead, len(lead))
        return targets.reshape(lead.numel(), *targets.shape[len(lead) :])
    rows: list[Any] = [targets]
    for depth in range(len(lead)):
        rows = [row.tolist() if isinstance(row, Tensor | np.ndarray) else row for row in rows]
        lengths = {len(row) if isinstance(row, Sequence) else None for row in rows} or {lead[depth]}
        _check_lead((*lead[:depth], *sorted(lengths, key=str)), lead, depth + 1)
        rows = [entry for row in rows for entry in row]
    return rows


def _check_lead(found: tuple[int | None, ...], lead: torch.Size, depth: int) -> None:
    if found != tuple(lead[:depth]):
        raise ValueError(
            f"Targets should have the dimensions {tuple(lead)} that `hidden` has before its last. Found {found}."
        )


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
    weight = _counted_weight(losses, counted, weight)
    losses = losses if weight is None else losses * weight
    if reduction == "none":
        return losses
    if reduction == "mean" and weight is None and losses.numel() > 0:
        return losses.mean()
    total = losses.sum()
    if reduction == "sum" or weight is None:
        return total
    return total / _divisor(weight)


def reduction_by_losses(
    losses: Tensor, counted: Tensor | None, weight: Tensor | None, reduction: Literal["mean", "sum"]
) -> Tensor:
    """(m,) the derivative of `reduced` by the losses, as autograd makes it, to the last bit."""
    weight = _counted_weight(losses, counted, weight)
    if weight is None:
        return torch.full_like(losses, 1.0 if reduction == "sum" else 1.0 / max(1, losses.numel()))
    return weight if reduction == "sum" else weight * _divisor(weight).reciprocal()


def _counted_weight(losses: Tensor, counted: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """(m,) what each loss is multiplied with, None for ones."""
    if weight is not None and weight.shape != losses.shape:
        raise ValueError(f"`weight` should have shape {tuple(losses.shape)}. Found {tuple(weight.shape)}.")
    if weight is not None:
        return weight.to(losses) if counted is None else weight.to(losses) * counted
    return None if counted is None else counted.to(losses.dtype)


def _divisor(weight: Tensor) -> Tensor:
    """() what a sum with these weights (m,) is divided by."""
    among = weight.sum()
    return torch.where(among == 0, 1.0, among)


def named_classes(class_ids: Tensor | SparseTargets, lead: torch.Size) -> SparseTargets:
    """Class ids (…,), (…, K) or ragged, of a hidden layer (*lead, d), as SparseTargets with an example a row.

    Raises:
        ValueError: another shape.
    """
    if isinstance(class_ids, SparseTargets):
        if len(class_ids) != lead.numel():
            raise ValueError(f"There should be class ids for {lead.numel()} examples. Found {len(class_ids)}.")
        return class_ids
    rest = class_ids.shape[len(lead) :]
    if class_ids.shape[: len(lead)] != lead or len(rest) > 1:
        raise ValueError(
            f"`class_ids` should have shape {tuple(lead)}, or one dimension more. Found {tuple(class_ids.shape)}."
        )
    offsets = torch.arange(lead.numel() + 1, device=class_ids.device) * rest.numel()
    return SparseTargets(class_ids.reshape(-1), offsets)


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
