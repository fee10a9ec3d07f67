"""`widehead serve` as a process: under load and killed, stopped by signals, and what it refuses."""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli_runs import call
from support.processes import ENVIRONMENT, start

pytestmark = pytest.mark.long

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
RECIPES = Path(__file__).parents[2] / "recipes"


@contextmanager
def served(run: Path, *options: str) -> Iterator[tuple[Any, int]]:
    """The process, when it is ready, and its port."""
    process = start("serve", run, "--port", "0", *options)
    try:
        assert process.stderr is not None
        first, ready = process.stderr.readline(), process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+) \(process \d+; the page /docs", first)
        assert found, first
        assert ready.startswith("Ready: 60 classes, step 14."), ready
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def ask(port: int, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json"})
    answered = connection.getresponse()
    return answered.status, json.loads(answered.read())


def test_clients_of_a_server_that_is_killed_and_started_again_get_right_answers(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(RECIPES)
    spec = importlib.util.spec_from_file_location("serving_recipe", RECIPES / "serving.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = sys.modules["serving_recipe"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    found = recipe.load(folders["recommender"], ["--batch", "8"], clients=8, seconds=1.0)
    assert found["wrong"] == 0, found["first_wrong"]
    assert found["answers"] > 20
    assert found["retries"] > 0  # it was away
    assert found["exit_code"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_when_what_was_taken_is_answered(
    number: signal.Signals, code: int, folders: dict[str, Path]
) -> None:
    """Also if somebody never ends a request."""
    options = ("--wait", "700", "--batch", "1000", "--timeout", "3")
    with served(folders["recommender"], *options) as (process, port), socket.socket() as stalled:
        stalled.connect(("127.0.0.1", port))
        stalled.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        answers: list[Any] = []
        asking = [
            threading.Thread(target=lambda: answers.append(ask(port, {"inputs": [["i0"]], "k": 3}))) for _ in range(5)
        ]
        for thread in asking:
            thread.start()
        time.sleep(0.4)  # they wait for a batch that is full
        process.send_signal(number)
        for thread in asking:
            thread.join(20)
        assert [status for status, _ in answers] == [200] * 5
        _, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert err.splitlines()[-1].lower().endswith("stopped; the requests that were taken are answered.")
        assert "Traceback" not in err
        with pytest.raises(ConnectionError):
            ask(port, {"inputs": [["i0"]]})


def test_a_port_that_is_taken_and_a_run_that_is_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = call("serve", folders["recommender"], "--port", str(port))
    assert refused.code == 2
    assert re.search(rf"expected an address to listen at\. Found 127\.0\.0\.1:{port}: .*in use", refused.err)
    missing = call("serve", tmp_path / "none", "--port", "0")
    assert missing.code == 2
    assert "none" in missing.err
    assert len(missing.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="torch has GNU's OpenMP, which tells its settings, on Linux")
@pytest.mark.parametrize(("given", "spins"), [({}, "0"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")])
def test_threads_that_wait_leave_their_cores_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str, tmp_path: Path
) -> None:
    """As OpenMP itself says when torch loads it: how often a thread looks before it leaves, 300,000 by default."""
    ours = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ours}
    ended = start("serve", tmp_path / "none", env={**environment, "OMP_DISPLAY_ENV": "verbose", **given})
    _, err = ended.communicate(timeout=60)
    assert ended.returncode == 2
    assert re.findall(r"GOMP_SPINCOUNT = '(\w+)'", err) == [spins]


def test_damaged_weights_end_it_with_their_line(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["recommender"], tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.safetensors").write_bytes(b"nothing")
    ended = call("serve", tmp_path / "run", "--port", "0")
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("widehead: error: ")
    assert "last.safetensors" in ended.err


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(
    missing: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == missing else real(name, *a))
    refused = call("serve", folders["recommender"])
    assert refused.code == 2
    assert f'needs {missing}: pip install "widehead[serve]"' in refused.err


def test_importing_widehead_stays_light() -> None:
    heavy = "import sys, widehead, widehead.cli; print([m for m in ('fastapi', 'uvicorn', 'onnx') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert told.stdout == "[]\n"
