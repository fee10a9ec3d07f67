"""What ``widehead export`` writes. Letters: D classes, d width; the head's rows are W (D, d)."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from widehead.cli.console import say
from widehead.errors import DataError
from widehead.heads import ExactHead, LinearHead
from widehead.losses import Loss
from widehead.training import Job, Run
from widehead.training.multilabel import Multilabel
from widehead.training.recommender import Recommender
from widehead.training.words import LanguageModel, WordEmbeddings

__all__ = ["WRITERS", "check_packages", "class_names", "word2vec_names"]

_BLOCK = 1 << 14


def check_packages(name: str) -> None:
    """Raise DataError, saying what to install, where a format needs a package that is not there."""
    if name == "faiss" and importlib.util.find_spec("faiss") is None:
        raise DataError('the format faiss needs FAISS: pip install "widehead[retrieval]"')


def class_names(job: Job) -> list[str]:
    """The names of a job's classes, in the order of their ids."""
    if isinstance(job, Recommender):
        return list(job.train.items)
    if isinstance(job, LanguageModel | WordEmbeddings):
        return list(job.words)
    assert isinstance(job, Multilabel)
    return [job.schema.name(label) for label in range(job.schema.num_labels)]


def word2vec_names(names: list[str]) -> list[str]:
    """Names without white space, which separates the columns of word2vec text; still distinct.

    >>> word2vec_names(["deep sea", "deep_sea", "main"])
    ['deep_sea', 'deep_sea_', 'main']
    """
    taken: dict[str, None] = {}
    for name in names:
        written = re.sub(r"\s", "_", name) or "_"
        while written in taken:
            written += "_"
        taken[written] = None
    return list(taken)


def _write_torch(run: Run, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(_state(run), file)


def _write_safetensors(run: Run, path: Path) -> None:
    """The tensor "class_names" is a JSON list in UTF-8: there may be more names than the file's header can hold."""
    names = np.frombuffer(json.dumps(class_names(run.job)).encode(), dtype=np.uint8)
    tensors = {**_state(run), "class_names": torch.from_numpy(names.copy())}
    metadata = {"format": "pt", "job": run.config.job, "head": run.config.head, "step": str(run.step)}
    try:
        safetensors.torch.save_file(tensors, path, metadata)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error


def _write_word2vec(run: Run, path: Path) -> None:
    """Rows of W."""
    names = word2vec_names(class_names(run.job))
    vectors = _linear(run).weight()
    with path.open("wb") as file:
        file.write(f"{len(names)} {vectors.shape[1]}\n".encode())
        for start in range(0, len(names), _BLOCK):
            table = polars.DataFrame(vectors[start : start + _BLOCK].numpy())
            table.insert_column(0, polars.Series("name", names[start : start + _BLOCK]))
            table.write_csv(file, include_header=False, separator=" ", quote_style="never")


def _write_faiss(run: Run, path: Path) -> None:
    """Inner products with the index are outputs; where there is a bias, it is one more column (queries end in 1)."""
    faiss: Any = importlib.import_module("faiss")
    head = _linear(run)
    bias = head.bias()
    vectors = head.weight() if bias is None else torch.cat([head.weight(), bias[:, None]], dim=1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    for rows in vectors.split(_BLOCK):
        index.add(rows.float().numpy())
    if isinstance(head, ExactHead) and type(head.loss).score is not Loss.score:
        say(f"Note: {run.config.loss} does not rank by the outputs themselves, as inner products in the index do.")
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _linear(run: Run) -> ExactHead | LinearHead:
    """The head, where it is a linear layer."""
    head = run.network.head
    if not isinstance(head, ExactHead | LinearHead):
        raise DataError(f"The run should have one row of weights for each class. Found the head {run.config.head}.")
    return head


def _state(run: Run) -> dict[str, Tensor]:
    """A state_dict of ``encoder`` and of ``head`` as an ordinary nn.Linear."""
    state = {f"encoder.{name}": value.contiguous() for name, value in run.network.encoder.state_dict().items()}
    state["head.weight"] = _linear(run).weight().contiguous()
    if (bias := _linear(run).bias()) is not None:
        state["head.bias"] = bias
    return state


WRITERS: dict[str, Callable[[Run, Path], None]] = {
    "torch": _write_torch,
    "safetensors": _write_safetensors,
    "word2vec": _write_word2vec,
    "faiss": _write_faiss,
}
