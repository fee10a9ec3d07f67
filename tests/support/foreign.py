"""Runs of several jobs and heads, whose folders tests of foreign ones change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], object]
LAST = "checkpoints/last.safetensors"
HISTORY = "vocabularies/history.safetensors"
JOBS = {
    "recommender": ("recommender", {}),
    "multilabel": ("multilabel", {}),
    "frequencies": ("recommender", {"head": "hierarchical", "head_optimizer": "adam"}),
    "huffman": ("recommender", {"head": "hierarchical", "head_options": {"tree": "huffman"}, "head_optimizer": "adam"}),
    "adaptive": ("recommender", {"head": "adaptive", "head_optimizer": "adam"}),
    "full": ("recommender", {"head": "full", "head_optimizer": "adam"}),
    "momentum": ("recommender", {"head_optimizer": "sgd", "head_lr": 0.01, "head_momentum": 0.9}),
}
