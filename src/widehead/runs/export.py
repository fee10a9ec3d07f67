"""The weights of a run in files that other programs read. Letters: D classes, d width; the head's rows are W (D, d)."""

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from widehead.errors import CheckpointError, DataError, RankingWarning, warn_user
from widehead.heads import ExactHead
from widehead.precision import in_full_precision
from widehead.runs.rows import class_rows, linear_head
from widehead.runs.run import Run
from widehead.training.folder import new_file


def export(run: Run, format: str, path: Path | str | None = None) -> Path:
    """Write the weights of a run for other programs.

    Args:
        format: "torch": a state_dict of the encoder and of the output layer as an nn.Linear. "safetensors": the same,
            with the classes' names. "word2vec": text, a name and its row of W on each line. "faiss": an index of the
            rows by inner product.
        path: the file; by default it is named after the run.

    Returns:
        path.

    RankingWarning, if the loss does not rank classes by the outputs themselves.

    Raises:
        ValueError: another format.
        DataError: the head has no row of weights for each class, or a package is not there.
        CheckpointError: the run is damaged, or the file cannot be written; what it held is as it was.
    """
    if format not in _WRITERS:
        raise ValueError(f"Parameter `format` should be one of {', '.join(_WRITERS)}. Found {format!r}.")
    if format == "faiss" and importlib.util.find_spec("faiss") is None:
        raise DataError('the format faiss needs FAISS: pip install "widehead[retrieval]"')
    ending, write = _WRITERS[format]
    path = Path(run.folder.path.absolute().name + ending if path is None else path)
    head = linear_head(run)
    with _output_file(path) as temporary:
        in_full_precision(write)(run, temporary)
    if isinstance(head, ExactHead) and (formula := head.loss.ranks_by) is not None:
        warn_user(
            f"{path} holds rows w of weights, and {run.config.loss} ranks classes by {formula} with o = w·h, not by o: "
            "apply that, or take Run.open(…).network.head.to_scorer(), a module that ranks as the run does.",
            RankingWarning,
        )
    return path


@contextmanager
def _output_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``, that takes its place on leaving without an error."""
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a device"
        raise CheckpointError(f"The output {path} should be a file. Found {found}.")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        new_file(temporary).close()  # before the work for it is done
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"The output {path} could not be written: {error.strerror or error}.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


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
    names = np.frombuffer(json.dumps(list(run.job.class_names)).encode(), dtype=np.uint8)
    tensors = {**_state(run), "class_names": torch.from_numpy(names.copy())}
    metadata = {"format": "pt", "job": run.config.job, "head": run.config.head, "step": str(run.step)}
    try:
        safetensors.torch.save_file(tensors, path, metadata)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error


def _write_word2vec(run: Run, path: Path) -> None:
    """Rows of W."""
    names = word2vec_names(list(run.job.class_names))
    head = linear_head(run)
    with path.open("wb") as file:
        file.write(f"{len(names)} {head.in_features}\n".encode())
        for start, rows in class_rows(head):
            table = polars.DataFrame(rows[:, : head.in_features].cpu().numpy())
            table.insert_column(0, polars.Series("name", names[start : start + len(rows)]))
            table.write_csv(file, include_header=False, separator=" ", quote_style="never")


def _write_faiss(run: Run, path: Path) -> None:
    """Inner products with the index are outputs; a bias is one more column (queries end in 1)."""
    faiss: Any = importlib.import_module("faiss")
    head = linear_head(run)
    index = faiss.IndexFlatIP(head.in_features + head.has_bias)
    for _, rows in class_rows(head):
        index.add(rows.float().cpu().numpy())
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _state(run: Run) -> dict[str, Tensor]:
    """A state_dict of ``encoder`` and of ``head`` as an ordinary nn.Linear, on the CPU."""
    head = linear_head(run)
    state = {f"encoder.{name}": value.cpu().contiguous() for name, value in run.network.encoder.state_dict().items()}
    weight, bias = torch.empty(head.num_classes, head.in_features, dtype=head.dtype), None
    if head.has_bias:
        bias = state["head.bias"] = torch.empty(head.num_classes, dtype=head.dtype)
    for start, rows in class_rows(head):
        weight[start : start + len(rows)] = rows[:, : head.in_features]
        if bias is not None:
            bias[start : start + len(rows)] = rows[:, -1]
    return {**state, "head.weight": weight}


# Ending and writer of each format.
_WRITERS: dict[str, tuple[str, Callable[[Run, Path], None]]] = {
    "torch": (".pt", _write_torch),
    "safetensors": (".safetensors", _write_safetensors),
    "word2vec": (".txt", _write_word2vec),
    "faiss": (".faiss", _write_faiss),
}
