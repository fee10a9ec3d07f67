"""Runs of several processes: those of one process, in whatever number they go on, and what all refuse."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import several_runs, torchrun
from support.chosen import rooms, write_parts
from support.cli_runs import JOBS
from support.several import Several
from support.small_run import PROCESSES

from widehead.jobs.candidates import Choice
from widehead.jobs.probe import Probe
from widehead.jobs.session_votes import SessionWeights
from widehead.jobs.trial import Trial
from widehead.jobs.user_votes import FEWEST
from widehead.runs import Run
from widehead.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.long

# Without dropout, as the units that are dropped are others in another number of processes.
CASES: dict[str, dict[str, Any]] = {
    "recommender": {"preset": "trained", "input_dropout": 0.0},
    "language-model": {"dropout": 0.0},
    "word-embeddings": {},
    "multilabel": {"preset": "trained", "input_dropout": 0.0, "dropout": 0.0, "encoder_max_grad_norm": 0.1},
    "next-item": {"preset": "exact", "input_dropout": 0.0, "dropout": 0.0},
}


def state_of(out: Path) -> list[torch.Tensor]:
    network = Run.open(out).network
    head = [network.head.weight()] if hasattr(network.head, "weight") else list(network.head.parameters())
    return [*head, *network.encoder.state_dict().values()]


def assert_near(out: Path, beside: Path, limit: float = 1e-9, kinds: tuple[str, ...] = ("train", "evaluation")) -> None:
    for found, expected in zip(state_of(out), state_of(beside), strict=True):
        assert float((found - expected).abs().max()) <= limit * float(expected.abs().max())
    logs = ([record for record in several_runs.log_of(place) if record["kind"] in kinds] for place in (out, beside))
    for record, known in zip(*logs, strict=True):
        assert record.pop("kind") == known.pop("kind")
        assert record == pytest.approx(known, rel=1e-7, nan_ok=True)


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_make_the_run_of_one(several: Several, tmp_path: Path, job: str) -> None:
    several_runs.make_files(job, tmp_path)
    several_runs.begin(None, job, tmp_path, "one", CASES[job])
    answers = several.run(2, several_runs.begin, job, tmp_path, "two", CASES[job])
    assert answers[0] == answers[1]  # the encoders too, to the last bit
    assert answers[0][0] is not None
    assert_near(tmp_path / "two", tmp_path / "one")
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    kept = sorted(path for path in (tmp_path / "one" / "vocabularies").iterdir())
    assert kept
    for path in kept:  # of data that each process has a share of, too
        assert path.read_bytes() == (tmp_path / "two" / "vocabularies" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("job", "train", "test"),
    [
        ("recommender", "a x y z\nb y z", "a w\nb x"),
        ("multilabel", "l0\ta b c\nl1 l0\tb c\nl2\ta d", "l0\ta b c\n\tb\nl7\tz"),
        ("next-item", "a b c\nb c\n", "a b\n\nb z\n"),
        ("language-model", "a b a", "b a"),
    ],
)
def test_more_processes_than_examples_and_classes(
    several: Several, tmp_path: Path, job: str, train: str, test: str
) -> None:
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "test.txt").write_text(test)
    more = {**CASES[job], "epochs": 2, "at": (2,)}
    more |= {"minimum_count": 1} if job in ("multilabel", "language-model") else {}
    several_runs.begin(None, job, tmp_path, "one", more)
    answers = several.run(4, several_runs.begin, job, tmp_path, "four", more)
    assert all(answer == answers[0] for answer in answers)
    assert_near(tmp_path / "four", tmp_path / "one")


@pytest.mark.parametrize(
    "more", [{"head_optimizer": "sgd", "head_momentum": 0.9, "head_bias": True}, {"head_optimizer": "muon"}]
)
def test_other_optimizers(several: Several, tmp_path: Path, more: dict[str, Any]) -> None:
    more = {**CASES["recommender"], "rank_at_most": 30, **more}
    several_runs.make_files("recommender", tmp_path)
    several_runs.begin(None, "recommender", tmp_path, "one", more)
    several.run(3, several_runs.begin, "recommender", tmp_path, "three", more)
    assert_near(tmp_path / "three", tmp_path / "one")


HEADS: dict[str, dict[str, Any]] = {
    "full": {},
    "sampled": {"sampler": "in-batch"},
    "hierarchical": {},
    "adaptive": {"div_value": 2.0},
}


def of_head(head: str, **options: Any) -> dict[str, Any]:
    more = {"head": head, "head_options": options, "loss": None, "head_optimizer": "adam", "head_damping": None}
    return {**CASES["recommender"], **more, "head_lr": 0.02, "rank_at_most": 30}


@pytest.mark.parametrize("head", HEADS)
def test_other_heads(several: Several, tmp_path: Path, head: str) -> None:
    more = {**of_head(head, **HEADS[head]), "head_max_grad_norm": 0.05, "head_bias": True}
    several_runs.make_files("recommender", tmp_path)
    several_runs.begin(None, "recommender", tmp_path, "one", more)
    answers = several.run(2, several_runs.begin, "recommender", tmp_path, "two", more)
    assert answers[0] == answers[1]
    assert_near(tmp_path / "two", tmp_path / "one")


def losses_of_one_that_died(several: Several, job: str, folder: Path, more: dict[str, Any]) -> list[float]:
    """Of a run of two processes that died, ended like one that did not, and went on in three processes and in one."""
    more = {**more, "epochs": 2, "log_every": 1, "checkpoint_every": "2 steps"}
    several_runs.make_files(job, folder)
    several.run(2, several_runs.begin, job, folder, "whole", more)
    outcome, _ = several.run(2, several_runs.begin, job, folder, "dies", more, 5)[0]
    assert outcome is None, "it should have died"
    several.run(2, several_runs.go_on, folder, "dies", {})
    assert all(map(torch.equal, state_of(folder / "dies"), state_of(folder / "whole")))
    assert several_runs.log_of(folder / "dies") == several_runs.log_of(folder / "whole")
    several.run(3, several_runs.go_on, folder, "dies", {"epochs": 3})
    several_runs.go_on(None, folder, "dies", {"epochs": 4})
    return [record["loss"] for record in several_runs.log_of(folder / "dies") if record["kind"] == "train"]


@pytest.mark.parametrize("head", ["sampled", "noise-contrastive", "negative-sampling", "blackout", "retrieved"])
def test_a_run_of_drawn_classes_that_died_is_that_which_did_not(several: Several, tmp_path: Path, head: str) -> None:
    own = {"retrieved": {"retrieved": 4, "tail": 4}, "negative-sampling": {}}.get(head, {"negatives": 7})
    losses = losses_of_one_that_died(several, "recommender", tmp_path, of_head(head, **own))
    assert losses[-1] < losses[0]


def test_rows_in_files(several: Several, tmp_path: Path) -> None:
    more = {**CASES["recommender"], "rank_at_most": 30, "schedule": "constant"}
    more |= {"head_optimizer": "sgd", "head_momentum": 0.9}
    several_runs.make_files("recommender", tmp_path)
    several_runs.begin(None, "recommender", tmp_path, "one", {**more, "epochs": 3})
    more |= {"head_storage": str(tmp_path / "rows"), "log_every": 1, "checkpoint_every": "2 steps"}
    several.run(2, several_runs.begin, "recommender", tmp_path, "two", more, 3)
    assert {path.name for path in tmp_path.glob("rows*")} == {"rows.0", "rows.1"}
    found = several.run(2, several_runs.refused, "recommender", [tmp_path] * 2, "other", more)
    assert found[0] == found[1]
    assert f"Found {tmp_path / 'rows.0'}: delete it" in found[0][1]
    several.run(3, several_runs.go_on, tmp_path, "two", {"epochs": 2})
    assert {path.name for path in tmp_path.glob("rows*")} == {"rows.0", "rows.1", "rows.2"}
    several_runs.go_on(None, tmp_path, "two", {"epochs": 3})
    assert {path.name for path in tmp_path.glob("rows*")} == {"rows"}
    assert_near(tmp_path / "two", tmp_path / "one", kinds=())


def test_numbers_that_are_not_finite_stop_all(several: Several, tmp_path: Path) -> None:
    several_runs.make_files("recommender", tmp_path)
    more = {"preset": "trained", "head_optimizer": "sgd", "head_lr": 1e30}
    found = several.run(2, several_runs.refused, "recommender", [tmp_path] * 2, str(tmp_path / "run"), more)
    assert found[0] == found[1]
    assert found[0][0] == "NonFiniteError"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("job", "more"),
    [
        ("recommender", {"preset": "svd", "holdout": 0.3, "rank_at_most": 20, "encoder_init": "svd"}),
        ("recommender", {"preset": "trained", "holdout": 0.3, "head_optimizer": "sgd", "input_dropout": 0.0}),
        ("multilabel", {"preset": "axes", "holdout": 0.2, "neighbours": 5, "hidden": ()}),
    ],
)
def test_parts_that_are_held_out(several: Several, tmp_path: Path, job: str, more: dict[str, Any]) -> None:
    """Of data of which each process keeps a share; documents to choose neighbours by among them."""
    several_runs.make_files(job, tmp_path)
    if job == "multilabel":
        chance = random.Random(3)
        words = [[chance.randrange(40) for _ in range(5)] for _ in range(1_400)]
        lines = [f"l{min(row) % 9} l{max(row) % 9}\t" + " ".join(f"w{word}" for word in row) for row in words]
        (tmp_path / "train.txt").write_text("\n".join(lines))
    several_runs.begin(None, job, tmp_path, "one", more)
    answers = several.run(3, several_runs.begin, job, tmp_path, "three", more)
    assert answers[0] == answers[1] == answers[2]
    by_axes = job == "multilabel"  # which are found in float32, whatever the network has
    assert_near(tmp_path / "three", tmp_path / "one", *((1e-6, ("evaluation",)) if by_axes else ()))
    kept = sorted((tmp_path / "one" / "vocabularies").iterdir())
    assert len(kept) == 3
    for path in kept:
        assert path.read_bytes() == (tmp_path / "three" / "vocabularies" / path.name).read_bytes()


def of_sessions(folder: Path) -> dict[str, Any]:
    """Enough of them that some, and last items of others, are kept to choose by, in a table with times; a long one."""
    chance, rows = random.Random(8), []
    for session in range(2_500):
        start, length = chance.randrange(20), {5: 90, 7: 1}.get(session, chance.randrange(4, 7))
        rows += [(f"s{session}", f"i{(start + j) % 20}", chance.random()) for j in range(length)]
    chance.shuffle(rows)
    (folder / "train.txt").write_text("session,item,time\n" + "\n".join(",".join(map(str, row)) for row in rows))
    more = {**CASES["next-item"], "batch_size": 300, "context": 8, "rank_at_most": 30}
    return {**more, "preset": "sampled", "tied": False, "head": "full", "head_options": {}, "neighbours": 5}


@pytest.mark.parametrize("job", ["next-item", "language-model"])
def test_sequences_that_are_held_out(several: Several, tmp_path: Path, job: str) -> None:
    several_runs.make_files(job, tmp_path)
    more = of_sessions(tmp_path) if job == "next-item" else {**CASES[job], "encoder": "gru", "input_dropout": 0.0}
    more |= {"holdout": 0.1} | (
        {} if job == "next-item" else {"tied": False, "head": "full", "head_options": {}, "loss": None}
    )
    more |= {"schedule": "constant"}
    several_runs.begin(None, job, tmp_path, "one", more)
    answers = several.run(3, several_runs.begin, job, tmp_path, "three", more)
    assert answers[0] == answers[1] == answers[2]
    kept = sorted((tmp_path / "one" / "vocabularies").iterdir())
    assert len(kept) == (2 if job == "next-item" else 1)
    for path in kept:
        assert path.read_bytes() == (tmp_path / "three" / "vocabularies" / path.name).read_bytes()
    assert_near(tmp_path / "three", tmp_path / "one")
    several.run(2, several_runs.go_on, tmp_path, "three", {"epochs": 2})
    several_runs.go_on(None, tmp_path, "one", {"epochs": 2})
    assert_near(tmp_path / "three", tmp_path / "one", kinds=("evaluation",))


def test_sequences_that_chose_train_in_several_processes_too(several: Several, tmp_path: Path) -> None:
    """The first one chooses; a run that died there, or was stopped before, is the one that did not."""
    more = of_sessions(tmp_path) | {"holdout": 0.1, "epochs": 2, "log_every": 1, "checkpoint_every": "3 steps"}
    several_runs.begin(None, "next-item", tmp_path, "one", more)
    several.run(2, several_runs.begin, "next-item", tmp_path, "two", more)
    log = several_runs.log_of(tmp_path / "two")
    at = [record["kind"] for record in log].index("joined")
    assert log[at]["step"] < log[-1]["step"]
    assert_near(tmp_path / "two", tmp_path / "one", kinds=("train", "evaluation", "joined"))
    choices = [SessionWeights.read(tmp_path / out / "neighbours.json") for out in ("one", "two")]
    assert choices[0] is not None
    assert choices[1] is not None
    assert choices[0].helps
    assert choices[1].by_kind() == pytest.approx(choices[0].by_kind(), rel=1e-4)
    said = [next(Run.open(tmp_path / out).predict([["i3", "i4", "i5"]], 3)) for out in ("one", "two")]
    assert said[0].classes == said[1].classes
    for stop in (at - 1, at + 1, at + 2):  # records, of which the last one is of the moment of death
        out = f"dies{stop}"
        assert several.run(2, several_runs.begin, "next-item", tmp_path, out, more, stop)[0][0] is None
        several.run(2, several_runs.go_on, tmp_path, out, {})
        assert all(map(torch.equal, state_of(tmp_path / out), state_of(tmp_path / "two")))
        assert several_runs.log_of(tmp_path / out) == log
        assert SessionWeights.read(tmp_path / out / "neighbours.json") == choices[1]


def test_documents_choose_as_training_ends_in_several_processes_too(several: Several, tmp_path: Path) -> None:
    """The first one, with the documents of all, which also writes the classifiers; a run that goes on chooses anew."""
    chance, rows = random.Random(9), []
    for document in range(1_300):
        noise = " ".join(f"w{word}" for word in sorted(chance.sample(range(40), 12)))
        rows.append(f"label{document % 300}\t{noise} rare{document % 300}\n")
    (tmp_path / "train.txt").write_text("".join(rows[:1_200]))
    (tmp_path / "test.txt").write_text("".join(rows[1_200:]))
    more = {"preset": "axes", "loss": "squared-error", "width": 4, "hidden": (), "neighbours": 10, "at": (1,)}
    (_, ended), _ = several_runs.begin(None, "multilabel", tmp_path, "one", more)
    answers = several.run(3, several_runs.begin, "multilabel", tmp_path, "three", more)
    alone = answers[0][0][1]
    assert_near(tmp_path / "three", tmp_path / "one", 1e-5, kinds=())  # axes are made in float32
    assert answers[0] == answers[1] == answers[2]
    choices = [Choice.read(tmp_path / out / "neighbours.json") for out in ("one", "three")]
    assert choices[0] is not None
    assert choices[0].takes_margins
    assert choices[1] is not None
    numbers = [{name: value for name, value in vars(one).items() if isinstance(value, float)} for one in choices]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-4)
    assert Run.open(tmp_path / "three").evaluate() == pytest.approx(ended)
    assert ended["precision@1"] > 0.9 > 0.5 > alone["precision@1"]
    several.run(2, several_runs.go_on, tmp_path, "three", {"epochs": 2})
    assert Choice.read(tmp_path / "three" / "neighbours.json") is not None
    said = several.run(2, several_runs.told, "multilabel", tmp_path, "two", more)
    assert ["metrics are of the network alone" in text for text in said] == [True, False]


def test_users_who_are_near_are_chosen_in_several_processes_too(several: Several, tmp_path: Path) -> None:
    """Whether they should rank is tried before, as by one process; what they count is chosen as training ends."""
    write_parts(tmp_path, rooms(1_300, 130))
    more = {"preset": "svd", "width": 4, "encoder_lr": 0.0, "neighbours": -1, "direct": 0.0, "at": (3,)}
    (_, ended), _ = several_runs.begin(None, "recommender", tmp_path, "one", more)
    (_, alone), _ = several.run(3, several_runs.begin, "recommender", tmp_path, "three", more)[0]
    assert_near(tmp_path / "three", tmp_path / "one", kinds=("train",))
    runs = [Run.open(tmp_path / out) for out in ("one", "three")]
    assert [run.config.neighbours for run in runs] == [500, 500]
    probes = [Probe.read(tmp_path / out / "probe.json") for out in ("one", "three")]
    assert probes[0] is not None
    assert probes[1] is not None
    assert probes[1].after == pytest.approx(probes[0].after)
    assert replace(probes[1], before={}, after={}) == replace(probes[0], before={}, after={})
    assert runs[1].evaluate() == pytest.approx(ended, abs=0.01)  # items of a room are nearly alike
    assert ended["recall@3"] > 0.9 > 0.5 > alone["recall@3"]


def test_the_default_recommender(several: Several, tmp_path: Path) -> None:
    several_runs.make_files("recommender", tmp_path)
    more = {"preset": "svd", "encoder_lr": 0.0}
    several_runs.begin(None, "recommender", tmp_path, "one", more)
    several.run(3, several_runs.begin, "recommender", tmp_path, "three", more)
    assert_near(tmp_path / "three", tmp_path / "one")


def test_a_direct_term_ranks_whoever_trained(several: Several, tmp_path: Path) -> None:
    """Several processes try together what it weighs; their run answers with it in one process."""
    write_parts(tmp_path, rooms(FEWEST, 100))
    more = {"preset": "svd", "width": 2, "encoder_lr": 0.0, "neighbours": 0, "direct": -1.0, "at": (1, 3)}
    (_, ended), _ = several_runs.begin(None, "recommender", tmp_path, "one", more)
    (_, alone), _ = several.run(3, several_runs.begin, "recommender", tmp_path, "three", more)[0]
    said = several.run(2, several_runs.told, "recommender", tmp_path, "two", more)
    assert ["metrics are of the network alone" in text for text in said] == [True, False]
    runs = [Run.open(tmp_path / out) for out in ("one", "three")]
    tried = [Trial.read(tmp_path / out / "trial.json") for out in ("one", "two", "three")]
    assert_same_trial(tried[1], tried[0])
    assert_same_trial(tried[2], tried[0])
    assert runs[0].config.direct == runs[1].config.direct > 0.0
    found = [run.evaluate() for run in runs]
    assert found[0] == ended
    assert found[1] == pytest.approx(ended, abs=0.01)  # scores that are nearly alike
    assert ended["recall@3"] > 0.6 > 0.3 > alone["recall@3"]


def test_several_processes_try_the_widths_of_one(several: Several, tmp_path: Path) -> None:
    write_parts(tmp_path, rooms(400, 300))
    more = {"preset": "svd", "width": 0, "encoder_lr": 0.0, "neighbours": 0, "direct": 0.0, "at": (2,)}
    several_runs.begin(None, "recommender", tmp_path, "one", more)
    several.run(3, several_runs.begin, "recommender", tmp_path, "three", more)
    alone, together = (Trial.read(tmp_path / out / "trial.json") for out in ("one", "three"))
    assert alone is not None
    assert len(alone.race) > 1
    assert_same_trial(together, alone)
    assert_near(tmp_path / "three", tmp_path / "one")


def assert_same_trial(found: Trial | None, expected: Trial | None) -> None:
    """But for the rounding of metrics."""
    assert found is not None
    assert expected is not None
    assert replace(found, race=[]) == replace(expected, race=[])
    assert np.array(found.race) == pytest.approx(np.array(expected.race), abs=1e-6)


def test_it_goes_on_in_another_number_of_processes(several: Several, tmp_path: Path) -> None:
    job, more = "recommender", {**CASES["recommender"], "schedule": "constant", "batch_size": 33}  # a last batch of one
    several_runs.make_files(job, tmp_path)
    several_runs.begin(None, job, tmp_path, "one", {**more, "epochs": 4})
    several.run(2, several_runs.begin, job, tmp_path, "all", more)
    several_runs.go_on(None, tmp_path, "all", {"epochs": 2})
    several.run(3, several_runs.go_on, tmp_path, "all", {"epochs": 3})
    several.run(4, several_runs.go_on, tmp_path, "all", {"epochs": 4})
    assert_near(tmp_path / "all", tmp_path / "one", kinds=("evaluation",))


@pytest.mark.parametrize("job", ["recommender", "multilabel"])
def test_states_from_some_processes_to_others_and_back(several: Several, tmp_path: Path, job: str) -> None:
    """To the last bit: rows of the encoder, which each process has a part of, and what its optimiser keeps of them."""
    several_runs.make_files(job, tmp_path)
    several.run(2, several_runs.begin, job, tmp_path, "run", CASES[job])
    checkpoint, names = tmp_path / "run" / "checkpoints" / "last.safetensors", ["from-2"]
    shutil.copy(checkpoint, tmp_path / names[0])
    for count in (3, 1, 2):
        names.append(f"{names[-1]}-{count}")
        parts = several.run(count, several_runs.resaved, tmp_path, "run", names[-1])
        assert sum(here for here, _ in parts) == parts[0][1]
        assert max(here for here, _ in parts) == -(-parts[0][1] // count)
        shutil.copy(tmp_path / names[-1], checkpoint)
    trees = [load_checkpoint(tmp_path / name) for name in names]
    first, *others = [[*tensors_of(tree["encoder"]), *tensors_of(tree["encoder_optimizer"])] for tree in trees]
    assert len(first) >= 3
    for other in others:
        assert len(other) == len(first)
        assert all(map(torch.equal, first, other))


def tensors_of(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_a_run_that_died_is_that_which_did_not(several: Several, tmp_path: Path) -> None:
    job = "recommender"
    more = {"preset": "trained", "input_dropout": 0.5, "dropout": 0.2, "dtype": "float32", "epochs": 3, "log_every": 1}
    more |= {"checkpoint_every": "3 steps", "keep_best": True, "head_max_grad_norm": 1.0}
    several_runs.make_files(job, tmp_path)
    several.run(3, several_runs.begin, job, tmp_path, "whole", more)
    several.run(3, several_runs.begin, job, tmp_path, "dies", more, 5)
    shutil.copytree(tmp_path / "dies", tmp_path / "alone")
    several.run(3, several_runs.go_on, tmp_path, "dies", {}, 4)
    several.run(3, several_runs.go_on, tmp_path, "dies", {})
    assert all(map(torch.equal, state_of(tmp_path / "dies"), state_of(tmp_path / "whole")))
    assert several_runs.log_of(tmp_path / "dies") == several_runs.log_of(tmp_path / "whole")
    several_runs.go_on(None, tmp_path, "alone", {})
    assert not all(map(torch.equal, state_of(tmp_path / "alone"), state_of(tmp_path / "whole")))


def test_what_one_process_cannot_do_no_process_does(several: Several, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        several_runs.make_files("recommender", folder)
    more = {"preset": "trained"}
    (folders[1] / "train.txt").write_text((folders[0] / "train.txt").read_text() + "u0 i3\n")
    found = several.run(2, several_runs.refused, "recommender", folders, str(tmp_path / "run"), more)
    assert found[0] == found[1]
    assert found[0][0] == "ProcessesError"
    assert "the same training data. Found check sum" in found[0][1]
    (folders[1] / "train.txt").unlink()
    (mine, told), (theirs, said) = several.run(
        2, several_runs.refused, "recommender", folders, str(tmp_path / "run"), more
    )
    assert (mine, theirs, told) == ("ProcessesError", "DataError", f"Rank 1: {said}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("job", JOBS)
def test_what_one_process_cannot_read_all_refuse(several: Several, tmp_path: Path, job: str) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        several_runs.make_files(job, folder)
    run = str(tmp_path / "run")
    first, second = several.run(2, several_runs.unread, job, folders[0], run, CASES[job])
    assert (first, second) == (("ProcessesError", "Rank 1: a disk that fails"), ("OSError", "a disk that fails"))
    (folders[1] / "test.txt").write_bytes(b"\xff\x00")
    (mine, told), (theirs, said) = several.run(2, several_runs.refused, job, folders, run, CASES[job])
    assert (mine, theirs, told) == ("ProcessesError", "DataError", f"Rank 1: {said}")
    assert str(folders[1] / "test.txt") in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"head": "sampled", "head_options": {"sampler": "quadratic"}, "loss": None}, "should not be split over"),
        ({"device": "cuda"}, "`device` should be cpu"),
    ],
)
def test_options_of_one_process(several: Several, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    several_runs.make_files("recommender", tmp_path)
    found = several.run(2, several_runs.refused, "recommender", [tmp_path] * 2, "run", {"preset": "trained", **more})
    assert found[0] == found[1]
    assert found[0][0] == "ValueError"
    assert said in found[0][1]
    assert not (tmp_path / "run").exists()


def survives(several: Several, folder: Path, kills: int, epochs: int, seed: int) -> list[str]:
    """Kill one of two processes, start both again, and so on: the run that nobody killed comes out."""
    more = {"preset": "trained", "dtype": "float32", "epochs": epochs, "log_every": 5, "checkpoint_every": "9 steps"}
    more |= {"head_max_grad_norm": 1.0, "dropout": 0.2, "evaluate_every": "10 epochs"}
    several_runs.make_files("recommender", folder)
    several.run(2, several_runs.begin, "recommender", folder, "whole", more)
    chance, told, run = random.Random(seed), list[str](), folder / "killed"
    codes: list[int | None] = []
    while codes != [0, 0]:
        begin = torchrun.stamp(run / "checkpoints" / "last.safetensors")
        arguments = (2, str(folder / f"meet{len(told)}"), "recommender", folder, "killed", more)
        workers = [PROCESSES.Process(target=several_runs.live_or_die, args=(rank, *arguments)) for rank in range(2)]
        for worker in workers:
            worker.start()
        if len(told) < kills:
            pids = [worker.pid for worker in workers if worker.pid is not None]
            told.append(torchrun.kill_one(pids, run, begin, chance, in_save=len(told) % 2 == 1))
        for worker in workers:
            worker.join(300.0)
        codes = [worker.exitcode for worker in workers]
        assert set(codes) <= {0, 3, -signal.SIGKILL}, codes
    assert all(map(torch.equal, state_of(run), state_of(folder / "whole")))
    assert several_runs.log_of(run) == several_runs.log_of(folder / "whole")
    return told


def test_kills(several: Several, tmp_path: Path) -> None:
    assert len(survives(several, tmp_path, 2, 20, 0)) == 2


@pytest.mark.slow
def test_forty_kills(several: Several, tmp_path: Path) -> None:
    told = survives(several, tmp_path, 40, 300, int(time.time()))
    assert len(told) == 40
    assert told.count("save") >= 15
