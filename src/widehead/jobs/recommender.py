"""Recommender: the items of a user in, the items of a user out."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from torch import nn

from widehead.data import Examples, Interactions, RowExamples, Vocabulary, binary, pair, read_interactions, split_rows
from widehead.data.files import is_file, listed, named
from widehead.data.memory import is_matrix, is_table
from widehead.data.sparse import CSR, csr_from_parts
from widehead.errors import DataError
from widehead.jobs.base import Job, JobData
from widehead.jobs.judging import Given, RankingTest
from widehead.jobs.network import bag_encoder
from widehead.kinds import recommender as kind
from widehead.models import BagEncoder, SparseMatrix, leading_singular_vectors
from widehead.options import TrainingConfig
from widehead.options.checks import refusal
from widehead.split import local
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.folder import RunFolder, expecting
from widehead.training.memory import told

# Powers of the numbers of a user's items and of an item's users that the singular vectors are of; chosen on a part of
# gowalla's training pairs.
_USER_POWER, _ITEM_POWER = 0.3, 0.4
# Rarer items are left out of it: what their few users share with nobody else would take directions of its own. On
# Epinions, where two items in three have one user, recall@20 is 0.061 with this and 0.025 without, at width 128.
_LEAST_USERS = 5
# More units than the data can fill are of a few users each. 256 and 384 are best for Epinions' 310,000 pairs of such
# items, and from 1,024 on nothing is gained for gowalla's 809,000.
_PAIRS_A_UNIT, _WIDTHS = 800, (64, 1024)
_ITEMS_A_UNIT = 8  # fewer if the items are few, of which an eighth spans nearly all; or as `affordable_width` says
# Bytes that a run may take, at least and for each pair; those that a pair takes, and the name of a user or an item.
_MEMORY, _MEMORY_A_PAIR, _PAIR, _NAME = 5_400_000_000, 200, 65, 250
# Products of users and width², at least and for each pair: 10⁹ take some 6 seconds of a core.
_PRODUCTS, _PRODUCTS_A_PAIR = 50_000_000_000, 5_000


class Recommender(kind.Recommender, Job):
    """Items in, items out.

    The training pairs stay in the run folder (history.safetensors), because judging by a test file needs what each
    of its users took before.

    Args:
        train: the training pairs; ratings are ones unless the option ``ratings`` is on.
        ratings: whether ratings of files to come count.
    """

    exclude_inputs = True

    def __init__(self, train: Interactions, ratings: bool) -> None:
        self.train = train
        self.ratings = ratings

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": len(self.train.items), "classes": len(self.train.items)}

    @property
    def class_names(self) -> Sequence[str]:
        return self.train.items.names

    @cached_property
    def user_ids(self) -> Mapping[str, int]:
        """The rows of the training users by their names."""
        return Vocabulary(self.train.users).as_dict

    @classmethod
    def interactions(cls, config: TrainingConfig, data: Any) -> Interactions:
        """All pairs that there are to train on."""
        found = read_interactions(data)
        if not found.matrix.nnz:
            raise DataError(f"{named(data)}: expected pairs of users and items. Found none.")
        if config.ratings and not found.has_ratings and not is_matrix(data):
            columns = "" if found.layout is None else found.layout.columns
            raise DataError(f"{named(data)}: --ratings needs a column of ratings (rating, score, …). Found {columns}.")
        return found

    @classmethod
    def of(cls, config: TrainingConfig, train: Any) -> JobData:
        train = cls.interactions(config, train)
        matrix = train.matrix if config.ratings else binary(train.matrix)
        hidden = None
        if config.test is None and config.holdout > 0.0:
            matrix, hidden = split_rows(matrix, config.holdout, config.seed)
        job = cls(Interactions(matrix, train.users, train.items, train.unreachable), config.ratings)
        test = None if config.test is None else job.read_test(config.test)
        if hidden is not None:
            if hidden.nnz == 0:
                raise refusal("holdout", "be 0, as no user has two items", config.holdout)
            reading = f"{hidden.nnz:,} pairs of {np.count_nonzero(np.diff(hidden.indptr)):,} users are held out."
            test = RankingTest(matrix, hidden, train.unreachable, exclude_inputs=True, reading=reading)
        rows = matrix[np.flatnonzero(np.diff(matrix.indptr))]
        powers = config.target_power, config.target_item_power
        targets = scaled(rows, *powers) if max(powers) > 0.0 else None
        unused = "" if config.ratings or not train.has_ratings else "; ratings count with --ratings only"
        return JobData(job, RowExamples(rows, targets), test, f"{train}{unused}")

    def save(self, folder: RunFolder) -> None:
        matrix = self.train.matrix
        tree = {
            "offsets": torch.from_numpy(matrix.indptr.astype(np.int64)),
            "items": torch.from_numpy(matrix.indices.astype(np.int32)),
            "num_items": matrix.shape[1],
            "ratings": torch.from_numpy(matrix.data) if self.ratings else None,
        }
        folder.keep("items.txt", self.train.items.save)
        folder.keep("users.txt", Vocabulary(self.train.users).save)
        folder.keep("history.safetensors", lambda path: save_checkpoint(path, tree))

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        items = Vocabulary.load(folder.vocabulary_path("items.txt"))
        users = Vocabulary.load(folder.vocabulary_path("users.txt")).names
        path = folder.vocabulary_path("history.safetensors")
        tree = load_checkpoint(path)
        with expecting(path, f"the training matrix of the {len(users)} users and {len(items)} items beside it"):
            if tree["num_items"] != len(items):
                raise ValueError(f"{tree['num_items']} items")
            offsets, columns = (tree[name].numpy() for name in ("offsets", "items"))
            ratings = None if tree["ratings"] is None else tree["ratings"].numpy()
            matrix = csr_from_parts(offsets, columns, ratings, (len(users), len(items)))
        return cls(Interactions(matrix, users, items, np.zeros(len(users), dtype=np.int64)), config.ratings)

    def kept(self, config: TrainingConfig) -> Interactions | None:
        """All pairs, unless some were held out."""
        whole = config.test is not None or config.holdout == 0.0
        return dataclasses.replace(self.train, has_ratings=self.ratings) if whole else None

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """``width`` 0 becomes one unit for each 800 pairs of items that have 5 users or more: 64 to 1,024 in 32s.

        It is an eighth of the items at most, and less if memory or time would run out: see `affordable_width`.
        """
        if config.width > 0:
            return config
        counts = self.train.matrix.getnnz(axis=0)
        lasting = counts >= _LEAST_USERS
        units = round(counts[lasting].sum() / _PAIRS_A_UNIT / 32) * 32
        wanted = int(np.clip(units, *_WIDTHS))
        users, items = self.train.matrix.shape
        memory = told("MemTotal", "/proc/meminfo") or sys.maxsize
        affordable = affordable_width(users, items, int(lasting.sum()), self.train.matrix.nnz, memory)
        width = max(_WIDTHS[0], min(wanted, items // _ITEMS_A_UNIT // 32 * 32, affordable))
        if width < wanted:
            bounded = f"width {width} and not {wanted:,}, because of {users:,} users and {items:,} items"
            config = dataclasses.replace(config, because=f"{config.because or 'the default'}; {bounded}")
        return dataclasses.replace(config, width=width)

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        kept = self._lasting(config.width)
        is_fixed = config.encoder_init == "svd" and config.encoder_lr == 0.0
        fewer = is_fixed and len(kept) < self.sizes["inputs"]
        return bag_encoder(self.sizes["inputs"], config, mesh, torch.from_numpy(kept) if fewer else None)

    def _lasting(self, width: int) -> np.ndarray:
        """The items that the singular vectors are of: those of 5 users and more, all if they are fewer than units."""
        frequent = np.flatnonzero(self.train.matrix.getnnz(axis=0) >= _LEAST_USERS)
        return frequent if len(frequent) >= width else np.arange(self.train.matrix.shape[1])

    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Encodings by the leading singular vectors of the training matrix, scaled so that rare items and users count.

        With X = D_u^-0.3 R D_i^-0.4 ≈ UΣVᵀ, an item's row is that of D_i^-0.4 V, so that the training users'
        encodings are the rows of UΣ, each with a factor. Items of fewer than 5 users have rows of zeros, unless there
        would be fewer items than units without them. Least squares on such encodings, without a ridge and with -0.5
        for both powers, is the model of Hong et al. (SVD-AE: Simple Autoencoders for Collaborative Filtering, IJCAI
        2024).
        """
        assert isinstance(encoder, BagEncoder)
        table, kept = local(encoder.embeddings.weight), self._lasting(config.width)
        matrix = scaled(self.train.matrix, _USER_POWER, _ITEM_POWER)
        matrix = matrix if len(kept) == matrix.shape[1] else matrix[:, kept]
        rank = min(config.width, *matrix.shape)
        _, rows = leading_singular_vectors(SparseMatrix(matrix, device=table.device, dtype=table.dtype), rank)
        del matrix
        rows.mul_(torch.from_numpy(factors(self.train.matrix, 0, _ITEM_POWER)[kept]).to(rows)[:, None])
        # As large as random ones: learning rates that fit those fit these. Units beyond the rank are 0.
        rows.div_(torch.linalg.vector_norm(rows) / encoder.num_inputs**0.5)
        places = torch.from_numpy(kept) if encoder.places is None else torch.arange(len(kept))
        here = slice(*np.searchsorted(places.numpy(), (encoder.here.start, encoder.here.stop)))
        with torch.no_grad():
            table.zero_()[places[here].to(table.device) - encoder.here.start, :rank] = rows[here]

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"{kind}@{k}" for k in at for kind in ("recall", "ndcg", "precision")]

    def read_test(self, data: Any, known: Interactions | None = None) -> RankingTest:
        """Left out are users that are not known, as nothing is known about them, and pairs that are.

        The rows of a matrix are the users that are known, and so are lists.

        Args:
            known: users and the items that they have, in the columns of the run; None: the training data.
        """
        known = self.train if known is None else known
        items = known.items if is_matrix(data) else None
        users = None if is_file(data) or is_table(data) else known.users
        both = pair(known, read_interactions(data, items=items, users=users))
        test = RankingTest(
            *(known.matrix, both.new, both.test.unreachable), exclude_inputs=True, reading=str(both), fits=both.fits
        )
        if len(test.examples) == 0:
            raise DataError(
                f"{named(data)}: expected users of the training data, such as {listed(known.users)}, with new "
                f"items. Found none of them to judge by: {both}"
            )
        return test

    def given(self, data: Any) -> Given:
        """Users and the items they have, of which those that the run does not know are left out."""
        return self._bags(read_interactions(data, items=self.train.items))

    def known(self, rows: np.ndarray) -> Given:
        """Users of the training data, by the numbers of their rows."""
        users = [self.train.users[row] for row in rows]
        return self._bags(dataclasses.replace(self.train, matrix=self.train.matrix[rows], users=users))

    def _bags(self, given: Interactions) -> Given:
        return Given.bags(given.users, given.matrix if self.ratings else binary(given.matrix))


def affordable_width(users: int, items: int, lasting: int, pairs: int, memory: int) -> int:
    """The multiple of 32 up to which memory and time last.

    While singular vectors are found there are two blocks of the smaller side of the matrix, with what products and
    factors of them need, and the rows of items twice; then those and W.

    Args:
        lasting: items of 5 users and more, which alone have rows in the encoder.
        memory: bytes that the machine has, of which a run takes three quarters at most.
    """
    room = min(max(_MEMORY, _MEMORY_A_PAIR * pairs), 3 * memory // 4) - _PAIR * pairs - _NAME * (users + items)
    numbers = max(items + lasting, 5 * min(users, lasting) // 2 + 2 * lasting, 1)
    by_time = math.isqrt(max(_PRODUCTS, _PRODUCTS_A_PAIR * pairs) // max(1, users))
    return max(0, min(room // (4 * numbers), by_time)) // 32 * 32


def factors(matrix: CSR, axis: int, power: float) -> np.ndarray:
    """n^-power for the n entries of each column (axis 0) or row (axis 1); 1 if there are none."""
    counts = matrix.getnnz(axis=axis)
    return (np.maximum(counts, 1.0) ** -power).astype(np.float32)


def scaled(matrix: CSR, row_power: float, column_power: float) -> CSR:
    """(m, D) every entry times ``factors`` of its row and of its column."""
    by_rows, by_columns = factors(matrix, 1, row_power), factors(matrix, 0, column_power)
    values = matrix.data * np.repeat(by_rows, np.diff(matrix.indptr)) * by_columns[matrix.indices]
    return scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)
