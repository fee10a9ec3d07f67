"""The exact step for a GPU: recent target rows in a cache, no inverse, no wait of the host (docs/gpu.md)."""

from widehead.cached.choice import cached_everywhere, record_of
from widehead.cached.weights import CachedWeights

__all__ = ["CachedWeights", "cached_everywhere", "record_of"]
