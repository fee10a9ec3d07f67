"""Labels of the nearest training documents, beside the scores of a network.

A network says what d numbers of a document say; a rare word that names a label has no way through them. The training
documents that share that word have one: score of label j = o_j + w·v_j, with v_j the share of the nearest documents
that have j, documents weighted by their cosine to a power. The data decide about w and the power, on documents that
the network was not trained on.

Letters: m documents to answer, n training documents, N features, D labels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.data import RowExamples
from widehead.data.sparse import CSR
from widehead.metrics import Evaluation, Propensities
from widehead.targets import SparseTargets
from widehead.training.folder import atomic_write, expecting

FEWEST = 1_000
"""Training documents below which neighbours are left alone: too few to choose by."""

_FIRST = 200  # labels of the network that tell what a label outside of them can have at most
_HELD, _MOST_HELD = 0.05, 2_000  # documents to choose by
_COMMON = 0.01  # part of the documents above which a feature tells no neighbour, at least ``_FREE`` documents
_FREE = 1_000
_POWERS, _WEIGHTS = (2.0, 3.0, 4.0, 6.0), (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Choice:
    """What votes count, in the network's own units, and the power of a cosine; how the race for them went.

    Attributes:
        weight: w; 0: neighbours count nothing. power: of the cosines.
        documents: how many it was chosen by. before, after: metrics on these without and with neighbours.
        race: (power, weight in spreads of the network's scores, gain) of all that ran.
    """

    weight: float
    power: float
    documents: int
    before: dict[str, float]
    after: dict[str, float]
    race: list[list[float]]

    def __str__(self) -> str:
        told = ", ".join(f"{name} {before:.4f} → {self.after[name]:.4f}" for name, before in self.before.items())
        what = f"weight {self.weight:.3g}, power {self.power:g}" if self.weight else "no weight"
        return f"Neighbours: {what}, by {self.documents:,} documents that the network did not see ({told})."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a report."""
        rows = [[f"{power:g}", f"{part:g}", f"{gain:.4g}"] for power, part, gain in self.race]
        return ["power of the cosine", "weight, in spreads of the network's scores", "mean ratio of the metrics"], rows

    def write(self, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Choice | None:
        """None if there is none yet; CheckpointError if it is damaged."""
        if not path.exists():
            return None
        with expecting(path, "what the neighbours' votes count"):
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            if not (np.isfinite(found.weight) and found.weight >= 0.0 and 0.0 < found.power <= max(_POWERS)):
                raise ValueError(f"weight {found.weight}, power {found.power}")
            return found


NONE = Choice(0.0, 1.0, 0, {}, {}, [])
"""If there is no document with a label to choose by."""


def held_out(count: int, seed: int) -> np.ndarray:
    """Rising rows of the documents to choose by, of so many: none of few."""
    held = min(int(_HELD * count), _MOST_HELD) if count >= FEWEST else 0
    return np.sort(np.random.default_rng([seed, count]).permutation(count)[:held])


class Neighbours:
    """The training documents that are nearest to others, and their labels.

    Args:
        features: (n, N) scipy CSR. labels: (n, D) scipy CSR of ones.
        count: how many neighbours vote.
        weight, power: see `Choice`.
        probabilities: whether the network's scores are logarithms of probabilities but for a constant.
    """

    def __init__(
        self,
        features: CSR,
        labels: CSR,
        count: int,
        *,
        weight: float = 0.0,
        power: float = 1.0,
        probabilities: bool = False,
    ) -> None:
        self.labels, self.count = labels, count
        self.weight, self.power, self.probabilities = weight, power, probabilities
        known = _unit(features)
        in_documents = np.bincount(known.indices, minlength=known.shape[1])
        rare = in_documents <= max(_FREE, _COMMON * known.shape[0])
        self._documents = (scipy.sparse.diags_array(rare.astype(np.float32)) @ known.T.tocsr()).tocsr()
        self._documents.eliminate_zeros()

    def nearest(self, features: CSR) -> CSR:
        """(m, n) cosines of the ``count`` nearest, over the features that are not common."""
        cosines = (_unit(features) @ self._documents).tocsr()
        rows = [self._nearest(cosines, i) for i in range(cosines.shape[0])]
        offsets = np.cumsum([0, *map(len, rows)])
        kept = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
        return scipy.sparse.csr_matrix((cosines.data[kept], cosines.indices[kept], offsets), shape=cosines.shape)

    def _nearest(self, cosines: CSR, row: int) -> np.ndarray:
        """Places of the largest entries of a row, which are above zero."""
        here = np.arange(cosines.indptr[row], cosines.indptr[row + 1])
        here = here[cosines.data[here] > 0.0]
        if len(here) <= self.count:
            return here
        return np.sort(here[np.argpartition(-cosines.data[here], self.count)[: self.count]])

    def votes(self, nearest: CSR, power: float) -> CSR:
        """(m, D) the share of each label in the neighbours' votes; rows of zeros without neighbours."""
        cosines = nearest.astype(np.float64)
        cosines.data **= power
        sums = np.asarray(cosines.sum(axis=1)).ravel()
        scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0.0)
        return (scipy.sparse.diags_array(scale) @ cosines @ self.labels.astype(np.float64)).tocsr()

    def top_k(self, head: Any, inputs: SparseTargets, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(m, k) float64 scores, best first, and classes; −inf and −1 in places that none takes.

        A label that has votes but is not among the best max(k, 200) of ``head`` counts as the 200th of them, or as the
        last one that an index finds.
        """
        found = head.top_k(hidden, min(max(k, _FIRST), self.labels.shape[1]))
        scores, classes = (part.cpu().numpy() for part in found)
        votes = self.votes(self.nearest(csr_of_bags(inputs, self._documents.shape[0])), self.power)
        best = self._blended(self.own(scores), classes, votes, self.weight, k)
        return torch.from_numpy(best[0]).to(hidden.device), torch.from_numpy(best[1]).to(hidden.device)

    def all_scores(self, scores: Tensor, inputs: SparseTargets) -> Tensor:
        """(m, D) float64 scores of all labels, those of ``top_k``, from the scores of the head."""
        first = min(_FIRST, scores.shape[1])
        best = scores.topk(first, dim=1).values.cpu().numpy()
        own = self.own(scores.cpu().numpy(), best)
        votes = self.votes(self.nearest(csr_of_bags(inputs, self._documents.shape[0])), self.power)
        rows = np.repeat(np.arange(len(own)), np.diff(votes.indptr))
        floor = self.own(best)[:, -1]
        own[rows, votes.indices] = np.maximum(own[rows, votes.indices], floor[rows]) + self.weight * votes.data
        return torch.from_numpy(own).to(scores.device)

    def own(self, scores: np.ndarray, best: np.ndarray | None = None) -> np.ndarray:
        """(m, c) float64 what the network gives: scores, or shares of the probability that the first 200 have."""
        found = scores.astype(np.float64)
        if not self.probabilities:
            return found
        first = (found if best is None else best.astype(np.float64))[:, :_FIRST]
        highest = first.max(axis=1, keepdims=True)
        shares: np.ndarray = np.exp(found - highest) / np.exp(first - highest).sum(axis=1, keepdims=True)
        return shares

    def _blended(
        self, own: np.ndarray, classes: np.ndarray, votes: CSR, weight: float, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best of the network's (m, c) and of those with votes."""
        m, width = own.shape[0], np.int64(self.labels.shape[1])
        there = classes.ravel() >= 0
        rows = np.repeat(np.arange(m), own.shape[1])[there]
        keys, values = (rows * width + classes.ravel()[there]), own.ravel()[there]
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        voted = np.repeat(np.arange(m), np.diff(votes.indptr))
        at = voted * width + votes.indices
        first = np.where(classes >= 0, own, np.inf)[:, :_FIRST]  # an index may find fewer, or none
        floor = first.min(axis=1)
        floor = np.where(np.isfinite(floor), floor, 0.0)[voted]
        place = np.searchsorted(keys, at)
        known = np.append(keys, -1)[place] == at
        above = np.maximum(np.where(known, np.append(values, 0.0)[place], floor), floor) + weight * votes.data
        values[place[known]] = above[known]
        keys, values = np.append(keys, at[~known]), np.append(values, above[~known])
        return _first(keys, values, m, int(width), k)

    def chosen(
        self, network: Any, held: RowExamples, propensities: Propensities, names: list[str], size: int = 256
    ) -> Choice:
        """The weight and the power that do best on ``held`` documents, which are none of these and trained nothing.

        Best: the largest mean of the ratios of the metrics to those without neighbours, of which "no weight" has 1.
        """
        depth = max(int(name.rpartition("@")[2]) for name in names)
        scores, classes, nearest = self._looked_up(network, held, size, depth)
        own = self.own(scores)
        spread = float((own[:, 0] - own[:, min(_FIRST, own.shape[1]) - 1]).mean())
        relevant = held.batch(np.arange(len(held)))[1]

        def judged(votes: CSR, weight: float) -> dict[str, float]:
            evaluation = Evaluation(names, propensities)
            evaluation.add_ranked(torch.from_numpy(self._blended(own, classes, votes, weight, depth)[1]), relevant)
            return evaluation.result()

        race: list[list[float]] = []
        before = judged(self.votes(nearest, 1.0), 0.0)
        best = Choice(0.0, 1.0, len(held), before, before, race)
        for (power, votes), part in product(((p, self.votes(nearest, p)) for p in _POWERS), _WEIGHTS):
            after = judged(votes, part * spread)
            gain = float(np.mean([after[name] / max(before[name], 1e-4) for name in names]))
            if gain > max([1.0, *(row[2] for row in race)]):
                best = Choice(part * spread, power, len(held), before, after, race)
            race.append([power, part, gain])
        return best

    def _looked_up(self, network: Any, held: RowExamples, size: int, depth: int) -> tuple[np.ndarray, np.ndarray, CSR]:
        """(m, c) scores and classes of the network, and the (m, n) neighbours, of all held documents."""
        found, near = [], []
        with torch.no_grad():
            for start in range(0, len(held), size):
                inputs = held.batch(np.arange(start, min(start + size, len(held))))[0]
                assert isinstance(inputs, SparseTargets)
                hidden = network.hidden(inputs.to(network.head.device))
                best = network.head.top_k(hidden, min(max(depth, _FIRST), self.labels.shape[1]))
                found.append([part.cpu().numpy() for part in best])
                near.append(self.nearest(csr_of_bags(inputs, self._documents.shape[0])))
        scores, classes = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return scores, classes, scipy.sparse.vstack(near, format="csr")


def csr_of_bags(bags: SparseTargets, width: int) -> CSR:
    """(m, width) scipy CSR of bags of ids."""
    values = bags.values_or_ones(torch.float32)
    parts = (part.cpu().numpy() for part in (values, bags.class_ids, bags.offsets))
    return scipy.sparse.csr_matrix(tuple(parts), shape=(len(bags), width))


def _unit(features: CSR) -> CSR:
    """Rows divided by their Euclidean norm, float32; rows of zeros stay."""
    found = features.tocsr().astype(np.float64)
    found.data /= np.abs(found.data).max(initial=0.0) or 1.0  # so that no square overflows
    norms = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found.data /= np.repeat(np.where(norms > 0.0, norms, 1.0), np.diff(found.indptr))
    return found.astype(np.float32)


def _first(keys: np.ndarray, values: np.ndarray, m: int, width: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(m, k) of pairs row·width + class and their values, the largest first, of equal ones the smaller class."""
    rows, columns = np.divmod(keys, width)
    order = np.lexsort((columns, -values, rows))
    counts = np.bincount(rows, minlength=m)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    order, place = order[place < k], place[place < k]
    scores, classes = np.full((m, k), -np.inf), np.full((m, k), -1, dtype=np.int64)
    scores[rows[order], place], classes[rows[order], place] = values[order], columns[order]
    return scores, classes
