"""How wide a recommender's network is and what the direct term weighs beside it, found out before the run.

A wide network knows more of the pairs, and more of what is chance in them: of films that many rate a quarter of the
units says more than all. Where the network says little of what users take, the direct term gains at any weight; where
it says nearly all, it loses at weights that gain elsewhere. So pairs are hidden from a network and from the term, and
ranked by all of the network's units or by the leading ones alone, with each of six weights. The network is the run's
own, of the usual width, if that takes few seconds, and otherwise one of as many units for each user, of a part of the
users. One user in five is asked; if their hidden pairs are few, others are asked by another network, as data become
sparser by what is hidden, which flatters the term. Settings are compared by recall and nDCG at three cutoffs, whose
mean varies less than that of one.

Letters: n users, D items, d units of the small network; s settings, each a width and a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widehead.data import Interactions, RowExamples, Vocabulary
from widehead.data.sparse import CSR
from widehead.jobs.base import Chosen
from widehead.jobs.candidates import places_in
from widehead.jobs.direct import Both, DirectTerm, affordable, num_products
from widehead.jobs.probe import small_networks, some_users
from widehead.jobs.user_votes import FEWEST, hidden_pairs, num_able
from widehead.metrics.ranking import ndcg, recall
from widehead.metrics.relevance import count_relevant, find_hits
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.progress import Work
from widehead.split import Share, dealt, totals
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from widehead.jobs.recommender import Recommender

WEIGHTS = 0.0, 0.4, 0.75, 1.5, 3.0, 6.0
"""What is tried."""

SAFE = 0.75
"""What the choice keeps near, of weights that a trial cannot tell from the best one: it loses on none of the sets of
recipes/LOG.md."""

_PARTS = 0.5, 0.25, 0.125  # of the usual width, tried beside it: its singular vectors begin with those of all others
_FEW = 300  # users of two items, below which no width is tried; the term asks for more
_NARROWEST, _MULTIPLE = 16, 8  # units that are tried, and of how many they are a multiple
_PRODUCTS = 3e9  # p³(n + D)d² of a part p: some seconds of a core
_FEWEST = 4_000  # users, of whom a part is drawn
_HELD, _TIMES = 0.2, 5  # of the users, whose hidden pairs are ranked; and how often that is done
_PAIRS = 8_000  # that are ranked at a time, if there are so many
_ENOUGH = 5_000  # pairs, if asking again brings so many
_USERS = 2_000, 8_000  # who are asked at a time, at most: fewer if they have many pairs
_SCORES = 5e10  # products that ranking takes at a time, which bounds the users too
_ERRORS = 2.0  # standard errors by which a weight may be behind the best one and yet be taken
# In multiples of the run's first one. Further down lists narrower networks are better than at the top.
_CUTOFFS = 0.5, 1.0, 2.0
_BLOCK = 256


@dataclass(frozen=True)
class Trial(Chosen):
    """The width of the network and the weight of the direct term, and what they were decided by.

    Attributes:
        units: the width of the run. weight: β.
        because: why nothing was tried, "" if it was. no_term: why the weight was not, "" if it was or was given.
        users, width: n and d. places, pairs: users who were asked, and their hidden pairs.
        race: (units, weight, gain over the first setting, standard error of how far it is behind the best) of all
            that ran; units are those of a run.
    """

    what = "how wide the network is and what the direct term weighs"

    units: int
    weight: float
    because: str = ""
    users: int = 0
    width: int = 0
    places: int = 0
    pairs: int = 0
    race: list[list[float]] = field(default_factory=list)
    no_term: str = ""

    def __str__(self) -> str:
        why = f", as {self.no_term}" if self.no_term else ""
        term = f"the direct term weighs {self.weight:g}" if self.weight else f"there is no direct term{why}"
        what = f"the network has {self.units:,} units and {term}"
        if self.because:
            return f"By default {what}: {self.because}."
        gains = ", ".join(
            f"{units:,.0f} units {100 * gain:+.1f} % (weight {weight:g})"
            for units, weight, gain in self._best_of_widths()
        )
        by = f"by {self.pairs:,} hidden pairs, of {self.users:,} users with {self.width} units at most"
        return f"By default {what}: {gains}, {by}."

    def _best_of_widths(self) -> Iterator[tuple[float, float, float]]:
        for units in dict.fromkeys(row[0] for row in self.race):
            _, weight, gain, _ = max((row for row in self.race if row[0] == units), key=lambda row: row[2])
            yield units, weight, gain

    def table(self) -> tuple[list[str], list[list[str]]]:
        """What each setting gains."""
        if self.because:
            return ["units", "direct term"], [[f"{self.units:,}", f"{self.weight:g}"]]
        header = ["units", "weight", "recall and nDCG", "standard error of the difference from the best"]
        rows = [
            [f"{units:,.0f}", f"{weight:g}", f"{100 * gain:+.2f} %", f"{100 * error:.2f} %"]
            for units, weight, gain, error in self.race
        ]
        return header, rows

    def decided(self) -> Mapping[str, float]:
        return {"width": self.units, "direct": self.weight}

    def check(self) -> None:
        own = [float(self.units), self.weight]
        tried = [own] if self.because else [row[:2] for row in self.race]
        numbers = [*own, *(row[i] for row in self.race for i in (0, 1, 3))]
        if min(numbers) < 0.0 or own not in tried or any(len(row) != 4 for row in self.race):
            raise ValueError(f"{self.units} units, weight {self.weight}, race {self.race}")


def chosen(job: Recommender, config: TrainingConfig, share: Share | None) -> Trial:
    """The width and the weight, as far as the options leave them to the data: tried where there is enough to try by.

    All of several processes come here.
    """
    matrix, usual, given = job.train.matrix, job.usual_width(config)[0], max(config.direct, 0.0)
    able, products = totals(share, num_able(matrix), num_products(matrix, job.item_counts))
    no_term = "" if config.direct >= 0.0 else _not_asked(able, affordable(products, job.num_users))
    units = widths(usual) if config.width == 0 and able >= _FEW else [usual]
    weights = list(WEIGHTS) if config.direct < 0.0 and not no_term else [given]
    if len(units) > 1 or len(weights) > 1:
        return replace(tried(job, config, units, weights, share), no_term=no_term)
    return Trial(usual, given, no_term if config.width else f"fewer than {_FEW:,} users have two items")


def _not_asked(able: int, is_affordable: bool) -> str:
    """Why no weight of the term is tried, with so many users of two items; "" if some are."""
    if able < FEWEST:
        return f"fewer than {FEWEST:,} users have two items"
    return "" if is_affordable else "the term would take more than a million products a user"


def widths(usual: int) -> list[int]:
    """What is tried of a usual width, which is the first."""
    narrow = [max(_NARROWEST, round(usual * part / _MULTIPLE) * _MULTIPLE) for part in _PARTS]
    return [usual, *dict.fromkeys(units for units in narrow if units < usual)]


def tried(
    job: Recommender, config: TrainingConfig, units: list[int], weights: list[float], share: Share | None = None
) -> Trial:
    """The setting that ranks pairs best which are hidden from a small network and from the term.

    Of several processes, all of which call it, the first one tries, with what the others give it of some users.

    Args:
        job: of the training pairs.
        config: of the run, whose seed and cutoffs count.
        units: widths of the run to try, the largest first. weights: to try with each.
        share: of the users; None if this process has all.
    """
    matrix, n = job.train.matrix, job.num_users
    part = min(1.0, (_PRODUCTS / ((n + matrix.shape[1]) * units[0] ** 2)) ** (1 / 3))
    some = some_users(matrix, part, _FEWEST, config.seed, dealt(share, n))
    return Trial.by_first(share, lambda: _tried(job, config, units, weights, some))


def _tried(job: Recommender, config: TrainingConfig, units: list[int], weights: list[float], some: CSR) -> Trial:
    """`tried` by ``some`` users."""
    small = [max(1, round(some.shape[0] / job.num_users * width)) for width in units]
    items = some.shape[1]  # more would take memory for nothing
    cutoffs = [max(1, min(round(config.at[0] * times), items)) for times in _CUTOFFS]
    found, pairs, work = [], 0, Work("trying widths and weights", _ENOUGH)
    for time in range(_TIMES):
        seen, users, hidden = hidden_pairs(some, config.seed + time, _HELD, most_asked(some, small[0]))
        known = Interactions(seen, [], Vocabulary([]), np.zeros(some.shape[0], dtype=np.int64))
        networks = small_networks(type(job)(known, job.ratings), small, config)
        found.append(ranked(networks, DirectTerm(seen, 1.0), RowExamples(seen[users], hidden), cutoffs, weights))
        pairs += hidden.nnz
        work.at(pairs)
        if pairs >= _ENOUGH:
            break
    of_users = compared(np.concatenate(found, axis=1))
    means = of_users.mean(axis=1)
    settings = [(width, weight) for width in units for weight in weights]
    columns = zip(settings, means - means[0], behind(of_users, int(means.argmax()))[1], strict=True)
    race = [[float(width), weight, float(gain), float(error)] for (width, weight), gain, error in columns]
    return Trial(*best(settings, of_users), "", some.shape[0], small[0], of_users.shape[1], pairs, race)


def most_asked(matrix: CSR, width: int) -> int:
    """How many users are asked at a time, at most: as few as have 8,000 hidden pairs, but 2,000, and not too many."""
    lengths = np.diff(matrix.indptr)
    hidden = np.maximum(0.2 * lengths[lengths > 1], 1.0).mean()
    wanted = np.clip(_PAIRS / hidden, *_USERS)
    return max(1, int(min(wanted, _SCORES / (matrix.shape[1] * width))))


@torch.no_grad()
def ranked(
    networks: Sequence[WideNetwork], term: DirectTerm, held: RowExamples, cutoffs: list[int], weights: list[float]
) -> np.ndarray:
    """(s, m, 2·cutoffs) recall and nDCG of each user's hidden pairs, of each network with each weight.

    Args:
        held: what is known of some users, and what is hidden.
    """
    parts = []
    for start in range(0, len(held), _BLOCK):
        inputs, hidden = held.batch(np.arange(start, min(start + _BLOCK, len(held))))
        assert isinstance(inputs, SparseTargets)
        assert isinstance(hidden, SparseTargets)
        rankings = _rankings(networks, term, inputs, max(cutoffs), weights)
        parts += [torch.stack([_metrics(best, hidden, cutoffs) for best in rankings])]
    found: np.ndarray = torch.cat(parts, dim=1).numpy()
    return found


def _rankings(
    networks: Sequence[WideNetwork], term: DirectTerm, inputs: SparseTargets, k: int, weights: list[float]
) -> Iterator[Tensor]:
    """(m, k) the best items of users by one network after another, with one weight after another."""
    if weights == [0.0]:
        yield from (network.top_k(inputs, k, exclude=inputs)[1] for network in networks)
        return
    parts = list(term.candidates([(it.head, it.hidden(inputs)) for it in networks], inputs, k, inputs))
    for of_network in zip(*parts, strict=True):
        for weight in weights:
            yield torch.cat([_best(part, weight, k) for part in of_network])


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


def compared(each: np.ndarray) -> np.ndarray:
    """(s, m) of each user, the metrics of a setting on average, in parts of what they are with the first one.

    Args:
        each: (s, m, metrics).
    """
    found: np.ndarray = (each / np.maximum(each[0].mean(axis=0), 1e-4)).mean(axis=2)
    return found


def behind(of_users: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """(s,) how far the settings are behind the one number ``first``, and the standard errors of that.

    Args:
        of_users: (s, m), as `compared` gives them.
    """
    apart = of_users[first] - of_users
    return apart.mean(axis=1), apart.std(axis=1) / np.sqrt(of_users.shape[1])


def best(settings: Sequence[tuple[int, float]], of_users: np.ndarray) -> tuple[int, float]:
    """A width and a weight.

    Smaller networks, as are tried here, flatter narrow ones and large weights. So of the widths one standard error
    behind the best one, the widest; and with it, of the weights two standard errors behind its best, the nearest to
    `SAFE`.
    """
    means = of_users.mean(axis=1)
    missing, errors = behind(of_users, int(means.argmax()))
    width = max(width for (width, _), far, error in zip(settings, missing, errors, strict=True) if far <= error)
    same = [i for i, setting in enumerate(settings) if setting[0] == width]
    missing, errors = behind(of_users, max(same, key=lambda i: means[i]))
    near = [settings[i][1] for i in same if missing[i] <= _ERRORS * errors[i]]
    if len(same) == 1:
        return width, near[0]
    usual = WEIGHTS.index(SAFE)
    return width, min(near, key=lambda weight: abs(WEIGHTS.index(weight) - usual))
