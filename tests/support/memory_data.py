"""Small data in memory for every estimator, in which there is something to learn, and fitted ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import widehead as wh
from widehead.estimators import Estimator


def _likes() -> list[list[str]]:
    """100 users in 5 groups, each group with 12 items of its own, of which each user has 7."""
    rng = np.random.default_rng(0)
    return [[f"i{12 * (u % 5) + i}" for i in rng.choice(12, 7, replace=False)] for u in range(100)]


def _documents() -> tuple[list[str], list[list[str]]]:
    """Texts whose words tell both labels."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 300).tolist()
    texts = [" ".join(f"t{g}x{k}" for k in rng.choice(6, 4)) for g in groups]
    return texts, [[f"L{g}", f"M{g // 2}"] for g in groups]


def _sentences() -> list[list[str]]:
    """Twenty words that always follow one another in one circle."""
    rng = np.random.default_rng(0)
    return [[f"w{(start + j) % 20}" for j in range(15)] for start in rng.integers(0, 20, 150).tolist()]


def _sessions() -> list[list[str]]:
    """Sessions that go round a circle of twenty items."""
    rng = np.random.default_rng(0)
    return [[f"i{(start + j) % 20}" for j in range(2 + start % 5)] for start in rng.integers(0, 20, 150).tolist()]


DATA: dict[Any, tuple[Any, ...]] = {
    wh.Recommender: (_likes(),),
    wh.MultiLabel: _documents(),
    wh.WordVectors: (_sentences(),),
    wh.NextItem: (_sessions(),),
}
SMALL: dict[str, Any] = {"width": 8, "batch_size": 16, "quiet": True}


def made(kind: type[Estimator], **options: Any) -> Any:
    """An estimator that is small enough to learn from `DATA` in a moment."""
    own: dict[Any, dict[str, Any]] = {wh.WordVectors: {"subsample": 1.0}, wh.MultiLabel: {"width": 18}}
    own[wh.NextItem] = {"warmup_steps": 0, "encoder_lr": 0.02, "epochs": 15}
    return kind(**{**SMALL, **own.get(kind, {}), **options})


@cache
def fitted(kind: type[Estimator]) -> Any:
    """One of each that learnt from `DATA`, for tests that only ask it."""
    return made(kind).fit(*DATA[kind])


def answers(model: Any) -> Any:
    """What an estimator says of a few inputs, to be compared."""
    if isinstance(model, wh.Recommender):
        ids, scores = model.recommend([["i0", "i1", "i2"], ["i13", "unheard"], []], 4)
        return ids.tolist(), scores.tolist(), model.similar("i3", 2)[0].tolist()
    if isinstance(model, wh.MultiLabel):
        texts = ["t3x1 t3x2 t3x3", "t8x0 t8x4", "unheard"]
        return model.predict(texts, 2)[0].tolist(), model.predict(texts), model.predict_proba(texts).tolist()
    if isinstance(model, wh.NextItem):
        ids, scores = model.recommend([["i0", "i1"], ["i13", "unheard"], []], 4)
        return ids.tolist(), scores.tolist()
    return model.most_similar("w3", 4), model["w4"].tolist()
