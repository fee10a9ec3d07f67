"""What a run starts from: its data, a network, and how it is judged."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from widehead.data import Batches
from widehead.data.files import first_bytes, listed, whole_file
from widehead.errors import CheckpointError, NonFiniteError
from widehead.jobs import Job, JobData, build_network, configure
from widehead.jobs.base import job_named, ranks_beside
from widehead.jobs.judging import ALONE, LOWER_IS_BETTER
from widehead.jobs.network import class_frequencies
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.options.checks import refusal
from widehead.options.heads import needs_frequencies, split_heads
from widehead.runs.loading import FREQUENCIES, loaded_network
from widehead.runs.replace import check_replaceable
from widehead.runs.storage import check_storage_free
from widehead.split import Peers, Share, is_split, local
from widehead.training import Evaluator, Outcome, RunFolder, Trainer
from widehead.training.checkpoint import save_checkpoint
from widehead.training.contract import OnLog
from widehead.training.joining import Joining
from widehead.training.log import Display
from widehead.training.memory import give_back_freed_memory, keep_freed_memory
from widehead.training.optimizers import make_head_optimizer


def begun(
    config: TrainingConfig, data: Any = None, *, overwrite: bool, peers: Peers
) -> tuple[TrainingConfig, RunFolder, JobData]:
    """The options, the folder and the data of a new run, with what the data decide; raises as `Run.new`.

    Nothing is written.
    """
    config = config.with_absolute_paths()
    folder = RunFolder(Path(config.out))
    with peers.alike():
        if peers.size > 1:
            check_split(config)
        if peers.is_first:
            check_replaceable(folder) if overwrite else folder.check_free()
        _check_new(config, data)
    read = read_data(config, data, peers)
    with peers.alike():
        config = fitting_cutoffs(read.job.settled(config), read.job)
    return dataclasses.replace(config, train_checksum=read.checksum), folder, read


def _check_new(config: TrainingConfig, data: Any) -> None:
    """Raise ValueError or CheckpointError if no run can begin with these options, whatever the data hold."""
    kind = job_named(config.job)
    kind.check(config)
    if kind.brings_data and data is not None:
        raise ValueError(
            f"Expected no data for the job {config.job}, which brings its own. Found {type(data).__name__}."
        )
    if (data is None) == (config.train is None) and not kind.brings_data:
        found = "neither" if data is None else "both"
        raise ValueError(f"Option `train` should be a file, or data in memory be given. Found {found}.")
    check_storage_free(config)


def check_split(config: TrainingConfig) -> None:
    """Raise ValueError if several processes cannot make the run."""
    if config.device != "cpu":
        raise refusal("device", "be cpu in several processes", config.device)


def read_data(config: TrainingConfig, data: Any = None, peers: Peers = ALONE) -> JobData:
    """The data of a run, in memory or in files, each of which may be a pipe; of several processes all read them.

    Raises:
        DataError: they cannot be read.
        ProcessesError: they cannot in another process, or are others there.
    """
    kind, checksum = job_named(config.job), ""
    with ExitStack() as files:
        with peers.alike():
            paths = {name: getattr(config, name) for name in ("train", "test", "labels")}
            places: dict[str, Any] = {
                n: path and str(files.enter_context(whole_file(path))) for n, path in paths.items()
            }
            given = dataclasses.replace(config, **places)
            if given.train is not None:
                first_bytes(given.train)  # what is no file is refused as readers do
                checksum = _checksum(given.train)
        peers.check_same("training data", f"check sum {checksum}")
        train = given.train if data is None else data
        if kind.by_shares:
            read = kind.of(given, train, Share.of(peers))
        else:
            with peers.alike():
                read = kind.of(given, train)
            peers.check_same("training data", dict(read.job.sizes))
    give_back_freed_memory()  # of files, and of networks that were tried
    return dataclasses.replace(read, checksum=checksum)


def _checksum(path: str) -> str:
    """Of all bytes of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def said(path: Path | str | None, reading: str) -> str:
    """The line that says what was read of a file, or of the data that a job brings."""
    return f"Read: {reading}" if path is None else f"Read {listed([Path(path).name])}: {reading}"


def evaluator_of(config: TrainingConfig, network: WideNetwork, data: JobData, peers: Peers = ALONE) -> Evaluator | None:
    test = data.test
    if test is None:
        return None
    names = data.job.metric_names(config.at)
    return Evaluator(
        lambda: test.metrics(network, names, config.rank_at_most, config.seed, peers),
        names[0],
        names[0] in LOWER_IS_BETTER,
    )


def frequencies_of(config: TrainingConfig, data: JobData) -> Tensor | None:
    """(D,) how often each class is a target of the data, in all shares of them, if the head needs that.

    Those that join late count too: what they alone have as a target is to be drawn as often as it will be one.
    """
    if not needs_frequencies(config.head, config.head_options):
        return None
    found = class_frequencies(data.joining or data.examples, data.job.sizes["classes"])
    return found if data.share is None else torch.from_numpy(data.share.total(found.numpy()))


def trainer_of(
    config: TrainingConfig, network: WideNetwork, data: JobData, folder: RunFolder, *, peers: Peers = ALONE, **more: Any
) -> Trainer:
    """A trainer of a network on the data of a run; ``more`` as `Trainer` takes it."""
    measured = data.job.sgd_lr.get(str(config.loss))
    optimizer = make_head_optimizer(config, network, data.examples, measured, data.share)
    share = peers.share if peers.size > 1 and data.share is None else None
    batches = Batches(data.examples, config.batch_size, config.seed, share=share)
    joining = None
    if data.joining is not None:
        later = Batches(data.joining, config.batch_size, config.seed, share=share)
        choose = partial(_chosen, network, folder, config, data, peers)
        joining = Joining(later, len(data.joining), data.joins, choose)
    sizes = data.job.sizes
    return Trainer(config, network, optimizer, batches, folder, sizes=sizes, peers=peers, joining=joining, **more)


def _chosen(network: WideNetwork, folder: RunFolder, config: TrainingConfig, data: JobData, peers: Peers) -> str | None:
    """What the job chooses; of several processes the first does, by the last checkpoint, while the others wait.

    Its network there is whole, and so are the data that the job keeps in the folder.
    """
    told = None
    with peers.alike():
        if peers.size == 1:
            told = data.job.trained(network, folder, config)
        elif peers.is_first and data.job.choice is not None and config.neighbours > 0:
            job = job_named(config.job).load(folder, config)
            whole, _ = loaded_network(folder, config, job, folder.last_checkpoint, config.device)
            told = job.trained(whole, folder, config)
    return told


def start_encoder(config: TrainingConfig, encoder: nn.Module, data: JobData, peers: Peers = ALONE) -> None:
    """Weights that are made from the training data, if the options say so; NonFiniteError if they are not finite.

    All processes compute them, and then take those of the first, as machines may round in other ways; of rows that are
    split each has its own.
    """
    if config.encoder_init != "random":
        data.job.start(encoder, data.examples, config)
        with peers.alike():
            check_finite(encoder)
    peers.take_from_first(part for part in (*encoder.parameters(), *encoder.buffers()) if not is_split(part))


def built(job: Job, config: TrainingConfig, frequencies: Tensor | None, mesh: Any = None, **more: Any) -> WideNetwork:
    try:
        return build_network(job, config, frequencies, mesh, **more)
    except OSError as error:
        raise ValueError(f"Option `head_storage` cannot be used: {error.strerror or error}") from error


def first_network(
    config: TrainingConfig, data: JobData, frequencies: Tensor | None, peers: Peers = ALONE, *, begins: bool = True
) -> tuple[WideNetwork, float]:
    """A new network and, if it ``begins``, with weights made from the data, the seconds that these took."""
    took = 0.0

    def start(encoder: nn.Module) -> None:
        nonlocal took
        begin = time.perf_counter()
        start_encoder(config, encoder, data, peers)
        took = time.perf_counter() - begin

    made = built(data.job, config, frequencies, peers.mesh, **({"start": start} if begins else {}))
    if config.head not in split_heads():
        peers.take_from_first([*made.head.parameters(), *made.head.buffers()])
    return made, took


def fitting_cutoffs(config: TrainingConfig, job: Job) -> TrainingConfig:
    """The options with cutoffs for so many classes: those that nobody asked for are made to fit.

    Raises:
        ValueError: others that are larger than the number of classes.
    """
    classes = job.sizes["classes"]
    default = configure(config.job, train=config.train, out=config.out, preset=config.preset).at
    if config.at == default and classes > 0:
        return dataclasses.replace(config, at=tuple(sorted({min(k, classes) for k in default})))
    check_cutoffs(config, job)
    return config


def check_cutoffs(config: TrainingConfig, job: Job) -> None:
    if max(config.at) > job.sizes["classes"]:
        raise refusal("at", f"not exceed the number of classes, {job.sizes['classes']}", max(config.at))


def check_finite(encoder: nn.Module) -> None:
    if not all(bool(torch.isfinite(local(p)).all()) for p in encoder.parameters()):
        raise NonFiniteError(
            "An encoder made from the training data should be finite. Found NaN or infinity, as from values that are "
            "too large to be squared. Use smaller values, or --encoder-init random."
        )


def trainer_in(
    folder: RunFolder, config: TrainingConfig, data: JobData, peers: Peers, display: Display, on_log: OnLog | None
) -> Trainer:
    """A trainer in the state of the last checkpoint of a folder, or at the start."""
    begins = not peers.said_by_first(folder.last_checkpoint.exists())
    # A network that cannot be made is one line; so what was read is told after it is made, unless that takes long.
    is_long = begins and config.encoder_init != "random"
    frequencies = _made_frequencies(folder, config, data, peers)
    if is_long:
        _tell(config, data, peers, display, begins)
    network, took = first_network(config, data, frequencies, peers, begins=begins)
    if not is_long:
        _tell(config, data, peers, display, begins)
    started = peers.said_by_first(took)
    keep_freed_memory()
    evaluator = evaluator_of(config, network, data, peers)
    trainer = trainer_of(
        config, network, data, folder, peers=peers, evaluator=evaluator, display=display, on_log=on_log
    )
    trainer.restore()
    trainer.state.position.prepared(started)
    return trainer


def _tell(config: TrainingConfig, data: JobData, peers: Peers, display: Display, begins: bool) -> None:
    """Say what was read, and how it is trained."""
    if peers.size > 1:
        threads = torch.get_num_threads()
        display.say(f"{peers.size} processes, {threads} thread{'s' * (threads > 1)} each.")
    if data.reading:
        display.say(said(config.train, data.reading))
    if data.test is not None and data.test.reading:
        display.say(said(config.test, data.test.reading))
    if begins and config.preset is not None:
        display.say(f"Preset {config.preset}: {config.because or 'the default'}.")
    if begins and data.tried:
        display.say(data.tried)


def trained_in(
    folder: RunFolder, config: TrainingConfig, data: JobData, peers: Peers, display: Display, on_log: OnLog | None
) -> Outcome:
    """Train, and let the job choose by data of its own, if it did not while it trained."""
    trainer = trainer_in(folder, config, data, peers, display, on_log)
    with peers.alike():
        if peers.is_first:
            _check_chosen(folder, trainer.state.position.joined)
    outcome = trainer.run()
    give_back_freed_memory()
    joined, told = trainer.state.position.joined, None
    if not joined and (peers.size == 1 or outcome.status == "finished"):
        told = _chosen(trainer.network, folder, config, data, peers)
    if told:
        display.say(told)
    if peers.size == 1 and (told or joined):
        if outcome.status == "finished" and outcome.metrics:
            return dataclasses.replace(outcome, metrics=_final(trainer, data.job) or outcome.metrics)
    elif (config.direct > 0.0 or told or joined) and outcome.metrics:
        more = ranks_beside(config)
        display.say(f"These metrics are of the network alone; those of `widehead evaluate` are with {more}.")
    return outcome


def _check_chosen(folder: RunFolder, joined: bool) -> None:
    """Remove what was chosen for the weights so far; CheckpointError if it is final and not there."""
    if not joined:
        for path in (folder.neighbours_path, folder.classifiers_path):
            path.unlink(missing_ok=True)
    elif not folder.neighbours_path.exists():
        raise CheckpointError(
            f"{folder.neighbours_path} should be there, as the examples that chose it train the network since, and "
            "cannot choose again. Found none. Put the file back, or start a new run."
        )


def _final(trainer: Trainer, job: Job) -> Mapping[str, float]:
    """Metrics of the network with what was chosen to rank beside it; none if nothing was."""
    job.complete(trainer.network, trainer.folder, trainer.config)
    if trainer.network.beside is None:
        return {}
    return trainer.judge("final", f", with {ranks_beside(trainer.config)}")


def _made_frequencies(folder: RunFolder, config: TrainingConfig, data: JobData, peers: Peers) -> Tensor | None:
    """`frequencies_of` the data, which the folder has then."""
    made = frequencies_of(config, data)
    with peers.alike():
        if made is not None and peers.is_first:
            folder.keep(FREQUENCIES, lambda path: save_checkpoint(path, {"frequencies": made}))
    return made
