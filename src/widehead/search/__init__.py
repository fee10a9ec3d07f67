"""Maximum inner product search: exhaustive, and by indices of FAISS."""

from widehead.search.exhaustive import ExhaustiveIndex
from widehead.search.faiss import require_faiss
from widehead.search.hnsw import HNSWIndex
from widehead.search.ivf import IVFIndex
from widehead.search.kmeans import nearest_centroids, spherical_kmeans
from widehead.search.protocol import Index, recall

__all__ = [
    "ExhaustiveIndex",
    "HNSWIndex",
    "IVFIndex",
    "Index",
    "nearest_centroids",
    "recall",
    "require_faiss",
    "spherical_kmeans",
]
