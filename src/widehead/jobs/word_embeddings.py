"""Word embeddings: a word in, all the words around it out."""

import numpy as np
import torch
from torch import nn

from widehead.data import END, CooccurrenceExamples, Examples, cooccurrences, information
from widehead.jobs.base import STARTS
from widehead.jobs.language_model import LanguageModel
from widehead.jobs.words import WordJob
from widehead.models import WordEncoder, positive_eigenpairs
from widehead.options import Preset, TrainingConfig

_BASIS = 4  # dimensions of the space that the start is found in, in widths
_POWER = 0.75  # a of the start: small powers 1 - a of the eigenvalues in the embeddings are good for similarity
_SHARED = {
    "subsample": 1e-4,
    "head_optimizer": "newton",
    "loss": "squared-error",
    "batch_size": 512,
    "minimum_count": 5,
    "at": (1, 10),
    "rank_at_most": 2_000,
}


class WordEmbeddings(WordJob):
    """A word in, all the words around it out; the rows of the output layer are the embeddings.

    The targets of a word are its row of the matrix of positive pointwise mutual information. A word's hidden layer
    starts as its row of UΛ^a, from the largest positive eigenvalues Λ of that matrix. The output layer that fits all
    D·D pairs best is then near UΛ^(1−a), and one pass of Newton's method finds it.
    """

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
            "Words start from eigenvectors of their mutual information and stay; the output layer is least squares, "
            "found in one pass.",
            {**_SHARED, "encoder_init": "svd", "encoder_lr": 0.0, "head_decay": 1.0, "head_damping": 0.0},
            stands_on=STARTS,
        ),
        Preset("trained", "Words are trained from random ones.", {**_SHARED, "epochs": 5}),
    )

    def encoder(self, config: TrainingConfig) -> nn.Module:
        return WordEncoder(len(self.words), config.width)

    def examples(self, ids: np.ndarray) -> CooccurrenceExamples:
        ends, unknown = self.words.id(END), [self.words.unknown_id]
        counts = cooccurrences(ids, len(self.words), self.config.window, end=ends, without=unknown)
        return CooccurrenceExamples(information(counts, self.config.smoothing))

    @torch.no_grad()
    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Words' rows of UΛ^a."""
        assert isinstance(examples, CooccurrenceExamples)
        assert isinstance(encoder, WordEncoder)
        rows, width = encoder.embeddings.weight, config.width
        values, vectors = positive_eigenpairs(examples.matrix, width, basis=_BASIS * width, seed=config.seed)
        rows.copy_(vectors * values.pow(_POWER))
