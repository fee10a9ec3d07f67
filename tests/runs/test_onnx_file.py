"""Runs as ONNX models: onnxruntime gives the ids and scores of `Run.predict`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_runs import call
from support.job_files import config_of

from widehead.errors import DataError
from widehead.runs import Run, onnx_file

pytestmark = pytest.mark.long

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def trained(job: str, folder: Path, **options: Any) -> Run:
    Run.new(config_of(job, folder, epochs=2, **options)).train(quiet=True)
    return Run.open(folder / "run")


def best(session: Any, run: Run, *inputs: Any) -> list[tuple[list[str], list[float]]]:
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    assert names == list(run.job.class_names)
    fed = {given.name: value for given, value in zip(session.get_inputs(), inputs, strict=True)}
    classes, scores = session.run(["classes", "scores"], fed)
    return [
        ([names[i] for i in row if i >= 0], values[row >= 0].tolist())
        for row, values in zip(classes, scores, strict=True)
    ]


def agree(found: list[tuple[list[str], list[float]]], expected: Any) -> None:
    for (classes, scores), prediction in zip(found, expected, strict=True):
        assert classes == prediction.classes
        np.testing.assert_allclose(scores, prediction.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "spherical-softmax", "hidden": (6,), "activation": "tanh", "head_bias": True},
        {"head": "hierarchical", "head_options": {"tree": "huffman"}, "loss": None},
    ],
    ids=["spherical", "tree"],
)
def test_a_recommender_of_any_head_and_loss(options: dict[str, Any], tmp_path: Path) -> None:
    run = trained("recommender", tmp_path, **options)
    session = onnxruntime.InferenceSession(str(run.export("onnx", tmp_path / "run.onnx", top=57)))
    rows = [[0, 1, 2], [59], [], [3, 3, 58], [*range(57)]]
    names = run.job.class_names
    for some in (rows, rows[:1], rows[2:3]):
        ids = np.full((len(some), max(1, *map(len, some)) if len(some) > 1 else max(1, len(some[0]))), -1)
        for place, row in enumerate(some):
            distinct = list(dict.fromkeys(row))
            ids[place, : len(distinct)] = distinct
        values = np.ones(ids.shape, dtype=np.float32)
        agree(best(session, run, ids, values), run.predict([[names[i] for i in row] for row in some], 57))


def test_a_classifier_of_weighted_features(tmp_path: Path) -> None:
    run = trained("multilabel", tmp_path)
    session = onnxruntime.InferenceSession(str(run.export("onnx", tmp_path / "run.onnx", top=3)))
    texts = ["t1x1 t1x2 t1x1", "unheard", "t5x1 t4x0 t3x3"]
    given = run.job.given(texts).rows
    ids = np.full((3, int(np.diff(given.indptr).max())), -1)
    values = np.zeros(ids.shape, dtype=np.float32)
    for row in range(3):
        part = slice(given.indptr[row], given.indptr[row + 1])
        ids[row, : part.stop - part.start], values[row, : part.stop - part.start] = (
            given.indices[part],
            given.data[part],
        )
    agree(best(session, run, ids, values), run.predict(texts, 3))


@pytest.mark.parametrize("job", ["language-model", "word-embeddings"])
def test_words(job: str, tmp_path: Path) -> None:
    run = trained(job, tmp_path)
    session = onnxruntime.InferenceSession(str(run.export("onnx", tmp_path / "run.onnx", top=30)))
    texts = ["w1 w2 w3", "unheard", "w19 w0", "w3 unheard"]
    agree(best(session, run, run.job.given(texts).rows), run.predict(texts, 30))


def test_what_is_missing_or_too_large_is_told_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("recommender", tmp_path)
    monkeypatch.setattr(onnx_file, "_LARGEST", 100)
    with pytest.raises(DataError, match=r"at most 100 bytes.*Found [\d,]+; export the format faiss"):
        run.export("onnx", tmp_path / "run.onnx")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else real(name, *a))
    refused = call("export", tmp_path / "run", "--format", "onnx", "--output", tmp_path / "run.onnx")
    assert (refused.code, refused.out) == (2, "")
    assert 'needs onnx: pip install "widehead[onnx]"' in refused.err
    assert not (tmp_path / "run.onnx").exists()
