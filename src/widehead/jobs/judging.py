"""Tests: held-out examples and the metrics of a network on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from widehead.data import Examples, Histories, RowExamples, SharedExamples
from widehead.data.sparse import CSR
from widehead.devices import moved
from widehead.heads import ExactHead
from widehead.metrics import Evaluation, Propensities
from widehead.models import WideNetwork
from widehead.progress import Work
from widehead.split import Dealt, Peers
from widehead.targets import Inputs, SparseTargets, TargetsLike, on_device

LOWER_IS_BETTER = frozenset({"perplexity", "mean_rank"})
"""Metrics of which small numbers are good."""

BATCH = 256
"""Examples that are judged or answered at a time."""

ALONE = Peers()

_ALL_SCORES = 1 << 25  # numbers in a block of scores of all classes


class Test(Protocol):
    """Examples to judge a network by.

    Attributes:
        reading: what was read of the test file.
        fits: whether all of it can be found by a network that knows the training file.
    """

    reading: str
    fits: bool

    def metrics(
        self, network: WideNetwork, names: Sequence[str], at_most: int | None, seed: int, peers: Peers = ALONE
    ) -> dict[str, float]:
        """Metrics by name, such as "recall@20"; rankings over at most so many examples, drawn by ``seed``.

        Args:
            peers: the processes that have parts of the network; each judges a share of the examples.
        """


class RankingTest:
    """Bags of ids and the classes that should rank high for them.

    Args:
        inputs: (n, N) scipy CSR.
        relevant: (n, D) scipy CSR; rows without a relevant class are left out.
        unreachable: (n,) how many more relevant classes there are that no ranking can hold.
        exclude_inputs: whether ids of the input are classes that must not be named.
        propensities: of the classes, for psp@k.
        reading, fits: see `Test`.
        among: all rows, if this process has those of ``inputs``, ``relevant`` and ``unreachable`` alone, by which it
            judges.
    """

    def __init__(
        self,
        inputs: CSR,
        relevant: CSR,
        unreachable: np.ndarray,
        *,
        exclude_inputs: bool,
        propensities: Propensities | None = None,
        reading: str = "",
        fits: bool = True,
        among: Dealt | None = None,
    ) -> None:
        chosen = np.diff(relevant.indptr) + unreachable > 0
        kept = np.flatnonzero(chosen)
        self._inputs, self._kept = inputs, kept
        self.examples = RowExamples(inputs[kept], relevant[kept])
        self._among = None if among is None else among.chosen_here(chosen)
        self.unreachable = torch.from_numpy(unreachable[kept])
        self.exclude_inputs = exclude_inputs
        self.propensities = propensities
        self.reading, self.fits = reading, fits

    def __len__(self) -> int:
        return len(self.examples) if self._among is None else self._among.total

    @property
    def bare(self) -> CSR:
        """(n', N) inputs of the rows that were left out."""
        return self._inputs[np.setdiff1d(np.arange(self._inputs.shape[0]), self._kept)]

    @torch.no_grad()
    def metrics(
        self, network: WideNetwork, names: Sequence[str], at_most: int | None, seed: int, peers: Peers = ALONE
    ) -> dict[str, float]:
        """Metrics by name, over at most so many examples, drawn by ``seed``."""
        evaluation = Evaluation(names, self.propensities)
        device = _ready(network)
        among = self._among
        for chosen in _told(_sample(len(self), at_most, seed), BATCH, peers, together=among is not None):
            rows = chosen if among is None else among.places(chosen)
            inputs, relevant = self.examples.batch(rows)
            inputs = on_device(inputs, device)
            excluded = inputs if self.exclude_inputs else None
            best = _top(network, inputs, network.hidden(inputs), evaluation.depth, excluded)[1]
            evaluation.add_ranked(best, relevant.to(device), moved([self.unreachable[rows]], device)[0])
        return evaluation.result(peers.sums)


@dataclass
class WordTest:
    """Words, contexts of words or sequences of items, and what should follow; held-out text or sequences.

    Attributes:
        reading, fits: see `Test`.
        places: at how many places of an example something should follow, at most.
        missed: how many more examples there are in which nothing can be found.
    """

    examples: Examples
    reading: str = ""
    fits: bool = True
    places: int = 1
    missed: int = 0

    @torch.no_grad()
    def metrics(
        self, network: WideNetwork, names: Sequence[str], at_most: int | None, seed: int, peers: Peers = ALONE
    ) -> dict[str, float]:
        """Metrics by name. The perplexity is over all examples, rankings over at most so many, drawn by ``seed``."""
        evaluation = Evaluation(names)
        device = _ready(network)
        if "perplexity" in names:
            for inputs, targets in self._batches(np.arange(len(self.examples)), BATCH, device, peers):
                evaluation.add_log_probs(network.head.log_prob(network.hidden(inputs), targets))
        sample = _sample(len(self.examples) + self.missed, at_most, seed)
        sample, missed = np.split(sample, [np.searchsorted(sample, len(self.examples))])
        for inputs, targets in self._batches(sample, BATCH, device, peers):
            if evaluation.depth > 0:
                evaluation.add_ranked(_top(network, inputs, network.hidden(inputs), evaluation.depth)[1], targets)
        for chunk in _chunks(missed, BATCH, peers):
            none = torch.full((len(chunk), evaluation.depth), -1, device=device)
            nothing = SparseTargets.from_lists([[]] * len(chunk)).to(device)
            evaluation.add_ranked(none, nothing, torch.ones(len(chunk), dtype=torch.int64, device=device))
        if "mean_rank" in names:
            size = max(1, _ALL_SCORES // network.head.num_classes)
            for inputs, targets in self._batches(sample, size, device, peers):
                evaluation.add_scores(network.head.scores(network.hidden(inputs)), targets)
        return evaluation.result(peers.sums)

    def _batches(
        self, rows: np.ndarray, size: int, device: torch.device, peers: Peers
    ) -> Iterator[tuple[Inputs, SparseTargets]]:
        for chunk in _told(rows, max(1, size // self.places), peers, self.examples):
            inputs, targets = self.examples.batch(chunk)
            yield on_device(inputs, device), targets.to(device)


@dataclass(frozen=True)
class Given:
    """Inputs to answer: what they are called, and what a network takes.

    Attributes:
        names: of the m inputs.
        rows: (m, N) scipy CSR of bags, (m, C) int64 word ids, or histories.
        known: (m,) bool, whether something is known of an input.
    """

    names: Sequence[str]
    rows: Any
    known: np.ndarray

    @classmethod
    def bags(cls, names: Sequence[str], matrix: CSR) -> Given:
        """The rows (m, N) of a matrix, of which those without a value are not known."""
        return cls(names, matrix, (matrix != 0).getnnz(axis=1) > 0)

    def batches(self, size: int = BATCH) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs of the network, with (n,) bool whether something is known of them, ``size`` at a time."""
        pick = self._picker()
        for rows in _chunks(np.arange(len(self.known)), size):
            yield pick(rows), torch.from_numpy(self.known[rows])

    def _picker(self) -> Callable[[np.ndarray], Inputs]:
        """Inputs of some by their numbers."""
        if isinstance(self.rows, np.ndarray):
            return lambda rows: torch.from_numpy(self.rows[rows])
        if isinstance(self.rows, Histories):
            return self.rows.batch
        bags = RowExamples(self.rows)
        return lambda rows: bags.batch(rows)[0]


def ranked(
    network: WideNetwork, given: Given, k: int, *, exclude_inputs: bool = False
) -> Iterator[tuple[list[int], list[float]]]:
    """Classes and scores of the k best for each input, best first; fewer if others are excluded. See `best_classes`."""
    for classes, scores in best_classes(network, given, k, exclude_inputs=exclude_inputs):
        for ids, values in zip(classes, scores, strict=True):
            kept = ids >= 0
            yield ids[kept].tolist(), values[kept].tolist()


@torch.no_grad()
def best_classes(
    network: WideNetwork, given: Given, k: int, *, exclude_inputs: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(m, k) int64 class ids and (m, k) float64 scores of the best for m inputs at a time, best first.

    Places that no class takes hold -1 and -inf: last ones, if classes are excluded, and all of an input of which
    nothing is known, as one class would be as good as another. Nothing is known either if the hidden layer is all zero
    and nothing ranks beside the network.

    Args:
        exclude_inputs: whether ids of the input are classes that must not be named.
    """
    device = _ready(network)
    for inputs, known in given.batches():
        inputs = on_device(inputs, device)
        hidden = network.hidden(inputs)
        scores, classes = _top(network, inputs, hidden, k, inputs if exclude_inputs else None)
        says = (hidden != 0).any(dim=1, keepdim=True) | (network.beside is not None)
        kept = (classes >= 0) & says
        # Together, so that a device is waited for once; float64 holds whole numbers up to 2⁵³.
        found = torch.stack([part.to(torch.float64) for part in (kept, classes, scores)], dim=1).cpu()
        best = (found[:, 0] > 0) & known[:, None]
        yield (found[:, 1].masked_fill(~best, -1).long().numpy(), found[:, 2].masked_fill(~best, -torch.inf).numpy())


def _ready(network: WideNetwork) -> torch.device:
    """Eval mode, rows of W up to date for reading, and the device to put inputs on."""
    network.eval()
    if isinstance(network.head, ExactHead):
        network.head.consolidate()
    return next(network.encoder.parameters()).device


def _top(
    network: WideNetwork, inputs: Inputs, hidden: Tensor, k: int, exclude: TargetsLike | None = None
) -> tuple[Tensor, Tensor]:
    """(m, k) scores and classes; places that an excluded class would take hold -1."""
    if network.beside is not None:
        more = {} if exclude is None else {"exclude": exclude}
        found: tuple[Tensor, Tensor] = network.beside.top_k(network.head, inputs, hidden, k, **more)
        return found
    scores, classes = network.head.top_k(hidden, k, exclude=exclude)
    return scores, classes.masked_fill(scores == -torch.inf, -1)


def _sample(n: int, at_most: int | None, seed: int) -> np.ndarray:
    if at_most is None or n <= at_most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, at_most, replace=False))


def _told(
    rows: np.ndarray, size: int, peers: Peers, examples: Examples | None = None, *, together: bool = False
) -> Iterator[np.ndarray]:
    """`_chunks`, of which those who wait hear; of `SharedExamples` each process has its own."""
    work = Work("judging", len(rows))
    dealt = examples.in_turn(rows, size) if isinstance(examples, SharedExamples) else None
    for chunk in dealt or _chunks(rows, size, peers, together=together):
        yield chunk
        work.add(size * peers.size)


def _chunks(rows: np.ndarray, size: int, peers: Peers = ALONE, *, together: bool = False) -> Iterator[np.ndarray]:
    """At most ``size`` rows at a time, or this process's share of as many for each, which may be none.

    Args:
        together: those of all processes instead, who know themselves which of them they have.
    """
    of_all = (rows[i : i + size * peers.size] for i in range(0, len(rows), size * peers.size))
    return of_all if together else (chunk[peers.share(len(chunk))] for chunk in of_all)
