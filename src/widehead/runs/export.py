"""The weights of a run in files that other programs read. Letters: D classes, d width; the head's rows are W (D, d)."""

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from widehead.errors import CheckpointError, DataError, RankingWarning, check_choice, check_whole, warn_user
from widehead.heads import ExactHead
from widehead.precision import in_full_precision
from widehead.runs.index import KINDS
from widehead.runs.onnx_file import require_onnx, write_onnx
from widehead.runs.rows import class_rows, linear_head
from widehead.runs.run import Run
from widehead.search.tuning import check_part
from widehead.training.folder import new_file

_ENDINGS = {"torch": ".pt", "safetensors": ".safetensors", "word2vec": ".txt", "faiss": ".faiss", "onnx": ".onnx"}


def export(
    run: Run, format: str, path: Path | str | None = None, *, index: str = "flat", recall: float = 0.95, top: int = 10
) -> Path:
    """Write the weights of a run for other programs.

    Args:
        format: "torch": a state_dict of the encoder and of the output layer as an nn.Linear. "safetensors": the same,
            with the classes' names. "word2vec": text, a name and its row of W on each line. "faiss": an index of the
            rows by inner product. "onnx": a model from inputs to the best classes, ranked as by the run.
        path: the file; by default it is named after the run.
        index: of "faiss": "flat" looks at all rows; "ivf" and "hnsw" at some, see `Run.index`, which says how many and
            what they find.
        recall: that such an index should reach.
        top: classes that a model of "onnx" names.

    Returns:
        path.

    RankingWarning, if the run does not rank classes by the outputs themselves, and the file does not say by what.

    Raises:
        ValueError: another format or index, or a number out of range.
        DataError: the head has no row of weights for each class, an index cannot rank as its loss does, or a package is
            not there.
        CheckpointError: the run is damaged, or the file cannot be written; what it held is as it was.
    """
    if format not in _ENDINGS:
        raise ValueError(f"Parameter `format` should be one of {', '.join(_ENDINGS)}. Found {format!r}.")
    _check(format, index, recall, top)
    path = Path(run.folder.path.absolute().name + _ENDINGS[format] if path is None else path)
    head = run.network.head if format == "onnx" else linear_head(run)
    writers: dict[str, Callable[[Run, Path], None]] = {
        "torch": _write_torch,
        "safetensors": _write_safetensors,
        "word2vec": _write_word2vec,
        "faiss": partial(_write_faiss, kind=index, wanted=recall),
        "onnx": partial(write_onnx, k=top),
    }
    with _output_file(path) as temporary:
        in_full_precision(writers[format])(run, temporary)
    if format != "onnx" and isinstance(head, ExactHead) and (formula := head.loss.ranks_by) is not None:
        both = format == "faiss" and head.loss.ranks_both_ways
        do = "search for h and for −h and rank what both find by that" if both else "apply that"
        warn_user(
            f"{path} holds rows w of weights, and {run.config.loss} ranks classes by {formula} with o = w·h, not by o: "
            f"{do}, or take Run.open(…).network.head.to_scorer(), a module that ranks as the run does.",
            RankingWarning,
        )
    if format != "word2vec" and run.network.beside is not None:
        option = "direct" if run.config.direct > 0.0 else "neighbours"
        warn_user(
            f"{path} holds the network alone, and the run ranks classes by training documents, sequences or users "
            f"like what is given, too: take Run.predict or `widehead serve`, or train with {option} 0.",
            RankingWarning,
        )
    return path


def _check(format: str, index: str, recall: float, top: int) -> None:
    check_choice("index", index, ("flat", *KINDS))
    check_part("recall", recall)
    check_whole("top", top)
    if index != "flat" and format != "faiss":
        raise ValueError(f"Option `index` should be flat for other formats than faiss. Found {index} with {format}.")
    if format == "faiss" and importlib.util.find_spec("faiss") is None:
        raise DataError('the format faiss needs FAISS: pip install "widehead[retrieval]"')
    if format == "onnx":
        require_onnx()


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


def _write_faiss(run: Run, path: Path, kind: str, wanted: float) -> None:
    """Inner products with the index are outputs; a bias is one more column (queries end in 1)."""
    if kind != "flat":
        run.index(kind, wanted).save(path)
        return
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
