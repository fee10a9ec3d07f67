"""Metrics by name, added up over batches."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from widehead.metrics.mean_rank import target_ranks
from widehead.metrics.perplexity import perplexity_sums
from widehead.metrics.propensity import Propensities, best_psp_at_k, psp_at_k
from widehead.metrics.ranking import ndcg_at_k, precision_at_k, recall_at_k
from widehead.metrics.relevance import relevant_counts
from widehead.targets import SparseTargets

_RANKING = {"recall": recall_at_k, "ndcg": ndcg_at_k, "precision": precision_at_k}
_NAME = re.compile(r"(recall|ndcg|precision|psp)@([1-9][0-9]*)")
_OTHERS = ("perplexity", "mean_rank")


class Evaluation:
    """Adds up metrics over the batches of a test set.

    Args:
        names: "recall@k", "ndcg@k", "precision@k", "psp@k" (each with a number for k), "perplexity", "mean_rank".
        propensities: needed for "psp@k".

    Attributes:
        depth: how many ranked classes ``add_ranked`` needs, the largest k; 0 if no metric needs a ranking.
        examples: examples with a relevant class, over which rankings are averaged.
        left_out: examples without one.

    Raises:
        ValueError: an unknown name, or "psp@k" without propensities.

    >>> evaluation = Evaluation(["recall@2", "precision@1"])
    >>> evaluation.add_ranked(torch.tensor([[4, 2], [0, 1]]), SparseTargets.from_lists([[2, 7], [0]]))
    >>> evaluation.result()
    {'recall@2': 0.75, 'precision@1': 0.5}
    """

    def __init__(self, names: Sequence[str], propensities: Propensities | None = None) -> None:
        self._at: dict[str, tuple[str, int]] = {}
        for name in names:
            if found := _NAME.fullmatch(name):
                self._at[name] = (found[1], int(found[2]))
            elif name not in _OTHERS:
                raise ValueError(
                    "Metrics should be recall@k, ndcg@k, precision@k, psp@k (such as recall@20), perplexity or "
                    f"mean_rank. Found {name!r}."
                )
        if propensities is None and any(kind == "psp" for kind, _ in self._at.values()):
            raise ValueError("Parameter `propensities` should be given for psp@k. Found None.")
        self.names = list(names)
        self.depth = max((k for _, k in self._at.values()), default=0)
        self.examples = self.left_out = 0
        self._propensities = propensities
        # Numerator and denominator of each metric.
        self._sums = {name: [0.0, 0.0] for name in self.names}

    def add_ranked(self, ranked: Tensor, relevant: SparseTargets, unreachable: Tensor | None = None) -> None:
        """Count a batch for the ranking metrics.

        Args:
            ranked: (m, at least ``depth``) class ids, best first.
            relevant: relevant classes of the m examples.
            unreachable: (m,) how many more relevant classes there are that no ranking can hold, or None.
        """
        counted = int((relevant_counts(relevant, unreachable) > 0).sum())
        self.examples += counted
        self.left_out += len(relevant) - counted
        for name, (kind, k) in self._at.items():
            if kind == "psp":
                assert self._propensities is not None
                best = best_psp_at_k(relevant, k, self._propensities, unreachable).nansum()
                self._add(name, psp_at_k(ranked, relevant, k, self._propensities, unreachable).nansum(), best)
            else:
                self._add(name, _RANKING[kind](ranked, relevant, k, unreachable).nansum(), counted)

    def add_log_probs(self, log_probs: Tensor, weights: Tensor | None = None) -> None:
        """Count (nnz,) natural log-probabilities of targets, and what each counts, for the perplexity."""
        if "perplexity" in self._sums:
            self._add("perplexity", *perplexity_sums(log_probs, weights))

    def add_scores(self, scores: Tensor, targets: SparseTargets) -> None:
        """Count (m, D) scores of all classes for the mean rank, averaged over all targets of all examples."""
        if "mean_rank" in self._sums:
            ranks = target_ranks(scores, targets)
            self._add("mean_rank", ranks.sum(), ranks.numel())

    def result(self) -> dict[str, float]:
        """Each metric by its name; NaN if nothing was counted for it."""
        means = {name: above / below if below else math.nan for name, (above, below) in self._sums.items()}
        if "perplexity" in means:
            means["perplexity"] = float(torch.tensor(-means["perplexity"], dtype=torch.float64).exp())
        return means

    def _add(self, name: str, above: Tensor | float, below: Tensor | float) -> None:
        self._sums[name][0] += float(above)
        self._sums[name][1] += float(below)
