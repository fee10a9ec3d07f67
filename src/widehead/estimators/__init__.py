"""Estimators: fit data in memory, then ask. The jobs' own code underneath, in scikit-learn's manner."""

from widehead.estimators.base import Estimator
from widehead.estimators.multilabel import MultiLabel
from widehead.estimators.next_item import NextItem
from widehead.estimators.recommender import Explanation, Recommender
from widehead.estimators.word_vectors import WordVectors

__all__ = ["Estimator", "Explanation", "MultiLabel", "NextItem", "Recommender", "WordVectors"]
