"""Answers of a service: those of the run, whatever else is asked at the same time; an error is of its request alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from widehead.errors import DataError
from widehead.jobs import configure
from widehead.runs import Run
from widehead.serving import Ranked, Request, Row, Service

INPUTS: dict[str, list[Any]] = {
    "recommender": [
        ["i0", "i1"],
        ["i0", "i1", "i0"],
        ["i13", "unheard", "i20"],
        ["i5"],
        ["i59", "i58", "i57"],
        ["unheard"],
    ],
    "multilabel": ["t1x1 t1x2", "t4x0", "unheard", "t2x1 t3x1 t2x5"],
    "language-model": ["w1 w2 w3", ["w5", "w6"], "w19", "w3 unheard"],
    "word-embeddings": ["w1", ["w7"], "w1 w2"],
    "next-item": [["i3", "i4"], ["i4", "i3"], ["i9", "unheard"], ["i1", "i1", "i1"]],
}
JOBS = pytest.mark.parametrize("job", INPUTS)


def agree(found: list[Ranked], expected: Any) -> None:
    expected = list(expected)
    assert [one.classes for one in found] == [prediction.classes for prediction in expected]
    for one, prediction in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.scores, prediction.scores, rtol=1e-4, atol=1e-5)


@JOBS
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_requests_of_all_kinds_at_once_are_answered_as_by_the_run(
    job: str, index: str, folders: dict[str, Path]
) -> None:
    run = Run.open(folders[job])
    if index == "ivf":
        pytest.importorskip("faiss")
        run.index("ivf", 1.0).index.probes = run.index("ivf", 1.0).index.num_cells  # finds all
    service, inputs = Service(run, index, 1.0), INPUTS[job]
    names = list(run.job.class_names)[:3]
    requests = [Request("names", [one], 3) for one in inputs]
    requests += [Request("similar", names, 2), Request("names", inputs, 7), Request("names", inputs[:1], 1_000)]
    answers = service.answer(requests)
    assert not any(isinstance(answer, Exception) for answer in answers)
    for request, answer in zip(requests, answers, strict=True):
        ask = run.similar if request.kind == "similar" else run.predict
        agree(answer, ask(request.inputs, request.k))  # type: ignore[arg-type]


@pytest.mark.parametrize("job", ["recommender", "multilabel"])
def test_rows_are_those_of_the_matrix_of_training(job: str, folders: dict[str, Path]) -> None:
    run = Run.open(folders[job])
    rows = [Row([3, 5], [1.0, 1.0]), Row([], None), Row([0]), Row([7, 2, 11], [0.5, 2.0, 1.5])]
    matrix = scipy.sparse.lil_matrix((4, run.job.sizes["inputs"]), dtype=np.float32)
    for row, (ids, values) in enumerate([([3, 5], 1.0), ([], 1.0), ([0], 1.0), ([7, 2, 11], [0.5, 2.0, 1.5])]):
        matrix[row, ids] = values
    (answer,) = Service(run).answer([Request("rows", rows, 4)])
    assert not isinstance(answer, Exception)
    agree(answer, run.predict(matrix.tocsr(), 4))


def test_what_one_request_has_wrong_is_no_matter_of_the_others(folders: dict[str, Path]) -> None:
    run = Run.open(folders["recommender"])
    asked = [
        Request("names", [["i0"]], 3),
        Request("names", ["a text"], 3),
        Request("names", [["i7"], ["i8"]], 2),
        Request("similar", ["i100"], 3),
        Request("similar", ["i10"], 3),
        Request("rows", [Row([60])], 3),
        Request("rows", [Row([59])], 3),
        Request("rows", [Row([1], [1e39])], 3),
    ]
    answers = Service(run).answer(asked)
    agree(answers[0], run.predict([["i0"]], 3))  # type: ignore[arg-type]
    agree(answers[2], run.predict([["i7"], ["i8"]], 2))  # type: ignore[arg-type]
    agree(answers[4], run.similar(["i10"], 3))  # type: ignore[arg-type]
    wrong = {i: str(answer) for i, answer in enumerate(answers) if isinstance(answer, ValueError)}
    assert sorted(wrong) == [1, 3, 5, 7]
    assert "Expected lists of items" in wrong[1]
    assert "Found 'i100'; near it are 'i10'" in wrong[3]
    assert "ids in [0, 60)" in wrong[5]
    assert "Found 60" in wrong[5]


def test_unknown_names_are_told(folders: dict[str, Path]) -> None:
    (answer,) = Service(Run.open(folders["recommender"])).answer([Request("names", [["i0", "x", 4]], 3)])
    assert not isinstance(answer, Exception)
    assert answer[0].unknown == ["x", "4"]


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 3.0], []])
def test_a_row_has_a_value_for_each_id(values: list[float]) -> None:
    with pytest.raises(DataError, match=rf"a value for each id\. Found {len(values)} and 2"):
        Row([1, 2], values)


def test_an_index_says_what_it_finds(folders: dict[str, Path]) -> None:
    pytest.importorskip("faiss")
    run = Run.open(folders["recommender"])
    service = Service(run, "hnsw")
    assert service.figures["index"] == "hnsw"
    assert 0.9 < service.figures["recall@10"] <= 1.0
    assert "recall@10 " in str(service)
    assert "All classes are looked at" in str(Service(run))


def test_a_recommender_with_ratings(tmp_path: Path) -> None:
    lines = [f"u{u},i{(u + i) % 9},{1 + (u * i) % 5}" for u in range(30) for i in range(4)]
    (tmp_path / "train.csv").write_text("user,item,rating\n" + "\n".join(lines))
    config = configure(
        "recommender", train=str(tmp_path / "train.csv"), out=str(tmp_path / "run"), width=4, ratings=True, at=(2,)
    )
    Run.new(config).train(quiet=True)
    run = Run.open(tmp_path / "run")
    inputs = [["i0", "i3", "i0"], ["i5"]]
    (answer,) = Service(run).answer([Request("names", inputs, 3)])
    assert not isinstance(answer, Exception)
    agree(answer, run.predict([list(dict.fromkeys(one)) for one in inputs], 3))


def test_a_job_of_words_in_its_own_way_takes_words_alone(folders: dict[str, Path]) -> None:
    run = Run.open(folders["recommender"])

    class Words(type(run.job)):  # type: ignore[misc]
        def predict(self, network: Any, data: Any, k: int) -> Any:
            return super().predict(network, [[word] for word in data], k)

    run.job.__class__ = Words
    asked = [Request("names", ["i3", "i4"], 3), Request("names", [["i3"]], 3), Request("rows", [Row([3])], 3)]
    answers = Service(run).answer(asked)
    agree(answers[0], run.predict(["i3", "i4"], 3))  # type: ignore[arg-type]
    assert "Expected words or phrases. Found ['i3']" in str(answers[1])
    assert "Expected words or phrases. Found Row" in str(answers[2])
