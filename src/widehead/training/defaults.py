"""Defaults of the jobs, chosen by measurement (recipes/LOG.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from widehead.training.checks import one_of
from widehead.training.heads import EXACT_OPTIMIZERS

__all__ = ["JOBS", "JOB_DEFAULTS", "defaults_of"]

JOBS = ("recommender", "language-model", "word-embeddings", "multilabel", "demo")

# One table of defaults; an option that is not here has the default of its field.
JOB_DEFAULTS: dict[str, dict[str, Any]] = {
    # An encoder of singular vectors that stays, and in one pass the least-squares output layer for it.
    "recommender": {
        "width": 0,
        "encoder_init": "svd",
        "encoder_lr": 0.0,
        "target_power": 0.2,
        "target_item_power": 0.07,
        "head_optimizer": "newton",
        "head_decay": 1.0,
        "head_damping": 1e-3,
        "head_ridge": 0.6,
        "loss": "squared-error",
        "batch_size": 512,
    },
    # With the exact head; see _HEADS.
    "language-model": {
        "head_optimizer": "newton",
        "loss": "spherical-softmax",
        "activation": "tanh",
        "context": 9,
        "hidden": (256,),
        "batch_size": 512,
        "holdout": 0.01,
        "minimum_count": 2,
        "at": (1, 10),
        "rank_at_most": 2_000,
    },
    # Eigenvectors of the words' pointwise mutual information, and the least-squares output layer for them.
    "word-embeddings": {
        "encoder_init": "svd",
        "encoder_lr": 0.0,
        "subsample": 1e-4,
        "head_optimizer": "newton",
        "head_decay": 1.0,
        "head_damping": 0.0,
        "loss": "squared-error",
        "batch_size": 512,
        "minimum_count": 5,
        "at": (1, 10),
        "rank_at_most": 2_000,
    },
    # The same as for recommenders, of the features of documents; where there are many documents, Multilabel.settled.
    "multilabel": {
        "width": 0,
        "encoder_init": "svd",
        "encoder_lr": 0.0,
        "head_optimizer": "newton",
        "head_decay": 1.0,
        "head_damping": 0.15,
        "loss": "squared-error",
        "batch_size": 512,
        "minimum_count": 2,
        "at": (1, 3, 5),
    },
    "demo": {
        "head_optimizer": "newton",
        "loss": "weighted-squared-error",
        "loss_options": {"unobserved_weight": 0.02},
        "encoder_lr": 3e-3,
        "schedule": "cosine",
        "input_dropout": 0.5,
        "holdout": 0.2,
        "batch_size": 512,
        "epochs": 5,
        "rank_at_most": 5_000,
    },
}

# The same where the encoder is to be trained, which other values of these options ask for.
_ASK_FOR_TRAINING = ("encoder_init", "encoder_lr", "head", "loss", "head_optimizer", "hidden", "activation")
_OTHERWISE = {"head": "exact", "hidden": (), "activation": "none"}
_TRAINED: dict[str, dict[str, Any]] = {
    "recommender": {
        "head_optimizer": "newton",
        "loss": "weighted-squared-error",
        "loss_options": {"unobserved_weight": 0.05},
        "encoder_lr": 3e-3,
        "schedule": "cosine",
        "input_dropout": 0.5,
        "batch_size": 512,
        "epochs": 15,
        "evaluate_every": "5 epochs",
    },
    "word-embeddings": {
        "subsample": 1e-4,
        "head_optimizer": "newton",
        "loss": "squared-error",
        "batch_size": 512,
        "minimum_count": 5,
        "at": (1, 10),
        "rank_at_most": 2_000,
        "epochs": 5,
    },
    "multilabel": {
        "width": 512,
        "encoder_lr": 5e-3,
        "input_dropout": 0.3,
        "schedule": "cosine",
        "head_optimizer": "newton",
        "head_decay": 1.0,
        "head_damping": 0.15,
        "loss": "squared-error",
        "batch_size": 256,
        "minimum_count": 2,
        "at": (1, 3, 5),
        "epochs": 5,
    },
}

# The same for heads other than the exact one. Adam moves a rare word as far as a frequent one, and memorises.
_BY_ADAGRAD: dict[str, dict[str, Any]] = {
    "multilabel": {
        "width": 1024,
        "input_dropout": 0.0,
        "head_optimizer": "adagrad",
        "encoder_optimizer": "adagrad",
        "encoder_lr": 0.04,
        "epochs": 6,
    },
}

# The head of a job where it is not the exact one, and options that heads have for a job.
_HEADS = {"language-model": "sampled"}
_HEAD_OPTIONS: dict[tuple[str, str], dict[str, float | str]] = {
    ("language-model", "sampled"): {"sampler": "log-uniform"},
    ("multilabel", "sampled"): {"negatives": 1000},
}
_ASK_FOR_EXACT = (
    "loss",
    "loss_options",
    "head_momentum",
    "head_nesterov",
    "head_decay",
    "head_damping",
    "head_ridge",
    "head_weight_decay",
    "head_storage",
    "head_storage_dtype",
)

# Measured with the exact head; with the job's own loss; with the job's own optimiser.
_OF_THE_EXACT_HEAD = ("loss", "loss_options", "head_optimizer", "head_lr", "head_decay", "head_damping", "head_ridge")
_OF_THE_LOSS = ("loss_options",)
_OF_THE_OPTIMIZER = ("head_lr", "head_decay", "head_damping", "head_ridge")


def defaults_of(job: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a job that go with these options of it; ValueError for an unknown job."""
    if job not in JOBS:
        raise ValueError(f"Option `job` should be {one_of(JOBS)}. Found {job!r}.")
    defaults = dict(_TRAINED[job] if job in _TRAINED and _asks_for_training(job, options) else JOB_DEFAULTS[job])
    head = options.get("head", _head_of(job, options))
    if head != "exact":
        defaults = {name: value for name, value in defaults.items() if name not in _OF_THE_EXACT_HEAD}
        defaults |= {"head": head, "head_options": _HEAD_OPTIONS.get((job, head), {}), "head_optimizer": "adam"}
        if all(options.get(name, "adagrad") == "adagrad" for name in ("head_optimizer", "encoder_optimizer")):
            defaults |= _BY_ADAGRAD.get(job, {})
    for name, measured in (("loss", _OF_THE_LOSS), ("head_optimizer", _OF_THE_OPTIMIZER)):
        if name in options and options[name] != defaults.get(name):
            defaults = {other: value for other, value in defaults.items() if other not in measured}
    return defaults


def _head_of(job: str, options: Mapping[str, Any]) -> str:
    """The job's own head, or the exact one where an option is given that only that one has."""
    only_exact = any(name in options for name in _ASK_FOR_EXACT)
    return "exact" if only_exact or options.get("head_optimizer") in EXACT_OPTIMIZERS else _HEADS.get(job, "exact")


def _asks_for_training(job: str, options: Mapping[str, Any]) -> bool:
    own = {**_OTHERWISE, **JOB_DEFAULTS[job]}
    given = {name: options[name] for name in _ASK_FOR_TRAINING if name in options}
    # Lists are tuples here, as they come from config.json.
    return any((tuple(value) if isinstance(value, list) else value) != own[name] for name, value in given.items())
