"""Every job from training to export and back, through the command line alone; ``--json`` is JSON and nothing else."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from support.cli_runs import FILES, JOBS, Called, assert_refused, call, train
from torch import Tensor, nn

from widehead.runs import Run
from widehead.runs.export import word2vec_names
from widehead.training import read_metrics
from widehead.training.checkpoint import load_checkpoint

Trained = dict[str, tuple[Path, Called]]
FORMATS = ("torch", "safetensors", "word2vec")


def only_json(called: Called) -> dict[str, Any]:
    """The object that a call with --json printed."""
    assert called.code == 0, called
    assert called.out.count("\n") == 1
    made: dict[str, Any] = json.loads(called.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize("job", FILES)
def test_training_tells_how_it_ended(job: str, trained: Trained) -> None:
    folder, called = trained[job]
    told = only_json(called)
    assert called.err == ""
    assert told["status"] == "finished"
    assert told["out"] == str(folder / "run")
    last = [record for record in read_metrics(folder / "run" / "metrics.jsonl") if record["kind"] == "evaluation"][-1]
    assert told["metrics"].items() <= last.items()
    assert Path(told["report"]) == folder / "run" / "report.html"


@pytest.mark.parametrize(
    ("job", "metric", "least"),
    [
        ("recommender", "recall@6", 0.8),
        ("language-model", "recall@1", 0.8),
        ("word-embeddings", "recall@10", 0.8),
        ("multilabel", "precision@1", 0.8),
        ("next-item", "recall@1", 0.8),
    ],
)
def test_evaluating_gives_what_training_saw(job: str, metric: str, least: float, trained: Trained) -> None:
    folder, called = trained[job]
    given = only_json(call("evaluate", folder / "run", "--test", folder / "test.txt", "--json"))
    own = only_json(call("evaluate", folder / "run", "--json"))
    assert own == given == pytest.approx(only_json(called)["metrics"], rel=1e-5)
    assert given[metric] >= least


def test_evaluating_at_other_cutoffs(trained: Trained) -> None:
    run = trained["recommender"][0] / "run"
    metrics = only_json(call("evaluate", run, "--at", "1,3", "--rank-at-most", "50", "--json"))
    assert list(metrics) == [f"{kind}@{k}" for k in (1, 3) for kind in ("recall", "ndcg", "precision")]


def test_evaluating_for_people(trained: Trained) -> None:
    called = call("evaluate", trained["language-model"][0] / "run")
    assert called.code == 0
    assert called.err == ""
    assert "perplexity" in called.out
    assert "recall@10" in called.out


def test_a_run_without_a_test_file_needs_one(tmp_path: Path) -> None:
    options = FILES["recommender"](tmp_path)
    data = ["train", "recommender", tmp_path / "train.txt", "--out", tmp_path / "run", "--quiet", *options]
    assert call(*data, "--epochs", "1").code == 0
    assert_refused(call("evaluate", tmp_path / "run"), "--test", "the run has no test file of its own")


PREDICTED = {
    "recommender": [("alice", {f"i{i}" for i in range(4, 12)}), ("bob", {f"i{i}" for i in range(14, 24)})],
    "language-model": [("w3 w4 w5 w6 w7", {"w8"}), ("w18", {"w19"})],
    "word-embeddings": [("w3 w4 w5 w6 w7", None), ("w18", None)],
    "multilabel": [("1", {"L3", "M1"}), ("2", {"L8", "M4"})],
    "next-item": [("i3 i4 i5", {"i6"}), ("unheard i18", {"i19"})],
}


@pytest.mark.parametrize("job", FILES)
def test_predictions(job: str, trained: Trained) -> None:
    folder = trained[job][0]
    top = {"recommender": "3", "multilabel": "2"}.get(job, "1")
    ask = ["predict", folder / "run", folder / "input.txt", "--top", top]
    predictions = only_json(call(*ask, "--json"))["predictions"]
    for prediction, (name, among) in zip(predictions, PREDICTED[job], strict=True):
        assert prediction["name"] == name
        assert len(prediction["classes"]) == len(prediction["scores"]) == int(top)
        assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
        assert among is None or set(prediction["classes"]) <= among
    for_people = call(*ask)
    lines = [f"{prediction['name']}: {', '.join(prediction['classes'])}\n" for prediction in predictions]
    assert (for_people.code, for_people.out, for_people.err) == (0, "".join(lines), "")


@pytest.mark.parametrize("job", FILES)
def test_standard_input_is_a_file_too(job: str, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained[job][0]
    from_file = call("predict", folder / "run", folder / "input.txt", "--json")
    with (folder / "input.txt").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert call("predict", folder / "run", "-", "--json") == from_file


def test_more_classes_than_there_are(trained: Trained) -> None:
    folder = trained["recommender"][0]
    ask = ["predict", folder / "run", folder / "input.txt", "--top", "1000", "--json"]
    assert len(only_json(call(*ask))["predictions"][0]["classes"]) == 56  # 60 items, 4 of them known


# -- export -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every job in every format."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for job, to in itertools.product(FILES, FORMATS):
        path = folder / f"{job}.{to}"
        told = only_json(call("export", trained[job][0] / "run", "--format", to, "--output", path, "--json"))
        assert told == {"format": to, "output": str(path), "bytes": path.stat().st_size}
        made[job, to] = path
    return made


def weights_of(trained: Trained, job: str) -> dict[str, Tensor]:
    network = Run.open(trained[job][0] / "run").network
    return {
        **{f"encoder.{name}": value for name, value in network.encoder.state_dict().items()},
        "head.weight": network.head.weight(),
    }


@pytest.mark.parametrize("job", FILES)
def test_torch_reads_the_export(job: str, trained: Trained, exported: Any) -> None:
    state = torch.load(exported[job, "torch"], weights_only=True)
    network = Run.open(trained[job][0] / "run").network
    plain = nn.Module()
    plain.encoder = network.encoder
    plain.head = nn.Linear(network.head.in_features, network.head.num_classes, bias=False)
    plain.load_state_dict(state)
    hidden = torch.randn(3, network.head.in_features)
    torch.testing.assert_close(plain.head(hidden), hidden @ network.head.weight().T)
    for name, value in weights_of(trained, job).items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize("job", FILES)
def test_safetensors_reads_the_export(job: str, trained: Trained, exported: Any) -> None:
    tensors = safetensors.torch.load_file(exported[job, "safetensors"])
    names = json.loads(bytes(tensors.pop("class_names").tolist()))
    run = Run.open(trained[job][0] / "run")
    assert names == list(run.job.class_names)
    assert len(names) == run.network.head.num_classes
    weights = weights_of(trained, job)
    assert tensors.keys() == weights.keys()
    assert all(torch.equal(tensors[name], value) for name, value in weights.items())
    with safetensors.safe_open(exported[job, "safetensors"], framework="pt") as opened:
        assert opened.metadata()["job"] == job


def read_word2vec(path: Path) -> dict[str, Tensor]:
    """As gensim reads it: sizes, then a name and its numbers on each line."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    count, width = (int(n) for n in first.split(" "))
    rows = [line.split(" ") for line in lines]
    assert len(rows) == count
    assert all(len(row) == width + 1 for row in rows)
    return {name: torch.tensor([float(n) for n in numbers]) for name, *numbers in rows}


@pytest.mark.parametrize("job", FILES)
def test_word2vec_text_reads_the_export(job: str, trained: Trained, exported: Any) -> None:
    vectors = read_word2vec(exported[job, "word2vec"])
    run = Run.open(trained[job][0] / "run")
    assert list(vectors) == word2vec_names(list(run.job.class_names))
    assert torch.equal(torch.stack(list(vectors.values())), run.network.head.weight())


def test_the_export_is_named_after_the_run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    called = call("export", trained["recommender"][0] / "run", "--format", "safetensors")
    assert called.out.startswith("run.safetensors: ")
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_faiss_finds_what_the_head_finds(trained: Trained, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    run = Run.open(trained["recommender"][0] / "run")
    assert call("export", run.folder.path, "--format", "faiss", "--output", tmp_path / "index").code == 0
    index = faiss.read_index(str(tmp_path / "index"))
    hidden = torch.randn(4, run.config.width)
    scores, ids = run.network.head.top_k(hidden, 5)
    found_scores, found = index.search(hidden.numpy(), 5)
    assert found.tolist() == ids.tolist()
    torch.testing.assert_close(torch.from_numpy(found_scores), scores)


def test_faiss_is_asked_for_where_it_is_absent(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run = trained["recommender"][0] / "run"
    called = call("export", run, "--format", "faiss", "--output", tmp_path / "index")
    assert_refused(called, 'pip install "widehead[retrieval]"')
    assert not any(tmp_path.iterdir())


def test_a_bias_is_exported(tmp_path: Path) -> None:
    assert train("recommender", tmp_path, "--epochs", "1", "--head-bias").code == 0
    assert call("export", tmp_path / "run", "--format", "torch", "--output", tmp_path / "w.pt").code == 0
    state = torch.load(tmp_path / "w.pt", weights_only=True)
    assert torch.equal(state["head.bias"], Run.open(tmp_path / "run").network.head.bias())


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", FILES)
def test_a_resumed_run_ends_like_a_whole_one(job: str, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(job, tmp_path / "whole", "--epochs", "3", "--json")
    assert train(job, tmp_path, "--epochs", "1").code == 0
    more = train(job, tmp_path, "--epochs", "3", "--resume", "--json")
    assert only_json(more)["metrics"] == only_json(whole)["metrics"]
    one, two = (
        load_checkpoint(tmp_path / where / "run" / "checkpoints" / "last.safetensors") for where in ("", "whole")
    )
    for part in ("encoder", "head"):
        assert all(torch.equal(one[part][name], two[part][name]) for name in two[part])


def test_resuming_needs_the_folder_alone(tmp_path: Path) -> None:
    assert train("recommender", tmp_path, "--epochs", "1").code == 0
    told = only_json(
        call("train", "recommender", "--out", tmp_path / "run", "--resume", "--epochs", "2", "--quiet", "--json")
    )
    assert told["epoch"] == 2.0


def test_a_finished_run_resumed_stays_as_it_is(tmp_path: Path) -> None:
    assert train("recommender", tmp_path, "--epochs", "1").code == 0
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    called = call("train", "recommender", "--out", tmp_path / "run", "--resume", "--quiet")
    assert called.code == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


def test_the_best_checkpoint(tmp_path: Path) -> None:
    assert train("recommender", tmp_path, "--epochs", "4", "--keep-best").code == 0
    best = only_json(call("evaluate", tmp_path / "run", "--best", "--json"))["recall@6"]
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert best == pytest.approx(max(record["recall@6"] for record in records if record["kind"] == "evaluation"))


def test_minutes_alone_end_a_run(tmp_path: Path) -> None:
    options = FILES["recommender"](tmp_path)
    del options[options.index("--epochs") : options.index("--epochs") + 2]
    data = [tmp_path / "train.txt", "--out", tmp_path / "run", "--quiet", "--json"]
    told = only_json(call("train", "recommender", *data, *options, "--minutes", "0.01"))
    assert told["seconds"] >= 0.6
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] is None


def test_loss_options_reach_the_loss(tmp_path: Path) -> None:
    more = ["--epochs", "1", "--loss", "z-loss", "--loss-options", "a=0.5", "--loss-options", "b=2"]
    called = train("recommender", tmp_path, *more, "--json")
    only_json(called)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loss_options"] == {"a": 0.5, "b": 2.0}


def test_a_failure_that_left_a_checkpoint_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widehead.training.loop.Trainer._evaluate", _fails)
    called = train("recommender", tmp_path, "--checkpoint-every", "2 steps", "--epochs", "1")
    assert_refused(called, "no more room")
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


def _fails(*arguments: Any) -> None:
    raise OSError(28, "no more room")


@pytest.mark.parametrize("job", JOBS)
def test_the_default_folder(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FILES[job](tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call("train", *JOBS[job], "train.txt", *options, "--epochs", "1", "--quiet", draws=True).code == 0
    assert "data:image/svg+xml" in (tmp_path / "runs" / job / "report.html").read_text()
