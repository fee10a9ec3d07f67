"""Metrics by name, added up over batches."""

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from widehead.metrics.mean_rank import check_scores, ranks_of
from widehead.metrics.perplexity import check_log_probs, out_of_range, perplexity_sums
from widehead.metrics.propensity import Propensities, best_psp, psp
from widehead.metrics.ranking import mrr, ndcg, precision, recall
from widehead.metrics.relevance import check_ranked, check_unreachable, count_relevant, find_hits, named_twice
from widehead.targets import SparseTargets

_RANKING = {"recall": recall, "ndcg": ndcg, "precision": precision, "mrr": mrr}
_NAME = re.compile(r"(recall|ndcg|precision|mrr|psp)@([1-9][0-9]*)")
_OTHERS = ("perplexity", "mean_rank")


class Evaluation:
    """Adds up metrics over the batches of a test set.

    What is on a device stays there: sums are read once, by `result`.

    Args:
        names: "recall@k", "ndcg@k", "precision@k", "mrr@k", "psp@k" (each with a number for k), "perplexity",
            "mean_rank".
        propensities: needed for "psp@k".

    Attributes:
        depth: how many ranked classes ``add_ranked`` needs, the largest k; 0 if no metric needs a ranking.

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
                    "Metrics should be recall@k, ndcg@k, precision@k, mrr@k, psp@k (such as recall@20), perplexity "
                    f"or mean_rank. Found {name!r}."
                )
        if propensities is None and any(kind == "psp" for kind, _ in self._at.values()):
            raise ValueError("Parameter `propensities` should be given for psp@k. Found None.")
        self.names = list(names)
        self.depth = max((k for _, k in self._at.values()), default=0)
        self._propensities = propensities
        # Numerator and denominator of each metric, and examples with a relevant class; on the device of what is added.
        self._sums: dict[str, tuple[Tensor | float, Tensor | float]] = dict.fromkeys(self.names, (0.0, 0.0))
        self._counted: Tensor | int = 0
        self._seen = 0
        # What the device found wrong, by the error's text: whether it is so.
        self._wrong: dict[str, Tensor] = {}

    @property
    def examples(self) -> int:
        """Examples with a relevant class, over which rankings are averaged."""
        return int(self._counted)

    @property
    def left_out(self) -> int:
        """Examples without one."""
        return self._seen - self.examples

    def add_ranked(self, ranked: Tensor, relevant: SparseTargets, unreachable: Tensor | None = None) -> None:
        """Count a batch for the ranking metrics.

        Args:
            ranked: (m, at least ``depth``) class ids, best first.
            relevant: relevant classes of the m examples.
            unreachable: (m,) how many more relevant classes there are that no ranking can hold, or None.
        """
        self._check_ranked(ranked, relevant, unreachable)
        counts = count_relevant(relevant, unreachable)
        counted = (counts > 0).sum()
        self._counted, self._seen = self._counted + counted, self._seen + len(relevant)
        found = find_hits(ranked[:, : self.depth], relevant)
        for name, (kind, k) in self._at.items():
            if kind == "psp":
                assert self._propensities is not None
                best = best_psp(relevant, counts, k, self._propensities).nansum()
                self._add(name, psp(found[:, :k], counts, ranked, self._propensities).nansum(), best)
            else:
                self._add(name, _RANKING[kind](found[:, :k], counts).nansum(), counted)

    def _check_ranked(self, ranked: Tensor, relevant: SparseTargets, unreachable: Tensor | None) -> None:
        look = relevant.class_ids.device.type == "cpu"
        check_unreachable(relevant, unreachable, look=look)
        if not look and unreachable is not None:
            self._note(
                unreachable < 0, "Parameter `unreachable` should hold numbers of at least 0. Found a smaller one."
            )
        if self.depth == 0:
            return
        check_ranked(ranked, relevant, self.depth, look=look)
        if not look:
            self._note(named_twice(ranked, self.depth), "Ranked classes should be distinct. Found one twice in a row.")
        if self._propensities is not None and any(kind == "psp" for kind, _ in self._at.values()):
            self._propensities = self._propensities.to(ranked.device)
            self._check_classes(relevant, len(self._propensities.inverse), look)

    def _check_classes(self, targets: SparseTargets, num_classes: int, look: bool) -> None:
        if look:
            targets.check_classes(num_classes)
        else:
            wrong = targets.class_ids >= num_classes
            self._note(wrong, f"Class ids should be in [0, {num_classes}). Found one that is not.")

    def add_log_probs(self, log_probs: Tensor, weights: Tensor | None = None) -> None:
        """Count (nnz,) natural log-probabilities of targets, and what each counts, for the perplexity."""
        if "perplexity" not in self._sums:
            return
        look = log_probs.device.type == "cpu"
        check_log_probs(log_probs, weights, look=look)
        if not look:
            self._note(log_probs.isnan(), "Parameter `log_probs` should hold logarithms of probabilities. Found NaN.")
        if not look and weights is not None:
            self._note(
                out_of_range(weights),
                "Parameter `weights` should hold finite numbers of at least 0. Found one out of range.",
            )
        self._add("perplexity", *perplexity_sums(log_probs, weights))

    def add_scores(self, scores: Tensor, targets: SparseTargets) -> None:
        """Count (m, D) scores of all classes for the mean rank, averaged over all targets of all examples."""
        if "mean_rank" not in self._sums:
            return
        look = scores.device.type == "cpu"
        check_scores(scores, targets, look=look)
        if not look:
            self._note(scores.isnan(), "Parameter `scores` should not hold NaN. Found one.")
            self._check_classes(targets, scores.shape[1], look)
        ranks = ranks_of(scores, targets)
        self._add("mean_rank", ranks.sum(), ranks.numel())

    def result(self, total: Callable[..., list[float]] | None = None) -> dict[str, float]:
        """Each metric by its name; NaN if nothing was counted for it. A device is waited for here, once.

        Args:
            total: makes the sums of several processes, each with examples of its own, of those of this one.

        Raises:
            ValueError: something that was added to a device was wrong. On the CPU that is told when it is added.
        """
        flat = [part for pair in self._sums.values() for part in pair]
        numbers = _read([*flat, *self._wrong.values()])
        for text, is_wrong in zip(self._wrong, numbers[len(flat) :], strict=True):
            if is_wrong:
                raise ValueError(text)
        sums = numbers[: len(flat)] if total is None else total(*numbers[: len(flat)])
        pairs = zip(self.names, sums[::2], sums[1::2], strict=True)
        means = {name: above / below if below else math.nan for name, above, below in pairs}
        if "perplexity" in means:
            means["perplexity"] = float(torch.tensor(-means["perplexity"], dtype=torch.float64).exp())
        return means

    def _add(self, name: str, above: Tensor, below: Tensor | float) -> None:
        before = self._sums[name]
        self._sums[name] = before[0] + above, before[1] + below

    def _note(self, wrong: Tensor, text: str) -> None:
        """Remember whether anything is ``wrong``, to be told by `result`."""
        found = wrong.any()
        self._wrong[text] = found | self._wrong[text] if text in self._wrong else found


def _read(values: Sequence[Tensor | float]) -> list[float]:
    """() tensors, all on one device, and numbers, as numbers: the device is waited for once."""
    tensors = [value.to(torch.float64) for value in values if isinstance(value, Tensor)]
    found = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(found) if isinstance(value, Tensor) else float(value) for value in values]
