"""Exports of runs whose loss does not rank classes by the outputs of the layer that is written."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.cli_runs import call
from support.job_files import config_of
from support.played import Device

from widehead.errors import DataError, RankingWarning
from widehead.heads import ExactHead
from widehead.losses import WeightedSquaredError
from widehead.optim import SGD
from widehead.runs import Run
from widehead.search import recall


def trained(folder: Path, loss: str) -> Run:
    Run.new(config_of("recommender", folder, loss=loss, epochs=1)).train(quiet=True)
    return Run.open(folder / "run")


@pytest.mark.parametrize("loss", ["spherical-softmax", "taylor-softmax"])
def test_every_format_says_that_outputs_do_not_rank(loss: str, tmp_path: Path) -> None:
    run = trained(tmp_path, loss)
    for format in ("torch", "safetensors", "word2vec"):
        with pytest.warns(
            RankingWarning, match=rf"{loss} ranks classes by log\(.*\) with o = w·h, not by o.*to_scorer"
        ):
            run.export(format, tmp_path / format)
    hidden = torch.randn(5, run.config.width)
    head = run.network.head
    assert torch.equal(head.to_scorer()(hidden).topk(3).indices, head.top_k(hidden, 3)[1])


def test_nothing_is_said_if_they_do(tmp_path: Path) -> None:
    run = trained(tmp_path, "weighted-squared-error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.export("torch", tmp_path / "w.pt")


def test_autocast_does_not_round_what_is_written(tmp_path: Path) -> None:
    run = trained(tmp_path, "weighted-squared-error")
    head = run.network.head.train()
    assert isinstance(head, ExactHead)
    optimizer = SGD(head, lr=0.01)
    head(torch.randn(4, run.config.width, requires_grad=True), torch.arange(4)).backward()
    optimizer.step()  # now rows are read by products
    with torch.autocast("cpu", dtype=torch.bfloat16):
        path = run.export("torch", tmp_path / "w.pt")
    torch.testing.assert_close(torch.load(path, weights_only=True)["head.weight"], head.weight(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"head": "sampled", "loss": None}], ids=["exact", "sampled"])
def test_a_run_on_a_device_writes_the_same_files(played: Device, options: dict[str, Any], tmp_path: Path) -> None:
    Run.new(config_of("recommender", tmp_path, epochs=1, **options)).train(quiet=True)
    formats = ["torch", "safetensors", "word2vec", *(["faiss"] if importlib.util.find_spec("faiss") else [])]
    for format in formats:
        written = []
        for device in ("cpu", "cuda"):
            run = Run.open(tmp_path / "run", device=device)
            assert run.network.head.device.type == device
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RankingWarning)
                written.append(run.export(format, tmp_path / device))
        if format in ("torch", "safetensors"):
            read = load_file if format == "safetensors" else partial(torch.load, weights_only=True)
            here, there = (read(path) for path in written)
            assert here.keys() == there.keys()
            for name, tensor in here.items():
                assert type(there[name]) is torch.Tensor
                assert torch.equal(there[name], tensor), name
        else:
            assert written[0].read_bytes() == written[1].read_bytes()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("loss", ["weighted-squared-error", "spherical-softmax"])
def test_an_index_says_what_it_finds_and_ranks_as_it_says(kind: str, loss: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    run = trained(tmp_path, loss)
    said = call("export", tmp_path / "run", "--format", "faiss", "--index", kind, "--output", tmp_path / "a", "--json")
    told = json.loads(said.out)
    assert told["index"] == kind
    assert told["queries"] == "50 of the run's training inputs"
    index = faiss.read_index(str(tmp_path / "a"))
    assert told.get("nprobe", told.get("efSearch")) == (index.nprobe if kind == "ivf" else index.hnsw.efSearch)
    hidden = run.network.hidden(run.data.examples.batch(np.arange(len(run.data.examples)))[0]).detach()[1::2]
    outputs, ids = (torch.from_numpy(part) for part in index.search(hidden.numpy(), 10))
    head = run.network.head
    assert isinstance(head, ExactHead)
    if loss == "spherical-softmax":
        assert "search for h and for −h" in said.err
        negative, others = (torch.from_numpy(part) for part in index.search(-hidden.numpy(), 10))
        outputs, ids = torch.cat([outputs, -negative], dim=1), torch.cat([ids, others], dim=1)
        outputs = head.loss.ranking(outputs)
    else:
        assert said.err == ""
    found = ids.gather(1, outputs.topk(10, dim=1).indices)
    assert recall(found, head.top_k(hidden, 10)[1], 60) == pytest.approx(told["recall@10"], abs=0.03)
    assert told["recall@10"] > 0.9


def test_an_index_without_the_training_data_is_measured_on_rows(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    Run.new(config_of("multilabel", tmp_path, epochs=1)).train(quiet=True)
    (tmp_path / "train.txt").unlink()
    said = call("export", tmp_path / "run", "--format", "faiss", "--index", "ivf", "--output", tmp_path / "a")
    assert re.search(r"recall@10 [01]\.\d+ against exact, on 9 rows of W, as the training data are not there", said.out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "torch", "index": "ivf"}, "should be flat for other formats than faiss. Found ivf with torch"),
        ({"format": "faiss", "index": "lsh"}, "Parameter `index` should be"),
        ({"format": "faiss", "index": "ivf", "recall": 1.5}, r"`recall` should be in \(0, 1\]. Found 1.5"),
        ({"format": "onnx", "top": 0}, "`top` should be a whole number"),
    ],
    ids=str,
)
def test_wrong_options_of_an_export_write_nothing(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = trained(tmp_path, "weighted-squared-error")
    with pytest.raises(ValueError, match=said):
        run.export(path=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


class Wave(WeightedSquaredError):
    """A score that rises and falls."""

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.sin()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_index_that_would_rank_wrongly_is_refused(kind: str, tmp_path: Path) -> None:
    run = trained(tmp_path, "weighted-squared-error")
    head = run.network.head
    assert isinstance(head, ExactHead)
    head.loss = Wave()
    with pytest.raises(DataError, match="Found Wave, which ranks by the score of Wave"):
        run.export("faiss", tmp_path / "out", index=kind)
    tree = tmp_path / "tree"
    tree.mkdir()
    Run.new(config_of("recommender", tree, epochs=1, head="hierarchical", loss=None)).train(quiet=True)
    with pytest.raises(DataError, match="one row of weights for each class"):
        Run.open(tree / "run").index(kind)
