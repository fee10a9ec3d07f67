"""The options of ``widehead train``: one row each, with the jobs that take it.

Names, checks and defaults are those of TrainingConfig; this table adds how an option is shown and read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import typer

from widehead.cli.options import whole_numbers
from widehead.models.layers import ACTIVATIONS
from widehead.training import HEAD_OPTIMIZERS, HEADS, LOSSES, TrainingConfig, defaults_of

__all__ = ["OPTIONS", "TrainOption", "options_of", "parameter"]

_TEXTS = ("language-model", "word-embeddings")
_ALL = ("recommender", *_TEXTS, "multilabel")
_BAGS = ("recommender", "multilabel")
_LAYERED = ("recommender", "language-model", "multilabel")
_DATA, _NETWORK, _LOSS, _ENCODER, _LENGTH, _WATCH = (
    "Data",
    "Network",
    "Loss and output layer",
    "Encoder's optimiser",
    "How long",
    "Evaluation and checkpoints",
)


@dataclass(frozen=True)
class TrainOption:
    """One option of ``train``.

    Attributes:
        name: field of TrainingConfig; the option is its name with dashes.
        panel: group of the help.
        help: what it is.
        kind: bool, int, float, str, tuple for whole numbers with commas between them, or dict for NAME=VALUE pairs.
        jobs: the jobs that take it.
        metavar: how its value is shown, or None for its kind.
    """

    name: str
    panel: str
    help: str
    kind: type = str
    jobs: tuple[str, ...] = _ALL
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return "--" + self.name.replace("_", "-")


def _one_of(names: Iterable[str]) -> str:
    return ", ".join(names)


OPTIONS: tuple[TrainOption, ...] = (
    TrainOption("test", _DATA, "File to evaluate on while training.", metavar="FILE"),
    TrainOption("holdout", _DATA, "Without --test: the part of the data that is held out to evaluate on.", float),
    TrainOption("ratings", _DATA, "Let ratings count; otherwise all pairs are alike.", bool, ("recommender",)),
    TrainOption("target_power", _DATA, "Scale the targets of a user of n items by n^-p.", float, ("recommender",), "P"),
    TrainOption(
        "target_item_power", _DATA, "The same for the targets that an item of n users is.", float, ("recommender",), "P"
    ),
    TrainOption("labels", _DATA, "File with the labels' names, one a line.", str, ("multilabel",), "FILE"),
    TrainOption("tokens", _DATA, "How text is cut: words, whitespace.", str, _TEXTS, "NAME"),
    TrainOption("context", _DATA, "Words before the one to predict.", int, ("language-model",)),
    TrainOption("window", _DATA, "Words on each side that count.", int, ("word-embeddings",)),
    TrainOption("smoothing", _DATA, "Power of the counts of contexts.", float, ("word-embeddings",)),
    TrainOption("subsample", _DATA, "Thin out words above this share, such as 1e-4.", float, ("word-embeddings",)),
    TrainOption("minimum_count", _DATA, "Rarer words are unknown, or no features.", int, (*_TEXTS, "multilabel")),
    TrainOption("width", _NETWORK, "Units of the last hidden layer; 0: the data decide.", int),
    TrainOption("hidden", _NETWORK, 'Sizes of the layers before it; "" for none.', tuple, _LAYERED, "N,N,…"),
    TrainOption("embedding", _NETWORK, "Size of a context word's embedding.", int, ("language-model",)),
    TrainOption("activation", _NETWORK, f"After each layer: {_one_of(ACTIVATIONS)}.", str, _LAYERED, "NAME"),
    TrainOption("dropout", _NETWORK, "Probability of dropping a hidden unit.", float, _LAYERED),
    TrainOption("input_dropout", _NETWORK, "Probability of dropping an input.", float, _BAGS),
    TrainOption("dtype", _NETWORK, "float32 or float64.", metavar="NAME"),
    TrainOption("device", _NETWORK, "cpu, cuda or cuda:N.", metavar="NAME"),
    TrainOption("head", _LOSS, f"Output layer: {_one_of(HEADS)}.", metavar="NAME"),
    TrainOption("head_options", _LOSS, "A parameter of the output layer; once for each.", dict, metavar="NAME=VALUE"),
    TrainOption("loss", _LOSS, f"What the exact head minimises: {_one_of(LOSSES)}.", metavar="NAME"),
    TrainOption("loss_options", _LOSS, "A parameter of the loss; once for each.", dict, metavar="NAME=VALUE"),
    TrainOption("head_optimizer", _LOSS, f"Of the output layer: {_one_of(HEAD_OPTIMIZERS)}.", metavar="NAME"),
    TrainOption("head_lr", _LOSS, "Learning rate of the output layer; by default found from the data.", float),
    TrainOption("head_momentum", _LOSS, "Momentum of sgd; doubles the output layer's memory.", float),
    TrainOption("head_nesterov", _LOSS, "Nesterov's momentum.", bool),
    TrainOption("head_decay", _LOSS, "How much of the past newton and shampoo keep in a step.", float),
    TrainOption("head_damping", _LOSS, "Damping of newton, shampoo and muon.", float),
    TrainOption("head_ridge", _LOSS, "Ridge of newton: 1 is as much as one epoch has on average.", float),
    TrainOption("head_bias", _LOSS, "Give the output layer a bias.", bool),
    TrainOption("head_storage", _LOSS, "File to keep the exact head's weights in, not memory.", metavar="FILE"),
    TrainOption("head_storage_dtype", _LOSS, "bfloat16: half the memory for the exact head.", metavar="NAME"),
    TrainOption("head_weight_decay", _LOSS, "Weight decay of the output layer.", float),
    TrainOption("head_max_grad_norm", _LOSS, "Clip the gradient of the output layer at this norm.", float),
    TrainOption(
        "encoder_init",
        _ENCODER,
        "random, or svd: singular vectors of the data.",
        str,
        (*_BAGS, "word-embeddings"),
        "NAME",
    ),
    TrainOption("encoder_optimizer", _ENCODER, "adam or adagrad.", metavar="NAME"),
    TrainOption("encoder_lr", _ENCODER, "Its learning rate; 0: the encoder stays.", float),
    TrainOption("encoder_weight_decay", _ENCODER, "Weight decay.", float),
    TrainOption("encoder_max_grad_norm", _ENCODER, "Clip the gradient at this norm.", float),
    TrainOption("epochs", _LENGTH, "Passes over the data.", int),
    TrainOption("minutes", _LENGTH, "Training time; without --epochs it alone ends the run.", float),
    TrainOption("batch_size", _LENGTH, "Examples of a step.", int),
    TrainOption("schedule", _LENGTH, "Learning rates over time: constant, cosine, linear.", metavar="NAME"),
    TrainOption("warmup_steps", _LENGTH, "Steps in which the learning rates rise from 0.", int),
    TrainOption("evaluate_every", _WATCH, 'Such as "1 epoch", "500 steps", "5 minutes".', metavar="INTERVAL"),
    TrainOption("at", _WATCH, "Cutoffs of the metrics.", tuple, metavar="N,N,…"),
    TrainOption("rank_at_most", _WATCH, "Rank at most so many of the test examples.", int),
    TrainOption("checkpoint_every", _WATCH, "As --evaluate-every.", metavar="INTERVAL"),
    TrainOption("keep_best", _WATCH, "Also keep the checkpoint with the best evaluation.", bool),
    TrainOption("log_every", _WATCH, "Steps between two lines of metrics.jsonl.", int),
    TrainOption("seed", _WATCH, "Of all randomness.", int),
)


def options_of(*jobs: str) -> list[TrainOption]:
    """The options that at least one of some jobs takes."""
    return [option for option in OPTIONS if set(option.jobs) & set(jobs)]


def parameter(option: TrainOption, *jobs: str) -> Parameter:
    """An option as a parameter of a command of these jobs; where it is not given, it is None, False or []."""
    declared = typer.Option(
        False if option.kind is bool else None,
        option.flag,
        help=option.help + _shown_default(option, jobs),
        metavar=option.metavar,
        rich_help_panel=option.panel,
        show_default=False,
        parser=whole_numbers if option.kind is tuple else None,
    )
    annotations: dict[type, Any] = {bool: bool, dict: list[str]}
    annotation = annotations.get(option.kind, option.kind | None)
    return Parameter(option.name, Parameter.KEYWORD_ONLY, default=declared, annotation=annotation)


def _shown_default(option: TrainOption, jobs: tuple[str, ...]) -> str:
    """The default as the help shows it, of the first of the jobs that takes the option; "" where it says nothing."""
    job = next(job for job in jobs if job in option.jobs)
    fields = {f.name: f.default for f in dataclasses.fields(TrainingConfig)}
    value = defaults_of(job, {}).get(option.name, fields[option.name])
    if isinstance(value, tuple):
        value = ",".join(str(n) for n in value) or None
    if isinstance(value, Mapping):
        value = ", ".join(f"{parameter}={number}" for parameter, number in value.items()) or None
    return f" [default: {value}]" if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
