"""Heads side by side: the same data, encoder and minutes for each, one run and one process after the other."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from widehead.comparison.results import Result
from widehead.data.files import is_pipe
from widehead.errors import CheckpointError, DataError, NonFiniteError, ProcessesError
from widehead.jobs.base import Job, job_named
from widehead.kinds import configure
from widehead.kinds.base import UNDECIDED
from widehead.options import TrainingConfig
from widehead.runs import Run
from widehead.split import Member, Peers
from widehead.training import RunFolder, read_metrics
from widehead.training.folder import atomic_write
from widehead.training.interruption import Interruption
from widehead.training.memory import told

_RESULTS = "results.jsonl"
_PATIENCE = 10.0  # seconds in which a process that has told its result should end


def compare(
    configs: Mapping[str, TrainingConfig],
    out: Path,
    *,
    quiet: bool = False,
    processes: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Train every contender that is not done yet, and write results.jsonl after each.

    A comparison that was interrupted goes on from there: finished contenders are left as they are.

    Args:
        configs: as `contenders` makes them. out: folder of the comparison.
        quiet: show no progress. say: called with a line before and after each contender.
        processes: in how many of this machine each contender is trained, with a share of the threads each.

    Raises:
        CheckpointError: a run in the folder was made with other options.
        DataError: a file cannot be read.
    """
    if (without := [name for name, c in configs.items() if c.test is None and c.holdout == 0.0]) != []:
        raise ValueError(f"A comparison needs `test` or `holdout` to judge by. Found neither for {without[0]}.")
    for config in configs.values():
        for path in (config.train, config.test, config.labels):
            if path is not None and is_pipe(path):
                raise DataError(f"{path}: expected a file, as each run reads it. Found a pipe; save it to a file.")
    out.mkdir(parents=True, exist_ok=True)
    done = {result.name: result for result in _read(out / _RESULTS) if result.status != "interrupted"}
    for config in configs.values():
        _check_same(config)
    for name, config in configs.items():
        if name in done:
            continue
        say(f"{name}: training the head {config.head}")
        done[name] = _contend(name, config, quiet, processes)
        results = [done[n] for n in configs if n in done]
        with atomic_write(out / _RESULTS) as file:
            file.write("".join(json.dumps(dataclasses.asdict(result)) + "\n" for result in results).encode())
        say(f"{name}: {_told(done[name])}")
        if done[name].status == "interrupted":
            break
    return [done[name] for name in configs if name in done]


def _told(result: Result) -> str:
    figures = "".join(f", {name} {value:.4g}" for name, value in result.metrics.items())
    return f"{result.status}, {result.steps:,} steps in {result.seconds:.1f} seconds{figures}"


def _contend(name: str, config: TrainingConfig, quiet: bool, processes: int) -> Result:
    """One run, in processes of its own, so that its peak of memory is its own. Signals are passed on to the first."""
    # Spawned, because a forked child would inherit threads and the memory of its parent.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    threads = max(1, torch.get_num_threads() // processes)
    with tempfile.TemporaryDirectory() as place:
        arguments = (name, config, job_named(config.job), threads, quiet)
        group = [
            context.Process(target=_child, args=(theirs, Member(rank, processes, place), *arguments), daemon=True)
            for rank in range(processes)
        ]
        for process in group:
            process.start()
        theirs.close()
        try:
            found = _answer(ours, group[0].pid)
            for process in group:
                process.join(_PATIENCE)
        except EOFError:
            group[0].join()
            code = group[0].exitcode
            return Result(name, config.head, f"failed: its process ended with {code}, as where memory is short")
        finally:
            for process in group:
                process.terminate()
                process.join()
    if isinstance(found, ValueError):  # options that do not fit the data
        raise ValueError(f"{name}: {found}") from found
    if isinstance(found, BaseException):
        raise found
    assert isinstance(found, Result)
    return found


def _answer(ours: Connection, first: int | None) -> Any:
    """What the first process tells; EOFError if it ends before."""
    with Interruption() as interruption:
        passed_on = False
        while not ours.poll(0.1):
            if interruption.requested and not passed_on and first is not None:
                os.kill(first, signal.SIGTERM)
                passed_on = True
    return ours.recv()


def _child(
    parent: Connection, member: Member, name: str, config: TrainingConfig, job: type[Job], threads: int, quiet: bool
) -> None:
    """`_run`, whose result or error in the first process goes to the parent. The job brings its file along."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C goes to the parent alone, which passes it on once
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if member.rank > 0:
        parent.close()
    answer = (lambda told: None) if member.rank > 0 else parent.send
    try:
        answer(_run(name, config, threads, quiet, member))
    except KeyboardInterrupt:  # before training began
        answer(Result(name, config.head, "interrupted"))
    except Exception as error:  # noqa: BLE001 raised again in the parent
        answer(error)


def _run(name: str, config: TrainingConfig, threads: int, quiet: bool, member: Member) -> Result:
    torch.set_num_threads(threads)
    folder, mesh = RunFolder(Path(config.out)), member.joined()
    try:
        begun = Peers(mesh).said_by_first(folder.config_path.exists())
        run = Run.open(config.out, mesh=mesh) if begun else Run.new(config, mesh=mesh)
        end = run.train(quiet=quiet)
    except (NonFiniteError, ProcessesError) as error:
        return Result(name, config.head, f"failed: {error}")
    evaluations = [record for record in read_metrics(folder.metrics_path) if record["kind"] == "evaluation"]
    curve = [{k: v for k, v in record.items() if k not in ("kind", "epoch", "preparation")} for record in evaluations]
    # The peak of this program; getrusage would count the parent's, from before it became this one.
    memory = told("VmHWM") if config.device == "cpu" else torch.cuda.max_memory_allocated(config.device)
    parts = end.seconds, end.step, end.epoch, memory, curve, end.preparation
    return Result(name, config.head, end.status, dict(end.metrics), *parts)


def _check_same(config: TrainingConfig) -> None:
    """See that an earlier run of a contender had the same options, but for those that its data decided."""
    folder = RunFolder(Path(config.out))
    if not folder.config_path.exists():
        return
    earlier, wanted = vars(RunFolder.open(config.out)[1]), vars(config.with_absolute_paths())
    default = configure(config.job, train=config.train, out=config.out, preset=config.preset)
    undecided = {name for name in job_named(config.job).decides if wanted[name] == UNDECIDED[name]}
    decided = {"because", "train_checksum", *undecided}
    decided |= {"at"} if config.at == default.at else set()
    for option, value in wanted.items():
        if earlier[option] != value and option not in decided:
            raise CheckpointError(
                f"The run in {config.out} was made with {option} = {earlier[option]!r}. Found {value!r}: choose "
                "another folder, or remove that run."
            )


def _read(path: Path) -> list[Result]:
    """What an earlier call wrote; [] if there is nothing."""
    if not path.exists():
        return []
    try:
        return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} should hold the results of a comparison. Found: {error}.") from error
