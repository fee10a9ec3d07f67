"""Commands on a GPU that the CPU plays: the same results, --device auto, and a device that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.cli_runs import Called, call, train
from support.played import Device


@pytest.mark.parametrize("job", ["recommender", "language-model"])
def test_a_run_on_a_gpu_is_that_of_the_cpu(
    job: str, played: Device, trained: dict[str, tuple[Path, Called]], tmp_path: Path
) -> None:
    made = train(job, tmp_path, "--json", "--device", "auto")
    assert made.code == 0, made.err
    assert "Device: cuda." in made.err
    run = tmp_path / "run"
    assert json.loads((run / "config.json").read_text())["device"] == "cuda"
    found, expected = json.loads(made.out)["metrics"], json.loads(trained[job][1].out)["metrics"]
    assert found == pytest.approx(expected, rel=0.2, abs=0.05)
    for device in ("auto", "cpu"):
        told = call("evaluate", run, "--json", "--device", device)
        assert json.loads(told.out) == pytest.approx(found, rel=1e-4)
        assert call("predict", run, tmp_path / "input.txt", "--device", device).code == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_without_a_gpu_auto_is_the_cpu(command: str, trained: dict[str, tuple[Path, Called]]) -> None:
    folder, _ = trained["recommender"]
    more = [folder / "input.txt"] if command == "predict" else []
    told = call(command, folder / "run", *more, "--device", "auto")
    assert (told.code, "Device: cpu." in told.err) == (0, True)
    for device in ("cuda", "meta", "gpu"):
        refused = call(command, folder / "run", *more, "--device", device)
        assert refused.code == 2
        assert f"no usable device '{device}'" in " ".join(refused.err.split())
