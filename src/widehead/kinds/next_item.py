"""The next item: the items of a session or history so far in, the item that comes next out."""

from typing import Any

from widehead.kinds.base import Kind
from widehead.options import Preset

_SEQUENCES: dict[str, Any] = {
    "encoder": "gru",
    "width": 128,
    "hidden_norm": 16.0,
    "context": 50,
    "dropout": 0.2,
    "input_dropout": 0.2,
    "encoder_lr": 2e-3,
    "schedule": "linear",
    "warmup_steps": 100,
    "batch_size": 0,
    "epochs": 0,
    "holdout": 0.02,
    "neighbours": 200,
    "rank_at_most": 20_000,
}


class NextItem(Kind):
    """The items so far in, the next item out."""

    name = "next-item"
    command = name
    title = "A recommender of the next item"
    help = """Train on sequences: the items of a session or history so far in, the next item out.

    FILE holds a session a line, "item item item …", or a table of (user or session, item, time): CSV, TSV or Parquet.
    Every item but the first of a session is learnt from those before it. Of a line of the test file the last item is to
    be found from those before it. `predict` reads sessions, and says what comes after their last items.

    **Example**

        widehead train next-item sessions.txt.gz --test test.txt.gz --out runs/clicks
    """
    compared = "sessions.txt.gz --test test.txt.gz --heads sampled,full,exact --minutes 5"
    takes = (
        *("encoder", "layers", "context", "hidden_norm", "tied", "neighbours"),
        *("hidden", "activation", "dropout", "input_dropout"),
    )
    decides = ("batch_size", "epochs")
    presets = (
        Preset(
            "sampled",
            "Sampled softmax, or another head that estimates.",
            {
                **_SEQUENCES,
                "tied": True,
                "head": "sampled",
                "head_options": {"negatives": 1000},
                "head_optimizer": "adam",
            },
            without_exact_head=True,
            # As many outputs a step as with sampled softmax. 12√D of each kind take three times as long.
            head_options={"retrieved": {"retrieved": 500, "tail": 500}},
        ),
        Preset(
            "exact",
            "The spherical softmax with the exact head.",
            {**_SEQUENCES, "loss": "spherical-softmax", "head_optimizer": "newton"},
        ),
    )
