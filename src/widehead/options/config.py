"""Every option of a training run, one row each: its type, default, check, help and place in the command line.

The rows are the fields of `TrainingConfig`; config.json, the commands, the presets and the table in the documentation
are made of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from widehead.names import ACTIVATIONS, ENCODERS, HEADS, LOSSES, OPTIMIZERS, PARAMETER_OPTIMIZERS
from widehead.options.checks import (
    FLAG,
    INTERVAL,
    NOT_NEGATIVE,
    PAIRS,
    PATH,
    POSITIVE,
    PROBABILITY,
    SHARE,
    TEXT,
    WEIGHT_OR_LEFT,
    Check,
    choice,
    one_of,
    refusal,
    whole,
    wholes,
)
from widehead.options.heads import WITHOUT_ROWS, head_parameters
from widehead.options.option import option, options_of

if TYPE_CHECKING:
    from widehead.losses import Loss

_DATA, _NETWORK, _HEAD = "Data", "Network", "Loss and output layer"
_ENCODER, _LENGTH, _WATCH = "Encoder's optimiser", "How long", "Evaluation and checkpoints"
own, exact = partial(option, shared=False), partial(option, panel=_HEAD, exact=True)  # of some jobs; of that head
_DEVICE = Check(
    lambda v: isinstance(v, str) and (v == "cpu" or v.split(":")[0] == "cuda"),
    "auto, cpu, cuda or cuda:N",
    ("cpu", "cuda", "auto"),
)
_ANY_TEXT = Check(lambda v: isinstance(v, str), "a text")


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainingConfig:
    """Options of one run. `widehead.jobs.configure` makes one with the defaults of a job.

    Raises:
        ValueError: names the first option that is out of range, what it should be and what was found.
    """

    # What to train, on what, and the folder that the run goes to.
    job: str = option(dataclasses.MISSING, TEXT, "What to learn.", "")
    out: str = option(dataclasses.MISSING, PATH, "Run folder.", "", metavar="FOLDER", resumed="moved")
    train: str | None = option(None, PATH, "Training file.", "", resumed="moved")
    preset: str | None = option(
        None, TEXT, "Defaults by name, instead of those that fit the other options:", "Run", resumed="moved"
    )
    because: str = option("", _ANY_TEXT, "Why that preset.", "", resumed="moved", compare=False)
    train_checksum: str = option("", _ANY_TEXT, "Of the training file.", "", resumed="moved", compare=False)
    test: str | None = option(None, PATH, "File to evaluate on while training.", _DATA, resumed="moved")
    holdout: float = option(
        0.0, PROBABILITY, "Without --test: the part of the data that is held out to evaluate on.", _DATA
    )
    labels: str | None = own(None, PATH, "File with the labels' names, one a line.", _DATA, resumed="moved")
    # Examples.
    ratings: bool = own(False, FLAG, "Let ratings count; otherwise all pairs are alike.", _DATA)
    target_power: float = own(0.0, NOT_NEGATIVE, "Scale the targets of a user of n items by n^-p.", _DATA)
    target_item_power: float = own(0.0, NOT_NEGATIVE, "The same for the targets that an item of n users is.", _DATA)
    tokens: Literal["words", "whitespace"] = own(
        "words", choice(("words", "whitespace")), "How text is cut: words, whitespace.", _DATA
    )
    context: int = own(5, whole(1), "Words or items before the one to predict, at most.", _DATA)
    window: int = own(5, whole(1), "Words on each side that count.", _DATA)
    smoothing: float = own(0.75, POSITIVE, "Power of the counts of contexts.", _DATA)
    subsample: float | None = own(None, POSITIVE, "Thin out words above this share, such as 1e-4.", _DATA)
    minimum_count: int = own(1, whole(1), "Rarer words are unknown, or no features.", _DATA)
    neighbours: int = own(
        0,
        whole(-1),
        "The nearest training documents, sequences or users, so many, have a say; 0: none; -1 (recommender): the data "
        "decide.",
        _DATA,
    )
    direct: float = own(
        0.0,
        WEIGHT_OR_LEFT,
        "Weight, beside the network's scores, of what others have who share items with the user; 0: none; -1: the data "
        "decide.",
        _DATA,
    )
    # Network.
    encoder: str = own("ngram", choice(ENCODERS), f"Encoder of a sequence: {', '.join(ENCODERS)}.", _NETWORK)
    layers: int = own(1, whole(1), "Layers of gru, lstm and transformer.", _NETWORK)
    width: int = option(256, whole(0), "Units of the last hidden layer; 0: the data decide.", _NETWORK)
    hidden: tuple[int, ...] = own((), wholes(0), 'Sizes of the layers before it; "" for none.', _NETWORK)
    embedding: int = own(128, whole(1), "Size of the embedding of a word or item before.", _NETWORK)
    activation: str = own("none", choice(ACTIVATIONS), f"After each layer: {', '.join(ACTIVATIONS)}.", _NETWORK)
    dropout: float = own(0.0, PROBABILITY, "Probability of dropping a hidden unit.", _NETWORK)
    input_dropout: float = own(0.0, PROBABILITY, "Probability of dropping an input.", _NETWORK)
    hidden_norm: float | None = own(None, POSITIVE, "Scale the hidden layer to this length, embeddings to 1.", _NETWORK)
    tied: bool = own(False, FLAG, "Embeddings are the rows of the output layer.", _NETWORK)
    dtype: str = option("float32", choice(("float32", "float64")), "float32 or float64.", _NETWORK)
    device: str = option("cpu", _DEVICE, "cpu, cuda, cuda:N, or auto: cuda if usable.", _NETWORK, resumed="new")
    # Head and loss.
    head: str = option("exact", choice(HEADS), f"Output layer: {', '.join(HEADS)}.", _HEAD)
    head_options: Mapping[str, float | str] = option(
        {}, PAIRS, "A parameter of an output layer other than the exact one; once for each.", _HEAD
    )
    loss: str | None = exact(None, choice(LOSSES), f"What the exact head minimises: {', '.join(LOSSES)}.")
    loss_options: Mapping[str, float | str] = exact({}, PAIRS, "A parameter of the loss; once for each.")
    head_optimizer: str = option(
        "sgd",
        choice((*OPTIMIZERS, *PARAMETER_OPTIMIZERS)),
        f"Of the exact head: {', '.join(OPTIMIZERS)}; of others: {', '.join(PARAMETER_OPTIMIZERS)}.",
        _HEAD,
    )
    head_lr: float | None = option(
        None,
        POSITIVE,
        "Learning rate of the output layer; by default found from the data, or the optimiser's own.",
        _HEAD,
    )
    head_momentum: float = exact(
        0.0, PROBABILITY, "Momentum of sgd; doubles the output layer's memory.", of_optimizers=True
    )
    head_nesterov: bool = exact(False, FLAG, "Nesterov's momentum.", of_optimizers=True)
    head_decay: float | None = exact(
        None, SHARE, "How much of the past newton and shampoo keep in a step.", of_optimizers=True
    )
    head_damping: float | None = exact(None, NOT_NEGATIVE, "Damping of newton, shampoo and muon.", of_optimizers=True)
    head_ridge: float = exact(
        0.0, NOT_NEGATIVE, "Ridge of newton: 1 is as much as one epoch has on average.", of_optimizers=True
    )
    head_bias: bool = option(False, FLAG, "Give the output layer a bias.", _HEAD)
    head_storage: str | None = exact(None, PATH, "File to keep the exact head's weights in, not memory.", resumed="new")
    head_storage_dtype: str | None = exact(None, choice(("bfloat16",)), "bfloat16: half the memory for the exact head.")
    head_weight_decay: float = exact(0.0, NOT_NEGATIVE, "Weight decay of the output layer.", of_optimizers=True)
    head_max_grad_norm: float | None = option(
        None, POSITIVE, "Clip the gradient of the output layer at this norm.", _HEAD
    )
    # Encoder.
    encoder_init: Literal["random", "svd"] = own(
        "random", choice(("random", "svd")), "random, or svd: singular vectors of the data.", _ENCODER
    )
    encoder_optimizer: Literal["adam", "adagrad"] = option(
        "adam", choice(("adam", "adagrad")), "adam or adagrad.", _ENCODER
    )
    encoder_lr: float = option(1e-3, NOT_NEGATIVE, "Its learning rate; 0: the encoder stays.", _ENCODER)
    encoder_weight_decay: float = option(0.0, NOT_NEGATIVE, "Weight decay.", _ENCODER)
    encoder_max_grad_norm: float | None = option(None, POSITIVE, "Clip the gradient at this norm.", _ENCODER)
    # How long, and at what learning rates over time.
    epochs: int | None = option(
        1, whole(0), "Passes over the data; 0 (next-item): the data decide.", _LENGTH, resumed="new"
    )
    minutes: float | None = option(
        None, POSITIVE, "Training time; without --epochs it alone ends the run.", _LENGTH, resumed="new"
    )
    batch_size: int = option(128, whole(0), "Examples of a step; 0 (next-item): the data decide.", _LENGTH)
    schedule: str = option(
        "constant",
        choice(("constant", "cosine", "linear")),
        "Learning rates over time: constant, cosine, linear.",
        _LENGTH,
    )
    warmup_steps: int = option(0, whole(0), "Steps in which the learning rates rise from 0.", _LENGTH)
    # Evaluation, checkpoints, log.
    evaluate_every: str = option(
        "1 epoch", INTERVAL, 'Such as "1 epoch", "500 steps", "5 minutes".', _WATCH, resumed="new"
    )
    at: tuple[int, ...] = option((20,), wholes(1), "Cutoffs of the metrics.", _WATCH)
    rank_at_most: int | None = option(None, whole(1), "Rank at most so many of the test examples.", _WATCH)
    checkpoint_every: str = option("60 seconds", INTERVAL, "As --evaluate-every.", _WATCH, resumed="new")
    keep_best: bool = option(False, FLAG, "Also keep the checkpoint with the best evaluation.", _WATCH, resumed="new")
    log_every: int = option(50, whole(1), "Steps between two lines of metrics.jsonl.", _WATCH, resumed="new")
    seed: int = option(0, whole(0), "Of all randomness.", _WATCH)

    def __post_init__(self) -> None:
        if self.device == "auto":  # what it is here, so that config.json says it
            from widehead.devices import resolved

            object.__setattr__(self, "device", resolved(self.device))
        for name, row in OPTIONS.items():
            if not row.check.holds(getattr(self, name)):
                raise refusal(name, f"be {row.check.should}", getattr(self, name))
        self._check_head()
        self._check_head_options()
        if self.encoder_weight_decay > 0.0 and self.encoder_optimizer != "adam":
            raise refusal("encoder_weight_decay", "come with encoder_optimizer adam", self.encoder_optimizer)
        if self.epochs is None and self.minutes is None:
            raise ValueError("One of the options `epochs` and `minutes` should be given. Found neither.")

    def _check_head(self) -> None:
        exact = self.head == "exact"
        if exact != (self.loss is not None):
            raise ValueError(
                "Option `loss` should come with the head exact, and with no other, as the others have their own. "
                f"Found head = {self.head!r}, loss = {self.loss!r}."
            )
        for name in ("head_storage", "head_storage_dtype"):
            if not exact and getattr(self, name) is not None:
                raise refusal(name, "come with the head exact", self.head)
        if self.head_storage is not None and self.device != "cpu":
            raise refusal("head_storage", "come with the device cpu", self.device)
        if self.tied and self.head in WITHOUT_ROWS:
            raise refusal("tied", f"be off with the head {self.head}, whose rows cannot be embeddings", self.tied)
        optimizers = OPTIMIZERS if exact else PARAMETER_OPTIMIZERS
        if self.head_optimizer not in optimizers:
            should = f"be {one_of(optimizers)} for the head {self.head}"
            raise refusal("head_optimizer", should, self.head_optimizer)

    def _check_head_options(self) -> None:
        takes = head_parameters(self.head) if self.head_options else []  # torch is imported for it
        if unknown := sorted(set(self.head_options) - set(takes)):
            should = f"hold what the head {self.head} takes: {', '.join(takes) or 'nothing'}"
            raise refusal("head_options", should, unknown[0])
        if self.loss is not None:
            self.make_loss()
        elif self.loss_options:
            raise refusal("loss_options", "come with a loss", dict(self.loss_options))
        for name, row in OPTIONS.items():
            given = row.of_optimizers and getattr(self, name) != row.default
            if given and self.head_optimizer not in row.optimizers:
                should = f"come with head_optimizer {' or '.join(row.optimizers)}"
                raise refusal(name, should, self.head_optimizer)
        if self.head_nesterov and self.head_momentum == 0.0:
            raise refusal("head_nesterov", "come with a head_momentum above 0", 0.0)

    def __repr__(self) -> str:
        """The options that are not their defaults."""
        values = ((name, getattr(self, name)) for name, row in OPTIONS.items() if getattr(self, name) != row.default)
        return f"TrainingConfig({', '.join(f'{name}={value!r}' for name, value in values)})"

    @property
    def has_probabilities(self) -> bool:
        """Whether the head defines log p."""
        kind = self.make_loss() if self.head == "exact" else HEADS[self.head]
        return bool(kind.has_probabilities)

    def with_absolute_paths(self) -> TrainingConfig:
        """The same from whatever folder a program runs in."""
        paths = {name: getattr(self, name) for name, row in OPTIONS.items() if row.is_path}
        absolute: dict[str, Any] = {
            name: str(Path(path).absolute()) for name, path in paths.items() if path is not None
        }
        return dataclasses.replace(self, **absolute)

    @classmethod
    def from_json(cls, text: str, source: str = "config.json") -> TrainingConfig:
        """Read what ``to_json`` wrote; ValueError names ``source`` and what is wrong with it."""
        try:
            options = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{source} should hold JSON. Found an error in line {error.lineno}: {error.msg}."
            ) from error
        except RecursionError as error:
            raise ValueError(f"{source} should hold one JSON object. Found one in another, thousands deep.") from error
        if not isinstance(options, dict):
            raise ValueError(f"{source} should hold one JSON object. Found {type(options).__name__}.")
        return cls.from_options(options, source)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], source: str = "options") -> TrainingConfig:
        """The options by name, lists for tuples; ValueError names ``source`` and what is wrong with it."""
        check_known(options, source)
        if missing := [name for name in ("job", "out") if name not in options]:
            raise ValueError(f"Option `{missing[0]}` is missing in {source}.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return cls(**values)

    def to_json(self) -> str:
        """One JSON object with every option."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, path: Path | str) -> TrainingConfig:
        """Read a config.json."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"), str(path))

    @property
    def storage_owner(self) -> str:
        """Whose the file ``head_storage`` says that it is: the run's folder."""
        return str(Path(self.out).resolve())

    def storage_of(self, rank: int | None) -> str | None:
        """The file that one of several processes keeps its rows in; with None that of the only one."""
        return self.head_storage if rank is None or self.head_storage is None else f"{self.head_storage}.{rank}"

    def make_loss(self) -> Loss:
        """The loss of the exact head with its options; ValueError if it does not take them."""
        assert self.loss is not None
        kind = LOSSES[self.loss]
        try:
            return kind(**self.loss_options)
        except TypeError as error:
            parameters = inspect.signature(kind).parameters
            takes = ", ".join(str(p) for p in parameters.values()) or "no options"
            should = f"hold what the loss {self.loss} takes: {takes}"
            raise refusal("loss_options", should, dict(self.loss_options)) from error


#: the options by name, in the order of the fields
OPTIONS = options_of(TrainingConfig)


def check_known(options: Iterable[str], source: str) -> None:
    """ValueError for the first name that is no option, with those that are like it."""
    for name in options:
        if name not in OPTIONS:
            near = difflib.get_close_matches(str(name), OPTIONS, 3, cutoff=0.7) or OPTIONS
            raise ValueError(f"Expected options that there are in {source}, such as {', '.join(near)}. Found {name!r}.")
