"""The way to a GPU, and which device a program takes."""

import torch
from torch import Tensor


def moved(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """One-dimensional tensors of one type on another device; the host does not wait for a GPU.

    They go there together through pinned memory, which torch keeps until the copy was made.
    """
    if device.type != "cuda" or any(part.device.type != "cpu" for part in tensors):
        return [part.to(device) for part in tensors]
    sizes = [part.numel() for part in tensors]
    pinned = torch.empty(sum(sizes), dtype=tensors[0].dtype, pin_memory=True)
    torch.cat(tensors, out=pinned)
    return list(pinned.to(device, non_blocking=True).split(sizes))


def usable(device: str) -> bool:
    """Whether this machine can compute there: "meta" cannot, nor a GPU that torch has no kernels for."""
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError):  # torch without CUDA says so by an AssertionError
        return False
    return True


def resolved(device: str) -> str:
    """``device`` itself; for "auto" it is "cuda" if that is usable, else "cpu"."""
    if device != "auto":
        return device
    return "cuda" if usable("cuda") else "cpu"
