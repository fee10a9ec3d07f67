"""What all estimators are: the options of a job as parameters, and a run folder that holds what was learnt."""

from __future__ import annotations

import inspect
import io
import shutil
import sys
import tarfile
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from widehead.errors import CheckpointError
from widehead.estimators.names import Names
from widehead.kinds import JOBS, configure
from widehead.options import OPTIONS, TrainingConfig
from widehead.runs import Run
from widehead.training import RunFolder
from widehead.training.contract import OnLog
from widehead.training.folder import expecting

_OWN: Mapping[str, Any] = {"quiet": None, "callbacks": (), "on_log": None}


class Estimator(ABC):
    """A job as an object with ``fit``, of which scikit-learn's tools (clone, GridSearchCV, Pipeline) make use.

    Parameters are the options of the job by their names, all of them by keyword; None leaves one to the job's preset,
    as on the command line. `get_params` lists them, and the page of options says what they mean. Three are of the
    estimator alone:

    * quiet: None shows a progress bar if standard error is a terminal; True shows nothing, False lines elsewhere too.
    * on_log: is called with each record of the log, a dictionary.
    * callbacks: each is called with the network and each record; if one returns true, training ends there.

    A fitted estimator has its run in a folder that goes when it goes; `save` keeps one. It pickles as the bytes of that
    folder. Training draws from generators of its own.

    Attributes:
        job: the job's name.
        run_: the run, once it is fitted.
    """

    job: ClassVar[str]
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _data: ClassVar[Sequence[str]] = ()  # parameters of the constructor that are data to fit
    run_: Run
    quiet: bool | None
    callbacks: Sequence[OnLog]
    on_log: Callable[[dict[str, Any]], object] | None
    _learnt: dict[str, Any]
    _names: Names

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()

        def __init__(self: Estimator, *data: Any, **options: Any) -> None:
            given = signature.bind(self, *data, **options)
            given.apply_defaults()
            values = {name: value for name, value in given.arguments.items() if name != "self"}
            train = [values.pop(name) for name in cls._data]
            vars(self).update(values)
            if any(part is not None for part in train):
                self.fit(*train)

        either, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("self", either)]
        parameters += [inspect.Parameter(name, either, default=None) for name in cls._data]
        parameters += [inspect.Parameter(name, keyword, default=value) for name, value in cls._own().items()]
        signature = inspect.Signature(parameters)
        __init__.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign]

    if TYPE_CHECKING:  # each estimator has one of its own, which names its parameters: see `__init_subclass__`

        def __init__(self, *data: Any, **options: Any) -> None: ...

    @classmethod
    def _own(cls) -> dict[str, Any]:
        """Names of the parameters and their defaults: options that name no file, and those of estimators."""
        takes = JOBS[cls.job].takes
        rows = (row for row in OPTIONS.values() if row.panel and not row.is_path and (row.shared or row.name in takes))
        return {**{row.name: cls._defaults.get(row.name) for row in rows}, **_OWN}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; ``deep`` is there for scikit-learn."""
        return {name: getattr(self, name) for name in self._own()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name for the next ``fit``; ValueError if one is not there."""
        if unknown := sorted(set(params) - set(self._own())):
            raise ValueError(f"Parameters are: {', '.join(self._own())}. Found {unknown[0]!r}.")
        vars(self).update(params)
        return self

    def __repr__(self) -> str:
        own = self._own()
        changed = {name: value for name, value in self.get_params().items() if value is not own[name]}
        shown = ", ".join(f"{name}={value!r}" for name, value in changed.items() if value != own[name])
        return f"{type(self).__name__}({shown})"

    @abstractmethod
    def fit(self, data: Any, /, *more: Any) -> Self:
        """Learn from data in memory."""

    def evaluate(self, test: Any, at: tuple[int, ...] | None = None) -> dict[str, float]:
        """Metrics on held-out data, a file or in memory, as `Run.evaluate` gives them and the command line too."""
        return self._fitted().evaluate(test, at)

    def save(self, folder: Path | str) -> Path:
        """Write the run to a folder that is empty or not there: `load` reads it, and so does the command line.

        Raises:
            CheckpointError: there is something in it, or it cannot be written.
        """
        run, place = self._fitted(), RunFolder(Path(folder))
        place.check_free()
        try:
            shutil.copytree(run.folder.path, place.path, dirs_exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"The run folder {place.path} cannot be written: {error}.") from error
        place.write_config(TrainingConfig.from_options({**vars(run.config), "out": str(place.path.absolute())}))
        kept = {name: value for name, value in self.get_params().items() if name not in ("callbacks", "on_log")}
        place.write_estimator({"params": _plain(kept), "learnt": self._learnt})
        return place.path

    @classmethod
    def load(cls, folder: Path | str, *, best: bool = False, device: str = "cpu") -> Self:
        """The estimator that ``save`` or a command of this job left in a folder, which it needs as long as it is used.

        Args:
            folder, best, device: see `Run.open`.

        Raises:
            CheckpointError: there is no run of this job, or it is damaged.
        """
        run = Run.open(folder, best=best, device=device)
        if run.config.job != cls.job:
            raise CheckpointError(f"{folder} should hold a run of the job {cls.job}. Found one of {run.config.job}.")
        path, found = run.folder.estimator_path, run.folder.read_estimator()
        with expecting(path, "what an estimator saved"):
            made = cls(**(_of_config(cls, run.config) if found is None else _tuples(found["params"])))
            made._take(run, {} if found is None else found["learnt"])
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in ("run_", "_names")}
        if not hasattr(self, "run_"):
            return state
        return {**state, "_bytes": _packed(self.run_.folder.path), "_best": self.run_.best}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed, best = state.pop("_bytes", None), state.pop("_best", False)
        vars(self).update(state)
        if packed is not None:
            with _temporary_folder() as folder:
                with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                    archive.extractall(folder, filter="data")
                self._take(_owning(Run.open(folder / "run", best=best)), self._learnt)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags(sparse=True))

    def _train(self, data: Any, known: Mapping[str, Any], **changes: Any) -> None:
        """Learn from data in a temporary folder, with changes of parameters; KeyboardInterrupt if Ctrl-C ended it.

        Args:
            known: what the run folder does not say of the data, as JSON holds it; "kind" is that of `Names`.
        """
        given = {name: getattr(self, name) for name in self._own() if name not in _OWN}
        options = {name: _item(value) for name, value in given.items() if value is not None}
        options |= changes
        if "minutes" in options:
            options.setdefault("epochs", None)
        with _temporary_folder() as folder:
            run = Run.new(configure(self.job, out=str(folder / "run"), **options), data)
            quiet = not sys.stderr.isatty() if self.quiet is None else bool(self.quiet)
            with torch.random.fork_rng([]):
                outcome = run.train(quiet=quiet, on_log=partial(_tell, self.on_log, tuple(self.callbacks)))
            learnt = {**known, **self._learn(run)}
            self._take(_owning(Run.open(folder / "run", device=run.config.device)), learnt)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt

    def _fitted(self) -> Run:
        """The run; an error, scikit-learn's own if that is in use, if there is none yet."""
        if not hasattr(self, "run_"):
            kind: Any = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", ValueError)
            raise kind(f"{type(self).__name__} should be fitted first. Found no run; call fit, or load a run folder.")
        return self.run_

    def _learn(self, run: Run) -> dict[str, Any]:
        """What else is to be known of a run, as JSON holds it."""
        return {}

    def _take(self, run: Run, learnt: Mapping[str, Any]) -> None:
        """Be fitted by a run and by what ``_train`` learnt; by nothing, if the command line trained it."""
        self.run_, self._learnt = run, dict(learnt)
        self._names = Names(run.job.class_names, self._learnt.get("kind"))
        vars(self).pop("n_features_in_", None)
        if self._learnt.get("features") is not None:
            self.n_features_in_ = int(self._learnt["features"])


def _tell(
    on_log: Callable[[dict[str, Any]], object] | None, callbacks: Sequence[OnLog], network: Any, record: dict[str, Any]
) -> bool:
    """Tell a record to those who want it; whether training should end."""
    if on_log is not None:
        on_log(record)
    told = [callback(network, record) for callback in callbacks]
    return any(told)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A new folder, which an error inside removes again."""
    path = Path(tempfile.mkdtemp(prefix="widehead-"))
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _owning(run: Run) -> Run:
    """A run whose folder's folder goes when the run goes, or the program ends."""
    weakref.finalize(run, shutil.rmtree, run.folder.path.parent, ignore_errors=True)
    return run


def _item(value: Any) -> Any:
    """A parameter without numpy's types, which grids of parameters have."""
    return value.item() if hasattr(value, "item") else value


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, Mapping) else _item(value) for name, value in params.items()}


def _tuples(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they were before JSON made lists of them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}


def _of_config(cls: type[Estimator], config: TrainingConfig) -> dict[str, Any]:
    """Parameters that give the options of a run, as far as its preset does not."""
    default = configure(config.job, out=config.out, preset=config.preset)
    names = [name for name in cls._own() if name not in _OWN and name != "preset"]
    changed = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(default, name)}
    fixed = {name: getattr(config, name) for name in cls._defaults}
    return {"preset": config.preset, **fixed, **changed}


def _packed(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, "run")
    return packed.getvalue()
