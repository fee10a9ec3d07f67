"""What every head takes: hidden layers with several dimensions before the last, and no tables of zeros and ones."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from support.head_table import RAGGED, ROWS, WIDTH, D, Row, gradients, hidden_of, loss_of, make, small_blocks

import widehead as wh

__all__ = ["small_blocks"]  # a fixture that runs by itself

LEADS = pytest.mark.parametrize("lead", [(), (1,), (2, 3), (3, 1), (1, 2, 2), (2, 0)], ids=str)


def hidden_with(lead: tuple[int, ...]) -> torch.Tensor:
    return hidden_of(int(np.prod(lead))).detach().view(*lead, WIDTH).requires_grad_()


def ids_with(lead: tuple[int, ...], *more: int) -> torch.Tensor:
    return torch.randint(0, D, (*lead, *more), generator=torch.Generator().manual_seed(4))


@ROWS
@LEADS
def test_losses_of_several_dimensions_are_those_of_one(row: Row, lead: tuple[int, ...]) -> None:
    head, hidden = make(row), hidden_with(lead)
    twin, flat = copy.deepcopy(head), hidden.detach().reshape(-1, WIDTH).requires_grad_()
    padded = ids_with(lead, 3)
    padded[..., 0] = -100
    for ids in (ids_with(lead), padded):
        weight = torch.rand(lead, dtype=torch.float64)
        for options in ({}, {"reduction": "sum"}, {"reduction": "none", "weight": weight}):
            found = loss_of(head, hidden, ids, **options)
            options = {**options, "weight": weight.flatten()} if "weight" in options else options
            expected = loss_of(twin, flat, ids.reshape(flat.shape[0], *ids.shape[len(lead) :]), **options)
            assert found.shape == (lead if options.get("reduction") == "none" else ())
            assert torch.equal(found.reshape(-1), expected.reshape(-1))
    found.sum().backward()
    expected.sum().backward()
    (by_hidden, *own), (by_flat, *others) = gradients(head, hidden), gradients(twin, flat)
    assert torch.equal(by_hidden.reshape(-1, WIDTH), by_flat)
    assert all(torch.equal(a, b) for a, b in zip(own, others, strict=True))


@ROWS
@LEADS
def test_classes_are_read_in_several_dimensions(row: Row, lead: tuple[int, ...]) -> None:
    head, hidden = make(row), hidden_with(lead).detach()
    flat = hidden.reshape(-1, WIDTH)
    everything = head.scores(flat)
    assert torch.equal(head.scores(hidden), everything.view(*lead, D))
    several, one = ids_with(lead, 4), ids_with(lead)
    reads = [head.scores, *([head.log_prob] if getattr(head, "has_probabilities", True) else [])]
    for read in reads:
        for ids in (several, one):
            expected = read(flat, ids.reshape(flat.shape[0], *ids.shape[len(lead) :]))
            assert torch.equal(read(hidden, ids), expected.view(ids.shape))
        ragged = wh.SparseTargets.from_ids(several.reshape(-1, 4))
        assert torch.equal(read(hidden, ragged), read(flat, ragged))
    for exclude in (None, several):
        scores, ids = head.top_k(hidden, 5, exclude=exclude)
        expected = head.top_k(flat, 5, exclude=None if exclude is None else exclude.reshape(-1, 4))
        assert torch.equal(scores, expected[0].view(*lead, 5))
        assert torch.equal(ids, expected[1].view(*lead, 5))


def test_every_form_of_targets_has_the_dimensions_of_the_hidden_layer() -> None:
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())
    hidden, ids = torch.randn(2, 3, WIDTH), ids_with((2, 3))
    expected = head(hidden, ids)
    lists = ids.tolist()
    csr = scipy.sparse.csr_matrix((np.ones(6), (range(6), ids.flatten().tolist())), shape=(6, D))
    forms = [ids.numpy(), ids.to(torch.int32), lists, tuple(lists), list(ids), [[[c] for c in line] for line in lists]]
    forms += [ids[..., None], csr, wh.SparseTargets.from_ids(ids.flatten())]
    for form in forms:
        assert torch.equal(head(hidden, form), expected)
    ragged = head(hidden, [[[1, 2], [], [3]], [[], [4], [5, 6, 7]]])
    assert torch.equal(ragged, head(hidden.flatten(0, 1), [[1, 2], [], [3], [], [4], [5, 6, 7]]))
    assert torch.equal(head(hidden[0, 0], 7), head(hidden[0, :1], [7]))
    assert torch.equal(head(hidden[0, 0], [7, 8]), head(hidden[0, :1], [[7, 8]]))
    q, s, a = head.statistics(hidden, ids)
    assert (q.shape, s.shape, a.shape) == ((2, 3), (2, 3), (6,))


@pytest.mark.parametrize(
    "wrong",
    [ids_with((3, 2)), ids_with((6,)), [[1, 2, 3], [4, 5]], [1, 2, 3, 4, 5, 6], [[1, 2, 3]], ids_with((2,)).numpy()],
    ids=["turned", "flat", "short line", "flat list", "one line", "one dimension"],
)
def test_targets_of_other_dimensions_are_named(wrong: Any) -> None:
    head, hidden = wh.FullSoftmaxHead(WIDTH, D), torch.randn(2, 3, WIDTH)
    with pytest.raises(ValueError, match=r"Targets should have the dimensions \(2, 3\).* Found"):
        head(hidden, wrong)
    with pytest.raises(ValueError, match=r"Targets should have the dimensions \(2, 3\).* Found"):
        head.top_k(hidden, 2, exclude=wrong)


@ROWS
def test_classes_of_other_dimensions_or_out_of_range_are_named(row: Row) -> None:
    head, hidden = make(row), hidden_with((2, 3)).detach()
    for wrong in (ids_with((6,)), ids_with((3, 2)), ids_with((2, 3, 1, 1))):
        with pytest.raises(ValueError, match=r"`class_ids` should have shape \(2, 3\), or one dimension more"):
            head.scores(hidden, wrong)
    with pytest.raises(ValueError, match=r"class ids for 6 examples. Found 2"):
        head.scores(hidden, wh.SparseTargets.from_lists([[1], [2]]))
    with pytest.raises(ValueError, match=r"Class ids should be in \[0, 60\)"):
        head.scores(hidden, torch.full((2, 3), D))
    with pytest.raises(ValueError, match=r"`weight` should have shape \(2, 3\)"):
        head(hidden, ids_with((2, 3)), weight=torch.ones(6))


@ROWS
@pytest.mark.filterwarnings("ignore::widehead.errors.KeptPrecisionWarning")
def test_every_head_works_in_a_model_of_bfloat16(row: Row) -> None:
    head, hidden = make(row, torch.float32).bfloat16(), hidden_of(dtype=torch.bfloat16)
    loss = loss_of(head, hidden, RAGGED)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(head, hidden))
    assert torch.isfinite(head.eval()(hidden.detach(), RAGGED))
    assert torch.equal(head.top_k(hidden.detach(), D)[1].sort(dim=1).values, torch.arange(D).expand(len(RAGGED), D))


def multi_hot(m: int, classes: int) -> torch.Tensor:
    table = torch.zeros(m, classes, dtype=torch.int64)
    table[torch.arange(m), torch.arange(m) % classes] = 1
    table[0, -1] = 1
    return table


@ROWS
def test_tables_of_zeros_and_ones_are_refused(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    table = multi_hot(6, D)
    forms = [table, table.to(torch.uint8), table.numpy(), table.tolist(), tuple(table), torch.ones_like(table)]
    for form in [*forms, torch.zeros_like(table)]:
        with pytest.raises(ValueError, match=r"sparse \(m, 60\) matrix. Found 60 zeros and ones .*to_sparse"):
            head(hidden, form)
        with pytest.raises(ValueError, match="60 zeros and ones"):
            head.top_k(hidden, 3, exclude=form)
    with pytest.raises(ValueError, match="zeros and ones"):
        head(hidden.view(2, 3, WIDTH), table.view(2, 3, D))
    for form in (table.bool(), table.float(), table.bool().numpy()):
        with pytest.raises(TypeError, match=r"should hold integers. Found dtype .*sparse matrix"):
            head(hidden, form)
    expected = loss_of(head, hidden, [table[b].nonzero().flatten().tolist() for b in range(6)])
    for form in (table.to_sparse(), table.bool().to_sparse(), scipy.sparse.csr_matrix(table.numpy())):
        assert torch.allclose(loss_of(head, hidden, form), expected)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_table_of_zeros_and_ones_is_refused_for_few_classes_too(classes: int) -> None:
    head = wh.FullSoftmaxHead(4, classes)
    for m in (1, 2, 7):
        with pytest.raises(ValueError, match="zeros and ones"):
            head(torch.randn(m, 4), torch.nn.functional.one_hot(torch.arange(m) % classes, classes))


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        (1, torch.zeros(4, 1, dtype=torch.int64)),
        (2, torch.tensor([[1, -100], [0, -100]])),
        (2, torch.tensor([[0, 1, 1], [1, 0, 0]])),
        (2, [[0, 1], [0, 1]]),
        (2, torch.ones(3, 1, dtype=torch.int64)),
        (3, torch.tensor([[0, 1, -100], [1, 0, -100]])),
        (3, torch.tensor([[0, 1, 2], [1, 1, 0]])),
        (3, [[0, 1], [1], []]),
        (3, [[0, 1, 1], [1]]),
        (3, torch.tensor([0, 1, 1])),
        (3, wh.SparseTargets.from_ids(torch.tensor([[0, 1, 1], [1, 1, 1]]))),
        (3, torch.zeros(0, 3, dtype=torch.int64)),
        (900, torch.ones(2, 3, dtype=torch.int64)),
    ],
    ids=str,
)
def test_ids_of_zero_and_one_stay_ids(classes: int, ids: Any) -> None:
    head = wh.FullSoftmaxHead(4, classes)
    hidden = torch.randn(len(ids), 4)
    assert torch.equal(head(hidden, ids), head(hidden, wh.SparseTargets.convert(ids)))
