"""What the direct term weighs beside a recommender's network, found out before the run.

Where the network says little of what users take, the term gains at any weight; where it says nearly all, as of films
that many rate, it loses at weights that gain elsewhere. So pairs are hidden from a network and from the term, and
ranked by both at each of six weights. The network is `small_network`: as the run's own if that takes few seconds, and
otherwise of as many units for each user, of a part of the users. One user in five is asked; if their hidden pairs are
few, others are asked by another network, as data become sparser by what is hidden, which flatters the term. Weights are
compared by recall and nDCG at three cutoffs, whose mean varies less than that of one.

Letters: n users, D items, d units of the small network; w weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widehead.data import Interactions, RowExamples, Vocabulary
from widehead.data.sparse import CSR
from widehead.heads import ExactHead
from widehead.jobs.base import Chosen
from widehead.jobs.candidates import places_in
from widehead.jobs.direct import Both, DirectTerm, affordable, num_products
from widehead.jobs.probe import small_network, some_users
from widehead.jobs.user_votes import FEWEST, hidden_pairs, num_able
from widehead.metrics.ranking import ndcg, recall
from widehead.metrics.relevance import count_relevant, find_hits
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.progress import Work
from widehead.split import Share, totals
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from widehead.jobs.recommender import Recommender

WEIGHTS = 0.0, 0.4, 0.75, 1.5, 3.0, 6.0
"""What is tried."""

UNTRIED = 0.75
"""Where nothing can be tried, and what the choice keeps near, of weights that a trial cannot tell from the best one: it
loses on none of the sets of recipes/LOG.md."""

_PRODUCTS = 3e9  # p³(n + D)d² of a part p: some seconds of a core
_FEWEST = 4_000  # users, of whom a part is drawn
_HELD, _TIMES = 0.2, 5  # of the users, whose hidden pairs are ranked; and how often that is done
_PAIRS = 8_000  # that are ranked at a time, if there are so many
_ENOUGH = 5_000  # pairs, if asking again brings so many
_USERS = 2_000, 8_000  # who are asked at a time, at most: fewer if they have many pairs
_SCORES = 5e10  # products that ranking takes at a time, which bounds the users too
_ERRORS = 2.0  # standard errors by which a weight may be behind the best one and yet be taken
_CUTOFFS = 1, 2, 5  # in multiples of the run's first one
_BLOCK = 256


@dataclass(frozen=True)
class DirectTrial(Chosen):
    """The weight of the direct term, and what that was decided by.

    Attributes:
        weight: β.
        because: why nothing was tried, "" if it was.
        users, width: n and d. places, pairs: users who were asked, and their hidden pairs.
        race: (weight, gain over the network alone, standard error of how far that is behind the best) of all that ran.
    """

    what = "what the direct term weighs"

    weight: float
    because: str = ""
    users: int = 0
    width: int = 0
    places: int = 0
    pairs: int = 0
    race: list[list[float]] = field(default_factory=list)

    def __str__(self) -> str:
        what = f"the direct term weighs {self.weight:g}" if self.weight else "there is no direct term"
        if self.because:
            return f"By default {what}: {self.because}."
        gains = ", ".join(f"{weight:g} {100 * gain:+.1f} %" for weight, gain, _ in self.race)
        by = f"by {self.pairs:,} hidden pairs, beside {self.width} units on {self.users:,} users"
        return f"By default {what}: {gains}, {by}."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """What each weight gains."""
        if self.because:
            return ["direct term"], [[f"{self.weight:g}"]]
        header = ["weight", "recall and nDCG", "standard error of the difference from the best"]
        rows = [[f"{weight:g}", f"{100 * gain:+.2f} %", f"{100 * error:.2f} %"] for weight, gain, error in self.race]
        return header, rows

    def decided(self) -> Mapping[str, float]:
        return {"direct": self.weight}

    def check(self) -> None:
        tried = [self.weight] if self.because else [row[0] for row in self.race]
        numbers = [self.weight, *(row[i] for row in self.race for i in (0, 2))]
        if min(numbers) < 0.0 or self.weight not in tried or any(len(row) != 3 for row in self.race):
            raise ValueError(f"weight {self.weight}, race {self.race}")


def weighed(job: Recommender, config: TrainingConfig, share: Share | None) -> DirectTrial:
    """The weight by default: tried where one process has all pairs, if users are enough and asking them is cheap.

    All of several processes come here.
    """
    matrix = job.train.matrix
    able, products = totals(share, num_able(matrix), num_products(matrix, job.item_counts))
    if able < FEWEST:
        return DirectTrial(0.0, f"fewer than {FEWEST:,} users have two items")
    if not affordable(products, job.num_users):
        return DirectTrial(0.0, "it would take more than a million products a user")
    return (
        tried(job, config) if share is None else DirectTrial(UNTRIED, "several processes have a part of the users each")
    )


def tried(job: Recommender, config: TrainingConfig) -> DirectTrial:
    """The weight by which pairs are ranked best that are hidden from a small network and from the term.

    Args:
        job: of the training pairs, of which this process has all.
        config: of the run, whose width, seed and cutoffs count.
    """
    width = job.settled(replace(config, neighbours=0, direct=0.0)).width
    shape = job.train.matrix.shape
    part = min(1.0, (_PRODUCTS / (sum(shape) * width**2)) ** (1 / 3))
    some = some_users(job.train.matrix, part, _FEWEST, config.seed)
    width = max(1, round(some.shape[0] / shape[0] * width))
    cutoffs = [min(config.at[0] * times, some.shape[1]) for times in _CUTOFFS]  # more would take memory for nothing
    found, pairs, work = [], 0, Work("weighing the direct term", _ENOUGH)
    for time in range(_TIMES):
        seen, users, hidden = hidden_pairs(some, config.seed + time, _HELD, most_asked(some, width))
        known = Interactions(seen, [], Vocabulary([]), np.zeros(some.shape[0], dtype=np.int64))
        network = small_network(type(job)(known, job.ratings), width, config)
        found.append(ranked(network, DirectTerm(seen, 1.0), RowExamples(seen[users], hidden), cutoffs))
        pairs += hidden.nnz
        work.at(pairs)
        if pairs >= _ENOUGH:
            break
    each = np.concatenate(found, axis=1)
    gains, errors = compared(each)
    race = [[*row] for row in zip(WEIGHTS, gains.tolist(), errors.tolist(), strict=True)]
    return DirectTrial(best(gains, errors), "", some.shape[0], width, each.shape[1], pairs, race)


def most_asked(matrix: CSR, width: int) -> int:
    """How many users are asked at a time, at most: as few as have 8,000 hidden pairs, but 2,000, and not too many."""
    lengths = np.diff(matrix.indptr)
    hidden = np.maximum(0.2 * lengths[lengths > 1], 1.0).mean()
    wanted = np.clip(_PAIRS / hidden, *_USERS)
    return max(1, int(min(wanted, _SCORES / (matrix.shape[1] * width))))


@torch.no_grad()
def ranked(network: WideNetwork, term: DirectTerm, held: RowExamples, cutoffs: list[int]) -> np.ndarray:
    """(w, m, 2·cutoffs) recall and nDCG of each user's hidden pairs at each weight.

    Args:
        held: what is known of some users, and what is hidden.
    """
    parts = []
    for start in range(0, len(held), _BLOCK):
        inputs, hidden = held.batch(np.arange(start, min(start + _BLOCK, len(held))))
        assert isinstance(inputs, SparseTargets)
        assert isinstance(hidden, SparseTargets)
        parts += [torch.stack([_metrics(best, hidden, cutoffs) for best in _rankings(network, term, inputs, cutoffs)])]
    found: np.ndarray = torch.cat(parts, dim=1).numpy()
    return found


def _rankings(network: WideNetwork, term: DirectTerm, inputs: SparseTargets, cutoffs: list[int]) -> Iterator[Tensor]:
    """(m, k) the best items of users at one weight after another."""
    assert isinstance(network.head, ExactHead)
    k = max(cutoffs)
    both = list(term.candidates(network.head, inputs, network.hidden(inputs), k, inputs))
    for weight in WEIGHTS:
        yield torch.cat([_best(part, weight, k) for part in both])


def _best(both: Both, weight: float, k: int) -> Tensor:
    """(m, k) the best items at one weight, of equal ones the first; −1 in places that none takes."""
    place = places_in(both.rows)
    values = np.full((both.m, max(k, int(place.max(initial=-1)) + 1)), -np.inf)
    items = np.full(values.shape, -1, dtype=np.int64)
    values[both.rows, place] = both.own + weight * both.direct
    items[both.rows, place] = both.items
    order = torch.from_numpy(values).sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.from_numpy(items).gather(1, order)


def _metrics(best: Tensor, hidden: SparseTargets, cutoffs: list[int]) -> Tensor:
    """(m, 2·cutoffs)."""
    hits, counts = find_hits(best, hidden), count_relevant(hidden)
    return torch.stack([metric(hits[:, :k], counts) for k in cutoffs for metric in (recall, ndcg)], dim=1)


def compared(each: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(w,) gains over the first weight, on average of the metrics, and standard errors of how far behind the best.

    Args:
        each: (w, m, metrics) of users.
    """
    of_users = (each / np.maximum(each[0].mean(axis=0), 1e-4)).mean(axis=2)
    means = of_users.mean(axis=1)
    apart = of_users - of_users[means.argmax()]
    return means - means[0], apart.std(axis=1) / np.sqrt(each.shape[1])


def best(gains: np.ndarray, errors: np.ndarray) -> float:
    """Of the weights that are within two standard errors of the best one, the nearest to `UNTRIED`."""
    near = np.flatnonzero(gains >= gains.max() - _ERRORS * errors)
    return WEIGHTS[near[np.abs(near - WEIGHTS.index(UNTRIED)).argmin()]]
