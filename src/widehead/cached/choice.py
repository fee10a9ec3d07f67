"""Which record stands for the weights of a head: the one place that asks."""

from collections.abc import Iterator
from contextlib import contextmanager

from widehead.cached.weights import CachedWeights
from widehead.factored import FactoredWeights, WeightRecord

_everywhere = False


@contextmanager
def cached_everywhere() -> Iterator[None]:
    """Let `record_of` give heads a cached record on every device meanwhile: for comparisons. A CPU is slow at it."""
    global _everywhere
    before, _everywhere = _everywhere, True
    try:
        yield
    finally:
        _everywhere = before


def record_of(weights: WeightRecord, like: WeightRecord | None = None) -> WeightRecord:
    """The record of the same W that suits its device: cached on a GPU, factored elsewhere; or that of ``like``, which
    was there before on the same device.
    """
    if type(weights) not in (FactoredWeights, CachedWeights):  # its rows are split over processes
        return weights
    device = weights.rows.device
    stays = isinstance(like, CachedWeights) and like.rows.device == device
    if device.type == "cuda" or stays or (_everywhere and device.type != "meta" and weights.rows.path is None):
        return CachedWeights.from_factored(weights) if isinstance(weights, FactoredWeights) else weights
    return weights.factored()
