"""Every job from files to predictions: it learns what is there to learn, and its folder alone is enough to use it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.job_files import FILES, config_of
from support.small_run import log_without_timings, run_through_kills

from widehead.errors import CheckpointError, DataError
from widehead.jobs import JOBS, configure
from widehead.options import TrainingConfig
from widehead.runs import Run
from widehead.training import Outcome, read_metrics
from widehead.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Outcome]]:
    """One trained run of each job; the data files are gone but for the test files."""
    made = {}
    for job in FILES:
        folder = tmp_path_factory.mktemp(job)
        made[job] = (folder, Run.new(config_of(job, folder)).train(quiet=True))
        (folder / "train.txt").rename(folder / "moved.txt")
        shutil.move(folder / "run", folder / "elsewhere")
    return made


def test_every_job_is_tested() -> None:
    assert set(FILES) | {"demo"} == set(JOBS)


@pytest.mark.parametrize(
    ("job", "metric", "least"),
    [
        ("recommender", "recall@6", 0.9),
        ("language-model", "recall@1", 0.85),
        ("word-embeddings", "recall@10", 0.8),
        ("multilabel", "precision@1", 0.9),
        ("next-item", "recall@2", 0.95),
    ],
)
def test_jobs_learn_what_there_is_to_learn(runs: Any, job: str, metric: str, least: float) -> None:
    folder, outcome = runs[job]
    assert outcome.status == "finished"
    assert outcome.metrics[metric] >= least
    last = [line for line in read_metrics(folder / "elsewhere" / "metrics.jsonl") if line["kind"] == "evaluation"][-1]
    assert {k: last[k] for k in outcome.metrics} == outcome.metrics


@pytest.mark.parametrize("job", FILES)
def test_the_folder_alone_gives_the_same_metrics(runs: Any, job: str) -> None:
    folder, outcome = runs[job]
    run = Run.open(folder / "elsewhere")
    assert run.step == outcome.step
    assert not run.network.training
    assert run.evaluate(folder / "test.txt") == pytest.approx(dict(outcome.metrics), rel=1e-5)


@pytest.mark.parametrize("job", FILES)
def test_weights_come_back_exactly(runs: Any, job: str) -> None:
    folder, _ = runs[job]
    tree = load_checkpoint(folder / "elsewhere" / "checkpoints" / "last.safetensors")
    network = Run.open(folder / "elsewhere").network
    assert all(torch.equal(tree["encoder"][k], v) for k, v in network.encoder.state_dict().items())
    assert all(torch.equal(tree["head"][k], v) for k, v in network.head.state_dict().items())


def test_language_models_report_perplexity(runs: Any) -> None:
    _, outcome = runs["language-model"]
    assert 1.0 < outcome.metrics["perplexity"] < 10.0


def test_predictions_name_the_classes(runs: Any) -> None:
    folder = runs["recommender"][0]
    (folder / "input.txt").write_text("alice i0 i1 i2 i3 unheard\nbob i12 i13\n")
    alice, bob = Run.open(folder / "elsewhere").predict(folder / "input.txt", 5)
    assert (alice.name, bob.name) == ("alice", "bob")
    assert set(alice.classes) <= {f"i{i}" for i in range(4, 12)}
    assert set(bob.classes) <= {f"i{i}" for i in range(14, 24)}
    assert alice.scores == sorted(alice.scores, reverse=True)
    everything = next(Run.open(folder / "elsewhere").predict(folder / "input.txt", 1000))
    assert len(everything.classes) == 56  # 60 items, 4 of them known

    folder = runs["language-model"][0]
    (folder / "input.txt").write_text("w3 w4 w5 w6 w7\n\nw18\n")
    first, empty, second = Run.open(folder / "elsewhere").predict(folder / "input.txt", 1)
    assert (first.name, first.classes) == ("w3 w4 w5 w6 w7", ["w8"])
    assert (empty.name, empty.classes, empty.scores) == ("", [], [])
    assert second.classes == ["w19"]

    folder = runs["multilabel"][0]
    (folder / "input.txt").write_text("\tt3x1 t3x2 t3x3\n\tt8x0 t8x4\n")
    first, second = Run.open(folder / "elsewhere").predict(folder / "input.txt", 2)
    assert (set(first.classes), set(second.classes)) == ({"L3", "M1"}, {"L8", "M4"})


def test_losses_without_probabilities_report_the_mean_rank(tmp_path: Path) -> None:
    outcome = Run.new(config_of("language-model", tmp_path, loss="z-loss", epochs=2)).train(quiet=True)
    assert list(outcome.metrics) == ["mean_rank", "recall@1", "recall@10"]
    assert 1.0 <= outcome.metrics["mean_rank"] < 5.0


@pytest.mark.parametrize("job", FILES)
def test_without_a_test_file_part_of_the_data_is_held_out(tmp_path: Path, job: str) -> None:
    config = config_of(job, tmp_path, test=None, holdout=0.2, epochs=1)
    outcome = Run.new(config).train(quiet=True)
    assert outcome.metrics
    silent = Run.new(config_of(job, tmp_path, test=None, holdout=0.0, epochs=1, out=str(tmp_path / "b"))).train(
        quiet=True
    )
    assert silent.metrics == {}
    # Rows stay where they are users or words; elsewhere examples leave.
    assert (outcome.step < silent.step) == (job not in ("recommender", "word-embeddings"))


def test_the_demo_trains_on_the_thesaurus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from widehead.data import demo

    lines = [",".join([f"r{r}", *(f"s{(r % 4) * 8 + i}" for i in range(8))]) for r in range(60)]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    monkeypatch.setattr(demo, "thesaurus_path", lambda: tmp_path / "words.txt")
    config = configure("demo", out=str(tmp_path / "run"), width=8, epochs=30, batch_size=8, at=(5,))
    assert Run.new(config).train(quiet=True).metrics["recall@5"] > 0.9
    assert Run.open(tmp_path / "run").job.sizes == {"inputs": 32, "classes": 32}


def test_bad_data_leave_nothing_behind(tmp_path: Path) -> None:
    config = config_of("recommender", tmp_path)
    (tmp_path / "train.txt").write_text("u1 i1\nu2\ti2\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2"):
        Run.new(config).train(quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_in_it_is_refused_before_data_are_read(tmp_path: Path) -> None:
    config = config_of("recommender", tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "train.txt").unlink()
    with pytest.raises(CheckpointError, match="should be empty"):
        Run.new(config).train(quiet=True)


def test_cutoffs_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"number of classes, 60. Found 61"):
        Run.new(config_of("recommender", tmp_path, at=(61,))).train(quiet=True)
    assert not (tmp_path / "run").exists()


def test_resume_goes_on_with_new_limits_and_refuses_the_rest(tmp_path: Path) -> None:
    config = config_of("recommender", tmp_path, epochs=1, schedule="constant")
    Run.new(config).train(quiet=True)
    outcome = Run.open(tmp_path / "run").train(quiet=True, epochs=3)
    assert (outcome.status, outcome.epoch) == ("finished", 3.0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 3
    with pytest.raises(ValueError, match=r"may change.*'width'"):
        Run.open(tmp_path / "run").train(quiet=True, width=16)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Run.open(tmp_path / "nothing").train(quiet=True)


@pytest.mark.parametrize("job", FILES)
def test_resume_notices_that_the_data_changed(tmp_path: Path, job: str) -> None:
    Run.new(config_of(job, tmp_path, epochs=1, minimum_count=1)).train(quiet=True)
    text = (tmp_path / "train.txt").read_text()
    (tmp_path / "train.txt").write_text(text.rstrip("\n") + {"recommender": " i3"}.get(job, " brandnew") + "\n")
    with pytest.raises(CheckpointError, match="data changed"):
        Run.open(tmp_path / "run").train(quiet=True)


@pytest.mark.parametrize("damaged", ["items.txt", "users.txt", "history.safetensors"])
def test_damaged_vocabularies_are_refused(tmp_path: Path, damaged: str) -> None:
    Run.new(config_of("recommender", tmp_path, epochs=1)).train(quiet=True)
    path = tmp_path / "run" / "vocabularies" / damaged
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=damaged):
        Run.open(tmp_path / "run").train(quiet=True)
    if damaged == "history.safetensors":
        with pytest.raises(CheckpointError, match=damaged):
            Run.open(tmp_path / "run").network  # noqa: B018
    else:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-2]))
        with pytest.raises(CheckpointError, match=r"names|users and \d+ items beside it"):
            Run.open(tmp_path / "run").network  # noqa: B018


def begin_or_resume(config: TrainingConfig) -> None:
    torch.set_num_threads(1)
    if Path(config.out, "config.json").exists():
        Run.open(config.out).train(quiet=True)
    else:
        Run.new(config).train(quiet=True)


@pytest.mark.parametrize("job", ["recommender", "language-model"])
def test_killed_whole_runs_end_like_whole_ones(tmp_path: Path, job: str) -> None:
    options = {
        "checkpoint_every": "5 steps",
        "head_bias": True,
        "epochs": 12 if job == "recommender" else 3,
        "dropout": 0.1,
    }
    config = config_of(job, tmp_path, out=str(tmp_path / "parts"), **options)
    begin_or_resume(config_of(job, tmp_path, out=str(tmp_path / "whole"), **options))
    run_through_kills(begin_or_resume, (config,), seed=1, most=4, pause=(0.3, 0.9))
    assert log_without_timings(tmp_path / "parts") == log_without_timings(tmp_path / "whole")
    one, two = (load_checkpoint(tmp_path / n / "checkpoints" / "last.safetensors") for n in ("parts", "whole"))
    for part in ("encoder", "head"):
        assert all(torch.equal(one[part][name], two[part][name]) for name in two[part])


@pytest.mark.slow
def test_gowalla_learns(tmp_path: Path) -> None:
    """Real data: a few epochs rank far better than popularity (recall@20 0.05) does."""
    root = Path(os.environ.get("WIDEHEAD_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    data = root / "recommender" / "gowalla"
    if not data.exists():
        pytest.skip("gowalla is not here; set WIDEHEAD_DATA to the folder of data sets")
    config = configure(
        "recommender",
        train=str(data / "train.txt"),
        test=str(data / "test.txt"),
        out=str(tmp_path / "run"),
        epochs=6,
        evaluate_every="6 epochs",
    )
    assert Run.new(config).train(quiet=True).metrics["recall@20"] > 0.08
