"""Exports of runs whose loss does not rank classes by the outputs of the layer that is written."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from support.job_files import config_of

from widehead.errors import RankingWarning
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
