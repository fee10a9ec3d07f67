"""Word embeddings: a word in, all the words around it out."""

from widehead.kinds.base import STARTS, Kind
from widehead.kinds.language_model import LanguageModel
from widehead.options import Preset

_SHARED = {
    "subsample": 1e-4,
    "head_optimizer": "newton",
    "loss": "squared-error",
    "batch_size": 512,
    "minimum_count": 5,
    "at": (1, 10),
    "rank_at_most": 2_000,
}


class WordEmbeddings(Kind):
    """A word in, all the words around it out; the rows of the output layer are the embeddings."""

    name = "word-embeddings"
    command = LanguageModel.command
    task = name
    title = "Word embeddings"
    help = """With --task word-embeddings, learn vectors of words instead. `predict` then gives neighbours of a line's
    last word.

    **Example**

        widehead train language-model wiki.txt.xz --task word-embeddings --out runs/words
    """
    takes = ("tokens", "window", "smoothing", "subsample", "minimum_count", "encoder_init")
    presets = (
        Preset(
            "eigenvectors",
            "Words start from axes of what stands near them and right beside them, and stay; the output layer is least "
            "squares, found in one pass.",
            {**_SHARED, "width": 384, "encoder_init": "svd", "encoder_lr": 0.0, "head_decay": 1.0, "head_damping": 0.0},
            stands_on=STARTS,
        ),
        Preset("trained", "Words are trained from random ones.", {**_SHARED, "epochs": 5}),
    )
