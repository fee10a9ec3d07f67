"""Sparse matrices, classifiers and trees of labels as a run folder keeps them, checked as they are read.

Letters: D labels, N features, L levels of a tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from widehead.data.sparse import CSR, csr_from_parts
from widehead.models.classifiers import LinearClassifiers
from widehead.models.label_trees import LabelTree, LabelTrees
from widehead.split import Dealt, InTurn
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.folder import expecting


def parts_of(matrix: CSR, among: Dealt | None = None) -> dict[str, Any]:
    """A matrix as tensors, whose rows may be ``among`` those of all processes; values of ones are left out."""
    offsets, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    parts: dict[str, Any] = {"columns": columns}
    others = float((matrix.data != 1.0).any())
    if others if among is None else among.share.largest(others)[0]:
        parts["values"] = torch.from_numpy(matrix.data.astype(np.float32))
    if among is not None:
        lengths = among.all_of(np.diff(offsets.numpy()))
        offsets = torch.from_numpy(np.pad(np.cumsum(lengths), (1, 0)))
        parts = {name: InTurn(among, part, lengths) for name, part in parts.items()}
    return {"offsets": offsets, **parts}


def matrix_of(tree: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> CSR:
    """The matrix of ``parts_of``; ValueError if it is none of that shape."""
    values = tree["values"].numpy() if "values" in tree else None
    return csr_from_parts(tree["offsets"].numpy(), tree["columns"].numpy(), values, shape)


def write_classifiers(path: Path, classifiers: LinearClassifiers | None, trees: LabelTrees | None) -> None:
    """Those that there are."""
    kept: dict[str, Any] = {} if classifiers is None else _kept(classifiers)
    if trees is not None:
        kept["trees"] = [
            {
                "nodes": torch.from_numpy(tree.nodes),
                "inner": [_kept(level) for level in tree.inner],
                "leaves": _kept(tree.leaves),
            }
            for tree in trees.trees
        ]
    save_checkpoint(path, kept)


def read_classifiers(
    path: Path, shape: tuple[int, int], margins: bool, trees: bool
) -> tuple[LinearClassifiers | None, LabelTrees | None]:
    """What was written, as far as it is asked for; CheckpointError if it is not there, damaged or of another shape."""
    kept = load_checkpoint(path)
    with expecting(path, f"classifiers of the {shape[0]} labels on {shape[1]} features"):
        return (
            _read(kept, shape) if margins else None,
            LabelTrees([_tree(tree, shape) for tree in _some(kept["trees"])]) if trees else None,
        )


def _kept(classifiers: LinearClassifiers) -> dict[str, Any]:
    return {"by_feature": parts_of(classifiers.by_feature), "biases": torch.from_numpy(classifiers.biases)}


def _read(tree: Mapping[str, Any], shape: tuple[int, int]) -> LinearClassifiers:
    biases = tree["biases"].numpy()
    if biases.dtype != np.float32 or biases.shape != shape[:1] or not np.isfinite(biases).all():
        raise ValueError(f"biases {biases.dtype} of shape {biases.shape}")
    return LinearClassifiers(matrix_of(tree["by_feature"], shape[::-1]), biases)


def _some(trees: Any, least: int = 1) -> list[Any]:
    if not isinstance(trees, list) or len(trees) < least or not all(isinstance(tree, dict) for tree in trees):
        raise ValueError(f"trees {type(trees).__name__}")
    return trees


def _tree(tree: Mapping[str, Any], shape: tuple[int, int]) -> LabelTree:
    nodes, inner = tree["nodes"].numpy(), _some(tree["inner"], 0)
    if nodes.dtype != np.int64 or nodes.shape != (len(inner), shape[0]):
        raise ValueError(f"nodes {nodes.dtype} of shape {nodes.shape} on {len(inner)} levels")
    found = []
    for level, classifiers in zip(nodes, inner, strict=True):
        count = len(classifiers["biases"])
        if not -1 <= level.min(initial=-1) <= level.max(initial=-1) < count:
            raise ValueError(f"nodes {level.min()} to {level.max()} of {count}")
        found.append(_read(classifiers, (count, shape[1])))
    return LabelTree(nodes, found, _read(tree["leaves"], shape))
