"""Classifiers and trees of labels in a file: what is read is what was written, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.errors import CheckpointError
from widehead.jobs.classifier_files import read_classifiers, write_classifiers
from widehead.jobs.neighbours import Neighbours
from widehead.models import label_trees
from widehead.models.classifiers import LinearClassifiers
from widehead.training.checkpoint import load_checkpoint, save_checkpoint

_SHAPE = 30, 20


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Neighbours:
    """With trees of two levels, and three labels that no document has."""
    monkeypatch.setattr(label_trees, "_HALVINGS", 3)
    monkeypatch.setattr(label_trees, "_FEWEST", 3)
    rng = np.random.default_rng(0)
    features = scipy.sparse.csr_matrix((rng.random((80, 20)) * (rng.random((80, 20)) < 0.3)).astype(np.float32))
    labels = (rng.random((80, 30)) < 0.1).astype(np.float32)
    labels[:, 27:] = 0.0
    found = Neighbours(features, scipy.sparse.csr_matrix(labels), 5)
    found.learn(found.voted(np.arange(found.labels.shape[0])))
    found.grow(2)
    return found


def test_what_is_read_is_what_was_written(made: Neighbours, tmp_path: Path) -> None:
    path = tmp_path / "classifiers.safetensors"
    rows, labels = (part.ravel() for part in np.indices((80, 30)))
    assert made.classifiers is not None
    assert made.trees is not None
    for has in ((True, True), (True, False), (False, True)):
        write_classifiers(path, made.classifiers if has[0] else None, made.trees if has[1] else None)
        classifiers, trees = read_classifiers(path, _SHAPE, *has)
        assert (classifiers is not None, trees is not None) == has
        x = made._known
        if classifiers is not None:
            assert np.array_equal(classifiers.margins(x, rows, labels), made.classifiers.margins(x, rows, labels))
        if trees is not None:
            assert np.array_equal(trees.values(x, rows, labels), made.trees.values(x, rows, labels))
        if has != (True, True):
            with pytest.raises(CheckpointError, match=r"classifiers\.safetensors"):
                read_classifiers(path, _SHAPE, True, True)


def _at(*path: Any) -> Callable[[dict[str, Any], Any], None]:
    def put(tree: Any, change: Callable[[Any], Any]) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = change(tree[path[-1]])

    return put


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (_at("trees"), lambda _: []),
        (_at("trees"), lambda _: 3),
        (_at("trees", 0), lambda _: {}),
        (_at("trees", 0), lambda _: torch.ones(3)),
        (_at("trees", 0, "inner"), lambda _: torch.ones(2)),
        (_at("trees", 0, "nodes"), lambda t: t + 1),  # of a node that is not there
        (_at("trees", 0, "nodes"), lambda t: t - 1),
        (_at("trees", 0, "nodes"), lambda t: t.float()),
        (_at("trees", 0, "nodes"), lambda t: t[:, 1:]),
        (_at("trees", 0, "nodes"), lambda t: t[:1]),
        (_at("trees", 0, "inner"), lambda levels: levels[:1]),
        (_at("trees", 1, "inner", 0, "biases"), lambda t: t[1:]),
        (_at("trees", 1, "inner", 0, "biases"), lambda t: t * torch.nan),
        (_at("trees", 1, "leaves", "biases"), lambda t: t.double()),
        (_at("trees", 1, "leaves", "by_feature", "columns"), lambda t: t + 30),
        (_at("trees", 1, "leaves", "by_feature", "columns"), lambda t: t[:-1]),
        (_at("trees", 1, "leaves", "by_feature", "offsets"), lambda t: t.flip(0)),
        (_at("by_feature", "columns"), lambda t: -1 - t),
        (_at("by_feature", "offsets"), lambda t: t[1:]),
        (_at("biases"), lambda t: t[1:]),
    ],
)
def test_files_that_cannot_have_been_written_are_refused(
    made: Neighbours, tmp_path: Path, place: Callable[..., None], change: Callable[[Any], Any]
) -> None:
    path = tmp_path / "classifiers.safetensors"
    write_classifiers(path, made.classifiers, made.trees)
    tree = load_checkpoint(path)
    place(tree, change)
    save_checkpoint(path, tree)
    with pytest.raises(CheckpointError, match=r"classifiers of the 30 labels on 20 features"):
        read_classifiers(path, _SHAPE, True, True)


def test_pairs_that_are_not_there_have_no_margins(made: Neighbours) -> None:
    """Nothing unchecked reaches C."""
    assert made.classifiers is not None
    one = np.zeros(1, dtype=np.int64)
    for rows, labels in ((one + 80, one), (one - 1, one), (one, one + 30), (one, one - 1)):
        with pytest.raises(ValueError, match="Expected"):
            made.classifiers.margins(made._known, rows, labels)
    with pytest.raises(ValueError, match="Expected 20 features"):
        made.classifiers.margins(made._known[:, :19], one, one)


def test_margins_in_c_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many labels, so that threads work at the same time."""
    rng = np.random.default_rng(1)
    features, by_feature = (
        scipy.sparse.csr_matrix((rng.random(shape) * (rng.random(shape) < 0.3)).astype(np.float32))
        for shape in ((300, 40), (40, 6_000))
    )
    made = LinearClassifiers(by_feature, rng.standard_normal(6_000).astype(np.float32))
    rows, labels = np.sort(rng.integers(0, 300, 5_000)), rng.integers(0, 6_000, 5_000)
    expected = made._margins_by_scipy(features, rows, labels)
    assert np.abs(expected - made.biases[labels]).max() > 1.0
    for threads in (1, 4, 4, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        np.testing.assert_allclose(made.margins(features, rows, labels), expected, atol=1e-5)
