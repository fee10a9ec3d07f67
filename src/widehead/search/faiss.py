"""What the indices of FAISS share: the module itself, its numbers, its GPU, its files."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def require_faiss() -> Any:
    """The module faiss.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError('Search by an index needs FAISS: pip install "widehead[retrieval]".') from error
    return faiss


def gpu_index(device: torch.device, index: Any) -> Any | None:
    """An index of FAISS on a GPU, which takes queries there; None if FAISS has no GPU, or ``device`` is none."""
    if not has_gpu(device):
        return None
    faiss = require_faiss()
    importlib.import_module("faiss.contrib.torch_utils")  # so that it takes tensors, and those on a GPU
    resources = faiss.StandardGpuResources()
    return faiss.index_cpu_to_gpu(resources, device.index or 0, index)


def has_gpu(device: torch.device) -> bool:
    """Whether ``device`` is a GPU that the FAISS that is installed can search on."""
    if device.type != "cuda" or importlib.util.find_spec("faiss") is None:
        return False
    faiss = require_faiss()
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > (device.index or 0)


def plain(rows: Tensor, width: int) -> Tensor:
    """FAISS takes contiguous float32 alone, and no parameters."""
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"Parameter `rows` should have shape (n, {width}). Found {tuple(rows.shape)}.")
    return rows.detach().to(torch.float32).contiguous()


def plain_rows(rows: Tensor, width: int) -> Tensor:
    """`plain` rows on the CPU."""
    return plain(rows, width).cpu()


def from_host(found: tuple[np.ndarray, np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Scores and ids that a search on the CPU found, on the queries' device."""
    scores, ids = found
    return torch.from_numpy(scores).to(device), torch.from_numpy(ids).to(device)


def write(index: Any, path: Path | str) -> None:
    """Write an index to a file; OSError if it cannot be written."""
    try:
        require_faiss().write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(str(error)) from error
