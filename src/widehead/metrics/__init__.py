"""Metrics: pure functions of tensors, and ``Evaluation``, which adds them up over batches."""

from widehead.metrics.evaluation import Evaluation
from widehead.metrics.mean_rank import mean_rank, target_ranks
from widehead.metrics.perplexity import perplexity
from widehead.metrics.propensity import Propensities, best_psp_at_k, psp_at_k
from widehead.metrics.ranking import mrr_at_k, ndcg_at_k, precision_at_k, recall_at_k
from widehead.metrics.relevance import hits, mean_over_examples
from widehead.metrics.word_tests import analogy_answers, rank_correlation

__all__ = [
    "Evaluation",
    "Propensities",
    "analogy_answers",
    "best_psp_at_k",
    "hits",
    "mean_over_examples",
    "mean_rank",
    "mrr_at_k",
    "ndcg_at_k",
    "perplexity",
    "precision_at_k",
    "psp_at_k",
    "rank_correlation",
    "recall_at_k",
    "target_ranks",
]
