"""The demo: a recommender of synonyms."""

from widehead.kinds.recommender import Recommender
from widehead.options import Preset


class Demo(Recommender):
    """Synonyms in, synonyms out; each word of the thesaurus is a user."""

    name = "demo"
    command = ""
    title = "A thesaurus that completes itself: an autoencoder of the Moby thesaurus"
    brings_data = True
    decides = ()
    presets = (
        Preset(
            "trained",
            "The encoder is trained.",
            {
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
        ),
    )
