"""A run as an ONNX model: inputs to the best classes. Letters: m inputs, K ids of an input at most, D classes."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widehead.data import END, UNKNOWN
from widehead.errors import DataError
from widehead.models import BagEncoder, ContextEncoder, WordEncoder
from widehead.runs.run import Run

_LARGEST = 1_900_000_000  # bytes of a message of protobuf, without those of names


class _Best(nn.Module):
    """The k best classes by a run's encoder and scorer; −1 and −inf if nothing is known, or nothing is left."""

    encoder: Any

    def __init__(self, run: Run, k: int) -> None:
        super().__init__()
        self.encoder, self.scorer, self.k = run.network.encoder, run.network.head.to_scorer(), k

    def _best(self, hidden: Tensor, known: Tensor, banned: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = self.scorer(hidden)
        if banned is not None:
            scores = scores.masked_fill(banned, -torch.inf)
        known = known & (hidden != 0).any(dim=1)
        best, ids = scores.masked_fill(~known[:, None], -torch.inf).topk(self.k, dim=1)
        return torch.where(best == -torch.inf, -1, ids), best


class BestOfBags(_Best):
    """Rows of ids (m, K), each id once, −1 for none, with their values (m, K)."""

    names = ("ids", "values")

    def __init__(self, run: Run, k: int) -> None:
        super().__init__(run, k)
        self.excludes, self.num_classes = run.job.exclude_inputs, run.job.sizes["classes"]

    def forward(self, ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        used = (ids >= 0) & (values != 0)
        weights = torch.where(used, values, 0.0)
        if self.encoder.normalize:
            norms = weights.square().sum(dim=1, keepdim=True).sqrt()
            weights = weights / torch.where(norms > 0, norms, 1.0)
        rows = self.encoder.rows(ids.clamp_min(0))
        hidden = self.encoder.layers((rows * weights[:, :, None]).sum(dim=1))
        banned = None
        if self.excludes:
            none = torch.zeros(ids.shape[0], self.num_classes + 1, device=ids.device)
            marked = none.scatter(1, torch.where(used, ids, self.num_classes), 1.0)
            banned = marked[:, : self.num_classes] > 0
        return self._best(hidden, used.any(dim=1), banned)

    def example(self) -> tuple[Tensor, ...]:
        return torch.tensor([[0, 1, -1], [1, 0, -1]]), torch.ones(2, 3)


class BestOfWords(_Best):
    """The last C words (m, C) of m lines, line ends for those that are missing."""

    names = ("words",)
    nothing: Tensor

    def __init__(self, run: Run, k: int) -> None:
        super().__init__(run, k)
        self.context = run.job.context  # type: ignore[attr-defined]
        nothing = run.job.words.ids([END, UNKNOWN])  # type: ignore[attr-defined]
        self.register_buffer("nothing", torch.from_numpy(nothing))

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        known = (words[:, :, None] != self.nothing).all(dim=2).any(dim=1)
        return self._best(self.encoder(words), known, None)

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(2, self.context, dtype=torch.int64),)


def write_onnx(run: Run, path: Path, k: int) -> None:
    """A model whose outputs are "classes" (m, k) and "scores" (m, k), as `Run.predict` gives them.

    Its metadata have "class_names", a JSON list, and "job". Raises DataError: packages are missing, or it is too large.
    """
    require_onnx()
    module = _module(run, min(k, run.job.sizes["classes"])).cpu().eval()
    size = sum(part.numel() * part.element_size() for part in module.state_dict().values())
    if size > _LARGEST:
        raise DataError(
            f"Expected weights of at most {_LARGEST:,} bytes, as a file of ONNX can hold. Found {size:,}; export the "
            "format faiss, and the encoder alone."
        )
    example = module.example()
    shapes = tuple({0: "m", 1: "K"} if isinstance(module, BestOfBags) else {0: "m"} for _ in example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            module,
            example,
            input_names=module.names,
            output_names=("classes", "scores"),
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    about = {"class_names": json.dumps(list(run.job.class_names)), "job": run.config.job, "step": str(run.step)}
    program.model.metadata_props.update(about)
    program.save(str(path))


def require_onnx() -> None:
    """DataError if a package is missing."""
    for name in ("onnx", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise DataError(f'the format onnx needs {name}: pip install "widehead[onnx]"')


def _module(run: Run, k: int) -> BestOfBags | BestOfWords:
    encoder = run.network.encoder
    if isinstance(encoder, BagEncoder):
        return BestOfBags(run, k)
    if isinstance(encoder, ContextEncoder | WordEncoder):
        return BestOfWords(run, k)
    raise DataError(
        f"Expected an encoder of bags or of words before. Found {type(encoder).__name__}, of sequences; export the "
        "format torch."
    )
