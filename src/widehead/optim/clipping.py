"""Clipping by the exact norm of a gradient that nobody formed."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from widehead.optim.heads import FactoredHead, as_heads
from widehead.optim.rows import values_of
from widehead.split import telling


def check_limit(max_grad_norm: float | None) -> None:
    """ValueError if it is no norm to clip by."""
    if max_grad_norm is not None and not max_grad_norm > 0.0:
        raise ValueError(f"Parameter `max_grad_norm` should be above 0. Found {max_grad_norm}.")


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """() the factor of torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6))."""
    return (max_norm / (norm + 1e-6)).clamp_max(1.0)


def joint_norm(parts: Iterable[Tensor]) -> Tensor:
    """() Euclidean norm of some dense tensors together, of which some may have their rows split over processes.

    Norms of what is split are of the whole, and are not stacked with others before they are.
    """
    whole: list[Tensor] = []
    split: dict[Any, list[Any]] = {}
    for part in parts:
        (split.setdefault(part.device_mesh, []) if hasattr(part, "device_mesh") else whole).append(part)
    with telling():
        norms = [get_total_norm(one).full_tensor() for one in split.values()]  # type: ignore[attr-defined]
    return get_total_norm([*norms, *whole])


@torch.no_grad()
def clip_grad_norm_(
    parameters: Iterable[Tensor], heads: FactoredHead | Iterable[FactoredHead], max_norm: float
) -> Tensor:
    """Clip an encoder's gradients and its heads' pending steps by their norm together, in place.

    What torch.nn.utils.clip_grad_norm_ does, with the heads' D × d gradients included at O(d²) an example.

    Returns:
        () the norm before clipping.
    """
    taking_part = as_heads(heads)
    handles = {id(head.handle) for head in taking_part}  # they and stand-ins would count a head twice
    others = [p for p in parameters if id(p) not in handles and getattr(p, "head", None) not in taking_part]
    gradients = [p.grad for p in others if p.grad is not None]
    norm = joint_norm([*(values_of(g) for g in gradients), *(head.grad_norm() for head in taking_part)])
    factor = clip_factor(norm, max_norm)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device, gradient.dtype))
    for head in taking_part:
        head.scale_pending(factor)
    return norm
