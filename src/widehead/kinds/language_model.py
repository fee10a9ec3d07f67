"""Language models: the words before in, the next word out (section 3 of the paper)."""

from typing import ClassVar

from widehead.kinds.base import Kind
from widehead.options import OPTIONS, Preset, TrainingConfig
from widehead.options.checks import refusal

_SHARED = {
    "activation": "tanh",
    "context": 9,
    "hidden": (256,),
    "batch_size": 512,
    "holdout": 0.01,
    "minimum_count": 2,
    "at": (1, 10),
    "rank_at_most": 2_000,
}
# Pieces of 64 words, of which each is predicted. A step has about as many targets as one of the n-gram network.
_PLACES = {
    **{name: value for name, value in _SHARED.items() if name not in ("activation", "hidden")},
    "encoder": "lstm",
    "context": 64,
    "batch_size": 8,
    "warmup_steps": 100,
    "encoder_max_grad_norm": 1.0,
}
_ESTIMATED = {"head": "sampled", "head_options": {"sampler": "log-uniform"}, "head_optimizer": "adam"}
_EXACT = {"loss": "spherical-softmax", "head_optimizer": "newton"}


class LanguageModel(Kind):
    """The words before in, the next word out."""

    name = "language-model"
    command = name
    task = "next-word"
    title = "A language model"
    help = """Train on text: a language model (of n-grams, or --encoder lstm), or vectors of words with --task.

    FILE is plain text. Words rarer than --minimum-count become one unknown word. `predict` reads lines of text, of
    which the last words count.

    **Example**

        widehead train language-model wiki.txt.xz --out runs/wiki --hidden 512,256
    """
    compared = "wiki.txt.xz --heads exact,full,retrieved,adaptive --minutes 5"
    takes = (
        *("tokens", "context", "minimum_count", "encoder", "layers", "hidden_norm", "tied"),
        *("hidden", "embedding", "activation", "dropout", "input_dropout"),
    )
    presets = (
        Preset(
            "sampled",
            "Sampled softmax, or another head that estimates.",
            {**_SHARED, **_ESTIMATED},
            stands_on=("encoder",),
            without_exact_head=True,
        ),
        Preset("exact", "The spherical softmax with the exact head.", {**_SHARED, **_EXACT}, stands_on=("encoder",)),
        Preset(
            "places",
            "An encoder other than ngram, which predicts at each place of a piece of text; sampled softmax, or another "
            "head that estimates.",
            {**_PLACES, **_ESTIMATED, "tied": True, "encoder_lr": 3e-3},
            without_exact_head=True,
        ),
        Preset("places-exact", "Such an encoder with the exact head.", {**_PLACES, **_EXACT}),
    )

    @classmethod
    def check(cls, config: TrainingConfig) -> None:
        super().check(config)
        if config.encoder != "ngram":
            if config.tied and config.embedding != OPTIONS["embedding"].default:
                raise refusal("embedding", "be left out with tied embeddings, which have the width", config.embedding)
            return
        for name in ("tied", "hidden_norm", "input_dropout"):
            if (found := getattr(config, name)) != OPTIONS[name].default:
                raise refusal(name, "be left out with the encoder ngram", found)

    # The data do not tell: the hidden layers grow 100-fold while it trains.
    sgd_lr: ClassVar = {"spherical-softmax": 3.0}
