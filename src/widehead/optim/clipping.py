"""Clipping by the exact norm of a gradient that nobody formed."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from widehead.optim.heads import FactoredHead, as_heads
from widehead.optim.rows import values_of


def check_limit(max_grad_norm: float | None) -> None:
    """ValueError if it is no norm to clip by."""
    if max_grad_norm is not None and not max_grad_norm > 0.0:
        raise ValueError(f"Parameter `max_grad_norm` should be above 0. Found {max_grad_norm}.")


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """() the factor of torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6))."""
    return (max_norm / (norm + 1e-6)).clamp_max(1.0)


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
    dense = [values_of(g) for g in gradients]
    # Norms of what is split over processes (FSDP2) are of the whole, and are not stacked with others before they are.
    split: dict[Any, list[Tensor]] = {}
    for gradient in dense:
        if hasattr(gradient, "full_tensor"):
            split.setdefault(gradient.device_mesh, []).append(gradient)  # type: ignore[attr-defined]
    norms = [get_total_norm(one).full_tensor() for one in split.values()]  # type: ignore[attr-defined]
    norms += [head.grad_norm() for head in taking_part]
    norm = get_total_norm([*norms, *(g for g in dense if not hasattr(g, "full_tensor"))])
    factor = clip_factor(norm, max_norm)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device, gradient.dtype))
    for head in taking_part:
        head.scale_pending(factor)
    return norm
