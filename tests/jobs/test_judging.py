"""Answers: an input of which nothing is known has no classes, whatever the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from support.head_table import TABLE, Row
from support.played import Device

from widehead.data import NgramExamples
from widehead.jobs.judging import Given, RankingTest, Test, WordTest, _chunks, ranked
from widehead.metrics import Propensities
from widehead.models import BagEncoder, ContextEncoder, WideNetwork
from widehead.split import Peers

# Rows: known; nothing; known, but only of an input whose row of the encoder is zero; a value of 0; known.
INPUTS = scipy.sparse.csr_matrix(
    (np.array([1, 2, 1, 0, 1], dtype=np.float32), [0, 1, 3, 1, 2], [0, 2, 2, 3, 4, 5]), shape=(5, 4)
)
GIVEN = Given.bags("abcde", INPUTS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_nothing_known_no_classes(row: Row, bias: bool, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(4, 8, hidden=hidden, activation="none")
    with torch.no_grad():
        encoder.embeddings.weight[3] = 0.0
    network = WideNetwork(encoder, row.make(8, 20, torch.float32, bias))
    classes, scores = zip(*ranked(network, GIVEN, 3), strict=True)
    # The bias of a layer in between says nothing of the input, but its row of zeros is the encoder's own.
    assert [len(found) for found in classes] == [3, 0, 3 if hidden else 0, 0, 3]
    assert [len(found) for found in scores] == [len(found) for found in classes]


def test_excluded_classes_are_not_named() -> None:
    torch.manual_seed(0)
    network = WideNetwork(BagEncoder(4, 8), TABLE[0].make(8, 4, torch.float32, False))
    found = list(ranked(network, GIVEN, 4, exclude_inputs=True))
    assert [sorted(classes) for classes, _ in found] == [[2, 3], [], [0, 1, 2], [], [0, 1, 3]]


def judged(kind: str, network: WideNetwork, count: int) -> dict[str, float]:
    """Metrics of ``count`` examples, some hundred of them at a time."""
    generator = np.random.default_rng(0)
    if kind == "words":
        test: Test = WordTest(NgramExamples(generator.integers(0, 30, count), 2, before=0))
        return test.metrics(network, ["perplexity", "mean_rank", "recall@1", "ndcg@5"], None, 0)
    inputs, relevant = (
        scipy.sparse.random(count, 30, density, "csr", np.float32, generator, np.ones) for density in (0.2, 0.1)
    )
    counts = torch.from_numpy(np.diff(relevant.tocsc().indptr))
    test = RankingTest(
        inputs,
        relevant,
        generator.integers(0, 2, count),
        exclude_inputs=True,
        propensities=Propensities.from_counts(counts, count),
    )
    return test.metrics(network, ["recall@3", "precision@1", "ndcg@5", "psp@3"], None, 0)


@pytest.mark.parametrize(
    ("kind", "row"),
    [*(("ranking", row) for row in TABLE[:5]), *(("words", row) for row in (*TABLE[:2], TABLE[5]))],
    ids=lambda part: part if isinstance(part, str) else part.name,
)
def test_an_evaluation_waits_for_a_device_as_often_whatever_its_length(
    played: Device, monkeypatch: pytest.MonkeyPatch, row: Row, kind: str
) -> None:
    """But for log p of trees of classes, which asks which clusters there are."""
    torch.manual_seed(0)
    encoder: Any = ContextEncoder(30, 2, 8) if kind == "words" else BagEncoder(30, 8)
    network = WideNetwork(encoder, row.make(8, 30, torch.float32, True))
    expected = judged(kind, network, 600)
    network.to("cuda")
    assert judged(kind, network, 600) == pytest.approx(expected, rel=1e-4)
    waits = []
    for count in (300, 1200):
        with played.counting() as seen:
            judged(kind, network, count)
        waits.append(len(seen.waits))
    assert waits[0] == waits[1] <= 4, [str(wait) for wait in seen.waits]


def test_answers_are_read_once_a_batch(played: Device) -> None:
    torch.manual_seed(0)
    network = WideNetwork(BagEncoder(4, 8), TABLE[0].make(8, 4, torch.float32, False))
    expected = list(ranked(network, GIVEN, 4, exclude_inputs=True))
    network.to("cuda")
    assert [row[0] for row in ranked(network, GIVEN, 4, exclude_inputs=True)] == [row[0] for row in expected]
    with played.counting() as seen:
        list(ranked(network, GIVEN, 4, exclude_inputs=True))
    assert len(seen.waits) <= 2, [str(wait) for wait in seen.waits]  # the rows of W, and the answers


@pytest.mark.parametrize("count", [0, 1, 5, 20, 37])
def test_processes_share_what_is_judged(count: int) -> None:
    """Each of three is asked as often as the others, and no example twice."""
    found = []
    for rank in range(3):
        peers = Peers()
        peers.rank, peers.size = rank, 3
        found.append(list(_chunks(np.arange(count), 4, peers)))
    assert len({len(chunks) for chunks in found}) == 1
    assert sorted(np.concatenate([row for chunks in found for row in chunks] or [[]]).tolist()) == list(range(count))
    assert all(len(chunk) <= 4 for chunks in found for chunk in chunks)
