"""A run from beginning to end: one object that trains, evaluates, predicts, reports and exports."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widehead.data.files import is_file, whole_file
from widehead.devices import resolved
from widehead.errors import CheckpointError, check_whole
from widehead.jobs import Job, JobData, Prediction
from widehead.jobs.base import job_named, open_folder
from widehead.models import WideNetwork
from widehead.options import OPTIONS, TrainingConfig
from widehead.options.checks import refusal
from widehead.progress import heard_by
from widehead.runs.index import RunIndex, build_index
from widehead.runs.loading import loaded_network
from widehead.runs.lock import locked
from widehead.runs.replace import bring_back, drop_aside, remove_run, set_aside
from widehead.runs.rows import ids_of, linear_head, similar_classes
from widehead.runs.start import begun, check_cutoffs, check_split, read_data, said, trained_in
from widehead.runs.storage import check_storage_free, drop_storage
from widehead.split import Peers
from widehead.training import Outcome, RunFolder
from widehead.training.contract import OnLog
from widehead.training.log import PlainDisplay, display_for

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_FILES = ("train", "test", "labels")  # that may be elsewhere when a run goes on


class Run:
    """A run folder and what can be done with it. ``Run.new`` starts one, ``Run.open`` finds one.

    Nothing in a run folder is ever executed.

    Attributes:
        folder: its paths.
        config: its options, with those that the data decide.
        best: whether its weights are those of the best checkpoint, not the last one.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainingConfig,
        data: JobData | None = None,
        *,
        source: Any = None,
        best: bool,
        device: str,
        peers: Peers | None = None,
    ) -> None:
        self.folder, self.config = folder, config
        self._peers = peers or Peers()
        self._data, self._source, self.best, self._device = data, source, best, device
        self._indices: dict[tuple[str, float], RunIndex] = {}
        self._made: list[Path] | None = None  # folders that a failure before the first checkpoint removes again

    @classmethod
    def new(
        cls, config: TrainingConfig, data: Any = None, *, overwrite: bool = False, mesh: DeviceMesh | None = None
    ) -> Run:
        """Read the data of a new run, make its folder ``config.out`` and write its options there.

        Args:
            config: as `widehead.jobs.configure` makes it; relative paths are kept as absolute ones, so that the run
                can be resumed from anywhere.
            data: training data in memory, if ``config.train`` is None: those that ``predict`` takes; for a classifier
                a pair, documents and labels, as `documents_of` takes them.
            overwrite: whether the run that is in the folder makes room. It stays beside it as .NAME.before until the
                new one has finished, and comes back if that fails before its first checkpoint.
            mesh: the processes that the rows of the head are split over, each of which calls all methods that train.
                Only the first writes; all read the data, of which each may keep a share.

        Raises:
            DataError: a file cannot be read; nothing was written.
            CheckpointError: the folder holds something already, is in use by another process, or cannot be written to.
            ValueError: options that do not fit the job or its data; there is something at ``head_storage``.
            ProcessesError: another process raised one of these; or it read other data.
        """
        peers = Peers(mesh)
        config, folder, read = begun(config, data, overwrite=overwrite, peers=peers)
        run = cls(folder, config, read, best=False, device=config.device, peers=peers)
        with peers.alike():
            if peers.is_first:
                run._begin(overwrite)
        return run

    def _begin(self, overwrite: bool) -> None:
        """Make the folder, and write the options there."""
        if overwrite:
            set_aside(self.folder)
        try:
            self._made = self.folder.make()
            with self._taken():
                RunFolder.create(self.config)
        except BaseException:
            bring_back(self.folder)
            raise

    @classmethod
    def open(
        cls,
        out: Path | str,
        *,
        data: Any = None,
        best: bool = False,
        device: str = "cpu",
        mesh: DeviceMesh | None = None,
    ) -> Run:
        """The run in a folder, to be used or trained further. Its weights are read when they are first needed.

        Args:
            out: the run folder.
            data: the training data, if they were in memory and the run is to be trained further.
            best: whether the weights are those of the best checkpoint, not the last one.
            device: to evaluate and predict on; "auto": cuda if it is usable.
            mesh: the processes that train it further, as in ``new``; another number of them than before, or one alone
                without a mesh, goes on with the same weights.

        Raises:
            CheckpointError: there is no run, or its config.json is damaged.
        """
        peers = Peers(mesh)
        with peers.alike():
            folder, config, _ = open_folder(out)
        return cls(folder, config, source=data, best=best, device=resolved(device), peers=peers)

    def __repr__(self) -> str:
        config = self.config
        how = f"head {config.head}" if config.loss is None else f"head {config.head}, {config.loss}"
        return f"Run({str(self.folder.path)!r}: {config.job}, preset {config.preset}, width {config.width}, {how})"

    @cached_property
    def job(self) -> Job:
        """What the ids of inputs and classes mean; CheckpointError if a file of the run is damaged."""
        kind, data = job_named(self.config.job), self._data
        return kind.load(self.folder, self.config) if data is None or data.share is not None else data.job

    @cached_property
    def class_ids(self) -> Mapping[str, int]:
        """The ids of the classes by their names; of equal names the first."""
        names = self.job.class_names
        return dict(zip(reversed(names), range(len(names) - 1, -1, -1), strict=True))

    @property
    def data(self) -> JobData:
        """The job with the examples to train on and to judge by, read once; raises as `read_data`."""
        if self._data is None:
            self._data = read_data(self.config, self._in_memory(), self._peers)
            self.__dict__.pop("job", None)
            self._check_content(self.config.train)
        return self._data

    @property
    def network(self) -> WideNetwork:
        """Encoder and head of the checkpoint, in eval mode; CheckpointError if it is not there or damaged."""
        return self._loaded[0]

    @property
    def step(self) -> int:
        """Training steps that the weights of ``network`` have seen."""
        return self._loaded[1]

    def train(self, *, quiet: bool = False, on_log: OnLog | None = None, **changes: Any) -> Outcome:
        """Train to the limit, or until Ctrl-C; from the last checkpoint or, if there is none yet, from the start.

        No other process can train in the folder meanwhile. A new run that fails before its first checkpoint is
        removed.

        Args:
            quiet: show nothing on standard error.
            on_log: see `Trainer`.
            changes: new values of limits and cadences, such as ``epochs=20``; and files that were moved, such as
                ``train=…``, which should have the content that the run began with.

        Raises:
            CheckpointError: another process trains the run, its checkpoint is damaged or from a run with other
                options, the training data changed, or a file cannot be written.
            DataError: a file cannot be read.
            NonFiniteError: see ``Trainer.run``.
            ValueError: a change of an option that cannot change.
        """
        may = sorted({*_FILES, *(name for name, row in OPTIONS.items() if row.resumed == "new")})
        if fixed := sorted(set(changes) - set(may)):
            raise ValueError(f"A resumed run may change: {', '.join(may)}. Found {fixed[0]!r}.")
        with self._taken():
            self._prepare(dict(changes, out=str(self.folder.path)))
            display = display_for(quiet or not self._peers.is_first)
            try:
                with heard_by(display.hear):
                    outcome = trained_in(self.folder, self.config, self._read_alike(), self._peers, display, on_log)
                if outcome.status == "finished" and self._peers.is_first:
                    drop_aside(self.folder)
                return outcome
            except BaseException:
                if not self.folder.last_checkpoint.exists():  # nothing that was learnt is lost
                    with suppress(CheckpointError):
                        drop_storage(self.config)
                raise
            finally:
                display.close()

    def evaluate(
        self, test: Any = None, at: tuple[int, ...] | None = None, at_most: int | None = None
    ) -> dict[str, float]:
        """Metrics on held-out examples. What of them does not fit is said on standard error.

        Args:
            test: a file, or data in memory as ``new`` takes them; the run's own file by default.
            at: cutoffs; those of the run by default.
            at_most: rank a sample of so many examples; all by default.

        Raises:
            DataError: the file cannot be read, or nothing is left to judge by.
            ValueError: the run has no test file of its own; a cutoff is larger than the number of classes.
        """
        test = self.config.test if test is None else test
        if test is None:
            raise ValueError("Option `test` should be given, as the run has no test file of its own.")
        config = self.config if at is None else dataclasses.replace(self.config, at=at)
        check_cutoffs(config, self.job)
        network = self.network  # a damaged run is told before the file is read
        with whole_file(test) if is_file(test) else nullcontext(test) as data:
            examples = self.job.read_test(data)
        if not examples.fits:
            PlainDisplay(sys.stderr).say(said(test if is_file(test) else None, examples.reading))
        return examples.metrics(network, self.job.metric_names(config.at), at_most, config.seed)

    def predict(self, data: Any, k: int = 10) -> Iterator[Prediction]:
        """The k best classes for each input, and none for one of which nothing is known.

        Args:
            data: the path of a file, or data in memory, whose rows are named by their numbers from 0. For a
                recommender a (users, items) scipy or numpy matrix whose columns are the run's items
                (`job.class_names`); a list of items for each user; a DataFrame of pandas or polars with columns of
                users, items and, perhaps, ratings, whose users name the answers. For a classifier a (documents,
                features) matrix, or a list of texts if it was trained on texts. For a job of words a list of texts,
                or of lists of words.
            k: how many classes; all if there are fewer.

        Raises:
            DataError: the data are not what they should be.
            ValueError: ``k`` is below 1.
            CheckpointError: the run is damaged.
        """
        check_whole("k", k)
        return self.job.predict(self.network, data, min(k, self.job.sizes["classes"]))

    def similar(self, names: Iterable[str], n: int = 10) -> Iterator[Prediction]:
        """The n classes nearest to each of some, and their similarity in [-1, 1], as `similar_classes` finds them.

        Those are items that share their users, labels that share their documents, words that share their contexts:
        of all jobs, words included, the vectors are the rows of the output layer.

        Args:
            names: of classes, as `job.class_names` has them.
            n: how many; all others if there are fewer.

        Raises:
            DataError: a name is no class of the run, and what is near it; or the head has no row for each class.
            ValueError: ``n`` is below 1.
            CheckpointError: the run is damaged.
        """
        check_whole("n", n)
        classes, known = names if isinstance(names, str) else list(names), self.job.class_names
        ids = ids_of(classes, self.class_ids)
        found = zip(classes, *similar_classes(linear_head(self), ids, n), strict=True)
        return (Prediction(name, [known[i] for i in best], scores.tolist()) for name, best, scores in found)

    def report(
        self, *, comparisons: Mapping[str, Mapping[str, float]] | None = None, tables: Sequence[Any] = ()
    ) -> Path:
        """Write report.html, as `widehead.report.write_report` does."""
        from widehead.report import write_report  # plots are slow to import

        return write_report(self.folder.path, comparisons=comparisons, tables=tables)

    def export(self, format: str, path: Path | str | None = None, **options: Any) -> Path:
        """Write the weights for other programs, as `widehead.runs.export.export` does."""
        from widehead.runs.export import export  # polars is slow to import

        return export(self, format, path, **options)

    def index(self, kind: str, recall: float = 0.95) -> RunIndex:
        """An index of the classes, "ivf" or "hnsw", made once: see `widehead.runs.index.build_index`."""
        if (kind, recall) not in self._indices:
            self._indices[kind, recall] = build_index(self, kind, recall)
        return self._indices[kind, recall]

    @contextmanager
    def _taken(self) -> Iterator[None]:
        """The folder is this process's; a failure of a new run before its first checkpoint removes it."""
        if not self._peers.is_first:
            yield
            return
        self.folder.check_own()
        try:
            with locked(self.folder.path):
                yield
        except BaseException:
            if self._made is not None and not self.folder.last_checkpoint.exists():
                with suppress(CheckpointError):  # it is another process's, or holds files of others
                    remove_run(self.folder.path)
                for folder in self._made:
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()
                bring_back(self.folder)
            raise

    def _in_memory(self) -> Any:
        """The training data, if they are no file: those given, or those that the folder holds."""
        if self.config.train is not None or job_named(self.config.job).brings_data:
            return None
        source = self.job.kept(self.config) if self._source is None else self._source
        if source is None:
            raise CheckpointError(
                f"The run {self.folder.path} was trained on data in memory, which its folder does not hold. To go on, "
                "give them again in Python: Run.open(FOLDER, data=…).train()."
            )
        return source

    def _prepare(self, changes: Mapping[str, Any]) -> None:
        """Options as they stand in the folder, with changes; data; and no file where rows are to be kept."""
        with self._peers.alike():
            _, before, _ = open_folder(self.folder.path)
            config = dataclasses.replace(before, **changes).with_absolute_paths()
            if config.epochs == 0:
                raise refusal("epochs", "be at least 1 for a run that goes on", 0)
            if self._peers.size > 1:
                check_split(config)
            if config.head_storage != before.head_storage:
                check_storage_free(config)
            self.config = config
        if any(getattr(config, name) != getattr(before, name) for name in _FILES):  # read before that is written
            self._data = read_data(config, self._in_memory(), self._peers)
            self.__dict__.pop("job", None)
            self._check_content(before.train)
        with self._peers.alike():
            if config.head_storage == before.head_storage:
                drop_storage(config)  # of all processes, before one of them makes its file anew
        if config != before and self._peers.is_first:
            self.folder.write_config(config)
        self.__dict__.pop("_loaded", None)
        self._indices.clear()

    def _check_content(self, known: str | None) -> None:
        """CheckpointError unless the training data are those of the run, which knows them by that path."""
        assert self._data is not None
        kept, found, path = self.config.train_checksum, self._data.checksum, self.folder.path
        if kept and kept != found:
            raise CheckpointError(
                f"The training data changed since the run {path} began. Expected the content that {known} had then. "
                f"Found other content in {self.config.train}: name the file that has it, or start a new run."
            )
        if not kept and known != self.config.train:
            raise CheckpointError(f"The run {path} does not say what {known} held: put that file back to go on.")

    def _read_alike(self) -> JobData:
        """The data, which are in the folder too afterwards, as far as the job keeps them."""
        data = self.data
        with self._peers.alike():
            if data.share is not None or self._peers.is_first:
                data.job.save(self.folder)
        return data

    @cached_property
    def _loaded(self) -> tuple[WideNetwork, int]:
        """The network of the checkpoint, and the steps it has seen."""
        path = self.folder.best_checkpoint if self.best else self.folder.last_checkpoint
        network, step = loaded_network(self.folder, self.config, self.job, path, self._device)
        self.job.complete(network, self.folder, self.config)
        return network, step
