"""Runs that have neighbours: what they choose, keep and answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chosen import train_on_and_die, trained, whole_and_in_parts

import widehead as wh
from widehead.data import RowExamples
from widehead.errors import CheckpointError, RankingWarning
from widehead.jobs import configure
from widehead.jobs.candidates import NONE, Choice
from widehead.jobs.neighbours import FEWEST, Neighbours, best_power, held_out
from widehead.metrics import Propensities
from widehead.models.classifiers import LinearClassifiers
from widehead.runs import Run
from widehead.serving.service import Request, Service


def planted(count: int = 1_200, names: int = 300) -> tuple[list[str], list[list[str]]]:
    """Texts of frequent words, with one rare word each that names the label."""
    rng = np.random.default_rng(0)
    named = rng.permutation(np.arange(count) % names)
    noise = [" ".join(f"w{i}" for i in rng.choice(40, 12, replace=False)) for _ in range(count)]
    return [f"{text} rare{n}" for text, n in zip(noise, named, strict=True)], [[f"label{n}"] for n in named]


def files(folder: Path) -> None:
    texts, labels = planted()
    lines = [f"{label[0]}\t{text}" for text, label in zip(texts, labels, strict=True)]
    (folder / "train.txt").write_text("\n".join(lines[:1_050]))
    (folder / "test.txt").write_text("\n".join(lines[1_050:]))


def run_in(folder: Path, out: str = "run", **options: Any) -> Run:
    return trained("multilabel", folder, out, **{"width": 4, "at": (1,), "neighbours": 10, **options})


@pytest.mark.parametrize(("head", "options"), [("exact", {}), ("sampled", {"width": 8, "epochs": 3})])
def test_a_rare_word_that_names_a_label_is_heard(tmp_path: Path, head: str, options: dict[str, Any]) -> None:
    files(tmp_path)
    alone = run_in(tmp_path, "alone", head=head, **{**options, "neighbours": 0}).evaluate(tmp_path / "test.txt")
    together = run_in(tmp_path, head=head, **options).evaluate(tmp_path / "test.txt")
    assert alone["precision@1"] < 0.5 < 0.9 < together["precision@1"]


def test_runs_say_the_same_after_they_are_loaded_resumed_or_served(tmp_path: Path) -> None:
    files(tmp_path)
    whole, said = whole_and_in_parts(run_in, tmp_path / "test.txt")
    name = "neighbours.json"
    texts = [line.partition("\t")[2] for line in (tmp_path / "test.txt").read_text().splitlines()[:5]]
    answers = Service(whole).answer([Request("names", texts, 3)])[0]
    assert isinstance(answers, list)
    assert [(answer.classes, answer.scores) for answer in answers] == said[:5]
    with pytest.warns(RankingWarning, match="the network alone.*training documents, sequences or users"):
        whole.export("torch", tmp_path / "network.pt")
    chosen = Choice.read(tmp_path / "whole" / name)
    assert chosen is not None
    replace(chosen, margin=1.0).write(tmp_path / "whole" / name)
    path = tmp_path / "whole" / "classifiers.safetensors"
    for damage in (b"{}", None):
        path.unlink(missing_ok=True)
        if damage:
            path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"classifiers\.safetensors"):
            Run.open(tmp_path / "whole").evaluate(tmp_path / "test.txt")
    report = whole.report().read_text(encoding="utf-8")
    assert "Neighbours" in report
    (tmp_path / "whole" / name).write_text('{"weight": -1}')
    with pytest.raises(CheckpointError, match=r"neighbours\.json"):
        Run.open(tmp_path / "whole").evaluate(tmp_path / "test.txt")


def test_estimators_hear_neighbours_too() -> None:
    texts, labels = planted(1_300)
    model = wh.MultiLabel(width=4, neighbours=10, quiet=True).fit(texts[:1_200], labels[:1_200])
    found, scores = model.predict(texts[1_200:], 2)
    true = [label[0] for label in labels[1_200:]]
    assert np.mean(found[:, 0] == true) > 0.9
    chances = model.predict_proba(texts[1_200:])
    assert (chances.argmax(axis=1) == [list(model.classes_).index(name) for name in found[:, 0]]).all()
    assert (scores[:, 0] >= scores[:, 1]).all()


def test_probabilities_of_single_labels_are_calibrated_beside_neighbours_or_refused() -> None:
    """Those of the network alone rank other labels first."""
    texts, labels = planted(1_200)
    single = [label[0] for label in labels]
    options = {"width": 8, "neighbours": 10, "head": "sampled", "epochs": 1, "quiet": True}
    model = wh.MultiLabel(**options).fit(texts, single)
    assert (model.classes_[model.predict_proba(texts[:50]).argmax(axis=1)] == model.predict(texts[:50])).all()
    model = wh.MultiLabel(**options, holdout=0.0).fit(texts, single)
    with pytest.raises(ValueError, match=r"Expected a run with documents held out.*neighbours=0"):
        model.predict_proba(texts[:50])


def test_what_chooses_knows_nothing_of_the_documents_to_choose_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as neighbours, nor through classifiers that tell labels from those that they vote for."""
    rng = np.random.default_rng(5)
    lines = [f"L{rng.integers(60)} \t" + " ".join(f"w{i}" for i in rng.integers(0, 400, 6)) for _ in range(1_200)]
    held, learn = held_out(1_200, 0), Neighbours.learn
    learnt: list[Any] = []

    def watched(self: Neighbours, voted: Any) -> Any:
        learnt.append((self.labels, voted))
        return learn(self, voted)

    monkeypatch.setattr(Neighbours, "learn", watched)
    for order in (held, rng.permutation(held)):  # the labels of other documents there, the same ones in all
        changed = list(lines)
        for place, source in zip(held, order, strict=True):
            changed[place] = lines[source].split("\t")[0] + "\t" + lines[place].split("\t")[1]
        (tmp_path / "train.txt").write_text("\n".join(changed))
        run_in(tmp_path, f"run{len(learnt)}", width=2)
    firsts = [part for part in learnt if part[0].shape[0] == 1_200 - len(held)]
    assert len(firsts) == 2
    assert firsts[0][1].nnz > 1_000
    for one, two in zip(*firsts, strict=True):
        assert (one != two).nnz == 0


def test_margins_that_help_are_kept_with_the_run(tmp_path: Path) -> None:
    """The rare word of a label is in texts of other labels as well: votes are wrong more often than classifiers."""
    rng = np.random.default_rng(5)
    names = rng.integers(0, 60, 1_300)
    lines = []
    for name in names:
        others = rng.integers(0, 60, 6)
        words = [f"tells{name}", *(f"about{other}" for other in others), *(f"w{i}" for i in rng.integers(0, 30, 4))]
        lines.append(f"L{name} \t" + " ".join(words))
    (tmp_path / "train.txt").write_text("\n".join(lines[:1_200]))
    (tmp_path / "test.txt").write_text("\n".join(lines[1_200:]))
    run = run_in(tmp_path, width=2)
    choice = Choice.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    assert choice.margin > 0.0
    gains = {margin: gain for _, margin, gain in sorted(choice.race, key=lambda row: row[2])}  # of each the largest
    ratios = [choice.after[name] / max(choice.before[name], 1 / choice.documents) for name in choice.before]
    assert gains[choice.margin] > 0.97 * max(gains.values())
    assert choice.weights or np.prod(ratios) ** (1 / len(ratios)) == pytest.approx(gains[choice.margin], rel=0.07)
    found = run.evaluate(tmp_path / "test.txt")["precision@1"]
    by_votes = replace(choice, weight=choice.weight or 1.0, margin=0.0, tree=0.0, weights=[])
    by_votes.write(tmp_path / "run" / "neighbours.json")
    assert found > Run.open(tmp_path / "run").evaluate(tmp_path / "test.txt")["precision@1"] + 0.03


def test_one_tree_of_the_documents_that_do_not_choose_and_three_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice of trees alone is kept, opened, and ranks as it did."""
    files(tmp_path)
    grow, grown = Neighbours.grow, list[tuple[int, int]]()

    def watched(self: Neighbours, count: int) -> Any:
        grown.append((self.labels.shape[0], count))
        return grow(self, count)

    monkeypatch.setattr(Neighbours, "grow", watched)
    only_trees = lambda self, *_: replace(NONE, tree=2.0, power=self.choice.power)  # noqa: E731
    monkeypatch.setattr(Neighbours, "chosen", only_trees)
    run = run_in(tmp_path)
    assert grown == [(1_050 - len(held_out(1_050, 0)), 1), (1_050, 3)]
    beside = run.network.beside
    assert isinstance(beside, Neighbours)
    assert beside.classifiers is None
    assert beside.trees is not None
    assert len(beside.trees.trees) == 3
    assert run.evaluate(tmp_path / "test.txt")["precision@1"] > 0.9


def test_neighbours_that_do_not_help_count_nothing(tmp_path: Path) -> None:
    """Labels are drawn without a look at the texts, a few of them often: what the network knows is all there is."""
    rng = np.random.default_rng(0)
    lines = [f"L{min(rng.geometric(0.5), 9)}\t" + " ".join(f"w{i}" for i in rng.choice(500, 5)) for _ in range(1_100)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    run = run_in(tmp_path)
    choice = Choice.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    gains = [row[2] for row in choice.race]
    assert len(gains) == (30 if choice.tree else 90)
    assert choice.helps == (run.network.beside is not None)
    assert not choice.helps or max(gains) > 1.0


@pytest.mark.parametrize("neighbours", [0, 10])
def test_documents_to_choose_by_train_nothing(neighbours: int, tmp_path: Path) -> None:
    files(tmp_path)
    sizes = {"width": 4, "neighbours": neighbours, "holdout": 0.0}
    config = configure("multilabel", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"), **sizes)
    data = Run.new(config).data
    assert data.job.num_documents == 1_050  # type: ignore[attr-defined]
    assert len(data.examples) == 1_050 - (52 if neighbours else 0)


def test_few_documents_are_all_trained_on(tmp_path: Path) -> None:
    assert len(held_out(FEWEST - 1, 0)) == 0
    assert len(held_out(FEWEST, 0)) == 50
    assert len(held_out(10**6, 0)) == 2_000
    texts, labels = planted(60, 10)
    (tmp_path / "train.txt").write_text("\n".join(f"{y[0]}\t{x}" for x, y in zip(texts, labels, strict=True)))
    assert run_in(tmp_path).network.beside is None
    assert not (tmp_path / "run" / "vocabularies" / "documents.safetensors").exists()


def test_what_was_chosen_for_other_weights_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that goes on and dies leaves a run that ranks by the network alone, and says so."""
    files(tmp_path)
    again = train_on_and_die(run_in(tmp_path, epochs=1), Neighbours, monkeypatch)
    assert not (tmp_path / "run" / "classifiers.safetensors").exists()
    again.train(quiet=True)
    assert Run.open(tmp_path / "run").network.beside is not None


def test_an_index_beside_neighbours_is_asked_for_what_the_network_knows(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    files(tmp_path)
    run = run_in(tmp_path)
    texts = [line.partition("\t")[2] for line in (tmp_path / "test.txt").read_text().splitlines()[:20]]
    exact, found = (Service(run, index).answer([Request("names", texts, 1)])[0] for index in ("exact", "ivf"))
    assert [a.classes for a in found] == [a.classes for a in exact]  # type: ignore[union-attr]


def test_what_features_count_is_kept_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What chooses, what is learnt, what is written and what answers have the same power, of documents that train."""
    rng = np.random.default_rng(6)
    for name, count in (("train", 1_200), ("test", 100)):
        lines = [f"{count} 408 8"]
        for topic in rng.integers(0, 8, count):
            lines.append(f"{topic} {topic}:1 " + " ".join(f"{8 + i}:2" for i in rng.choice(400, 5, replace=False)))
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    powers, sizes, learn, choose = list[float](), list[int](), Neighbours.learn, Neighbours.chosen
    metrics: list[list[str]] = []

    held, before = held_out(1_200, 0), list[Any]()
    others = np.setdiff1d(np.arange(1_200), held)

    def learnt(self: Neighbours, voted: Any) -> LinearClassifiers:
        """First those that train, then all: of what has been looked up, and of the documents that chose."""
        if voted.shape[0] == len(others):
            assert (voted != self.voted(np.arange(len(others)))).nnz == 0
            before[:] = [voted]
        else:
            assert (voted[others] != before[0]).nnz == (voted[held] != self.voted(held)).nnz == 0
        powers.append(self.choice.power)
        return learn(self, voted)

    def chosen_power(documents: RowExamples, count: int, names: list[str], propensities: Propensities) -> float:
        sizes.append(len(documents))
        metrics.append(names)
        return best_power(documents, count, names, propensities)

    def chosen(
        self: Neighbours, network: Any, held: RowExamples, propensities: Propensities, names: list[str]
    ) -> Choice:
        metrics.append(names)
        return choose(self, network, held, propensities, names)

    monkeypatch.setattr(Neighbours, "learn", learnt)
    monkeypatch.setattr(Neighbours, "chosen", chosen)
    monkeypatch.setattr("widehead.jobs.multilabel.best_power", chosen_power)
    whole, _ = whole_and_in_parts(run_in, tmp_path / "test.txt", width=2)
    choice = Choice.read(tmp_path / "whole" / "neighbours.json")
    assert choice is not None
    assert (choice.power, choice.takes_margins, whole.network.beside.choice) == (1.0, True, choice)  # type: ignore[union-attr]
    assert set(powers) == {1.0}
    assert len(powers) == 6  # of each of three trainings: by those that train, and by all
    assert set(sizes) == {1_200 - len(held_out(1_200, 0))}
    cutoffs = whole.config.at
    assert all(names == [*(f"precision@{k}" for k in cutoffs), f"psp@{max(cutoffs)}"] for names in metrics)
    assert len(metrics) == 6
    assert "features divided by their rarity to the power 1," in str(choice)
    assert "features" not in str(replace(choice, weight=0.0, margin=0.0, tree=0.0, weights=[]))
    assert whole.evaluate(tmp_path / "test.txt")["precision@1"] > 0.95
