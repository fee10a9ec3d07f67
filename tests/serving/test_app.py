"""The web application: answers are the run's, a wrong request gets one sentence, the page needs no network."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from widehead.runs import Run
from widehead.serving import Request, Service
from widehead.serving.app import Limits, make_app
from widehead.serving.models import Answers, Predict, Similar


class Slow:
    """A service that answers when it may."""

    def __init__(self, service: Service) -> None:
        self.service, self.go, self.entered = service, threading.Event(), threading.Event()
        self.run, self.num_classes, self.figures = service.run, service.num_classes, service.figures

    def answer(self, requests: list[Request]) -> Any:
        self.entered.set()
        assert self.go.wait(20)
        return self.service.answer(requests)


def until_ready(client: TestClient) -> None:
    for _ in range(1000):
        if client.get("/health").status_code == 200:
            return
        time.sleep(0.01)
    raise AssertionError("the run was not loaded")


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    made: list[TestClient] = []

    def start(service: Any, limits: Limits | None = None, job: str = "recommender") -> TestClient:
        client = TestClient(make_app(job, lambda: service, limits))
        client.__enter__()
        made.append(client)
        until_ready(client)
        return client

    yield start
    for client in made:
        client.__exit__(None, None, None)


@pytest.fixture
def run(folders: dict[str, Path]) -> Run:
    return Run.open(folders["recommender"])


@pytest.mark.parametrize("path", ["/predict", "/recommend"])
def test_answers_are_those_of_the_run(path: str, run: Run, serve: Any) -> None:
    inputs = [["i0", "i1"], ["i13", 20, "unheard"], ["unheard"]]
    answered = serve(Service(run)).post(path, json={"inputs": inputs, "k": 4})
    assert answered.status_code == 200
    expected = list(run.predict(inputs, 4))
    answers = answered.json()["answers"]
    assert [one["classes"] for one in answers] == [prediction.classes for prediction in expected]
    np.testing.assert_allclose(answers[0]["scores"], expected[0].scores, rtol=1e-5)
    assert [one["unknown"] for one in answers] == [[], ["20", "unheard"], ["unheard"]]
    assert answers[2]["classes"] == []


def test_near_classes_and_ten_of_them_by_default(run: Run, serve: Any) -> None:
    answered = serve(Service(run)).post("/similar", json={"names": ["i3", "i30"]}).json()["answers"]
    assert [one["classes"] for one in answered] == [prediction.classes for prediction in run.similar(["i3", "i30"])]
    assert len(answered[0]["classes"]) == 10


@pytest.mark.parametrize("job", ["multilabel", "language-model", "word-embeddings"])
def test_other_jobs_take_texts(job: str, folders: dict[str, Path], serve: Any) -> None:
    run = Run.open(folders[job])
    text = "t1x1 t3x2" if job == "multilabel" else "w3 w4"
    client = serve(Service(run), job=job)
    (answer,) = client.post("/predict", json={"inputs": [text], "k": 2}).json()["answers"]
    assert answer["classes"] == next(run.predict([text], 2)).classes
    assert client.post("/recommend", json={"inputs": [text]}).status_code == 404


WRONG: list[tuple[str, Any, int, str]] = [
    ("/predict", "{", 400, r"Expected a JSON object\. Found: "),
    ("/predict", "", 422, "Field required"),
    ("/predict", "[]", 422, "Input should be"),
    ("/predict", {"k": 3}, 422, "inputs: Field required"),
    ("/predict", {"inputs": []}, 422, "inputs: .*at least 1 item"),
    ("/predict", {"inputs": [["i0"]] * 257}, 422, "inputs: .*at most 256"),
    ("/predict", {"inputs": [7]}, 422, r"inputs\.0: Expected a list of names, a text, or an object.*Found 7"),
    ("/predict", {"inputs": [None]}, 422, "Found None"),
    ("/predict", {"inputs": [[["i0"]]]}, 422, r"inputs\.0"),
    ("/predict", {"inputs": [["i0"]], "top": 3}, 422, r"top: Extra inputs are not permitted\. Found 3"),
    ("/predict", {"inputs": ["i0"]}, 422, "Expected lists of items"),
    ("/predict", {"inputs": [["unheard", "of"]]}, 422, "Found unknown names: 'unheard', 'of'"),
    ("/predict", {"inputs": [[]]}, 422, "of which the run knows something"),
    ("/predict", {"inputs": [{"ids": [60]}]}, 422, r"ids in \[0, 60\).*Found 60"),
    ("/predict", {"inputs": [{"ids": [-1]}]}, 422, r"greater than or equal to 0\. Found -1"),
    ("/predict", {"inputs": [{"ids": [10**30]}]}, 422, r"less than"),
    ("/predict", {"inputs": [{"ids": [1], "values": [1, 2]}]}, 422, r"value for each id\. Found 2 and 1"),
    ("/predict", '{"inputs": [{"ids": [1], "values": [NaN]}]}', 422, r"finite number\. Found nan"),
    ("/predict", {"inputs": [{"ids": [1], "values": [1e300]}]}, 422, "finite"),
    ("/predict", {"inputs": [["i0"], {"ids": [1]}]}, 422, "inputs of one kind"),
    ("/similar", {"names": ["i100"]}, 404, r"Found 'i100'; near it are 'i10'"),
    ("/similar", {"names": "i10"}, 422, "names: Input should be a valid list"),
    ("/similar", {"inputs": [["i0"]]}, 422, "Field required|Extra inputs"),
    *((("/predict", {"inputs": [["i0"]], "k": k}, 422, r"k: Input should be")) for k in (0, -3, 1001, 2.5, "3", True)),
]


@pytest.mark.parametrize(("path", "body", "code", "said"), WRONG, ids=lambda part: str(part)[:40])
def test_a_wrong_request_gets_its_reason(
    path: str, body: Any, code: int, said: str, run: Run, shared: TestClient
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    answered = shared.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answered.status_code == code, answered.text
    (key, detail), *more = answered.json().items()
    assert (key, more) == ("detail", [])
    assert re.search(said, detail), detail
    assert len(detail) < 400
    assert "\n" not in detail


@pytest.fixture(scope="module")
def shared(folders: dict[str, Path]) -> Iterator[TestClient]:
    with TestClient(make_app("recommender", lambda: Service(Run.open(folders["recommender"])))) as client:
        until_ready(client)
        yield client


def test_other_methods_and_paths(shared: TestClient) -> None:
    assert shared.get("/predict").status_code == 405
    assert shared.get("/nothing").status_code == 404


def test_a_body_has_an_end_whether_its_length_is_said_or_not(run: Run, serve: Any) -> None:
    client = serve(Service(run), Limits(body=1000))
    body = json.dumps({"inputs": [["i0"] * 300]}).encode()
    json_type = {"Content-Type": "application/json"}
    for content in (body, (body[i : i + 100] for i in range(0, len(body), 100))):
        answered = client.post("/predict", content=content, headers=json_type)
        assert answered.status_code == 413
        assert "at most 1,000 bytes" in answered.json()["detail"]
    short = (part for part in (b'{"inputs": ', b'[["i0"]]}'))
    assert client.post("/predict", content=short, headers=json_type).status_code == 200


def test_before_the_run_is_there(run: Run) -> None:
    go = threading.Event()

    def load() -> Service:
        assert go.wait(10)
        return Service(run)

    with TestClient(make_app("recommender", load)) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        refused = client.post("/predict", json={"inputs": [["i0"]]})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        go.set()
        until_ready(client)
        found = client.get("/health").json()
        assert (found["status"], found["classes"], found["step"]) == ("ready", 60, run.step)
        assert found["index"] == {"index": "exact"}
        assert client.post("/predict", json={"inputs": [["i0"]]}).status_code == 200


def test_a_run_that_cannot_be_read_is_told(run: Run) -> None:
    told = threading.Event()

    def load() -> Service:
        raise OSError("gone")

    app = make_app("recommender", load, failed=told.set)
    with TestClient(app) as client:
        assert told.wait(10)
        assert client.get("/health").status_code == 503
    assert str(app.state.serving.failure) == "gone"


def test_a_full_queue_and_a_time_that_is_up(run: Run, serve: Any) -> None:
    slow = Slow(Service(run))
    client = serve(slow, Limits(queue=2, timeout=30.0))
    answered: list[Any] = []

    def ask() -> None:
        answered.append(client.post("/predict", json={"inputs": [["i0"]]}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads[0].start()
    assert slow.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while client.get("/health").json()["waiting"] < 2:
        time.sleep(0.01)
    refused = client.post("/predict", json={"inputs": [["i0"]]})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "fewer than 2 requests to wait" in refused.json()["detail"]
    slow.go.set()
    for thread in threads:
        thread.join(20)
    assert [one.status_code for one in answered] == [200] * 3
    slow.go.clear()
    hurried = serve(slow, Limits(timeout=0.1)).post("/predict", json={"inputs": [["i0"]]})
    slow.go.set()
    assert (hurried.status_code, "within 0.1 seconds" in hurried.json()["detail"]) == (504, True)


def test_the_page_needs_no_network_and_its_examples_are_right(shared: TestClient) -> None:
    page = shared.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in re.sub(r"https?://json-schema", "", page.text)
    assert not re.search(r"<script|<link|@import|src=|url\(", page.text)
    for path in ("/predict", "/recommend", "/similar", "/health"):
        assert path in page.text
    api = shared.get("/openapi.json").json()
    for model in (Predict, Similar, Answers):
        examples = api["components"]["schemas"][model.__name__]["examples"]
        assert examples
        for example in examples:
            model.model_validate(example)
            json.dumps(example)
