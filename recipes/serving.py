"""A server under load, and how long an answer takes beside a plain product: a recommender of any size.

python recipes/serving.py plant FOLDER --classes 1000000 --width 128
    make such a run, FOLDER/run, with weights that are drawn and not learnt
python recipes/serving.py load RUN --clients 50 --seconds 60 -- --index ivf
    so many clients ask as fast as they are answered; the server is killed after a third of the time and started again
python recipes/serving.py latency RUN -- --index ivf
    one client, each answer beside the best classes by one product and torch.topk in this process, in turns; with
    OMP_WAIT_POLICY=passive, or the threads of one process spin while the other computes

What follows -- is for `widehead serve`. Both compare every answer with Run.predict: with an index, what it names should
have the scores that an exact search gives these classes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import commit

from widehead.jobs import configure
from widehead.jobs.recommender import Recommender
from widehead.runs import Run
from widehead.training.checkpoint import load_checkpoint, save_checkpoint

Question = tuple[dict[str, Any], list[str], list[float]]


@dataclass
class Tally:
    """What clients met."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    retries: int = 0
    recalls: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Sequence[Tally]) -> Tally:
        whole = cls(retries=sum(part.retries for part in parts))
        for part in parts:
            whole.seconds += part.seconds
            whole.wrong += part.wrong
            whole.recalls += part.recalls
        return whole

    def summary(self) -> dict[str, Any]:
        cuts = statistics.quantiles(self.seconds, n=100)
        return {
            "answers": len(self.seconds),
            "p50_ms": round(1e3 * cuts[49], 2),
            "p99_ms": round(1e3 * cuts[98], 2),
            "wrong": len(self.wrong),
            "first_wrong": self.wrong[:1],
            "retries": self.retries,
            "agrees_with_exact": round(statistics.mean(self.recalls), 4),
        }


class Served:
    """`widehead serve` as a process at one port, which may be killed and started again."""

    def __init__(self, run: Path, options: Sequence[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", "widehead", "serve", str(run), "--port", str(self.port), *options]
        self.ready = ""
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)

    def wait(self) -> None:
        """Until it is ready."""
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if line.startswith("Ready"):
                self.ready = line.strip()
                return
        raise RuntimeError(f"the server ended: {said}")

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()
        self.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def questions_of(run: Run, count: int, k: int, exact: bool) -> list[Question]:
    """Requests of users of the run, with the classes that `Run.predict` gives and their scores; many if not exact."""
    assert isinstance(run.job, Recommender)
    matrix, names = run.job.train.matrix, run.job.class_names
    users = random.Random(0).sample(range(matrix.shape[0]), min(count, matrix.shape[0]))
    rows = [[names[i] for i in matrix[user].indices] for user in users]
    wanted = k if exact else min(len(names), 50 * k)
    found = run.predict(rows, wanted)
    return [({"inputs": [row], "k": k}, one.classes, one.scores) for row, one in zip(rows, found, strict=True)]


def wrong(answer: dict[str, Any], question: Question, exact: bool) -> str | None:
    """What is wrong with an answer; classes whose scores differ by rounding may change places."""
    asked, classes, scores = question
    known = dict(zip(classes, scores, strict=True))
    k = min(asked["k"], len(classes))
    found = list(zip(answer["classes"], answer["scores"], strict=True))
    near = [abs(s - known[c]) < 1e-4 * (1 + abs(s)) for c, s in found if c in known]
    lowest = scores[k - 1] if exact else -math.inf
    stray = [s for c, s in found if c not in known and s > (lowest if exact else scores[-1]) + 1e-4 * (1 + abs(s))]
    falls = all(a >= b for a, b in zip(answer["scores"], answer["scores"][1:], strict=False))
    if all(near) and not stray and falls and (not exact or len(found) == k):
        return None
    return f"{asked['inputs']}: {found}, and not {list(known.items())[:k]}"


class Client:
    """Asks over one connection; what fails is counted, and asked again by whoever calls."""

    def __init__(self, port: int, exact: bool) -> None:
        self.exact, self.tally = exact, Tally()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, question: Question) -> bool:
        """Whether there was an answer; it is compared."""
        body, begin = json.dumps(question[0]), time.perf_counter()
        try:
            self._connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answered = self._connection.getresponse()
            told = json.loads(answered.read())
        except (OSError, http.client.HTTPException):  # killed
            self._connection.close()
            return False
        if answered.status != 200:
            if answered.status != 503:
                self.tally.wrong.append(f"{answered.status}: {told}")
            return False
        self.tally.seconds.append(time.perf_counter() - begin)
        self._compare(told["answers"][0], question)
        return True

    def _compare(self, answer: dict[str, Any], question: Question) -> None:
        best = question[1][: question[0]["k"]]
        self.tally.recalls.append(len(set(best) & set(answer["classes"])) / max(1, len(best)))
        if (said := wrong(answer, question, self.exact)) is not None:
            self.tally.wrong.append(said)

    def until(self, end: threading.Event, questions: list[Question], seed: int) -> None:
        draw = random.Random(seed)
        while not end.is_set():
            if not self.ask(draw.choice(questions)):
                self.tally.retries += 1
                time.sleep(0.05)


def load(run: Path, options: Sequence[str], clients: int, seconds: float, k: int = 10) -> dict[str, Any]:
    """Clients for some seconds, without those of a restart after a third of them; figures of all."""
    exact = is_exact(options)
    questions = questions_of(Run.open(run), 2_000, k, exact)
    server = Served(run, options)
    server.wait()
    asking, end = [Client(server.port, exact) for _ in range(clients)], threading.Event()
    threads = [threading.Thread(target=one.until, args=(end, questions, seed)) for seed, one in enumerate(asking)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 3)
    server.kill_and_start()
    time.sleep(2 * seconds / 3)
    end.set()
    for thread in threads:
        thread.join()
    figures = Tally.of([one.tally for one in asking]).summary()
    return {"clients": clients, "seconds": seconds, **figures, "exit_code": server.stop(), "ready": server.ready}


@torch.no_grad()
def latency(run: Path, options: Sequence[str], count: int = 300, k: int = 10) -> dict[str, Any]:
    """One client: how long an answer takes, and a plain product with the best of all classes here, in turns."""
    exact, opened = is_exact(options), Run.open(run)
    questions = questions_of(opened, count, k, exact)
    weight, plain = opened.network.head.weight(), []
    server = Served(run, options)
    server.wait()
    client = Client(server.port, exact)
    for question in questions:
        client.ask(question)
        hidden = torch.randn(1, weight.shape[1])
        begin = time.perf_counter()
        (hidden @ weight.T).topk(k)
        plain.append(time.perf_counter() - begin)
    client.tally.seconds, plain = client.tally.seconds[10:], plain[10:]  # the first are slow
    figures, theirs = client.tally.summary(), 1e3 * statistics.median(plain)
    sizes = {"classes": len(weight), "width": weight.shape[1], "threads": torch.get_num_threads()}
    ratio = {"plain_p50_ms": round(theirs, 2), "ratio": round(figures["p50_ms"] / theirs, 3)}
    return {**sizes, **figures, **ratio, "exit_code": server.stop(), "ready": server.ready}


def plant(folder: Path, classes: int, width: int) -> dict[str, Any]:
    """A run with weights that were drawn and not learnt: items of a thousand groups, and users of one group each.

    An item's row is its group's direction plus as much of its own, times a length from 0.5 to 2; its embedding is
    nearly the same. To train so many items would take an hour, and the server would do nothing else with them.
    """
    rng, groups = np.random.default_rng(0), 1_000
    group_of = rng.permutation(classes) % groups
    members = np.argsort(group_of, kind="stable").reshape(groups, -1)
    folder.mkdir(parents=True)
    with (folder / "train.txt").open("w") as lines:
        for user, items in enumerate(members.reshape(-1, 10)):
            more = rng.choice(members[user * 10 * groups // classes], 10)
            lines.write(f"u{user} " + " ".join(map(str, dict.fromkeys([*items, *more]))) + "\n")
    options = {"train": str(folder / "train.txt"), "out": str(folder / "run"), "width": width}
    Run.new(configure("recommender", **options, encoder_lr=1e-3, epochs=None, minutes=1e-4, holdout=0.0)).train(
        quiet=True
    )
    run = Run.open(folder / "run")
    places = torch.tensor([int(name) for name in run.job.class_names])
    directions, generator = torch.randn(groups, width), torch.Generator().manual_seed(0)
    rows = directions[torch.from_numpy(group_of)[places]] + torch.randn(classes, width, generator=generator)
    rows *= 0.5 + 1.5 * torch.rand(classes, 1, generator=generator)
    run.network.head.load_weight(rows)
    path = run.folder.last_checkpoint
    tree = load_checkpoint(path)
    tree["encoder"]["embeddings.weight"] = rows + 0.5 * torch.randn(classes, width, generator=generator)
    tree["head"] = run.network.head.state_dict()
    save_checkpoint(path, tree)
    return {"classes": classes, "width": width, "groups": groups}


def is_exact(options: Sequence[str]) -> bool:
    return "--index" not in options or "exact" in options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plant", "load", "latency"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, options = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    if given.what == "plant":
        print(json.dumps(plant(given.run, given.classes, given.width)))
        return
    before = os.getloadavg()[0]
    if given.what == "load":
        found = load(given.run, options, given.clients, given.seconds)
    else:
        found = latency(given.run, options)
    whole = {"what": given.what, "options": " ".join(options), **found, "load_before": before}
    print(json.dumps({**whole, "commit": commit()}, indent=1))


if __name__ == "__main__":
    main()
