"""What an encoder begins as, and whether it stays so."""

from __future__ import annotations

import torch
from torch import nn

from widehead.data import Examples, RowExamples, principal_axes
from widehead.models import BagEncoder
from widehead.training.config import TrainingConfig

__all__ = ["prepare_encoder"]


def prepare_encoder(encoder: nn.Module, config: TrainingConfig, examples: Examples, *, restored: bool) -> None:
    """Put the axes of the training inputs into the embeddings if the run asks for it; freeze an encoder of lr 0.

    Args:
        restored: a checkpoint will bring the weights, so that they need not be found.
    """
    if config.initial_embeddings == "axes" and not restored:
        assert isinstance(encoder, BagEncoder)
        assert isinstance(examples, RowExamples)
        table = encoder.embeddings.weight
        axes = principal_axes(examples.inputs, table.shape[1], config.seed)
        with torch.no_grad():
            table.copy_(torch.from_numpy(axes))
    encoder.requires_grad_(config.encoder_lr > 0.0)
