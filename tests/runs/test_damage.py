"""Damage anywhere in a run folder: refused with a reason, or without any effect; never a wrong network, never a bug."""

from __future__ import annotations

import copy
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.job_files import config_of

from widehead.errors import CheckpointError, DataError
from widehead.report.curves import curves_of
from widehead.runs import Run
from widehead.training import checkpoint
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.log import MetricsLog, read_metrics

JOBS = ["recommender", "language-model", "multilabel"]
FILES = {
    "recommender": ["items.txt", "users.txt", "history.safetensors"],
    "language-model": ["words.txt"],
    "multilabel": ["labels.json"],
}
COMMON = ["config.json", "checkpoints/last.safetensors"]
CASES = [(job, name) for job in JOBS for name in [*COMMON, *(f"vocabularies/{f}" for f in FILES[job])]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, float]]]:
    """For each job the folder with its data and its run "run", and the metrics of that run."""
    made = {}
    for job in JOBS:
        folder = tmp_path_factory.mktemp(job)
        Run.new(config_of(job, folder, epochs=1)).train(quiet=True)
        made[job] = (folder, Run.open(folder / "run").evaluate(folder / "test.txt"))
    return made


def damaged(data: bytes, at: int, how: str, piece: bytes) -> bytes:
    at %= max(len(data), 1)
    if how == "flip":
        return data[:at] + bytes([data[at] ^ (piece[0] or 1)]) + data[at + 1 :]
    if how == "cut":
        return data[:at]
    if how == "drop":
        return data[:at] + data[at + len(piece) :]
    if how == "insert":
        return data[:at] + piece + data[at:]
    return piece


@pytest.mark.parametrize(("job", "name"), CASES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, 1 << 20),
    how=st.sampled_from(["flip", "flip", "cut", "drop", "insert", "replace"]),
    piece=st.binary(min_size=1, max_size=4) | st.sampled_from([b"0", b"\n", b'"', b"[" * 100_000, b"null", b"\xff"]),
)
def test_a_damaged_file_is_refused_or_means_the_same(
    runs: dict[str, tuple[Path, dict[str, float]]], job: str, name: str, at: int, how: str, piece: bytes
) -> None:
    folder, metrics = runs[job]
    path = folder / "run" / name
    whole = path.read_bytes()
    try:
        path.write_bytes(damaged(whole, at, how, piece))
        found = Run.open(folder / "run").evaluate(folder / "test.txt")
    except (CheckpointError, DataError) as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(folder / "run") in str(error)  # noqa: PT017
    else:
        assert found == metrics
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(("job", "name"), CASES)
def test_a_missing_file_is_refused(runs: dict[str, tuple[Path, dict[str, float]]], job: str, name: str) -> None:
    run = runs[job][0] / "run"
    aside = run / "aside"
    (run / name).rename(aside)
    with pytest.raises((CheckpointError, DataError), match=re.escape(str(run))):
        Run.open(run).network  # noqa: B018
    aside.rename(run / name)


@settings(max_examples=60)
@given(at=st.integers(0, 1 << 20), how=st.sampled_from(["flip", "cut", "drop", "insert"]), piece=st.binary(min_size=1))
def test_a_damaged_log_is_refused_or_read(
    runs: dict[str, tuple[Path, dict[str, float]]], at: int, how: str, piece: bytes
) -> None:
    run = runs["recommender"][0] / "run"
    path = run / "metrics.jsonl"
    whole = path.read_bytes()
    try:
        path.write_bytes(damaged(whole, at, how, piece))
        curves_of(read_metrics(path), {})
        MetricsLog(path).cut(5)
    except CheckpointError as error:
        assert "metrics.jsonl, line " in str(error)  # noqa: PT017
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("job", JOBS)
def test_checkpoints_of_other_runs_are_refused(
    runs: dict[str, tuple[Path, dict[str, float]]], job: str, tmp_path: Path
) -> None:
    others = {other: runs[other][0] for other in JOBS if other != job}
    for name, options in {"seed": {"seed": 5}, "loss": {"loss": "taylor-softmax"}, "lr": {"encoder_lr": 0.5}}.items():
        others[name] = tmp_path / name
        others[name].mkdir()
        Run.new(config_of(job, others[name], epochs=1, **options)).train(quiet=True)
    mine = tmp_path / "mine"
    shutil.copytree(runs[job][0], mine)
    for name, other in others.items():
        shutil.copy(other / "run" / "checkpoints" / "last.safetensors", mine / "run" / "checkpoints")
        with pytest.raises(CheckpointError, match=r"last\.safetensors should be"):
            Run.open(mine / "run").network  # noqa: B018
        config = json.loads((mine / "run" / "config.json").read_text())
        (mine / "run" / "config.json").write_text(json.dumps({**config, "out": str(mine / "run")}))
        with pytest.raises(CheckpointError, match=r"last\.safetensors should be"):
            Run.open(mine / "run").train(quiet=True, epochs=2)
        assert name in others


def test_an_older_checkpoint_of_the_run_is_none_of_another(runs: dict[str, Any], tmp_path: Path) -> None:
    """The same options and data: a copy of the run's checkpoint elsewhere is its own."""
    folder, metrics = runs["recommender"]
    shutil.copytree(folder, tmp_path / "copy")
    assert Run.open(tmp_path / "copy" / "run").evaluate(folder / "test.txt") == metrics


# -- a right check sum, and the wrong content ---------------------------------------------------------------------

SOUND = {"a": torch.arange(6.0).reshape(2, 3), "b": [1, (2, "x")], "c": {7: torch.tensor([True])}}
VALUES = st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
SHAPES = st.lists(st.integers(-3, 10**13), max_size=3)


def summed(header: dict[str, Any], payload: bytes) -> bytes:
    """A file with this header and its true check sum."""
    text = json.dumps(header, separators=(",", ":")).encode()
    start = len(text).to_bytes(8, "little") + text
    total = zlib.crc32(payload, zlib.crc32(start))
    return start.replace(b'"crc32":"00000000"', b'"crc32":"%08x"' % total, 1) + payload


@settings(max_examples=100)
@given(data=st.data())
def test_files_with_a_right_sum_and_wrong_content(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "crafted"
    save_checkpoint(path, SOUND)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, payload = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    header["__metadata__"]["crc32"] = "00000000"
    structure = json.loads(header["__metadata__"]["widehead"])
    what = data.draw(st.sampled_from(["entry", "key", "structure", "payload", "deep"]))
    if what == "entry":
        tensor = header[data.draw(st.sampled_from(["a", "c.7"]))]
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        tensor[key] = data.draw(VALUES | SHAPES)
    elif what == "key":
        del header[data.draw(st.sampled_from(["a", "c.7"]))]
    elif what == "structure":
        structure = data.draw(VALUES | st.recursive(VALUES, lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
    elif what == "payload":
        payload = payload[: data.draw(st.integers(0, len(payload)))]
    else:
        structure = {"list": [0]}
        for _ in range(data.draw(st.sampled_from([10, 400]))):
            structure = {"list": [copy.copy(structure)]}
    header["__metadata__"]["widehead"] = json.dumps(structure) if what != "deep" else json.dumps(structure) + " "
    path.write_bytes(summed(header, payload))
    try:
        tree = load_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert isinstance(tree, dict)
        for tensor in (t for t in tree.values() if isinstance(t, torch.Tensor)):
            assert tensor.sum() is not None  # every byte of it is there


def test_a_tree_without_what_a_run_needs_is_refused(runs: dict[str, Any], tmp_path: Path) -> None:
    folder, _ = runs["recommender"]
    shutil.copytree(folder, tmp_path / "copy")
    run = tmp_path / "copy" / "run"
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "out": str(run)}))
    path = run / "checkpoints" / "last.safetensors"
    tree = load_checkpoint(path)
    for name in tree:
        for replaced in (None, 3, [], {"x": torch.ones(1)}):
            changed = {**load_checkpoint(folder / "run" / "checkpoints" / "last.safetensors"), name: replaced}
            save_checkpoint(path, changed)
            with pytest.raises(CheckpointError, match=r"last\.safetensors"):
                Run.open(run).train(quiet=True, epochs=2)
    assert checkpoint.__all__ == ["load_checkpoint", "save_checkpoint"]
