"""Multi-label classification: weighted features of a document in, labels out."""

from typing import Any

from widehead.kinds.base import STARTS, Kind
from widehead.options import Preset

MANY = 100_000
"""Documents above which the encoder is trained."""

_TEXTS: dict[str, Any] = {"minimum_count": 2, "at": (1, 3, 5), "neighbours": 100}
_LEAST_SQUARES: dict[str, Any] = {
    "head_optimizer": "newton",
    "head_decay": 1.0,
    "head_damping": 0.15,
    "loss": "squared-error",
}
_SLOWING: dict[str, Any] = {"schedule": "cosine", "batch_size": 256}
_ESTIMATED: dict[str, Any] = {**_SLOWING, "head": "sampled", "head_options": {"negatives": 1000}}
_LEARNT: dict[str, Any] = {"width": 512, "encoder_lr": 5e-3, "input_dropout": 0.3, "epochs": 5}


class Multilabel(Kind):
    """Features in, labels out."""

    name = "multilabel"
    command = name
    title = "A multi-label classifier"
    help = """Train a classifier with many labels.

    FILE holds lines "label label<TAB>text", or XC repository text: the header "rows features labels", then
    "l1,l2 f:v f:v" lines. `predict` reads text, or rows of features in that format.

    **Example**

        widehead train multilabel train.txt.gz --test test.txt.gz --out runs/tags
    """
    compared = "train.txt.gz --test test.txt.gz --heads exact,full --minutes 2"
    takes = (
        "labels",
        "minimum_count",
        "neighbours",
        "hidden",
        "activation",
        "dropout",
        "input_dropout",
        "encoder_init",
    )
    decides = ("width",)
    presets = (
        Preset(
            "axes",
            "The encoder is fixed, the main axes of the features; the output layer is least squares, found in one "
            f"pass. With width 0 and more than {MANY:,} documents `sampled` takes its place.",
            {**_TEXTS, **_LEAST_SQUARES, "width": 0, "encoder_init": "svd", "encoder_lr": 0.0, "batch_size": 512},
            stands_on=STARTS,
        ),
        Preset(
            "trained",
            "The encoder is trained, with the exact head.",
            {**_TEXTS, **_LEAST_SQUARES, **_SLOWING, **_LEARNT},
            stands_on=("head",),
        ),
        # Adam moves a rare word as far as a frequent one, and memorises.
        Preset(
            "sampled",
            "The encoder is trained by Adagrad, with a head that estimates.",
            {
                **_TEXTS,
                **_ESTIMATED,
                "width": 1024,
                "head_optimizer": "adagrad",
                "encoder_optimizer": "adagrad",
                "encoder_lr": 0.04,
                "epochs": 6,
            },
            stands_on=("head_optimizer", "encoder_optimizer"),
        ),
        Preset(
            "sampled-adam",
            "The encoder is trained by Adam, with a head that estimates.",
            {**_TEXTS, **_ESTIMATED, **_LEARNT, "head_optimizer": "adam"},
        ),
    )
