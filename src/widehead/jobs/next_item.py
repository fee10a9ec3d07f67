"""The next item: the items of a session or history so far in, the item that comes next out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from widehead.data import (
    Examples,
    Histories,
    SequenceExamples,
    Sequences,
    SharedExamples,
    Vocabulary,
    pieces,
    read_sequences,
)
from widehead.data.files import named
from widehead.data.sequence_examples import num_pieces
from widehead.errors import DataError
from widehead.jobs.base import Job, JobData, warn_unchosen
from widehead.jobs.judging import Given, WordTest
from widehead.jobs.network import sequence_encoder
from widehead.jobs.session_votes import SessionVotes, SessionWeights, held_ends, held_out
from widehead.kinds import next_item as kind
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.split import Dealt, InTurn, Share, alike, totals
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.folder import RunFolder, expecting

_Known = tuple[np.ndarray, np.ndarray]
_SEQUENCES = "sequences.safetensors"
# Places of a step, if the batch size is left to the data: as many sequences of any length would make few steps of many
# places where they are long (recipes/LOG.md, 2026-11-28).
_PLACES = 400
# Steps of a run that is as long as the data decide, and the least and the most passes over them that this may be: short
# runs on few sequences learn little (the same, "how long the next item trains").
_STEPS, _PASSES = 15_000, (5, 15)
_PAIRS = 10  # of equal first items, if there are so many by chance: none of them is no chance
# How often a pass over all sequences has those that were held out, whole or but for their ends: what they miss of the
# passes before is more than they miss of the learning rates then (recipes/LOG.md, 2026-11-29).
_TIMES = 5


class NextItem(kind.NextItem, Job):
    """The items so far in, the next item out.

    Args:
        items: of the training data. context: how many last items count.
        known: the training sequences, those that ended first before, if the run asks for neighbours: their items, one
            after the other, and where they begin.
        share: of the sequences, which this process has alone; None for all. Every process makes the job then.
    """

    by_shares = True
    choice = SessionWeights

    def __init__(
        self, items: Vocabulary, context: int, known: _Known | None = None, share: Share | None = None
    ) -> None:
        self.items, self.context, self._known, self._share = items, context, known, share
        self._num_items = len(items)
        self._among: Dealt | None = None  # who has which of the known sequences
        self._pieces, self._places = 1, 1  # of the training sequences

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": self._num_items, "classes": self._num_items}

    @property
    def class_names(self) -> Sequence[str]:
        return self.items.names

    @classmethod
    def of(cls, config: TrainingConfig, train: Any, share: Share | None = None) -> JobData:
        with alike(share):
            found = read_sequences(train, share=share)
        if share is not None:
            share.peers.check_same("training data", f"{len(found)} sequences of {len(found.items)} items")
        job, reading = cls(found.items, config.context, share=share), f"{found}{_told_of_users(found)}"
        kept = found.order[found.lengths[found.order] > 1]
        if len(kept) == 0:
            raise DataError(
                f"{named(train)}: expected sequences of two items or more. Found none among {len(found):,}."
            )
        test = None if config.test is None else job._read_test(config.test, share)
        held = round(config.holdout * len(kept)) if test is None else 0
        if 0 < held < len(kept):
            kept, last = np.split(kept, [-held])
            told = f"the last {held:,} sequences are held out."
            test = WordTest(job._examples(found, last), told, places=config.context)
        elif test is None and config.holdout > 0.0:
            reading += "; none are held out, as there are too few"
        short, joining, joins = np.zeros(len(found), dtype=bool), None, ""
        if config.neighbours > 0 and (held := held_out(len(kept))):
            job._keep(found, kept)
            every, kept = kept, kept[:-held]
            short[kept] = held_ends(found.lengths[kept], config.seed, config.context)
            late = np.concatenate([every[-held:], np.flatnonzero(short)])
            joining = job._examples(found, np.sort(np.concatenate([every, *[late] * (_TIMES - 1)])))
            joins = f"{held:,} sequences" + (f" and {ends:,} last items of others" if (ends := short.sum()) else "")
        lengths = found.lengths[kept] - short[kept]
        job._pieces, job._places = int(num_pieces(lengths, config.context).sum()), int((lengths - 1).sum())
        examples = job._examples(found, np.sort(kept), short)
        data = JobData(job, examples, test, reading, share=share, joining=joining, joins=joins)
        if share is not None and not share.peers.is_first:  # the first one writes the names
            job.items = Vocabulary([])
        return data

    def _examples(self, found: Sequences, rows: np.ndarray, short: np.ndarray | None = None) -> Examples:
        """Every place of some sequences, whose items are all known, but the last one of those that are ``short``."""
        here, left = found.places(rows), np.zeros(len(rows), dtype=bool) if short is None else short[rows]
        less = left if found.share is None else left[found.share.holds(rows)]
        cut = pieces(found.offsets[:-1][here], found.offsets[1:][here] - less, self.context)
        examples = SequenceExamples(found.ids, *cut)
        if found.share is None:
            return examples
        counts = num_pieces(found.lengths[rows] - left, self.context)
        return SharedExamples(examples, found.share.dealt_of(rows).repeated(counts))

    def _keep(self, found: Sequences, rows: np.ndarray) -> None:
        """Some training sequences, in this order, for the run folder."""
        ids = _joined(found, found.places(rows))
        self._known = ids, np.concatenate([[0], np.cumsum(found.lengths[rows])])
        self._among = None if found.share is None else found.share.dealt_of(rows)

    def save(self, folder: RunFolder) -> None:
        is_first = self._share is None or self._share.peers.is_first
        with alike(self._share):
            if is_first:
                folder.keep("items.txt", self.items.save)
        if self._known is not None:
            ids, offsets = map(torch.from_numpy, self._known)
            part: Any = ids if self._among is None else InTurn(self._among, ids, np.diff(self._known[1]))
            tree = {"ids": part, "offsets": offsets}
            folder.keep(_SEQUENCES, lambda path: save_checkpoint(path, tree), is_first)

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        items = Vocabulary.load(folder.vocabulary_path("items.txt"))
        return cls(items, config.context, _kept_sequences(folder.vocabulary_path(_SEQUENCES), len(items)))

    def trained(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> str | None:
        """Choose what sequences like the given one count, by those and those ends that did not train the network."""
        if self._known is None:
            return None
        network.eval()
        ids, offsets = self._known
        seen = len(offsets) - 1 - held_out(len(offsets) - 1)
        short = held_ends(np.diff(offsets[: seen + 1]), config.seed, self.context)
        known = _without_ends(ids, offsets[: seen + 1], short)
        votes = SessionVotes(*known, self._num_items, config.neighbours, self.context)
        random = np.random.default_rng(config.seed)
        drawn = seen + random.permutation(len(offsets) - 1 - seen)
        held = SequenceExamples(ids, *pieces(offsets[drawn], offsets[drawn + 1], self.context))
        ends = self._last(ids, offsets, random.permutation(np.flatnonzero(short)))
        choice = votes.chosen(network, held, self.metric_names(config.at), config.seed, ends)
        choice.write(folder.neighbours_path)
        return str(choice)

    def complete(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> None:
        if self._known is None:
            return
        if (choice := SessionWeights.read(folder.neighbours_path)) is None:
            warn_unchosen()
        elif choice.helps:
            counts = self._num_items, config.neighbours, self.context
            network.beside = SessionVotes(*self._known, *counts, choice.by_kind())

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """``batch_size`` 0: so many pieces of sequences as have some 400 places; ``epochs`` 0: some 15,000 steps."""
        if config.batch_size == 0:
            config = dataclasses.replace(config, batch_size=max(1, round(_PLACES * self._pieces / self._places)))
        if config.epochs == 0:
            steps = -(-self._pieces // config.batch_size)
            config = dataclasses.replace(config, epochs=min(max(round(_STEPS / steps), _PASSES[0]), _PASSES[1]))
        return config

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        return sequence_encoder(self._num_items, config)

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"{kind}@{k}" for k in at for kind in ("recall", "mrr")]

    def read_test(self, data: Any) -> WordTest:
        return self._read_test(data, None)

    def _read_test(self, data: Any, share: Share | None) -> WordTest:
        """The last item of each sequence is to be found from those before it, of which the known ones count.

        Sequences of one item ask for nothing; those whose last item is not known, or of whose others none is, count as
        missed.
        """
        with alike(share):
            found = read_sequences(data, self.items, share)
        asking = np.diff(found.offsets) > 1
        known = found.ids >= 0
        ids, offsets = _known(found)
        last = np.append(known, False)[found.offsets[1:] - 1]  # of a sequence without items, whatever stands there
        fit = asking & last & (np.diff(offsets) > 1)
        sizes = int(asking.sum()), int((asking & ~fit).sum()), int((~known).sum())
        count, missed, strange = totals(share, *sizes)
        if count == missed:
            raise DataError(
                f"{named(data)}: expected sequences of two items or more that the run knows. Found none among "
                f"{len(found):,}; {found}"
            )
        reading = f"{count:,} sequences whose last item is to be found"
        if strange:
            reading += f"; {strange:,} items are unknown, so that {missed:,} sequences count as missed"
        if alone := len(found) - count:
            reading += f"; {alone:,} of fewer than two items are left out"
        examples: Examples = self._last(ids, offsets, np.flatnonzero(fit))
        if share is not None:
            examples = SharedExamples(examples, share.dealt(len(found)).chosen_here(fit))
        return WordTest(examples, f"{reading}; {found.layout}.", fits=not (strange or alone), missed=missed)

    def _last(self, ids: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> SequenceExamples:
        """The last item of some sequences is to be found from those before it."""
        ends = offsets[rows + 1]
        return SequenceExamples(ids, np.maximum(offsets[rows], ends - self.context - 1), ends, asked=1)

    def given(self, data: Any) -> Given:
        """Sequences, of whose items the known ones count."""
        found = read_sequences(data, self.items)
        ids, offsets = _known(found)
        assert found.names is not None
        return Given(found.names, Histories(ids, offsets, self.context), np.diff(offsets) > 0)


def _told_of_users(found: Sequences) -> str:
    """What people should know if sequences begin with what looks like users, as the end of a sentence, or "".

    Users differ, and items that come first do not: of n of them as many pairs are equal as of all c items of each kind
    are, c(c − 1) in N(N − 1), and none at all once in e to that number.
    """
    begins = found.offsets[:-1][np.diff(found.offsets) > 0]
    counts = [np.bincount(ids, minlength=len(found.items)) for ids in (found.ids[begins], found.ids)]
    first, every = counts if found.share is None else (found.share.total(one) for one in counts)
    n, total = int(first.sum()), int(every.sum())
    pairs = 0.5 * n * (n - 1) * float((every * (every - 1.0)).sum()) / max(1.0, total * (total - 1.0))
    if pairs < _PAIRS or first.max(initial=0) > 1:
        return ""
    return (
        "; no two begin with the same item, as if lines began with users: those are taken for items, so leave them "
        "out, or give a table of users, items and times"
    )


def _joined(found: Sequences, here: np.ndarray) -> np.ndarray:
    """Items of some of the sequences that are here, one after the other."""
    lengths = np.diff(found.offsets)[here]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places: np.ndarray = np.repeat(found.offsets[here] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return found.ids[places]


def _without_ends(ids: np.ndarray, offsets: np.ndarray, short: np.ndarray) -> _Known:
    """Sequences, those that are ``short`` without their last item."""
    kept = np.ones(offsets[-1], dtype=bool)
    kept[offsets[1:][short] - 1] = False
    return ids[: offsets[-1]][kept], offsets - np.concatenate([[0], np.cumsum(short)])


def _kept_sequences(path: Path, num_items: int) -> _Known | None:
    """The training sequences that a run folder has, or None."""
    if not path.exists():
        return None
    tree = load_checkpoint(path)
    with expecting(path, "the training sequences of the run"):
        ids, offsets = tree["ids"].numpy(), tree["offsets"].numpy()
        if ids.dtype != np.int64 or offsets.dtype != np.int64 or ids.ndim != 1 or offsets.ndim != 1:
            raise ValueError(f"{ids.dtype} {ids.shape}, {offsets.dtype} {offsets.shape}")
        whole = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(ids) and np.diff(offsets).min() > 0
        if not whole or not 0 <= ids.min() <= ids.max() < num_items:
            raise ValueError(f"{len(ids):,} ids in {len(offsets) - 1:,} sequences of {num_items:,} items")
        return ids, offsets


def _known(found: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Ids and offsets of sequences without the items that are not known."""
    known = found.ids >= 0
    return found.ids[known], np.concatenate([[0], np.cumsum(known)])[found.offsets]
