"""Heads side by side: the same data, encoder and minutes for each, one run and one process after the other."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from widehead.errors import CheckpointError, NonFiniteError
from widehead.training.config import TrainingConfig
from widehead.training.folder import RunFolder, atomic_write
from widehead.training.heads import HEADS
from widehead.training.interruption import Interruption
from widehead.training.logging import read_metrics
from widehead.training.runs import LOWER_IS_BETTER, resume, train, with_absolute_paths

__all__ = ["Result", "compare", "contenders", "objective", "ranked", "verdict"]

_RESULTS = "results.jsonl"
_PATIENCE = 10.0  # seconds in which a process that has told its result should end
_EVALUATIONS = 8  # of each contender, where the time is what ends a run


@dataclass(frozen=True)
class Result:
    """How one contender did.

    Attributes:
        name: of the contender, and of its run folder. head: its head.
        status: "finished", "interrupted" or, where it failed, why.
        metrics: of the last evaluation, by name.
        seconds: of training. steps, epochs: that were made in them.
        peak_bytes: most memory that its process held (on CUDA: that torch allocated), where the system says.
        curve: evaluations in their order: "seconds", "step" and the metrics.
    """

    name: str
    head: str
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    epochs: float = 0.0
    peak_bytes: int | None = None
    curve: Sequence[Mapping[str, float]] = ()

    @property
    def milliseconds_a_step(self) -> float | None:
        return 1000.0 * self.seconds / self.steps if self.steps else None


def contenders(
    job: str, heads: Sequence[str], settings: Sequence[tuple[str, str, Any]], out: Path, **options: Any
) -> dict[str, TrainingConfig]:
    """The run of each contender, by its name.

    Args:
        job: as for TrainingConfig.
        heads: names of heads, or "NAME=HEAD" to have a head twice with different settings.
        settings: (contender, option, value): options of TrainingConfig, or the head's own parameters.
        out: folder of the comparison; each contender has a run folder in it.
        options: of all contenders; without a limit they train for two minutes each.

    Raises:
        ValueError: a name that is not there or comes twice, or an option out of range.
    """
    chosen = dict(_named(text) for text in heads)
    if len(chosen) != len(heads) or not heads:
        raise ValueError(f"Each contender should have a name of its own. Found {', '.join(heads) or 'none'}.")
    for name, option, _ in settings:
        if name not in chosen:
            raise ValueError(f"A setting should be of one of {', '.join(chosen)}. Found {name!r} with {option!r}.")
    if options.get("minutes") is None and options.get("epochs") is None:
        options["minutes"] = 2.0
    if options.get("minutes") is not None:
        options.setdefault("epochs", None)
        options.setdefault("evaluate_every", f"{60.0 * options['minutes'] / _EVALUATIONS:.6f} seconds")
    options.setdefault("encoder_init", "random")  # one encoder for all, to be trained: not each job's own start
    configs = {}
    for name, head in chosen.items():
        own = [(option, value) for who, option, value in settings if who == name]
        configs[name] = TrainingConfig.for_job(job, out=str(out / name), **{**options, **_settings(head, own)})
    return configs


def _named(text: str) -> tuple[str, str]:
    name, _, head = text.rpartition("=")
    name = name or head
    if head not in HEADS:
        raise ValueError(f"A head should be one of {', '.join(HEADS)}. Found {head!r}.")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"A contender's name should be of letters, digits, '-', '_' and '.'. Found {name!r}.")
    return name, head


def _settings(head: str, own: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Options of TrainingConfig as they are; all others are parameters of the head, or of its loss."""
    fields = {f.name for f in dataclasses.fields(TrainingConfig)}
    options: dict[str, Any] = {"head": head, **{name: value for name, value in own if name in fields}}
    rest = {name: value for name, value in own if name not in fields}
    if rest:
        options["loss_options" if head == "exact" else "head_options"] = rest
    return options


def compare(
    configs: Mapping[str, TrainingConfig],
    out: Path,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Train every contender that is not done yet, and write results.jsonl after each.

    A comparison that was interrupted goes on where it stopped: finished contenders are left as they are.

    Args:
        configs: as `contenders` makes them. out: folder of the comparison.
        quiet: show no progress. say: called with a line before and after each contender.

    Raises:
        CheckpointError: a run in the folder was made with other options.
        DataError: a file cannot be read.
    """
    if (without := [name for name, c in configs.items() if c.test is None and c.holdout == 0.0]) != []:
        raise ValueError(f"A comparison needs `test` or `holdout` to judge by. Found neither for {without[0]}.")
    out.mkdir(parents=True, exist_ok=True)
    done = {result.name: result for result in _read(out / _RESULTS) if result.status != "interrupted"}
    for config in configs.values():
        _check_same(config)
    for name, config in configs.items():
        if name in done:
            continue
        say(f"{name}: training the head {config.head}")
        done[name] = _contend(name, config, quiet)
        results = [done[n] for n in configs if n in done]
        with atomic_write(out / _RESULTS) as file:
            file.write("".join(json.dumps(dataclasses.asdict(result)) + "\n" for result in results).encode())
        say(f"{name}: {_told(done[name])}")
        if done[name].status == "interrupted":
            break
    return [done[name] for name in configs if name in done]


def objective(results: Sequence[Result]) -> str | None:
    """The metric that decides: the first one of the first contender that all have; None where they share none."""
    judged = [result for result in results if result.metrics]
    shared = [name for name in judged[0].metrics if all(name in r.metrics for r in judged)] if judged else []
    return shared[0] if shared else None


def ranked(results: Sequence[Result]) -> list[Result]:
    """Best first by the objective; those without one last."""
    name = objective(results)
    sign = 1.0 if name in LOWER_IS_BETTER else -1.0

    def key(result: Result) -> float:
        value = math.nan if name is None else result.metrics.get(name, math.nan)
        return math.inf if math.isnan(value) else sign * value

    return sorted(results, key=key)


def verdict(results: Sequence[Result]) -> str:
    """One sentence: which head wins, and by how much."""
    name, order = objective(results), [result for result in ranked(results) if result.metrics]
    if name is None or not order:
        return "No contender has a result yet." if not order else "The contenders have no metric in common."
    best = order[0]
    said = f"{best.name} wins with {name} {best.metrics[name]:.4g}"
    if len(order) == 1:
        return f"{said}, alone."
    other = order[1].metrics[name]
    if other == best.metrics[name]:
        return f"{best.name} and {order[1].name} are level with {name} {other:.4g}."
    return f"{said}, {_lead(name, best.metrics[name], other)} {order[1].name} ({other:.4g})."


def _lead(name: str, best: float, other: float) -> str:
    """How ``best`` stands to another value of a metric: "10 % lower than", "3 times that of"."""
    if other == 0.0 or not math.isfinite(other):
        return "against"
    gap = abs(best - other) / abs(other)
    word = "lower" if name in LOWER_IS_BETTER else "higher"
    return f"{100.0 * gap:.2g} % {word} than" if gap < 1.0 else f"{gap + 1.0:,.0f} times that of"


def _told(result: Result) -> str:
    figures = "".join(f", {name} {value:.4g}" for name, value in result.metrics.items())
    return f"{result.status}, {result.steps:,} steps in {result.seconds:.1f} seconds{figures}"


def _contend(name: str, config: TrainingConfig, quiet: bool) -> Result:
    """One run, in a process of its own, so that its peak of memory is its own. Signals are passed on to it."""
    # Spawned, because a forked child would inherit threads and the memory of its parent.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, name, config, torch.get_num_threads(), quiet)
    process = context.Process(target=_child, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        with Interruption() as interruption:
            passed_on = False
            while not ours.poll(0.1):
                if interruption.requested and not passed_on and process.pid is not None:
                    os.kill(process.pid, signal.SIGTERM)
                    passed_on = True
        found = ours.recv()
        process.join(_PATIENCE)
    except EOFError:
        process.join()
        return Result(name, config.head, f"failed: its process ended with {process.exitcode}, as where memory is short")
    finally:
        process.terminate()
        process.join()
    if isinstance(found, ValueError):  # options that do not fit the data
        raise ValueError(f"{name}: {found}") from found
    if isinstance(found, BaseException):
        raise found
    assert isinstance(found, Result)
    return found


def _child(parent: Connection, name: str, config: TrainingConfig, threads: int, quiet: bool) -> None:
    """`_run`, whose result or error goes to the parent."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C goes to the parent alone, which passes it on once
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        parent.send(_run(name, config, threads, quiet))
    except KeyboardInterrupt:  # before training began
        parent.send(Result(name, config.head, "interrupted"))
    except Exception as error:  # noqa: BLE001 raised again in the parent
        parent.send(error)


def _run(name: str, config: TrainingConfig, threads: int, quiet: bool) -> Result:
    torch.set_num_threads(threads)
    folder = RunFolder(Path(config.out))
    try:
        again = folder.config_path.exists()
        outcome = resume(config.out, quiet=quiet) if again else train(config, quiet=quiet)
    except NonFiniteError as error:
        return Result(name, config.head, f"failed: {error}")
    curve = [
        {k: v for k, v in record.items() if k not in ("kind", "epoch")}
        for record in read_metrics(folder.metrics_path)
        if record["kind"] == "evaluation"
    ]
    return Result(
        name,
        config.head,
        outcome.status,
        dict(outcome.metrics),
        outcome.seconds,
        outcome.step,
        outcome.epoch,
        _peak_bytes(config.device),
        curve,
    )


def _peak_bytes(device: str) -> int | None:
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    try:
        # The peak of this program; getrusage would count the parent's, from before it became this one.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]
    except (OSError, TypeError):
        return None


def _check_same(config: TrainingConfig) -> None:
    """See that an earlier run of a contender had the same options."""
    folder = RunFolder(Path(config.out))
    if not folder.config_path.exists():
        return
    earlier, wanted = vars(RunFolder.open(config.out)[1]), vars(with_absolute_paths(config))
    for option, value in wanted.items():
        if earlier[option] != value:
            raise CheckpointError(
                f"The run in {config.out} was made with {option} = {earlier[option]!r}. Found {value!r}: choose "
                "another folder, or remove that run."
            )


def _read(path: Path) -> list[Result]:
    """What an earlier call wrote; [] where there is nothing."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Result(**json.loads(line)) for line in lines]
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} should hold the results of a comparison. Found: {error}.") from error
