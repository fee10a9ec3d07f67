"""Recommender: the items of a user in, the items of a user out."""

from collections.abc import Sequence
from typing import ClassVar

from widehead.kinds.base import STARTS, Kind
from widehead.options import Preset, TrainingConfig
from widehead.options.checks import refusal


class Recommender(Kind):
    """Items in, items out."""

    name = "recommender"
    command = name
    title = "A recommender"
    help = """Train a recommender: the items of a user in, the items of a user out.

    FILE holds a line for each user, "user item item …", or a table of (user, item[, rating]): CSV, TSV or Parquet.
    `predict` reads the same; items that a line names are not recommended.

    **Example**

        widehead train recommender train.txt --test test.txt --out runs/shop --epochs 20
    """
    compared = "train.txt --test test.txt --heads exact,sampled,retrieved --minutes 2"
    takes = (
        *("ratings", "target_power", "target_item_power", "neighbours", "direct"),
        *("hidden", "activation", "dropout", "input_dropout", "encoder_init"),
    )
    decides: ClassVar[Sequence[str]] = ("width", "neighbours", "direct")
    presets: ClassVar[Sequence[Preset]] = (
        Preset(
            "svd",
            "The encoder is fixed, the leading singular vectors of the data; the output layer is least squares, found "
            "in one pass.",
            {
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
                "neighbours": -1,
                "direct": -1.0,
            },
            stands_on=STARTS,
        ),
        Preset(
            "trained",
            "The encoder is trained.",
            {
                "head_optimizer": "newton",
                "loss": "weighted-squared-error",
                "loss_options": {"unobserved_weight": 0.05},
                "encoder_lr": 3e-3,
                "schedule": "cosine",
                "input_dropout": 0.5,
                "batch_size": 512,
                "neighbours": -1,
                "epochs": 15,
                "evaluate_every": "5 epochs",
            },
        ),
    )

    @classmethod
    def check(cls, config: TrainingConfig) -> None:
        super().check(config)
        if config.direct <= 0.0:
            return
        if not cls.can_rank_directly(config):
            should = "be 0 but for the head exact with the loss squared-error or weighted-squared-error"
            raise refusal("direct", should, config.direct)
        if config.neighbours > 0:
            raise refusal("direct", "be 0 with neighbours, which have a say of the same kind", config.direct)

    @classmethod
    def can_rank_directly(cls, config: TrainingConfig) -> bool:
        """Whether scores are outputs, of which the head tells the spread; only the exact head has a loss to choose."""
        return config.loss in ("squared-error", "weighted-squared-error")
