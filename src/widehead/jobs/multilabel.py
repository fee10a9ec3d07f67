"""Multi-label classification: weighted features of a document in, labels out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import nn

from widehead.data import Examples, LabelSchema, MultiLabel, RowExamples, SharedExamples, open_text, read_multilabel
from widehead.data.documents import documents_of, is_pair
from widehead.data.files import is_file, named, shortened
from widehead.data.memory import features_of
from widehead.data.sparse import CSR
from widehead.errors import CheckpointError, DataError, check_whole
from widehead.jobs.base import Job, JobData, warn_unchosen
from widehead.jobs.candidates import NONE, Choice
from widehead.jobs.classifier_files import matrix_of, parts_of, read_classifiers, write_classifiers
from widehead.jobs.judging import Given, RankingTest
from widehead.jobs.neighbours import FEWEST, Neighbours, best_power, held_out
from widehead.jobs.network import bag_encoder
from widehead.kinds import multilabel as kind
from widehead.kinds.configure import follow
from widehead.metrics import Propensities
from widehead.models import BagEncoder, WideNetwork, principal_axes
from widehead.options import TrainingConfig
from widehead.options.checks import refusal
from widehead.split import Dealt, Share, alike, dealt, local, totals
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.folder import RunFolder, expecting

_DOCUMENTS = "documents.safetensors"
_AXES = 512, 1_024  # of few documents: beside neighbours, which know what axes leave out, and alone
_ROOM = 1 << 27  # numbers of the output layer, 0.5 GB, of which axes may have as many as fit
_TREES = 3  # of labels; a fourth one is no better (recipes/LOG.md)
_TRAINED_ROOM = 1 << 26  # of one that is trained beside its encoder: they cost time in each step


class Multilabel(kind.Multilabel, Job):
    """Features in, labels out.

    How often each label is in the training data stays in the run folder (label_counts.safetensors), because
    propensity-scored precision needs it.

    Args:
        schema: what the columns of features and labels are.
        counts: (num_labels,) int64, training documents of each label.
        num_documents: how many training documents there are.
        documents: these, if the run asks for neighbours.
        among: all training documents, if this process has a share of them; every process makes the job then.
    """

    choice = Choice
    by_shares = True

    def __init__(
        self,
        schema: LabelSchema,
        counts: np.ndarray,
        num_documents: int,
        documents: RowExamples | None = None,
        among: Dealt | None = None,
    ) -> None:
        self.schema, self._documents, self._among = schema, documents, among
        self.counts, self.num_documents = counts, num_documents
        self._propensities = Propensities.from_counts(torch.from_numpy(counts), num_documents)

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": self.schema.num_features, "classes": self.schema.num_labels}

    @cached_property
    def class_names(self) -> Sequence[str]:
        return [self.schema.name(label) for label in range(self.schema.num_labels)]

    @classmethod
    def of(cls, config: TrainingConfig, train: Any, share: Share | None = None) -> JobData:
        """In memory, the training data are a pair: documents and their labels, as `documents_of` takes them."""
        source = train
        with alike(share):
            options: dict[str, Any] = {"labels_path": config.labels, "minimum_documents": config.minimum_count}
            train = _documents(source, share, **options)
        among = dealt(share, train.total)
        if share is not None:
            share.peers.check_same("training data", f"{train.total} documents, {train.schema.num_labels} labels")
        told = train.told(*totals(share, train.labels.nnz))
        if config.test is not None:
            job, examples = cls._of(train.features, train.labels, train.schema, config, among)
            return JobData(job, examples, job._read_test(config.test, share), told, share=share)
        held = np.zeros(train.total, dtype=bool)
        held[np.random.default_rng(config.seed).permutation(len(held))[: round(config.holdout * len(held))]] = True
        here = held if among is None else held[among.numbers]
        kept, learnt = np.flatnonzero(~here), None if among is None else among.chosen(~held)
        job, examples = cls._of(train.features[kept], train.labels[kept], train.schema, config, learnt)
        if config.holdout > 0.0 and not held.any():
            raise refusal("holdout", f"hold out at least one of {len(held)} documents", config.holdout)
        judging = None if among is None else among.chosen(held)
        test = job._test(train, np.flatnonzero(here), judging) if held.any() else None
        return JobData(job, examples, test, told, share=share)

    @classmethod
    def _of(
        cls, features: CSR, labels: CSR, schema: LabelSchema, config: TrainingConfig, among: Dealt | None
    ) -> tuple[Multilabel, Examples]:
        """The job of these training documents, and those that train the network."""
        counts = np.bincount(labels.indices, minlength=labels.shape[1]).astype(np.int64)
        counts = counts if among is None else among.share.total(counts)
        documents, total = RowExamples(features, labels), labels.shape[0] if among is None else among.total
        if config.neighbours == 0 or len(held := held_out(total, config.seed)) == 0:
            job = cls(schema, counts, total, among=among)
            return job, documents if among is None else SharedExamples(documents, among)
        seen = np.ones(total, dtype=bool)
        seen[held] = False
        job = cls(schema, counts, total, documents, among)
        if among is None:
            return job, _part(documents, np.flatnonzero(seen))
        part = _part(documents, np.flatnonzero(seen[among.numbers]))
        return job, SharedExamples(part, among.chosen(seen))

    def save(self, folder: RunFolder) -> None:
        text = json.dumps(self.schema.to_dict(), ensure_ascii=False)
        tree = {"counts": torch.from_numpy(self.counts), "num_documents": self.num_documents}
        share = None if self._among is None else self._among.share
        is_first = share is None or share.peers.is_first
        with alike(share):
            if is_first:
                folder.keep("labels.json", lambda path: path.write_text(text, encoding="utf-8"))
                folder.keep("label_counts.safetensors", lambda path: save_checkpoint(path, tree))
        if self._documents is not None:
            parts = self._documents.inputs, self._documents.targets
            rows = dict(zip(("features", "labels"), (parts_of(part, self._among) for part in parts), strict=True))
            folder.keep(_DOCUMENTS, lambda path: save_checkpoint(path, rows), is_first)

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Multilabel:
        path = folder.vocabulary_path("labels.json")
        try:
            text = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
        with expecting(path, "the labels of the run"):
            schema = LabelSchema.from_dict(json.loads(text))
        path = folder.vocabulary_path("label_counts.safetensors")
        tree = load_checkpoint(path)
        with expecting(path, f"how many documents have each of the {schema.num_labels} labels of labels.json"):
            counts, documents = tree["counts"].numpy(), tree["num_documents"]
            check_whole("num_documents", documents)
            if counts.dtype != np.int64 or counts.shape != (schema.num_labels,):
                raise ValueError(f"{counts.dtype} of shape {counts.shape}")
            if len(counts) and not 0 <= counts.min() <= counts.max() <= documents:
                raise ValueError(f"{counts.min()} to {counts.max()} of {documents} documents")
        return cls(schema, counts, documents, _kept_documents(folder, (documents, schema.num_features), len(counts)))

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """``width`` 0 becomes 512 axes, 1,024 without neighbours, or with 100,001 documents a network that is trained.

        Axes that are fixed are best if documents are few (citeulike-t, 16,600: precision@1 0.63 against 0.59 with a
        trained encoder). If there are many, single rare words decide, for which axes have no room, and documents are
        enough to learn them from (yso-finna-en, 200,000 of the documents: 0.33; least squares has half of that).
        Very many labels have fewer axes, so that the output layer takes no more than 0.5 GB; a network that is trained
        has half of that, as its time grows with the width too.
        """
        if config.width > 0:
            return config
        alone = config.neighbours == 0 or self.num_documents < FEWEST
        most, room = _AXES[alone], _ROOM
        if self.num_documents > kind.MANY:
            config = follow(config, "sampled", f"{self.num_documents:,} documents")
            most, room = config.width, _TRAINED_ROOM
        fits = max(64, room // max(1, self.schema.num_labels) // 32 * 32)
        return dataclasses.replace(config, width=min(most, fits))

    def trained(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> str | None:
        """Choose what the nearest documents' votes count, by those that did not train the network."""
        if self._documents is None:
            return None
        network.eval()
        held = held_out(self.num_documents, config.seed)
        others = np.setdiff1d(np.arange(self.num_documents), held)
        seen = _part(self._documents, others)
        judged = _part(self._documents, held[np.diff(self._documents.targets.indptr)[held] > 0])
        names = [f"precision@{k}" for k in config.at] + [f"psp@{max(config.at)}"]
        choice = NONE
        if len(judged):
            power = best_power(seen, config.neighbours, names, self._propensities)
            weighed = dataclasses.replace(NONE, power=power)
            some = _neighbours(seen, config, choice=weighed)
            # Not by votes of all: what documents to choose by vote for beside them tells of their labels.
            voted = some.voted(np.arange(len(others)))
            some.learn(voted)
            some.grow(1)  # for what trees count one will do
            choice = some.chosen(network, judged, self._propensities, names)
            del some
            if choice.takes_margins or choice.takes_trees:
                everything = _neighbours(self._documents, config, choice=weighed)
                learnt = None
                if choice.takes_margins:
                    # What has been looked up is not looked up again: few documents are new among so many.
                    voted = scipy.sparse.vstack([voted, everything.voted(held)], format="csr")
                    voted = voted[np.argsort(np.append(others, held))]  # no copy but this while classifiers learn
                    learnt = everything.learn(voted)
                trees = everything.grow(_TREES) if choice.takes_trees else None
                write_classifiers(folder.classifiers_path, learnt, trees)
        choice.write(folder.neighbours_path)
        return str(choice)

    def complete(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> None:
        if self._documents is None:
            return
        if (choice := Choice.read(folder.neighbours_path)) is None:
            warn_unchosen()
        elif choice.helps:
            sizes = self.schema.num_labels, self.schema.num_features
            found: dict[str, Any] = {}
            if choice.takes_margins or choice.takes_trees:
                kept = read_classifiers(folder.classifiers_path, sizes, choice.takes_margins, choice.takes_trees)
                found = dict(zip(("classifiers", "trees"), kept, strict=True))
            network.beside = _neighbours(self._documents, config, choice=choice, **found)

    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        return bag_encoder(self.sizes["inputs"], config, mesh)

    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Features to the axes that the training documents span most."""
        assert isinstance(encoder, BagEncoder)
        assert isinstance(examples, RowExamples | SharedExamples)
        share = examples.among.share if isinstance(examples, SharedExamples) else None
        axes = principal_axes(examples.inputs, config.width, config.seed, share)
        with torch.no_grad():
            local(encoder.embeddings.weight).copy_(torch.from_numpy(axes[encoder.here]))

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"{kind}@{k}" for kind in ("precision", "psp", "ndcg") for k in at]

    def read_test(self, data: Any) -> RankingTest:
        return self._read_test(data, None)

    def _read_test(self, data: Any, share: Share | None) -> RankingTest:
        with alike(share):
            test = _documents(data, share, schema=self.schema)
        made = self._test(test, np.arange(test.features.shape[0]), dealt(share, test.total))
        if len(made) == 0:
            raise DataError(f"{named(data)}: expected documents with labels. Found none on {made.reading}")
        return made

    def _test(self, documents: MultiLabel, rows: np.ndarray, among: Dealt | None) -> RankingTest:
        """By some of the documents here, which are ``among`` those of all processes."""
        parts = features, labels, unreachable = [
            part[rows] for part in (documents.features, documents.labels, documents.unreachable)
        ]
        bare, empty = np.diff(labels.indptr) + unreachable == 0, np.diff(features.indptr) == 0
        sizes = len(rows), labels.nnz, *(int(part.sum()) for part in (unreachable, bare, empty))
        count, known, missed, bare, empty = totals(None if among is None else among.share, *sizes)
        return RankingTest(
            *parts,
            exclude_inputs=False,
            propensities=self._propensities,
            reading=f"{count:,} documents to judge by, with {known + missed:,} labels; {missed:,} of these "
            f"are not in the training data and count as missed. {bare:,} documents have no label (left out), "
            f"{empty:,} no known feature.",
            fits=not (missed or bare or empty),
            among=among,
        )

    def given(self, data: Any) -> Given:
        """Documents, named by their numbers: from 1 in a file, of which labels may be left out; from 0 in memory."""
        features, first = (self._features(data), 1) if is_file(data) else (features_of(data, self.schema), 0)
        return Given.bags([str(first + row) for row in range(features.shape[0])], features)

    def _features(self, path: Path | str) -> CSR:
        text = self.schema.text
        if text is None:
            return read_multilabel(path, schema=self.schema).features
        with open_text(path) as lines:
            return text.transform(line.partition("\t")[2] if "\t" in line else line for line in lines)


def _neighbours(documents: RowExamples, config: TrainingConfig, **options: Any) -> Neighbours:
    logarithms = config.has_probabilities and config.head != "exact"
    return Neighbours(documents.inputs, documents.targets, config.neighbours, probabilities=logarithms, **options)


def _part(documents: RowExamples, rows: np.ndarray) -> RowExamples:
    return RowExamples(documents.inputs[rows], documents.targets[rows])


def _kept_documents(folder: RunFolder, shape: tuple[int, int], labels: int) -> RowExamples | None:
    """The training documents that the folder has, or None."""
    path = folder.vocabulary_path(_DOCUMENTS)
    if not path.exists():
        return None
    tree = load_checkpoint(path)
    with expecting(path, "the training documents of the run"):
        return RowExamples(matrix_of(tree["features"], shape), matrix_of(tree["labels"], (shape[0], labels)))


def _documents(data: Any, share: Share | None = None, **options: Any) -> MultiLabel:
    """Those of a file, or of a pair in memory."""
    if is_file(data):
        return read_multilabel(data, share=share, **options)
    if not is_pair(data):
        raise DataError(f"Expected a pair, documents and their labels. Found {shortened(data)}; do (X, Y).")
    found = documents_of(*data, **options)
    return found if share is None else found.of_share(share)
