"""Recommender: the items of a user in, the items of a user out."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from widehead.data import (
    Examples,
    Interactions,
    RowExamples,
    SharedExamples,
    Vocabulary,
    binary,
    pair,
    read_interactions,
    split_rows,
)
from widehead.data.files import is_file, listed, named
from widehead.data.memory import is_matrix, is_table
from widehead.data.sparse import CSR, csr_from_parts
from widehead.errors import DataError
from widehead.jobs.base import Job, JobData, warn_unchosen
from widehead.jobs.direct import DIRECT_RANKS, DirectTerm
from widehead.jobs.entries import factors, scaled
from widehead.jobs.judging import Given, RankingTest
from widehead.jobs.network import bag_encoder
from widehead.jobs.probe import Probe, probed
from widehead.jobs.trial import Trial, chosen
from widehead.jobs.user_votes import UserVotes, UserWeights, enough, hidden_pairs
from widehead.jobs.widths import LEAST_USERS, usual_width
from widehead.kinds import recommender as kind
from widehead.models import BagEncoder, SharedMatrix, SparseMatrix, WideNetwork, leading_singular_vectors
from widehead.options import TrainingConfig
from widehead.options.checks import refusal
from widehead.split import InTurn, Share, alike, dealt, local, totals
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.folder import RunFolder, expecting

# Powers of the numbers of a user's items and of an item's users that the singular vectors are of; chosen on a part of
# gowalla's training pairs.
_USER_POWER, _ITEM_POWER = 0.3, 0.4


class Recommender(kind.Recommender, Job):
    """Items in, items out.

    The training pairs stay in the run folder (history.safetensors), because judging by a test file needs what each
    of its users took before.

    Args:
        train: the training pairs; ratings are ones unless the option ``ratings`` is on.
        ratings: whether ratings of files to come count.
        share: of the users, whose pairs alone ``train`` has; None for all. Every process makes the job then.
    """

    exclude_inputs = True
    by_shares = True
    choice, probe, trial = UserWeights, Probe, Trial

    def __init__(self, train: Interactions, ratings: bool, share: Share | None = None) -> None:
        self.train, self._share = train, share
        self.found: Probe | None = None
        self.tried: Trial | None = None
        self.ratings = ratings
        self.num_users = train.matrix.shape[0] if share is None else len(train.users)
        counts = train.matrix.getnnz(axis=0).astype(np.int64)
        #: (items,) in how many training pairs each is, of all users
        self.item_counts: np.ndarray = counts if share is None else share.total(counts)

    @property
    def sizes(self) -> Mapping[str, int]:
        return dict.fromkeys(("inputs", "classes"), self.train.matrix.shape[1])

    @property
    def class_names(self) -> Sequence[str]:
        return self.train.items.names

    @cached_property
    def user_ids(self) -> Mapping[str, int]:
        """The rows of the training users by their names."""
        return Vocabulary(self.train.users).as_dict

    @classmethod
    def interactions(cls, config: TrainingConfig, data: Any, share: Share | None = None) -> Interactions:
        """All pairs that there are to train on, or those of a share of the users."""
        return read_interactions(data, share=share)

    @classmethod
    def of(cls, config: TrainingConfig, train: Any, share: Share | None = None) -> JobData:
        with alike(share):
            found = cls.interactions(config, train, share)
        pairs, has_ratings = found.matrix.nnz, found.has_ratings
        lengths = np.diff(found.matrix.indptr)
        if share is not None:
            share.peers.check_same("training data", f"{len(found.users)} users and {len(found.items)} items")
            lengths = share.dealt(len(found.users)).all_of(lengths)
            pairs, has_ratings = int(lengths.sum()), share.largest(has_ratings)[0] > 0
        if not pairs:
            raise DataError(f"{named(train)}: expected pairs of users and items. Found none.")
        if config.ratings and not has_ratings and not is_matrix(train):
            columns = "" if found.layout is None else found.layout.columns
            raise DataError(f"{named(train)}: --ratings needs a column of ratings (rating, score, …). Found {columns}.")
        found = dataclasses.replace(found, has_ratings=has_ratings)
        matrix, hidden = found.matrix if config.ratings else binary(found.matrix), None
        if config.test is None and config.holdout > 0.0:
            matrix, hidden = split_rows(
                matrix, config.holdout, config.seed, None if share is None else (share, lengths)
            )
        job = cls(Interactions(matrix, found.users, found.items, found.unreachable), config.ratings, share)
        test = None
        if hidden is not None:
            test = job._test_of(hidden, config)
        elif config.test is not None:
            test = job.read_test(config.test)
        unused = "" if config.ratings or not has_ratings else "; ratings count with --ratings only"
        config = job.settled(config)
        tried = " ".join(str(found) for found in (job.found, job.tried) if found is not None)
        data = JobData(job, job.examples(config), test, f"{_told(found, share)}{unused}", share=share, tried=tried)
        job._forget_names()
        return data

    def _test_of(self, hidden: CSR, config: TrainingConfig) -> RankingTest:
        """By pairs that were held out of the training data."""
        pairs, users = totals(self._share, hidden.nnz, int(np.count_nonzero(np.diff(hidden.indptr))))
        if pairs == 0:
            raise refusal("holdout", "be 0, as no user has two items", config.holdout)
        reading = f"{pairs:,} pairs of {users:,} users are held out."
        return self._judging(hidden, self.train.unreachable, reading=reading)

    def _judging(self, relevant: CSR, unreachable: np.ndarray, **more: Any) -> RankingTest:
        among = dealt(self._share, self.num_users)
        return RankingTest(self.train.matrix, relevant, unreachable, exclude_inputs=True, among=among, **more)

    def examples(self, config: TrainingConfig) -> Examples:
        """Users with items."""
        (matrix, counts), share = self._seen(config), self._share
        filled = np.diff(matrix.indptr) > 0
        powers = config.target_power, config.target_item_power
        rows = matrix[np.flatnonzero(filled)]
        examples = RowExamples(rows, scaled(rows, *powers, counts) if max(powers) > 0.0 else None)
        return examples if share is None else SharedExamples(examples, share.dealt(self.num_users).chosen_here(filled))

    def _forget_names(self) -> None:
        """Of several processes the first one writes the names; the others need them no more."""
        if self._share is not None and not self._share.peers.is_first:
            self.train = dataclasses.replace(self.train, users=[], items=Vocabulary([]))

    def _chooses(self, config: TrainingConfig) -> bool:
        """Whether pairs are kept aside to choose by what users like the given one count."""
        return config.neighbours > 0 and enough(self.train.matrix, self._share)

    def _seen(self, config: TrainingConfig) -> tuple[CSR, np.ndarray]:
        """The pairs that train the network, and how many of them each item is in."""
        if not self._chooses(config):
            return self.train.matrix, self.item_counts
        share = self._share
        seen = hidden_pairs(self.train.matrix, config.seed, among=dealt(share, self.num_users))[0]
        counts = seen.getnnz(axis=0).astype(np.int64)
        return seen, counts if share is None else share.total(counts)

    def save(self, folder: RunFolder) -> None:
        matrix, share = self.train.matrix, self._share
        items: Any = torch.from_numpy(matrix.indices.astype(np.int32))
        ratings: Any = torch.from_numpy(matrix.data) if self.ratings else None
        offsets = torch.from_numpy(matrix.indptr.astype(np.int64))
        if share is not None:
            rows = share.dealt(self.num_users)
            lengths = rows.all_of(np.diff(matrix.indptr))
            offsets = torch.from_numpy(np.pad(np.cumsum(lengths, dtype=np.int64), (1, 0)))
            items, ratings = (None if part is None else InTurn(rows, part, lengths) for part in (items, ratings))
        tree = {"offsets": offsets, "items": items, "num_items": matrix.shape[1], "ratings": ratings}
        is_first = share is None or share.peers.is_first
        with alike(share):
            if is_first:
                folder.keep("items.txt", self.train.items.save)
                folder.keep("users.txt", Vocabulary(self.train.users).save)
                for found, path in ((self.found, folder.probe_path), (self.tried, folder.trial_path)):
                    if found is not None:
                        found.write(path)
        folder.keep("history.safetensors", lambda path: save_checkpoint(path, tree), is_first)

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
        """``neighbours`` -1 becomes what `probed` found, ``width`` 0 and ``direct`` -1 what `chosen` did.

        Where there is nothing to choose by, ``width`` 0 becomes `usual_width`, and there is no direct term.
        """
        if config.direct > 0.0 or config.neighbours >= 0:
            count = max(config.neighbours, 0)
        else:
            if self.found is None:
                self.found = probed(self, config, self._share)
            count = self.found.neighbours
        usual, why = self.usual_width(config)
        width, weight, is_open = usual, 0.0, config.width == 0 or config.direct < 0.0
        # The term knows nothing of dislikes, and what is tried is least squares on singular vectors.
        if is_open and count == 0 and not self.ratings and self.can_rank_directly(config):
            if self.tried is None:
                self.tried = chosen(self, config, self._share)
            width, weight = config.width or self.tried.units, self.tried.weight
        weight = weight if config.direct < 0.0 else config.direct
        if width < usual:
            why = f"width {width} and not {usual:,}, by hidden pairs"
        because = f"{config.because or 'the default'}; {why}" if why else config.because
        return dataclasses.replace(config, width=width, neighbours=count, direct=weight, because=because)

    def usual_width(self, config: TrainingConfig) -> tuple[int, str]:
        """The width of ``config``, or `usual_width` if it has none; and what bounds that, or ""."""
        if config.width > 0:
            return config.width, ""
        return usual_width(self.num_users, self.item_counts)

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        kept = self._lasting(config.width)
        is_fixed = config.encoder_init == "svd" and config.encoder_lr == 0.0
        fewer = is_fixed and len(kept) < self.sizes["inputs"]
        return bag_encoder(self.sizes["inputs"], config, mesh, torch.from_numpy(kept) if fewer else None)

    def _lasting(self, width: int) -> np.ndarray:
        """The items that the singular vectors are of: those of 5 users and more, all if they are fewer than units."""
        frequent = np.flatnonzero(self.item_counts >= LEAST_USERS)
        return frequent if len(frequent) >= width else np.arange(len(self.item_counts))

    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Encodings by the leading singular vectors of the training matrix, scaled so that rare items and users count.

        With X = D_u^-0.3 R D_i^-0.4 ≈ UΣVᵀ, an item's row is that of D_i^-0.4 V, so that the training users'
        encodings are the rows of UΣ, each with a factor. Items of fewer than 5 users have rows of zeros, unless there
        would be fewer items than units without them. Least squares on such encodings, without a ridge and with -0.5
        for both powers, is the model of Hong et al. (SVD-AE: Simple Autoencoders for Collaborative Filtering, IJCAI
        2024).
        """
        assert isinstance(encoder, BagEncoder)
        table, kept, share = local(encoder.embeddings.weight), self._lasting(config.width), self._share
        rank = min(config.width, self.num_users, len(kept))
        places = kept if encoder.places is None else np.arange(len(kept))  # in the table
        counts = encoder.parts_of(places, 1 if share is None else share.size)
        seen, in_pairs = self._seen(config)
        matrix = scaled(seen, _USER_POWER, _ITEM_POWER, in_pairs)
        matrix = matrix if len(kept) == matrix.shape[1] else matrix[:, kept]
        sparse = (
            SparseMatrix(matrix, device=table.device, dtype=table.dtype)
            if share is None
            else SharedMatrix(matrix, share, self.num_users, counts, table.dtype)
        )
        del matrix, seen
        _, rows = leading_singular_vectors(sparse, rank)
        del sparse
        if share is not None and not encoder.is_split:
            rows = share.split.all_rows(rows, counts, "rows")
        elif share is not None:
            begin = sum(counts[: share.rank])
            places, kept = (part[begin : begin + len(rows)] for part in (places, kept))
        rows.mul_(torch.from_numpy(factors(in_pairs[kept], _ITEM_POWER)).to(rows)[:, None])
        # As large as random ones: learning rates that fit those fit these. Units beyond the rank are 0.
        length = torch.linalg.vector_norm(rows)
        if share is not None and encoder.is_split:
            length = torch.from_numpy(share.total(length.square().double().numpy()[None]))[0].sqrt()
        if not length:
            raise DataError("Expected ratings of which some are not 0, to make an encoder from. Found 0 for all pairs.")
        rows.div_(length / encoder.num_inputs**0.5)
        with torch.no_grad():
            table.zero_()[torch.from_numpy(places - encoder.here.start).to(table.device), :rank] = rows

    def trained(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> str | None:
        """Choose what users like the given one count, by pairs that neither they nor the network know meanwhile."""
        if not self._chooses(config):
            return DIRECT_RANKS if config.direct > 0.0 else None
        network.eval()
        seen, users, hidden = hidden_pairs(self.train.matrix, config.seed)
        held = RowExamples(seen[users], hidden)
        votes = UserVotes(seen, config.neighbours, asked=held.inputs)
        choice = votes.chosen(network, held, self.metric_names(config.at), config.seed)
        choice.write(folder.neighbours_path)
        return str(choice)

    def complete(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> None:
        if config.direct > 0.0:
            network.beside = DirectTerm(self.train.matrix, config.direct)
        if not self._chooses(config):
            return
        if (choice := UserWeights.read(folder.neighbours_path)) is None:
            warn_unchosen()
        elif choice.weights:
            network.beside = UserVotes(self.train.matrix, config.neighbours, choice.weights)

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"{kind}@{k}" for k in at for kind in ("recall", "ndcg", "precision")]

    def read_test(self, data: Any, known: Interactions | None = None) -> RankingTest:
        """Left out are users that are not known, as nothing is known about them, and pairs that are.

        The rows of a matrix are the users that are known, and so are lists.

        Args:
            known: users and the items that they have, in the columns of the run; None: the training data.
        """
        share = self._share
        known = self.train if known is None else known
        with alike(share):
            items = known.items if is_matrix(data) else None
            users = None if is_file(data) or is_table(data) else known.users
            both = pair(known, read_interactions(data, items=items, users=users), share)
        *sizes, repeated = totals(share, *both.sizes, both.repeated)
        both = dataclasses.replace(both, repeated=repeated)
        told = both.told(*sizes)
        among = dealt(share, self.num_users)
        parts = known.matrix, both.new, both.test.unreachable
        test = RankingTest(*parts, exclude_inputs=True, reading=told, fits=both.fits, among=among)
        if len(test) == 0:
            raise DataError(
                f"{named(data)}: expected users of the training data, such as {listed(known.users)}, with new "
                f"items. Found none of them to judge by: {told}"
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


def _told(found: Interactions, share: Share | None) -> str:
    """What was read by all processes."""
    if share is None:
        return str(found)
    values = found.matrix.data
    pairs, repeats = totals(share, len(values), found.repeats)
    low, high = share.largest(-values.min(initial=np.inf), values.max(initial=-np.inf))
    return found.told(pairs, repeats, (-low, high))
