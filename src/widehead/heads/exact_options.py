"""Checks of the options that an exact head is made with."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def checked_dtype(dtype: torch.dtype) -> torch.dtype:
    """``dtype``; TypeError if no exact head works in it."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"The exact head works in float32 or float64. Found {dtype}. storage_dtype=torch.bfloat16 keeps W in half "
            "of the memory."
        )
    return dtype


def checked_path(storage: str | os.PathLike[str] | None, device: torch.device) -> Path | None:
    """The whole path of a file to keep W in; ValueError if ``device`` cannot."""
    if storage is None:
        return None
    if device.type != "cpu":
        raise ValueError(f"A head with its weights in a file (`storage`) should be on the CPU. Found {device}.")
    return Path(storage).absolute()


def checked_storage_dtype(storage_dtype: torch.dtype | None, dtype: torch.dtype) -> torch.dtype | None:
    """``storage_dtype``; TypeError if rows of a head in ``dtype`` are not kept in it."""
    if storage_dtype not in (None, torch.bfloat16, dtype):
        raise TypeError(f"Parameter `storage_dtype` should be torch.bfloat16 or None. Found {storage_dtype}.")
    return storage_dtype
