"""Neighbours beside a network: their scores by a dense twin in float64, what they find, and runs that have them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from support.chosen import KnownHead, train_on_and_die, trained, whole_and_in_parts

import widehead as wh
from widehead.data import RowExamples
from widehead.errors import CheckpointError, RankingWarning
from widehead.jobs import configure
from widehead.jobs.candidates import NONE, Candidates, Choice
from widehead.jobs.neighbours import FEWEST, Neighbours, best_power, held_out
from widehead.metrics import Propensities
from widehead.models.classifiers import LinearClassifiers
from widehead.runs import Run
from widehead.serving.service import Request, Service
from widehead.targets import SparseTargets


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
    with pytest.warns(RankingWarning, match="the network alone.*nearest training documents"):
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


@pytest.mark.parametrize(("margin", "given"), [(0.0, []), (0.5, []), (0.5, [0.4, 0.3, 0.2, 0.5, -0.1])])
@pytest.mark.parametrize(("probabilities", "power"), [(False, 0.0), (True, 0.0), (False, 1.0), (True, -0.5)])
@pytest.mark.parametrize(("num_labels", "k"), [(7, 7), (320, 5), (320, 250)])
def test_scores_are_those_of_a_dense_twin(
    margin: float, given: list[float], probabilities: bool, power: float, num_labels: int, k: int
) -> None:
    rng = np.random.default_rng(1)
    features = scipy.sparse.random_array((60, 30), density=0.2, rng=rng, format="csr", dtype=np.float32)
    labels = (scipy.sparse.random_array((60, num_labels), density=0.3, rng=rng, format="csr") > 0).astype(np.float32)
    asked = scipy.sparse.random_array((9, 30), density=0.2, rng=rng, format="csr", dtype=np.float32)
    asked.data[asked.indptr[3] : asked.indptr[4]] = 0.0  # nothing is near
    asked.eliminate_zeros()
    scores = torch.from_numpy(rng.standard_normal((9, num_labels)))
    choice = replace(NONE, weight=0.7, margin=margin, least=0.01, weights=given, power=power)
    classifiers = None
    weights = scipy.sparse.random_array((num_labels, 30), density=0.2, rng=rng, format="csr", dtype=np.float32)
    biases = rng.standard_normal(num_labels).astype(np.float32)
    if margin > 0.0:
        classifiers = LinearClassifiers(weights, biases)
    made = Neighbours(features, labels, 5, choice=choice, probabilities=probabilities, classifiers=classifiers)

    rarity = 1 + np.log(61 / (1 + (features.toarray() != 0).sum(axis=0)))

    def unit(matrix: Any) -> np.ndarray:
        dense = matrix.toarray().astype(np.float64) / rarity**power
        return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-300)

    expected = np.empty((9, num_labels))
    cosines = unit(asked) @ unit(features).T
    for i in range(9):
        near = np.argsort(-cosines[i])[:5]
        votes = cosines[i][near] ** 3
        votes = votes @ labels.toarray()[near] / max(votes.sum(), 1e-300)
        o = scores[i].numpy()
        first = np.sort(o)[::-1][:200]
        own, floor = o, first[-1]
        if probabilities:
            own, floor = np.exp(o) / np.exp(first).sum(), np.exp(floor) / np.exp(first).sum()
        anew = (votes > 0) | (own >= floor)
        margins = unit(asked)[i] @ weights.toarray().T + biases
        above, missing = np.maximum(own - floor, 0.0), np.maximum(0.0, 1 - margins) ** 2
        both = np.log(above + 0.7 * votes + 0.01)
        found = both - margin * missing
        if given:
            found = np.stack([both, -missing, np.log(above + 0.01), np.log(votes + 1e-3), margins], axis=1) @ given
        expected[i] = np.where(anew, found, found[anew].min() + own - floor)

    inputs = RowExamples(asked).batch(np.arange(9))[0]
    assert isinstance(inputs, SparseTargets)
    np.testing.assert_allclose(made.all_scores(scores, inputs).numpy(), expected, rtol=1e-5, atol=1e-5)
    best, classes = made.top_k(KnownHead(scores), inputs, torch.arange(9)[:, None], k)
    np.testing.assert_allclose(best.numpy(), -np.sort(-expected, axis=1)[:, :k], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, classes.numpy(), 1), best.numpy(), rtol=1e-5, atol=1e-5)


class _Index(KnownHead):
    """The 40 best, as an index that looks at few classes finds them."""

    def top_k(self, hidden: torch.Tensor, k: int, exclude: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        scores, classes = super().top_k(hidden, k)
        scores[:, 40:], classes[:, 40:] = -torch.inf, -1
        return scores, classes


def test_labels_with_votes_are_heard_beside_an_index_that_finds_few() -> None:
    rng = np.random.default_rng(2)
    features = scipy.sparse.csr_matrix(np.eye(6, dtype=np.float32))
    scores = torch.from_numpy(rng.standard_normal((6, 300)))
    last = scores.argsort(dim=1)[:, 0].numpy()  # each document's only neighbour has the label that is least likely
    labels = scipy.sparse.csr_matrix((np.ones(6, dtype=np.float32), last, np.arange(7)), shape=(6, 300))
    made = Neighbours(features, labels, 5, choice=replace(NONE, weight=9.0))
    inputs = RowExamples(features).batch(np.arange(6))[0]
    assert isinstance(inputs, SparseTargets)
    best, classes = made.top_k(_Index(scores), inputs, torch.arange(6)[:, None], 50)
    assert classes[:, 0].tolist() == last.tolist()
    torch.testing.assert_close(best[:, 0], torch.full((6,), np.log(9.0 + 1.0), dtype=torch.float64))
    assert (classes >= 0).sum(dim=1).tolist() == [41] * 6


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
    _, margin, most = max(choice.race, key=lambda row: row[2])
    ratios = [choice.after[name] / max(choice.before[name], 1e-4) for name in choice.before]
    assert choice.margin == margin
    assert choice.weights or np.mean(ratios) == pytest.approx(most, rel=0.05)  # of all at once, and of two halves
    found = run.evaluate(tmp_path / "test.txt")["precision@1"]
    by_votes = replace(choice, weight=choice.weight or 1.0, margin=0.0, weights=[])
    by_votes.write(tmp_path / "run" / "neighbours.json")
    assert found > Run.open(tmp_path / "run").evaluate(tmp_path / "test.txt")["precision@1"] + 0.03


def test_neighbours_that_do_not_help_count_nothing(tmp_path: Path) -> None:
    """Labels are drawn without a look at the texts, a few of them often: what the network knows is all there is."""
    rng = np.random.default_rng(0)
    lines = [f"L{min(rng.geometric(0.5), 9)}\t" + " ".join(f"w{i}" for i in rng.choice(500, 5)) for _ in range(1_100)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    run = run_in(tmp_path)
    choice = Choice.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    gains = [row[2] for row in choice.race]
    assert len(gains) == 90
    assert choice.helps == (max(gains) > 1.0) == (run.network.beside is not None)


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


def test_an_index_that_finds_nothing_leaves_the_votes(tmp_path: Path) -> None:
    features = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    labels = scipy.sparse.csr_matrix(np.eye(3, 5, dtype=np.float32))
    inputs = RowExamples(features).batch(np.arange(3))[0]
    assert isinstance(inputs, SparseTargets)

    class _None(KnownHead):
        def top_k(self, hidden: torch.Tensor, k: int, exclude: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((3, k), -torch.inf), torch.full((3, k), -1)

    made = Neighbours(features, labels, 5, choice=replace(NONE, weight=2.0))
    best, classes = made.top_k(_None(torch.zeros(3, 5)), inputs, torch.zeros(3, 1), 2)
    torch.testing.assert_close(best[:, 0], torch.full((3,), np.log(2.0 + 1.0), dtype=torch.float64))
    assert classes.tolist() == [[0, -1], [1, -1], [2, -1]]


@pytest.mark.parametrize("block", [1, 7, 2_000])
def test_labels_that_are_voted_for_beside_a_document_are_those_of_others(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    features = scipy.sparse.random_array((40, 30), density=0.2, rng=rng, format="csr", dtype=np.float32)
    labels = (scipy.sparse.random_array((40, 11), density=0.2, rng=rng, format="csr") > 0).astype(np.float32)
    monkeypatch.setattr("widehead.jobs.neighbours._BLOCK", block)
    voted = Neighbours(features, labels, 3).voted().toarray() > 0
    unit = features.toarray() / np.maximum(np.linalg.norm(features.toarray(), axis=1, keepdims=True), 1e-30)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1.0)
    for i in range(40):
        near = [j for j in np.argsort(-cosines[i])[:3] if cosines[i, j] > 0]
        assert (voted[i] == (labels.toarray()[near].sum(axis=0) > 0)).all()


def topics(values: float) -> RowExamples:
    """400 documents of one of eight frequent features, which is the label, and of five rare ones of some value."""
    rng = np.random.default_rng(6)
    topic = rng.integers(0, 8, 400)
    features = np.zeros((400, 408))
    for document in range(400):
        features[document, 8 + rng.choice(400, 5, replace=False)] = values
    features[np.arange(400), topic] = 1.0
    return RowExamples(*(scipy.sparse.csr_matrix(part.astype(np.float32)) for part in (features, np.eye(8)[topic])))


@pytest.mark.parametrize("block", [7, 500])
def test_votes_of_documents_for_one_another_are_judged_as_by_a_dense_twin(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, some = topics(3.0), np.arange(3, 400, 9)
    monkeypatch.setattr("widehead.jobs.neighbours._BLOCK", block)
    found = Neighbours(documents.inputs, documents.targets, 3, choice=replace(NONE, power=0.5))
    dense, labels = documents.inputs.toarray(), documents.targets.toarray()
    dense = dense / (1 + np.log(401 / (1 + (dense != 0).sum(axis=0)))) ** 0.5
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    cosines = dense @ dense.T
    np.fill_diagonal(cosines, 0.0)
    near = np.sort(cosines, axis=1)[:, -3:-2]
    votes = np.where(cosines >= near, cosines, 0.0) ** 3 @ labels
    right = (votes.argmax(axis=1) == labels.argmax(axis=1))[some].mean()
    propensities = Propensities.from_counts(torch.ones(8, dtype=torch.int64), 400)
    assert found.judged(some, ["precision@1"], propensities)["precision@1"] == pytest.approx(right, abs=0.03)
    assert 0.2 < right < 0.95


def test_what_features_count_is_what_votes_do_best_with() -> None:
    """Rare features of large values hide the frequent ones that tell; of small values they hide nothing."""
    propensities = Propensities.from_counts(torch.ones(8, dtype=torch.int64), 400)
    assert best_power(topics(2.0), 3, ["precision@1"], propensities) == 1.0
    assert best_power(topics(0.1), 3, ["precision@1"], propensities) == 0.0
    unlabelled = RowExamples(topics(3.0).inputs, scipy.sparse.csr_matrix((400, 8), dtype=np.float32))
    assert best_power(unlabelled, 3, ["precision@1"], propensities) == 0.0


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

    def learnt(self: Neighbours, voted: Any) -> LinearClassifiers:
        assert (voted != self.voted()).nnz == 0
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
    choice, older = (Choice.read(tmp_path / out / "neighbours.json") for out in ("whole", "parts"))
    assert choice is not None
    assert older is not None
    assert (choice.power, choice.takes_margins, whole.network.beside.choice) == (1.0, True, choice)  # type: ignore[union-attr]
    assert set(powers) == {1.0}
    assert len(powers) == 6  # of each of three trainings: by those that train, and by all
    assert set(sizes) == {1_200 - len(held_out(1_200, 0))}
    cutoffs = whole.config.at
    assert all(names == [*(f"precision@{k}" for k in cutoffs), f"psp@{max(cutoffs)}"] for names in metrics)
    assert len(metrics) == 6
    assert "features divided by their rarity to the power 1," in str(choice)
    assert "features" not in str(replace(choice, weight=0.0, margin=0.0, weights=[]))
    assert whole.evaluate(tmp_path / "test.txt")["precision@1"] > 0.95
    # A run from before there were powers.
    path = tmp_path / "parts" / "neighbours.json"
    text = json.loads(path.read_text())
    del text["power"]
    path.write_text(json.dumps(text))
    assert Run.open(tmp_path / "parts").network.beside.choice == replace(older, power=0.0)  # type: ignore[union-attr]


@pytest.mark.parametrize("power", [1.0, -1.0])
def test_features_of_0_are_as_features_that_are_not_there(power: float) -> None:
    """As a file may have them."""
    documents = topics(2.0)
    features = documents.inputs.copy()
    features.data[np.random.default_rng(7).random(features.nnz) < 0.3] = 0.0
    without = features.copy()
    without.eliminate_zeros()
    made, expected = (
        Neighbours(part, documents.targets, 3, choice=replace(NONE, power=power)) for part in (features, without)
    )
    found = made.votes(made._nearest(made._known)).toarray()
    np.testing.assert_allclose(found, expected.votes(expected._nearest(expected._known)).toarray(), atol=1e-6)


def test_what_each_power_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents with labels alone, 1,000 at most, and the mean of the metrics."""
    labels = scipy.sparse.csr_matrix(np.eye(8, dtype=np.float32)[np.arange(3_000) % 8])
    labels = (scipy.sparse.diags_array((np.arange(3_000) % 2).astype(np.float32)) @ labels).tocsr()
    labels.eliminate_zeros()
    documents = RowExamples(scipy.sparse.csr_matrix(np.ones((3_000, 2), dtype=np.float32)), labels)
    metrics = {0.0: (0.5, 0.5), -1.0: (0.6, 0.3), -0.5: (0.55, 0.53), 0.5: (0.5, 0.5), 1.0: (0.4, 0.4)}

    def judged(self: Neighbours, some: np.ndarray, *_: Any) -> dict[str, float]:
        assert (len(np.unique(some)), (some % 2).min()) == (1_000, 1)
        return dict(zip("ab", metrics[self.choice.power], strict=True))

    monkeypatch.setattr(Neighbours, "judged", judged)
    propensities = Propensities.from_counts(torch.ones(8, dtype=torch.int64), 3_000)
    assert best_power(documents, 3, ["a", "b"], propensities) == -0.5


def test_classifiers_learn_from_what_is_voted_for_beside_labels() -> None:
    documents, power = topics(2.0), 1.0
    made = Neighbours(documents.inputs, documents.targets, 3, choice=replace(NONE, power=power))
    voted = made.voted()
    found, expected = made.learn(voted), LinearClassifiers.of(made._known, documents.targets, voted)
    assert (found.weights != expected.weights).nnz == 0
    assert np.array_equal(found.biases, expected.biases)
    assert made.classifiers is found


def test_a_power_must_be_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of a power that are better by 5 % or less, than those of the power 0, are noise."""
    documents, propensities = topics(2.0), Propensities.from_counts(torch.ones(8, dtype=torch.int64), 400)
    for better, power in ((1.03, 0.0), (1.07, -0.5)):
        metrics = {0.0: 0.5, -1.0: 0.2, -0.5: 0.5 * better, 0.5: 0.5, 1.0: 0.4}
        monkeypatch.setattr(Neighbours, "judged", lambda self, *_, metrics=metrics: {"a": metrics[self.choice.power]})
        assert best_power(documents, 3, ["a"], propensities) == power


@pytest.mark.parametrize(("meetings", "told"), [(4_000, 1.0), (20, 1.0), (19, 0.0), (1, 0.0)])
def test_frequent_features_are_left_out_only_where_they_cost_too_much(
    meetings: int, told: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("widehead.jobs.neighbours._MEETINGS", meetings)
    monkeypatch.setattr("widehead.jobs.neighbours._FREE", 10)
    features = scipy.sparse.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(40) % 2])
    made = Neighbours(features, features, 3)
    found = made.judged(np.arange(40), ["precision@1"], Propensities.from_counts(torch.ones(2).long(), 40))
    assert found["precision@1"] == told


def test_documents_that_are_looked_up_in_parts_are_ranked_as_all_together() -> None:
    rng = np.random.default_rng(4)
    own = -np.sort(-rng.standard_normal((12, 230)), axis=1)
    classes = np.stack([rng.permutation(300)[:230] for _ in range(12)])
    votes = scipy.sparse.random_array((12, 300), density=0.05, rng=rng, format="csr")
    choice, k = replace(NONE, weight=0.5), 215
    parts = [Candidates.of(own[some], classes[some], votes[some]) for some in (slice(5), slice(5, 6), slice(6, 12))]
    whole = Candidates.of(own, classes, votes)
    for found, expected in zip(Candidates.joined(parts).best(choice, k), whole.best(choice, k), strict=True):
        assert (found == expected).all()
    assert Candidates.joined(parts).spread() == pytest.approx(whole.spread())
