"""Runs from beginning to end: train, resume, and load for use."""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from widehead.data import Batches
from widehead.errors import CheckpointError, NonFiniteError
from widehead.models import WideNetwork
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.config import TrainingConfig
from widehead.training.folder import RunFolder
from widehead.training.heads import class_frequencies, needs_frequencies
from widehead.training.jobs import Job, JobData, Prediction, build_network
from widehead.training.lock import locked
from widehead.training.logging import Display, display_for
from widehead.training.loop import Evaluator, Outcome, Trainer
from widehead.training.memory import keep_freed_memory
from widehead.training.multilabel import Multilabel
from widehead.training.optimizers import make_head_optimizer
from widehead.training.recommender import Recommender
from widehead.training.state import MAY_CHANGE, Origin, restore_network
from widehead.training.words import LanguageModel, WordEmbeddings

__all__ = ["JOB_CLASSES", "LOWER_IS_BETTER", "Run", "load_run", "resume", "train", "with_absolute_paths"]

JOB_CLASSES: dict[str, type[Job]] = {
    "recommender": Recommender,
    "language-model": LanguageModel,
    "word-embeddings": WordEmbeddings,
    "multilabel": Multilabel,
    "demo": Recommender,
}

_FREQUENCIES = "frequencies.safetensors"
LOWER_IS_BETTER = frozenset({"perplexity", "mean_rank"})


def train(config: TrainingConfig, *, quiet: bool = False) -> Outcome:
    """Start a run in the folder ``config.out`` and train to its limit, or until Ctrl-C.

    Args:
        config: options; relative paths are kept as absolute ones, so that the run can be resumed from anywhere.
        quiet: show nothing on standard error.

    Raises:
        DataError: a file cannot be read; nothing was written.
        CheckpointError: the folder holds something already, is in use by another process, or cannot be written to.
        NonFiniteError: see ``Trainer.run``.
        ValueError: options that do not fit the data; there is something at ``head_storage``, or it cannot be made.
    """
    config = with_absolute_paths(config)
    folder = RunFolder(Path(config.out))
    folder.check_free()
    _check_storage_free(config)
    data = JOB_CLASSES[config.job].read(config)
    config = data.job.settled(config)
    _check_cutoffs(config, data.job)
    folder.make()
    with locked(folder.path):
        return _train(config, RunFolder.create(config), data, display_for(quiet))


def resume(out: Path | str, *, quiet: bool = False, **changes: Any) -> Outcome:
    """Go on with the run in the folder ``out``, from its last checkpoint or, where it has none yet, from the start.

    Args:
        out: the run folder.
        quiet: show nothing on standard error.
        changes: new values of limits and cadences, such as ``epochs=20``.

    Raises:
        CheckpointError: there is no run, another process trains it, its checkpoint is damaged or from a run with other
            options, or the training data changed.
        DataError, NonFiniteError, ValueError: as ``train``; also a change of an option that cannot change.
    """
    folder, _ = RunFolder.open(out)
    if fixed := sorted(set(changes) - MAY_CHANGE):
        raise ValueError(f"A resumed run may change: {', '.join(sorted(MAY_CHANGE))}. Found {fixed[0]!r}.")
    with locked(folder.path):
        return _resume(folder, RunFolder.open(out)[1], quiet, dict(changes, out=str(out)))


def _resume(folder: RunFolder, config: TrainingConfig, quiet: bool, changes: dict[str, Any]) -> Outcome:
    storage = config.head_storage
    config = with_absolute_paths(dataclasses.replace(config, **changes))
    if config.head_storage != storage:
        _check_storage_free(config)
    data = JOB_CLASSES[config.job].read(config)
    if config.head_storage == storage:
        _drop_storage(config, data.job.sizes["classes"])
    folder.write_config(config)
    return _train(config, folder, data, display_for(quiet))


def _train(config: TrainingConfig, folder: RunFolder, data: JobData, display: Display) -> Outcome:
    keep_freed_memory()
    data.job.save(folder)
    frequencies = None
    if needs_frequencies(config.head, config.head_options):
        frequencies = class_frequencies(data.examples, data.job.sizes["classes"])
        folder.keep(_FREQUENCIES, lambda path: save_checkpoint(path, {"frequencies": frequencies}))
    network = _built(data.job, config, frequencies)
    begin = time.perf_counter()
    try:
        if not folder.last_checkpoint.exists():
            data.job.start(network.encoder, data.examples, config)
            _check_finite(network)
        started = time.perf_counter() - begin
        trainer = Trainer(
            config,
            network,
            make_head_optimizer(config, network, data.examples),
            Batches(data.examples, config.batch_size, config.seed),
            folder,
            sizes=data.job.sizes,
            evaluator=_evaluator(config, network, data),
            display=display,
        )
        trainer.restore()
        trainer.state.position.seconds += started  # making the first weights is training too
        return trainer.run()
    except BaseException:
        if config.head_storage is not None and not folder.last_checkpoint.exists():
            Path(config.head_storage).unlink(missing_ok=True)  # nothing that was learnt is lost
        raise
    finally:
        display.close()


def _check_finite(network: WideNetwork) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in network.encoder.parameters()):
        raise NonFiniteError(
            "An encoder made from the training data should be finite. Found NaN or infinity, as from values that are "
            "too large to be squared. Use smaller values, or --encoder-init random."
        )


def _evaluator(config: TrainingConfig, network: WideNetwork, data: JobData) -> Evaluator | None:
    test = data.test
    if test is None:
        return None
    names = data.job.metric_names(config.at)
    return Evaluator(
        lambda: test.metrics(network, names, config.rank_at_most, config.seed), names[0], names[0] in LOWER_IS_BETTER
    )


@dataclass(frozen=True)
class Run:
    """A trained run, for use.

    Attributes:
        folder: where it lies.
        config: its options.
        job: what its inputs and classes are.
        network: encoder and head, in eval mode.
        step: training steps that the weights have seen.
    """

    folder: RunFolder
    config: TrainingConfig
    job: Job
    network: WideNetwork
    step: int

    def evaluate(
        self, test: Path | str, at: tuple[int, ...] | None = None, at_most: int | None = None
    ) -> dict[str, float]:
        """Metrics on a file of held-out examples, at the cutoffs ``at`` (those of the run by default)."""
        config = self.config if at is None else dataclasses.replace(self.config, at=at)
        _check_cutoffs(config, self.job)
        return self.job.read_test(test).metrics(
            self.network, self.job.metric_names(config.at), at_most, self.config.seed
        )

    def predict(self, inputs: Path | str, k: int = 10) -> Iterator[Prediction]:
        """The k best classes for each input of a file."""
        return self.job.predict(self.network, inputs, min(k, self.job.sizes["classes"]))


def load_run(out: Path | str, *, best: bool = False, device: str = "cpu") -> Run:
    """The network of a run's last (or best) checkpoint and what its ids mean. Nothing in the folder is executed.

    Raises:
        CheckpointError: there is no run or no such checkpoint, or a file is damaged.
    """
    folder, config = RunFolder.open(out)
    # The file that a run trains in is its own: to look at weights that memory may not hold, there is another one.
    storage = None
    if config.head_storage is not None and device == "cpu":
        storage = str(folder.path.absolute() / f".rows-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    config = dataclasses.replace(config, device=device, head_storage=storage)
    job = JOB_CLASSES[config.job].load(folder, config)
    path = folder.best_checkpoint if best else folder.last_checkpoint
    tree = load_checkpoint(path)
    origin = Origin.of(config, job.sizes, folder.vocabulary_sums())
    origin.check(tree, path)  # before anything is made of the options and the other files
    frequencies = None
    if needs_frequencies(config.head, config.head_options):
        frequencies = load_checkpoint(folder.vocabulary_path(_FREQUENCIES))["frequencies"]
    try:
        network = build_network(job, config, frequencies)
        restore_network(network, tree, origin, path)
    finally:
        if config.head_storage is not None:
            Path(config.head_storage).unlink(missing_ok=True)  # the name; the file goes with the network
    return Run(folder, config, job, network.eval(), tree["position"]["step"])


def _built(job: Job, config: TrainingConfig, frequencies: Tensor | None) -> WideNetwork:
    try:
        return build_network(job, config, frequencies)
    except OSError as error:
        raise ValueError(f"Option `head_storage` cannot be used: {error.strerror or error}") from error


def _check_storage_free(config: TrainingConfig) -> None:
    if config.head_storage is not None and Path(config.head_storage).exists():
        raise ValueError(
            f"Option `head_storage` should be a file that is not there yet. Found {config.head_storage}: delete it if "
            "nobody needs it, or choose another one."
        )


def _drop_storage(config: TrainingConfig, classes: int) -> None:
    """Delete the file that the interrupted run kept its rows in: checkpoints have them, and it is made anew.

    Raises:
        CheckpointError: what is there is not of that size.
    """
    if config.head_storage is None:
        return
    path = Path(config.head_storage)
    path.with_name(f".{path.name}.new").unlink(missing_ok=True)  # from a kill while the rows were given a momentum
    if not path.exists():
        return
    number = 2 if config.head_storage_dtype == "bfloat16" else {"float32": 4, "float64": 8}[config.dtype]
    size = classes * (config.width + config.head_bias) * number
    found = path.stat().st_size
    if found not in (size, 2 * size) and not (found < size and _holds_zeros(path)):  # twice with momentum
        raise CheckpointError(
            f"{path} should hold the {size:,} bytes of this run's output layer. Found {found:,} bytes: "
            "put it elsewhere, or go on with another head_storage."
        )
    path.unlink()


def _holds_zeros(path: Path) -> bool:
    """Whether there is nothing in a file yet, as after a kill while its space was being reserved."""
    with path.open("rb") as file:
        return not any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b""))


def _check_cutoffs(config: TrainingConfig, job: Job) -> None:
    if max(config.at) > job.sizes["classes"]:
        raise ValueError(
            f"Option `at` should not exceed the number of classes, {job.sizes['classes']}. Found {max(config.at)}."
        )


def with_absolute_paths(config: TrainingConfig) -> TrainingConfig:
    paths = {name: getattr(config, name) for name in ("out", "train", "test", "labels", "head_storage")}
    absolute: dict[str, Any] = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    return dataclasses.replace(config, **absolute)
