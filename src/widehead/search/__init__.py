"""Maximum inner product search: exhaustive, and by an index of FAISS."""

from widehead.search.exhaustive import ExhaustiveIndex
from widehead.search.ivf import IVFIndex, require_faiss
from widehead.search.kmeans import nearest_centroids, spherical_kmeans
from widehead.search.protocol import Index, recall

__all__ = ["ExhaustiveIndex", "IVFIndex", "Index", "nearest_centroids", "recall", "require_faiss", "spherical_kmeans"]
