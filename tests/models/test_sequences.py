"""Encoders of sequences: each place sees itself and those before it, whatever stands beside it in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from widehead.heads import AdaptiveSoftmaxHead, FullSoftmaxHead, SampledSoftmaxHead
from widehead.models import SequenceEncoder
from widehead.models.sequences import MIXERS, packed_places
from widehead.names import ENCODERS
from widehead.targets import SparseTargets

LISTS = [[3, 1, 4, 1], [], [5], [9, 2, 6, 5, 3, 5, 8], [], [9, 7], [9, 3]]


def made(kind: str, **more: object) -> SequenceEncoder:
    torch.manual_seed(0)
    options = {"context": 16, "embedding": 6, "layers": 2, "activation": "tanh", "hidden": (7,), **more}
    if kind in ("bag", "gru"):
        options["activation"] = "none"
    return SequenceEncoder(10, 4, kind=kind, **options).eval()  # type: ignore[arg-type]


def alone(encoder: SequenceEncoder, ids: list[int]) -> torch.Tensor:
    """Slow twin: the last place of each prefix, each in a batch of its own."""
    prefixes = [SparseTargets.from_lists([ids[: end + 1]]) for end in range(len(ids))]
    return torch.cat([encoder(prefix)[-1:] for prefix in prefixes]) if ids else torch.empty(0, 4)


@pytest.mark.parametrize("norm", [None, 3.0])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_place_is_the_end_of_its_prefix(kind: str, norm: float | None) -> None:
    encoder = made(kind, norm=norm)
    expected = torch.cat([alone(encoder, ids) for ids in LISTS])
    found = encoder(SparseTargets.from_lists(LISTS))
    torch.testing.assert_close(found, expected)
    assert norm is None or torch.allclose(found.norm(dim=1), torch.tensor(norm))
    values = [[float(i % 2) for i, _ in enumerate(ids)] for ids in LISTS]
    asked = encoder(SparseTargets.from_lists(LISTS, values))
    torch.testing.assert_close(asked, expected[torch.tensor([v for row in values for v in row]) > 0])


@pytest.mark.parametrize("kind", ENCODERS)
def test_gradients_are_those_of_prefixes_alone(kind: str) -> None:
    encoder, weights = made(kind), torch.randn(16, 4)
    expected = torch.cat([alone(encoder, ids) for ids in LISTS])
    assert len(expected) == 16
    parameters = list(encoder.parameters())
    sums = [(weights * rows).sum() for rows in (expected, encoder(SparseTargets.from_lists(LISTS)))]
    one, two = (torch.autograd.grad(total, parameters, allow_unused=True) for total in sums)
    for a, b in zip(one, two, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a.to_dense(), b.to_dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_no_sequences_and_empty_ones_have_no_rows(kind: str) -> None:
    encoder = made(kind).train()
    for offsets in ([0], [0, 0, 0]):
        found = encoder(SparseTargets([], offsets))
        assert found.shape == (0, 4)
        found.sum().backward()


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "transformer"])
def test_sequences_may_be_long(kind: str) -> None:
    ids = torch.randint(10, (3000,), generator=torch.Generator().manual_seed(1)).tolist()
    encoder = made(kind)
    found = encoder(SparseTargets.from_lists([[1, 2], ids, [3]]))
    assert found.shape == (3003, 4)
    torch.testing.assert_close(found[2:1002], encoder(SparseTargets.from_lists([ids[:1000]])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_mixed_has_units_of_about_one(tied: bool) -> None:
    """Whatever the width: recurrent layers, whose weights begin for such units, hear nothing of smaller ones."""
    for width in (16, 256):
        encoder, seen = SequenceEncoder(500, width, kind="lstm"), list[torch.Tensor]()
        if tied:
            encoder.tie(SampledSoftmaxHead(width, 500))
        encoder.mixer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        encoder(SparseTargets.from_lists([list(range(500))]))
        assert 0.5 < seen[0].std() < 1.1


def test_a_transformer_refuses_what_it_has_no_place_for() -> None:
    with pytest.raises(ValueError, match=r"at most 16 places, the parameter `context`. Found 17"):
        made("transformer")(SparseTargets.from_lists([[1] * 17, [2]]))


def test_packing_is_that_of_torch() -> None:
    sequences = SparseTargets.from_lists(LISTS)
    filled = [torch.tensor(ids) for ids in LISTS if ids]
    packed = nn.utils.rnn.pack_sequence(filled, enforce_sorted=False)
    places, sizes = packed_places(sequences)
    assert sizes.tolist() == packed.batch_sizes.tolist()
    assert torch.empty_like(places).scatter_(0, places, sequences.class_ids).tolist() == packed.data.tolist()


def test_a_bag_is_the_mean_and_an_ngram_the_last_ones() -> None:
    bag, window = made("bag", hidden=()), made("ngram", hidden=(), context=2)
    rows = bag.embeddings(torch.tensor([3, 1, 4]))
    expected = bag.mixer.last(6**0.5 * rows.mean(0))
    torch.testing.assert_close(bag(SparseTargets.from_lists([[3, 1, 4]]))[-1], expected)
    changed = SparseTargets.from_lists([[3, 1, 4], [9, 1, 4], [1, 4]])
    one, two, three = window(changed)[torch.tensor([2, 5, 7])]
    assert torch.equal(one, two)
    assert torch.equal(one, three)
    assert not torch.equal(window(changed)[1], window(changed)[4])


def test_wrong_kinds_and_ids_are_refused() -> None:
    with pytest.raises(ValueError, match='"gru", "lstm", "transformer", "bag" or "ngram"'):
        made("cnn")
    with pytest.raises(ValueError, match=r"should be in \[0, 10\)"):
        made("gru")(SparseTargets.from_lists([[10]]))
    assert list(MIXERS) == list(ENCODERS)


@pytest.mark.parametrize("head", [FullSoftmaxHead(4, 10), SampledSoftmaxHead(4, 10, bias=True)])
def test_a_tied_encoder_trains_the_rows_of_the_head(head: FullSoftmaxHead) -> None:
    encoder = made("gru", embedding=4, norm=2.0)
    encoder.tie(head)
    assert all(part.shape != head.table.shape for part in encoder.state_dict().values())
    sequences = SparseTargets.from_lists([[3, 1]])
    expected = encoder.mixer(normalize(head.weight()[[3, 1]], dim=1), sequences)
    torch.testing.assert_close(encoder(sequences), 2.0 * normalize(expected, dim=1))
    head(encoder(sequences), torch.tensor([1, 4])).backward()
    together = head.table.grad.to_dense()
    head.table.grad = None
    head(encoder(sequences).detach(), torch.tensor([1, 4])).backward()
    assert not torch.equal(together[3], head.table.grad.to_dense()[3])


def test_rows_of_another_size_cannot_be_tied() -> None:
    with pytest.raises(ValueError, match=r"W's rows, \(10, 4\). Found \(10, 6\)"):
        made("gru").tie(FullSoftmaxHead(4, 10))
    assert not hasattr(AdaptiveSoftmaxHead, "rows")
