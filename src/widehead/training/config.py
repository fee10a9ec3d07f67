"""Every option of a training run, its default for each job, its check, and its form on disk (config.json)."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from widehead.heads import ExactHead
from widehead.losses import Loss, SphericalSoftmax, SquaredError, TaylorSoftmax, WeightedSquaredError, ZLoss
from widehead.models.layers import ACTIVATIONS
from widehead.training.checks import (
    FLAG,
    INTERVAL,
    NOT_NEGATIVE,
    OPTIONS,
    POSITIVE,
    PROBABILITY,
    SHARE,
    TEXT,
    Check,
    choice,
    one_of,
    or_none,
    whole,
    wholes,
)
from widehead.training.defaults import JOBS, defaults_of
from widehead.training.heads import EXACT_OPTIMIZERS, HEAD_OPTIMIZERS, HEADS, OTHER_OPTIMIZERS, head_parameters

__all__ = ["LOSSES", "TrainingConfig"]

LOSSES: dict[str, type[Loss]] = {
    "squared-error": SquaredError,
    "weighted-squared-error": WeightedSquaredError,
    "spherical-softmax": SphericalSoftmax,
    "taylor-softmax": TaylorSoftmax,
    "z-loss": ZLoss,
}

_OF_OPTIMIZERS = {
    "head_momentum": ("sgd",),
    "head_nesterov": ("sgd",),
    "head_decay": ("newton", "shampoo"),
    "head_damping": ("newton", "shampoo", "muon"),
    "head_ridge": ("newton",),
    "head_weight_decay": EXACT_OPTIMIZERS,
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of one run. Start from ``TrainingConfig.for_job``, which fills in the defaults of the job.

    Raises:
        ValueError: names the first option that is out of range, what it should be and what was found.
    """

    # What to train, on what, and where the run goes.
    job: str
    out: str  # run folder
    train: str | None = None  # training file; None only for the demo
    test: str | None = None  # file for evaluation while training
    holdout: float = 0.0  # without a test file: the part of the training data that is held out to be one
    labels: str | None = None  # names of the labels, one a line (multilabel)
    # Examples.
    ratings: bool = False  # whether ratings count; otherwise all pairs are alike (recommender)
    target_power: float = 0.0  # p: targets of a user of n items are n^-p times as large (recommender)
    target_item_power: float = 0.0  # the same for the targets that an item of n users is (recommender)
    tokens: Literal["words", "whitespace"] = "words"  # how text is cut (language-model, word-embeddings)
    context: int = 5  # words before the target (language-model)
    window: int = 5  # words on each side of the centre (word-embeddings)
    smoothing: float = 0.75  # power of the counts of contexts (word-embeddings)
    subsample: float | None = None  # threshold of the thinning of frequent words (word-embeddings)
    minimum_count: int = 1  # rarer words are unknown, or no features (language-model, word-embeddings, multilabel)
    # Network.
    width: int = 256  # d: size of the last hidden layer; 0: the data decide (recommender, multilabel)
    hidden: tuple[int, ...] = ()  # sizes of the layers before it (not for word-embeddings)
    embedding: int = 128  # size of a context word's embedding (language-model)
    activation: str = "none"
    dropout: float = 0.0
    input_dropout: float = 0.0  # probability of dropping an input id (recommender, multilabel)
    dtype: str = "float32"
    device: str = "cpu"
    # Head and loss.
    head: str = "exact"
    head_options: Mapping[str, float | str] = field(default_factory=dict)  # of heads other than the exact one
    loss: str | None = None  # of the exact head, which needs one
    loss_options: Mapping[str, float | str] = field(default_factory=dict)
    head_optimizer: str = "sgd"
    # None: SGD's from the first hidden layers and targets, Newton's, Shampoo's and Muon's own, else the encoder's
    head_lr: float | None = None
    head_momentum: float = 0.0  # of SGD
    head_nesterov: bool = False  # of SGD
    head_decay: float | None = None  # of Newton and Shampoo: how much of the past a step keeps; None: their own
    head_damping: float | None = None  # of Newton, Shampoo and Muon; None: their own
    head_ridge: float = 0.0  # of Newton: relative to the mean eigenvalue of its curvature summed over one epoch
    head_bias: bool = False
    head_storage: str | None = None  # file to keep the rows of W in, of the exact head; None: memory
    head_storage_dtype: str | None = None  # bfloat16: half the memory for W, of the exact head; None: dtype
    head_weight_decay: float = 0.0
    head_max_grad_norm: float | None = None
    # Encoder.
    encoder_init: Literal["random", "svd"] = "random"  # svd: from the data (not for language-model)
    encoder_optimizer: Literal["adam", "adagrad"] = "adam"
    encoder_lr: float = 1e-3  # 0: the encoder stays as it is
    encoder_weight_decay: float = 0.0
    encoder_max_grad_norm: float | None = None
    # How long, and at what learning rates over time.
    batch_size: int = 128
    epochs: int | None = 1
    minutes: float | None = None  # training time; whichever limit comes first ends the run
    schedule: str = "constant"  # after the warm-up: constant, cosine or linear down to 0
    warmup_steps: int = 0  # steps of linear rise from 0
    # Evaluation, checkpoints, log.
    evaluate_every: str = "1 epoch"
    rank_at_most: int | None = None  # examples that an evaluation ranks; None: all
    at: tuple[int, ...] = (20,)  # cutoffs k of the metrics
    checkpoint_every: str = "60 seconds"
    keep_best: bool = False  # also keep the checkpoint with the best evaluation
    log_every: int = 50  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (holds, should) in _CHECKS.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"Option `{name}` should be {should}. Found {value!r}.")
        self._check_head()
        self._check_head_options()
        self._check_encoder()
        if self.epochs is None and self.minutes is None:
            raise ValueError("One of the options `epochs` and `minutes` should be given. Found neither.")
        if (self.train is None) != (self.job == "demo"):
            raise ValueError(
                f"Option `train` should be a file for every job but demo, which brings its own data. "
                f"Found job = {self.job!r}, train = {self.train!r}."
            )

    def _check_head(self) -> None:
        exact = self.head == "exact"
        if exact != (self.loss is not None):
            raise ValueError(
                "Option `loss` should come with the head exact, and with no other, as the others have their own. "
                f"Found head = {self.head!r}, loss = {self.loss!r}."
            )
        for name in ("head_storage", "head_storage_dtype"):
            if not exact and getattr(self, name) is not None:
                raise ValueError(f"Option `{name}` should come with the head exact. Found {self.head!r}.")
        if self.head_storage is not None and self.device != "cpu":
            raise ValueError(f"Option `head_storage` should come with the device cpu. Found {self.device!r}.")
        optimizers = EXACT_OPTIMIZERS if exact else OTHER_OPTIMIZERS
        if self.head_optimizer not in optimizers:
            raise ValueError(
                f"Option `head_optimizer` should be {one_of(optimizers)} for the head {self.head}. "
                f"Found {self.head_optimizer!r}."
            )
        takes = head_parameters(self.head)
        if unknown := sorted(set(self.head_options) - set(takes)):
            raise ValueError(
                f"Option `head_options` should hold what the head {self.head} takes: {', '.join(takes) or 'nothing'}. "
                f"Found {unknown[0]!r}."
            )
        if exact:
            self.make_loss()
        elif self.loss_options:
            raise ValueError(f"Option `loss_options` should come with a loss. Found {dict(self.loss_options)}.")

    @property
    def has_probabilities(self) -> bool:
        """Whether the head defines log p."""
        kind: Any = HEADS[self.head]
        return bool(self.make_loss().has_probabilities if kind is ExactHead else kind.has_probabilities)

    def _check_head_options(self) -> None:
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        for name, kinds in _OF_OPTIMIZERS.items():
            if getattr(self, name) != defaults[name] and self.head_optimizer not in kinds:
                raise ValueError(
                    f"Option `{name}` should come with head_optimizer {' or '.join(kinds)}. "
                    f"Found {self.head_optimizer!r}."
                )
        if self.head_nesterov and self.head_momentum == 0.0:
            raise ValueError("Option `head_nesterov` should come with a head_momentum above 0. Found 0.0.")

    def _check_encoder(self) -> None:
        if self.width == 0 and (self.job not in ("recommender", "multilabel") or self.encoder_init != "svd"):
            raise ValueError(
                "Option `width` should be at least 1 but for a recommender or multilabel with encoder_init svd, where "
                f"0 lets the data decide. Found 0 with job = {self.job!r}, encoder_init = {self.encoder_init!r}."
            )
        if self.encoder_weight_decay > 0.0 and self.encoder_optimizer != "adam":
            raise ValueError(
                "Option `encoder_weight_decay` should come with encoder_optimizer adam. "
                f"Found {self.encoder_optimizer!r}."
            )
        if self.encoder_init == "random":
            return
        if self.job not in ("recommender", "word-embeddings", "multilabel", "demo"):
            raise ValueError(f"Option `encoder_init` should be random for the job {self.job}. Found 'svd'.")
        if self.hidden or self.activation != "none":
            raise ValueError(
                "Option `encoder_init` should be svd for a linear encoder only. "
                f"Found hidden = {list(self.hidden)}, activation = {self.activation!r}."
            )

    @classmethod
    def for_job(cls, job: str, **options: Any) -> TrainingConfig:
        """The defaults of ``job`` with ``options`` in their place; ValueError for an unknown job or option."""
        return cls._from_mapping({**defaults_of(job, options), **options, "job": job}, "options")

    def moved_to(self, **options: Any) -> TrainingConfig:
        """With ``options`` and the defaults that go with them, but for what is not as this job's defaults are."""
        given = {"out": self.out, "train": self.train}
        own, other = self.for_job(self.job, **given), self.for_job(self.job, **given, **options)
        names = [f.name for f in dataclasses.fields(self)]
        kept = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(own, name)}
        return dataclasses.replace(other, **kept)

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
        return cls._from_mapping(options, source)

    @classmethod
    def _from_mapping(cls, options: Mapping[str, Any], source: str) -> TrainingConfig:
        names = [f.name for f in dataclasses.fields(cls)]
        if unknown := sorted(set(options) - set(names)):
            raise ValueError(f"Unknown option {unknown[0]!r} in {source}. Options are: {', '.join(names)}.")
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

    def make_loss(self) -> Loss:
        """The loss of the exact head with its options; ValueError where it does not take them."""
        assert self.loss is not None
        kind = LOSSES[self.loss]
        try:
            return kind(**self.loss_options)
        except TypeError as error:
            parameters = inspect.signature(kind).parameters
            takes = ", ".join(str(p) for p in parameters.values()) or "no options"
            raise ValueError(
                f"Option `loss_options` should hold what the loss {self.loss} takes: {takes}. "
                f"Found {dict(self.loss_options)}."
            ) from error


_CHECKS: dict[str, Check] = {
    "job": choice(JOBS),
    "out": TEXT,
    "train": or_none(TEXT),
    "test": or_none(TEXT),
    "holdout": PROBABILITY,
    "labels": or_none(TEXT),
    "ratings": FLAG,
    "target_power": NOT_NEGATIVE,
    "target_item_power": NOT_NEGATIVE,
    "tokens": choice(("words", "whitespace")),
    "context": whole(1),
    "window": whole(1),
    "smoothing": POSITIVE,
    "subsample": or_none(POSITIVE),
    "minimum_count": whole(1),
    "width": whole(0),
    "hidden": wholes(0),
    "embedding": whole(1),
    "activation": choice(ACTIVATIONS),
    "dropout": PROBABILITY,
    "input_dropout": PROBABILITY,
    "dtype": choice(("float32", "float64")),
    "device": (lambda v: isinstance(v, str) and (v == "cpu" or v.split(":")[0] == "cuda"), "cpu, cuda or cuda:N"),
    "head": choice(HEADS),
    "head_options": OPTIONS,
    "loss": or_none(choice(LOSSES)),
    "loss_options": OPTIONS,
    "head_optimizer": choice(HEAD_OPTIMIZERS),
    "head_lr": or_none(POSITIVE),
    "head_momentum": PROBABILITY,
    "head_nesterov": FLAG,
    "head_decay": or_none(SHARE),
    "head_damping": or_none(NOT_NEGATIVE),
    "head_ridge": NOT_NEGATIVE,
    "head_bias": FLAG,
    "head_storage": or_none(TEXT),
    "head_storage_dtype": or_none(choice(("bfloat16",))),
    "head_weight_decay": NOT_NEGATIVE,
    "head_max_grad_norm": or_none(POSITIVE),
    "encoder_init": choice(("random", "svd")),
    "encoder_optimizer": choice(("adam", "adagrad")),
    "encoder_lr": NOT_NEGATIVE,
    "encoder_weight_decay": NOT_NEGATIVE,
    "encoder_max_grad_norm": or_none(POSITIVE),
    "batch_size": whole(1),
    "epochs": or_none(whole(1)),
    "minutes": or_none(POSITIVE),
    "schedule": choice(("constant", "cosine", "linear")),
    "warmup_steps": whole(0),
    "evaluate_every": INTERVAL,
    "rank_at_most": or_none(whole(1)),
    "at": wholes(1),
    "checkpoint_every": INTERVAL,
    "keep_best": FLAG,
    "log_every": whole(1),
    "seed": whole(0),
}
