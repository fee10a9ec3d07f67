"""Data that are dealt out to several processes, as functions of their mesh."""

from __future__ import annotations

import dataclasses
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch

from widehead.data import (
    SharedExamples,
    Vocabulary,
    cooccurrences,
    information,
    read_interactions,
    read_multilabel,
    read_sequences,
    split_rows,
)
from widehead.errors import CheckpointError, ProcessesError
from widehead.jobs import configure
from widehead.jobs.judging import WordTest
from widehead.jobs.language_model import LanguageModel
from widehead.jobs.probe import some_users
from widehead.jobs.recommender import Recommender
from widehead.jobs.user_votes import hidden_pairs
from widehead.jobs.word_embeddings import WordEmbeddings
from widehead.models import SharedSymmetricPart, positive_eigenpairs
from widehead.split import Dealt, InTurn, Peers, RowSplit, Share
from widehead.training.checkpoint import save_checkpoint


def interactions(mesh: Any, path: Path) -> tuple[Any, ...]:
    """What a share of a file holds, and what is held out of it."""
    share = Share(Peers(mesh))
    found = read_interactions(path, share=share)
    lengths = share.dealt(len(found.users)).all_of(np.diff(found.matrix.indptr))
    parts = split_rows(found.matrix, 0.4, 3, (share, lengths))
    return found.matrix, *parts, found.users, found.items.names, found.has_ratings, found.repeats, lengths


def in_memory(mesh: Any, pairs: Any) -> Any:
    return read_interactions(pairs, share=Share(Peers(mesh)))


def of_known_items(mesh: Any, path: Path, items: list[str]) -> Any:
    return read_interactions(path, items=Vocabulary(items), share=Share(Peers(mesh)))


def documents(mesh: Any, path: Path) -> Any:
    return read_multilabel(path, share=Share(Peers(mesh)))


def gathered(mesh: Any, seed: int, chunk: int) -> tuple[torch.Tensor, np.ndarray, int]:
    """Numbers of rows that were chosen, brought together in pieces; the numbers of those here; how many pieces."""
    from widehead.split import shares

    shares._CHUNK = chunk
    random = np.random.default_rng(seed)
    share, chosen = Share(Peers(mesh)), random.random(50) < 0.7
    lengths = random.integers(0, 6, 50)[chosen]
    rows: Dealt = share.dealt(50).chosen(chosen)
    values = np.arange(lengths.sum())
    owners = np.repeat(rows.owners, lengths)
    pieces = list(InTurn(rows, torch.from_numpy(values[owners == share.rank]), lengths).pieces())
    assert np.array_equal(rows.places(rows.numbers[::-1]), np.arange(len(rows.numbers))[::-1])
    assert np.array_equal(rows.all_of(rows.numbers), np.arange(rows.total))
    again = share.dealt(50).chosen_here(chosen[share.own])
    assert np.array_equal(again.owners, rows.owners)
    return torch.cat(pieces), rows.numbers, len(pieces)


def brought(mesh: Any, matrix: Any, part: float, fewest: int) -> Any:
    """Some rows of a matrix of which each process has its own."""
    share = Share(Peers(mesh))
    return some_users(matrix[share.own], part, fewest, 5, share.dealt(matrix.shape[0]))


def hidden(mesh: Any, matrix: Any, part: float, most: int) -> Any:
    """Pairs that are hidden of users who are dealt out."""
    share = Share(Peers(mesh))
    return hidden_pairs(matrix[share.own], 5, part, most, share.dealt(matrix.shape[0]))


def settled(mesh: Any, path: Path, products: float, fewest: int) -> tuple[Any, Any, int]:
    """What a recommender tries before a run by a part of its users, and how many of them are here."""
    from widehead.jobs import probe, trial

    before = probe._FEWEST, trial._FEWEST, trial._PRODUCTS
    probe._FEWEST, trial._FEWEST, trial._PRODUCTS = fewest, fewest, products
    try:
        config = configure("recommender", train=str(path), out="runs/x", direct=-1.0, holdout=0.0, at=(2,))
        job = Recommender.of(config, path, None if mesh is None else Share(Peers(mesh))).job
        assert isinstance(job, Recommender)
        return job.found, trial.chosen(job, config, job._share), job.train.matrix.shape[0]
    finally:
        probe._FEWEST, trial._FEWEST, trial._PRODUCTS = before


def written(mesh: Any, path: Path, room: int | None) -> tuple[str, float]:
    """Save rows that are dealt out and rows that are split, rank 0 into so many bytes: the error, and a sum after."""
    peers, split = Peers(mesh), RowSplit(mesh, 300_000)
    rows = Share(peers).dealt(300_000)
    mine, here = torch.from_numpy(rows.numbers), torch.arange(split.first, split.end)
    tree = {"dealt": InTurn(rows, mine, np.ones(rows.total, dtype=np.int64)), "split": split.tensor(here)}
    limits, told = resource.getrlimit(resource.RLIMIT_FSIZE), ""
    if room is not None and peers.is_first:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with peers.alike():
            save_checkpoint(path, tree)
    except (CheckpointError, ProcessesError) as error:
        told = f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return told, peers.sums(1.0)[0]


def sequences(mesh: Any, path: Path, items: list[str] | None) -> Any:
    """What a share of sequences holds, less the share."""
    found = read_sequences(path, None if items is None else Vocabulary(items), Share(Peers(mesh)))
    return dataclasses.replace(found, share=None), str(found), found.places(found.order)


def text_examples(mesh: Any, path: Path, options: dict[str, Any]) -> list[list[Any]]:
    """Batches of the examples of a text that are here, to train on and to judge by, and the most chunks of any."""
    share = Share(Peers(mesh))
    config = configure("language-model", train=str(path), out="none", **options)
    data = LanguageModel.of(config, str(path), share)
    assert isinstance(data.test, WordTest)
    return [held_here(examples) for examples in (data.examples, data.test.examples)] + [[data.reading]]


def embedding_examples(mesh: Any, path: Path, options: dict[str, Any]) -> list[list[Any]]:
    """The same of word embeddings; these are judged by words alone."""
    config = configure("word-embeddings", train=str(path), out="none", **options)
    data = WordEmbeddings.of(config, str(path), Share(Peers(mesh)))
    assert isinstance(data.test, WordTest)
    return [held_here(examples) for examples in (data.examples, data.test.examples)]


def held_here(examples: Any) -> list[Any]:
    """The examples here one by one, with their numbers; those of others give nothing."""
    assert isinstance(examples, SharedExamples)
    rows = np.random.default_rng(1).permutation(len(examples))
    mine = rows[examples.holds(rows)]
    assert len(examples.batch(rows)[1]) == sum(len(examples.batch(rows[i : i + 1])[1]) for i in range(len(rows)))
    chunks = list(examples.in_turn(rows, 4))
    assert [i for chunk in chunks for i in chunk] == mine.tolist()
    found = [(int(i), *map(told, examples.batch(np.array([i])))) for i in mine]
    return [len(chunks), found]


def told(part: Any) -> Any:
    return (
        part.tolist()
        if isinstance(part, torch.Tensor)
        else (part.to_lists(), part.values is None or part.values.tolist())
    )


def mutual_information(mesh: Any, ids: np.ndarray, size: int) -> Any:
    """Rows here of how often words stand near one another and of their information, and words of examples here."""
    share = Share(Peers(mesh))
    counts = cooccurrences(ids, size, 3, end=0, without=[1], share=share)
    return counts, information(counts, share=share)


def eigenpairs(mesh: Any, matrix: Any, k: int, basis: int) -> Any:
    share = Share(Peers(mesh))
    part = SharedSymmetricPart(matrix[share.own], share)
    return positive_eigenpairs(part, k, basis=basis, seed=0)


def symmetric_product(mesh: Any, matrix: Any, block: torch.Tensor) -> torch.Tensor:
    share = Share(Peers(mesh))
    return SharedSymmetricPart(matrix[share.own], share).times(block)


def eigenpairs_refused(mesh: Any, matrix: Any) -> str:
    try:
        eigenpairs(mesh, matrix, 1, 1)
    except ValueError as error:
        return str(error)
    return ""
