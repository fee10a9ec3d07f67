"""Exports of runs whose loss does not rank classes by the outputs of the layer that is written."""

from __future__ import annotations

import importlib.util
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.job_files import config_of
from support.played import Device

from widehead.errors import RankingWarning
from widehead.heads import ExactHead
from widehead.optim import SGD
from widehead.runs import Run


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
