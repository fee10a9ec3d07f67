"""`top_k` and ``scores`` on a device: what they cost, and that blocks, versions of rows and exclusion are right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.head_table import ROWS, D, M, Row, hidden_of, make
from support.played import Device
from torch import Tensor

import widehead as wh
from widehead import blocks

MANY, WIDE = 100_000, 128


def trained(head: wh.ExactHead, momentum: float, steps: int = 5, most: int | None = None) -> wh.ExactHead:
    """The head after steps in several segments: rows at several boundaries, some in the cache."""
    optimizer = wh.optim.SGD(head, lr=0.01, momentum=momentum)
    for step in range(steps):
        torch.manual_seed(step)
        ids = torch.randint(most or head.num_classes, (M, 2))
        head(torch.randn(M, head.in_features).to(head.device), ids.to(head.device)).backward()
        optimizer.step()
        if step in (1, 2):
            head.weights.close_segment()  # type: ignore[attr-defined]
    return head


def excluded(classes: int, examples: int, each: int = 7) -> wh.SparseTargets:
    torch.manual_seed(3)
    return wh.SparseTargets.from_ids(torch.randint(classes, (examples, each)))


HEADS: dict[str, Any] = {
    "exact": lambda: trained(wh.ExactHead(WIDE, MANY, wh.losses.SquaredError(), bias=True, device="cuda"), 0.0),
    "exact, log(o² + ε)": lambda: trained(
        wh.ExactHead(WIDE, MANY, wh.losses.SphericalSoftmax(), device="cuda"), momentum=0.0
    ),
    "exact, log(1 + o + o²/2)": lambda: trained(
        wh.ExactHead(WIDE, MANY, wh.losses.TaylorSoftmax(), device="cuda"), momentum=0.0
    ),
    "full": lambda: wh.FullSoftmaxHead(WIDE, MANY, device="cuda"),
    "adaptive": lambda: wh.AdaptiveSoftmaxHead(WIDE, MANY, device="cuda"),
    "hierarchical": lambda: wh.HierarchicalSoftmaxHead(WIDE, MANY, device="cuda"),
    "huffman": lambda: wh.HierarchicalSoftmaxHead(WIDE, MANY, tree="huffman", device="cuda"),
}


@pytest.mark.parametrize("name", HEADS)
def test_many_classes_cost_few_launches_no_wait_and_one_reading(played: Device, name: str) -> None:
    head = HEADS[name]()
    few = 16 if name in ("adaptive", "hierarchical", "huffman") else 54  # trees have a score of each node besides
    hidden, banned = torch.randn(few, WIDE, device="cuda"), excluded(MANY, few).to("cuda")
    head.top_k(hidden[:1], 1)  # a tree of classes is looked through once
    with played.counting() as free:
        head.top_k(hidden, 20)
    assert free.waits == []
    assert free.launches <= 60, free.kernels
    assert free.bytes <= 5 * 4 * MANY * WIDE
    with played.counting() as seen:
        head.top_k(hidden, 20, exclude=banned)
    assert seen.waits == []
    assert seen.launches <= 60, seen.kernels
    assert seen.bytes <= 5 * 4 * MANY * WIDE


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("at_once", [1 << 26, 100])
def test_rows_of_several_boundaries_are_read_where_they_stand(
    played: Device, monkeypatch: pytest.MonkeyPatch, momentum: float, at_once: int
) -> None:
    head = wh.ExactHead(8, D, wh.losses.TaylorSoftmax(), bias=True, device="cuda", dtype=torch.float64)
    trained(head, momentum, steps=6, most=D // 2)
    revision, hidden, banned = head.weights.revision, hidden_of().detach(), excluded(D, M)
    monkeypatch.setattr(blocks, "_ON_DEVICE", at_once)
    scores = head.scores(hidden.to("cuda")).cpu()
    best, ids = (part.cpu() for part in head.top_k(hidden.to("cuda"), 9, exclude=banned))
    assert not head.weights._is_settled  # type: ignore[attr-defined]
    outputs = torch.nn.functional.linear(hidden, head.weight().cpu(), head.bias().cpu())  # type: ignore[union-attr]
    expected = head.loss.score(outputs)
    assert torch.allclose(scores, expected, rtol=1e-10)
    expected[banned.example_ids, banned.class_ids] = -torch.inf
    assert torch.equal(ids, expected.topk(9).indices)
    assert torch.allclose(best, expected.topk(9).values, rtol=1e-10)
    assert head.weights.revision == revision


@ROWS
@pytest.mark.parametrize("at_once", [1 << 26, 130])
def test_devices_agree(played: Device, monkeypatch: pytest.MonkeyPatch, row: Row, at_once: int) -> None:
    head, hidden = make(row, bias=row.name != "in_batch"), hidden_of().detach()
    banned = [[c for c in range(D) if (c * c + b) % 3 == 0] for b in range(M)]
    monkeypatch.setattr(blocks, "_ON_DEVICE", at_once)
    given: list[tuple[int, Any]] = [(1, None), (D, None), (7, banned), (D, banned)]
    here = [head.top_k(hidden, k, exclude=exclude) for k, exclude in given]
    all_scores = head.scores(hidden)
    there = head.to("cuda")
    assert torch.allclose(there.scores(hidden.to("cuda")).cpu(), all_scores)
    for (k, exclude), (scores, ids) in zip(given, here, strict=True):
        found: tuple[Tensor, Tensor] = there.top_k(hidden.to("cuda"), k, exclude=exclude)
        kept = scores > -torch.inf
        assert torch.allclose(found[0].cpu(), scores)
        assert torch.equal(found[1].cpu()[kept], ids[kept])
