"""Sequences that are held out to choose by train the network in the last part of a run, whatever ends it meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.chosen import whole_and_in_parts
from support.sessions import run_in, write_walks
from support.small_run import log_without_timings

from widehead.errors import CheckpointError, RankingWarning
from widehead.jobs import configure, next_item
from widehead.jobs.session_votes import SessionVotes, SessionWeights
from widehead.runs import Run
from widehead.runs.start import frequencies_of, read_data
from widehead.serving.service import Request, Service
from widehead.training.checkpoint import load_checkpoint

JOINS = 26  # steps: four fifths of two passes of 16, rounded up


@pytest.mark.parametrize("stop", [5, JOINS, JOINS + 2])
def test_runs_say_the_same_after_they_are_loaded_resumed_or_served(stop: int, tmp_path: Path) -> None:
    write_walks(tmp_path)
    whole, said = whole_and_in_parts(run_in, tmp_path / "test.txt", stop)
    rows = [line.split() for line in (tmp_path / "test.txt").read_text().splitlines()[:5]]
    answers = Service(whole).answer([Request("names", rows, 3)])[0]
    assert isinstance(answers, list)
    assert [answer.classes for answer in answers] == [classes for classes, _ in said[:5]]
    with pytest.warns(RankingWarning, match="the network alone.*training documents, sequences or users"):
        whole.export("torch", tmp_path / "network.pt")
    assert "votes of later places" in whole.report().read_text(encoding="utf-8")


def test_what_was_chosen_before_all_sequences_trained_stays(tmp_path: Path) -> None:
    """Nothing is left to choose by; a run that goes on needs what was chosen."""
    write_walks(tmp_path)
    run, path = run_in(tmp_path), tmp_path / "run" / "neighbours.json"
    text, step = path.read_bytes(), run.step
    run.train(quiet=True, epochs=2)
    assert run.step > step
    assert path.read_bytes() == text
    assert run.network.beside is not None
    report = run.report().read_text(encoding="utf-8")
    count = 2_156 + (next_item._TIMES - 1) * 107
    assert f"From step 13 on a pass had {count:,} examples, with those that had been held out" in report
    path.unlink()
    with pytest.raises(CheckpointError, match=r"neighbours\.json should be there.*Put the file back, or start"):
        run.train(quiet=True, epochs=3)
    with pytest.warns(RankingWarning, match="network alone"):
        assert Run.open(tmp_path / "run").network.beside is None


@pytest.mark.parametrize("head", ["full", "exact"])
@pytest.mark.parametrize("dies", ["choosing", "chosen", "joined", "train"])
def test_a_run_that_dies_about_the_choice_is_that_which_did_not(
    head: str, dies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_walks(tmp_path)
    options = {"head": head, "epochs": 2, "log_every": 1, "checkpoint_every": "4 steps", "hidden_norm": None}
    run_in(tmp_path, "whole", **options)
    choose = SessionVotes.chosen

    class Killed(BaseException):
        """In the place of a kill."""

    def chosen(*given: Any) -> SessionWeights:
        if dies == "choosing":
            raise Killed
        return choose(*given)

    def write(self: SessionWeights, path: Path) -> None:
        raise Killed

    def hear(_: Any, record: dict[str, Any]) -> None:
        if record["kind"] == dies and record["step"] >= JOINS:
            raise Killed

    files = {"train": str(tmp_path / "train.txt"), "out": str(tmp_path / "parts")}
    run = Run.new(configure("next-item", **files, width=4, at=(1, 5), **options))
    with monkeypatch.context() as patch:
        patch.setattr(SessionVotes, "chosen", chosen)
        if dies == "chosen":
            patch.setattr(SessionWeights, "write", write)
        with pytest.raises(Killed):
            run.train(quiet=True, on_log=hear)
    Run.open(tmp_path / "parts").train(quiet=True)
    trees = [load_checkpoint(tmp_path / out / "checkpoints" / "last.safetensors") for out in ("whole", "parts")]
    one, two = ([tree["encoder"], tree["head"], tree["random"]] for tree in trees)
    for part, other in zip(one, two, strict=True):
        tensors = [name for name, value in part.items() if isinstance(value, torch.Tensor)]
        assert tensors
        assert all(torch.equal(part[name], other[name]) for name in tensors)
    choices = [(tmp_path / out / "neighbours.json").read_bytes() for out in ("whole", "parts")]
    assert choices[0] == choices[1]
    assert log_without_timings(tmp_path / "whole") == log_without_timings(tmp_path / "parts")
    assert trees[0]["position"]["joined"]


def test_without_neighbours_all_sequences_train_from_the_start(tmp_path: Path) -> None:
    write_walks(tmp_path)
    run = run_in(tmp_path, neighbours=0, holdout=0.0)
    assert (len(run.data.examples), run.data.joining) == (2_200, None)
    assert {record["kind"] for record in log_without_timings(tmp_path / "run")} == {"train"}


def test_items_that_held_sequences_alone_have_are_drawn_too(tmp_path: Path) -> None:
    """Else sampled softmax would take them for rarer than they become as targets."""
    (tmp_path / "train.txt").write_text("\n".join(f"a{i % 9} b{i % 7} c{i}" for i in range(2_500)))
    files = {"train": str(tmp_path / "train.txt"), "out": str(tmp_path / "run")}
    config = configure("next-item", **files, width=4, holdout=0.0)
    data = read_data(config)
    found = frequencies_of(config, data)
    assert found is not None
    first, last = (data.job.class_names.index(f"c{i}") for i in (0, 2_499))
    assert (found[first], found[last]) == (1.0, next_item._TIMES)
    assert found[data.job.class_names.index("a0")] == 0.0
