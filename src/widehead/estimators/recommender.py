"""A recommender of items, from who took what. Letters: m users, N items."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from widehead.data import Interactions, split_rows
from widehead.data.memory import is_matrix, is_table, lists_of, name_of, pair_cells
from widehead.errors import DataError, check_number, check_whole
from widehead.estimators.base import Estimator
from widehead.estimators.names import Names, kind_of, padded
from widehead.jobs.judging import Given, RankingTest, best_classes
from widehead.jobs.recommender import Recommender as Job
from widehead.models import BagEncoder
from widehead.models.bag import unit_values
from widehead.runs.rows import ids_of, linear_head, similar_classes
from widehead.targets import SparseTargets, on_device


class Explanation(NamedTuple):
    """Why a user is recommended an item: ``contributions.sum() + bias`` is the score.

    Attributes:
        items: the user's items, by what they contribute, the largest first.
        contributions: (n,) float64, of each.
        bias: of the item itself; 0 without `head_bias`.
        score: of the item for the user.
    """

    items: np.ndarray
    contributions: np.ndarray
    bias: float
    score: float


class Recommender(Estimator):
    """What `widehead train recommender` learns, from data in memory.

    Data are users and their items: an (m, N) matrix of scipy or numpy (a value of 0 is no entry; other values count
    with ``ratings=True`` only); a DataFrame of pandas or polars with columns of users, items and, perhaps, ratings; or
    a list of items for each user. Items are called as the data call them, those of a matrix by their columns.

    >>> likes = [["milk", "bread"], ["milk", "jam"], ["bread", "jam"], ["milk", "bread", "jam"]] * 5
    >>> ids, scores = Recommender(width=2, at=(1,)).fit(likes).recommend([["milk", "bread"]], 1)
    >>> ids.tolist()
    [['jam']]
    """

    job = Job.name

    def fit(self, data: Any, y: Any = None) -> Self:
        """Learn who takes what.

        Args:
            data: users and their items. y: is not looked at.

        Raises:
            DataError: the data are not what they should be. ValueError: an option does not fit.
        """
        if is_matrix(data):
            self._train(data, {"kind": "int", "features": data.shape[1]})
        elif is_table(data):
            users, items = (kind_of(cells) for _, cells in pair_cells(data)[:2])
            self._train(data, {"kind": items, "users": users})
        else:
            lists = lists_of(data, "items, one for each user")
            self._train(lists, {"kind": kind_of(chain.from_iterable(lists))})
        return self

    @property
    def users_(self) -> np.ndarray:
        """(m,) what the training users are called, in the order of `recommend()`: numbers if the data had rows."""
        return Names(self._job.train.users, self._learnt.get("users")).array

    @property
    def items_(self) -> np.ndarray:
        """(N,) what the items are called, in the order of the columns."""
        return self._names.array

    def recommend(self, rows: Any = None, n: int = 10, exclude: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The n best items for each user.

        Args:
            rows: users, new ones too, by the items that they have: data as `fit` takes them, a matrix with the columns
                of the training data (`items_`). Or users of the training data: one, or a list of them, as `users_` has
                them; those of a matrix, or of lists, are the numbers of its rows. None: all of these.
            n: how many.
            exclude: whether items that the user has are left out.

        Returns:
            (m, n) items as the data call them, best first, and their (m, n) float64 scores; of one number or name (n,).
            Places that no item takes hold −1 (None if items are called by texts) and −inf: all of a user of whose items
            none is known.

        Raises:
            DataError: the rows are not what they should be, or a user is not known. ValueError: n is below 1.
        """
        check_whole("n", n)
        run, given = self._fitted(), self._given(rows)
        k = min(n, run.job.sizes["classes"])
        found = list(best_classes(run.network, given, k, exclude_inputs=exclude))
        ids = padded([ids for ids, _ in found], n, -1).astype(np.int64)
        scores = padded([scores for _, scores in found], n, -np.inf)
        return _as_asked(rows, self._names.of(ids), scores)

    def similar(self, items: Any, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The n items nearest to each of some, by the cosine of their rows of the output layer; see `Run.similar`.

        Args:
            items: one or more, as the data call them.

        Returns:
            (m, n) items, nearest first, and their (m, n) cosines, padded as `recommend` pads; of one item (n,).

        Raises:
            DataError: an item is not known; says which are like it. ValueError: n is below 1.
        """
        check_whole("n", n)
        run, asked = self._fitted(), self._ids([items] if _is_single(items) else items)
        ids, scores = similar_classes(linear_head(run), asked, n)
        found = padded([ids.numpy()], n, -1), padded([scores.double().numpy()], n, -np.inf)
        return _as_asked(items, self._names.of(found[0]), found[1])

    def explain(self, user: Any, item: Any) -> Explanation:
        """What each item of a user contributes to the score of an item, exactly.

        The score of a linear encoder and head is a sum over the user's items. If users like this one have a say, too
        (option ``neighbours``), that is the network's part alone, and `recommend` may order otherwise.

        Args:
            user: one row, as `recommend` takes it: a user of the training data, or a (1, N) matrix or list of a list.
            item: as the data call it.

        Raises:
            DataError: the user or item is not known. ValueError: the run is not linear, so that there is no such sum.
        """
        run, given = self._fitted(), self._given(user)
        if given.rows.shape[0] != 1:
            raise DataError(f"Expected one user. Found {given.rows.shape[0]}.")
        asked, encoder, head = self._ids([item]), run.network.encoder, run.network.head
        config = run.config
        if config.hidden or config.activation != "none" or not isinstance(encoder, BagEncoder):
            raise ValueError(
                "Expected a linear encoder, whose scores are sums over items. Found hidden layers or an activation."
            )
        bag = on_device(next(given.batches())[0], head.device)
        assert isinstance(bag, SparseTargets)
        with torch.no_grad():
            weights = unit_values(bag, bag.values_or_ones(head.dtype))
            parts = encoder.rows(bag.class_ids) * weights[:, None]
            rows = torch.cat([parts, torch.zeros_like(parts[:1]), encoder(bag)])
            scores = head.scores(rows, asked.to(head.device).expand(len(rows), 1)).double()[:, 0].cpu().numpy()
        bias, score = float(scores[-2]), float(scores[-1])
        shares = scores[:-2] - bias
        if abs(shares.sum() + bias - score) > 1e-3 * (np.abs(shares).sum() + abs(score)):
            raise ValueError(
                f"Expected a head whose scores are linear, so that they are sums over items. Found {config.head} with "
                f"the loss {config.loss}."
            )
        order = np.argsort(-shares, kind="stable")
        return Explanation(self._names.of(bag.class_ids.cpu().numpy()[order]), shares[order], bias, score)

    def score(self, data: Any, y: Any = None, *, hide: float = 0.2) -> float:
        """The first metric of the option ``at``, recall@20 by default, for users who need not be known.

        Args:
            data: users and what they have.
            y: what they should be recommended, in one of the forms of data; if it is not given, or one number or text
                for each user, which is not looked at, part of what they have is hidden (drawn by the option ``seed``)
                and should be found again. For new items of the training users see `evaluate`.
            hide: this part.

        Raises:
            DataError: the data are not what they should be, or nothing is left to judge by.
        """
        check_number("hide", hide, below=1.0)
        run, job, given = self._fitted(), self._job, self._given(data)
        config, none = run.config, np.zeros(given.rows.shape[0], dtype=np.int64)
        if y is None or (not is_matrix(y) and not is_table(y) and all(map(_is_single, y))):
            test = RankingTest(*split_rows(given.rows, hide, config.seed), none, exclude_inputs=True)
        else:
            test = job.read_test(y, Interactions(given.rows, list(given.names), job.train.items, none))
        if len(test.examples) == 0:
            raise DataError("Expected users with items to judge by. Found none.")
        name = job.metric_names(config.at)[0]
        return test.metrics(run.network, [name], None, config.seed)[name]

    @property
    def _job(self) -> Job:
        job = self._fitted().job
        assert isinstance(job, Job)
        return job

    def _given(self, rows: Any) -> Given:
        """Users by their items, or those of the training data."""
        job = self._job
        if is_matrix(rows) or is_table(rows):
            return job.given(rows)
        if rows is None:
            return job.known(np.arange(len(job.train.users)))
        users = [rows] if _is_single(rows) else list(rows)
        if not users or not all(map(_is_single, users)):
            return job.given(users)
        # Not `name_of`: numbers with a point are no users, but what some have.
        return job.known(ids_of([str(user) for user in users], job.user_ids, "users").numpy())

    def _ids(self, items: Iterable[Any]) -> torch.Tensor:
        return ids_of([name_of(item) or "" for item in items], self._fitted().class_ids, "items")


def _as_asked(asked: Any, ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A row for each of some; the row of one alone."""
    return (ids[0], scores[0]) if asked is not None and _is_single(asked) else (ids, scores)


def _is_single(user: Any) -> bool:
    return isinstance(user, str) or not isinstance(user, Iterable)
