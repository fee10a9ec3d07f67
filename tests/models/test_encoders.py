"""Encoders: what they compute, against the same thing written densely, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from widehead.models import BagEncoder, ContextEncoder, WordEncoder
from widehead.models.bag import drop_ids, unit_values
from widehead.models.layers import hidden_layers
from widehead.names import ACTIVATIONS
from widehead.targets import SparseTargets

BAGS = SparseTargets([3, 1, 4, 1, 1], [0, 2, 2, 4, 5], [2.0, -1.0, 0.5, 1.0, 3.0])


def dense(bags: SparseTargets, num_inputs: int, normalize: bool) -> torch.Tensor:
    """Slow twin: the (m, N) matrix of bags, repeated ids added up after each row was divided by its norm."""
    rows = torch.zeros(len(bags), num_inputs)
    values = bags.values_or_ones(torch.float32)
    for b in range(len(bags)):
        span = slice(int(bags.offsets[b]), int(bags.offsets[b + 1]))
        norm = values[span].square().sum().sqrt() if normalize and span.start < span.stop else 1.0
        for c, v in zip(bags.class_ids[span], values[span], strict=True):
            rows[b, c] += v / norm
    return rows


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("values", [True, False])
def test_linear_bag_encoder_is_a_matrix_product(values: bool, normalize: bool, sparse: bool) -> None:
    bags = BAGS if values else SparseTargets(BAGS.class_ids, BAGS.offsets)
    encoder = BagEncoder(6, 3, normalize=normalize, sparse=sparse)
    weight = encoder.embeddings.weight
    expected = dense(bags, 6, normalize) @ weight
    torch.testing.assert_close(encoder(bags), expected)
    encoder(bags).square().sum().backward()
    gradient = weight.grad.to_dense() if sparse else weight.grad
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), weight)[0])
    assert weight.grad.is_sparse == sparse


def test_bag_encoder_that_keeps_some_ids_takes_the_others_for_zeros() -> None:
    bags = SparseTargets.from_lists([[0, 3], [1, 2, 4], [1], []])
    some, whole = BagEncoder(5, 3, kept=torch.tensor([3, 0, 4])), BagEncoder(5, 3)
    assert some.embeddings.weight.shape == (4, 3)
    with torch.no_grad():
        whole.embeddings.weight.zero_()[[3, 0, 4]] = some.embeddings.weight[:3]
    torch.testing.assert_close(some(bags), whole(bags))
    assert not some(bags)[2:].any()
    assert BagEncoder(5, 3, kept=torch.tensor([0, 1, 2])).load_state_dict(some.state_dict())
    with pytest.raises(ValueError, match=r"\[0, 5\)"):
        some(SparseTargets.from_lists([[5]]))


def test_bag_encoder_without_ids_is_zero_and_empty_batch_has_no_rows() -> None:
    encoder = BagEncoder(6, 3, normalize=True, input_dropout=0.5).train()
    assert encoder(SparseTargets([], [0, 0])).tolist() == [[0.0, 0.0, 0.0]]
    assert encoder(SparseTargets([], [0])).shape == (0, 3)


def test_the_gradient_of_bags_names_each_row_once() -> None:
    encoder = BagEncoder(6, 3, normalize=False)
    encoder(BAGS).sum().backward()  # one number, expanded to all
    gradient = encoder.embeddings.weight.grad
    assert gradient._indices().tolist() == [[1, 3, 4]]
    torch.testing.assert_close(gradient._values(), torch.tensor([[3.0], [2.0], [0.5]]).expand(3, 3))
    encoder.zero_grad()
    encoder(SparseTargets([], [0, 0])).sum().backward()
    assert encoder.embeddings.weight.grad._values().shape == (0, 3)


def test_bag_encoder_hidden_layers_have_the_sizes_asked_for() -> None:
    encoder = BagEncoder(6, 3, hidden=[7, 5], activation="tanh", dropout=0.1)
    linear = [m for m in encoder.layers if isinstance(m, torch.nn.Linear)]
    assert encoder.embeddings.weight.shape == (6, 7)
    assert [(m.in_features, m.out_features) for m in linear] == [(7, 5), (5, 3)]
    assert sum(isinstance(m, torch.nn.Tanh) for m in encoder.layers) == 3
    assert sum(isinstance(m, torch.nn.Dropout) for m in encoder.layers) == 3


def test_input_dropout_keeps_an_id_of_every_bag_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    bags = SparseTargets.from_lists([[1], [], [2, 3], [0, 1, 2, 3, 4]] * 2000)
    thinned, values = drop_ids(bags, torch.ones(bags.class_ids.numel()), 0.6)
    assert torch.equal(thinned.counts > 0, bags.counts > 0)
    assert bool((thinned.counts <= bags.counts).all())
    assert torch.allclose(values, torch.tensor(2.5))
    long = thinned.counts[3::4].double()
    # Five ids kept with probability 0.4 each, and one kept for certain if none would stay (probability 0.6⁵).
    assert abs(float(long.mean()) - (2.0 + 0.6**5)) < 0.08
    pairs = thinned.select(torch.arange(2, 8000, 4))
    single = pairs.class_ids[pairs.example_ids[pairs.counts[pairs.example_ids] == 1]]
    assert single.numel() > 0
    kept = torch.bincount(pairs.class_ids, minlength=5)[2:4].double()
    assert abs(float(kept[0] / kept.sum()) - 0.5) < 0.05


def test_input_dropout_only_while_training() -> None:
    encoder = BagEncoder(6, 3, input_dropout=0.9)
    encoder.eval()
    torch.testing.assert_close(encoder(BAGS), dense(BAGS, 6, True) @ encoder.embeddings.weight)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-12, 1.0, 1e18, 1e38])
def test_unit_values_of_any_size_have_length_1(scale: float) -> None:
    values = torch.tensor([1.0, -2.0, 0.5, 3.0, 1e-3])
    found = unit_values(SparseTargets([0, 1, 2, 0, 1], [0, 3, 5]), values * scale)
    expected = torch.cat([part / part.norm() for part in values.split([3, 2])])
    torch.testing.assert_close(
        found, expected, rtol=1e-6 if scale > 1e-38 else 1e-2, atol=1e-6 if scale > 1e-38 else 1e-3
    )


def test_unit_values_leaves_a_bag_of_zeros() -> None:
    assert unit_values(SparseTargets([0, 1], [0, 2]), torch.zeros(2)).tolist() == [0.0, 0.0]


def test_context_encoder_is_linear_layers_on_concatenated_rows() -> None:
    encoder = ContextEncoder(9, 2, 3, embedding=4, hidden=[5], activation="tanh")
    words = torch.tensor([[1, 8], [0, 0]])
    rows = encoder.embeddings.weight[words].flatten(1)
    last = encoder.layers[1]
    expected = torch.tanh(last(torch.tanh(encoder.first(rows))))
    torch.testing.assert_close(encoder(words), expected)


def test_word_encoder_is_a_row() -> None:
    encoder = WordEncoder(9, 3)
    words = torch.tensor([4, 0])
    assert torch.equal(encoder(words), encoder.embeddings.weight[words])
    assert torch.equal(encoder(words[:, None]), encoder(words))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_layers_apply_the_activation_after_every_layer(activation: str) -> None:
    layers = hidden_layers([3, 2], activation, 0.0)
    x = torch.randn(4, 3)
    act = ACTIVATIONS[activation]()
    linear = next(m for m in layers if isinstance(m, torch.nn.Linear))
    torch.testing.assert_close(layers(x), act(linear(act(x))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BagEncoder(6, 3, activation="swish"), "activation"),
        (lambda: BagEncoder(6, 3, dropout=1.0), "dropout"),
        (lambda: BagEncoder(6, 3, input_dropout=-0.1), "input_dropout"),
        (lambda: BagEncoder(6, 0), "sizes"),
        (lambda: BagEncoder(3, 3)(BAGS), r"\[0, 3\)"),
        (lambda: ContextEncoder(9, 2, 3)(torch.zeros(4, 3, dtype=torch.int64)), r"\(m, 2\)"),
        (lambda: WordEncoder(9, 3)(torch.zeros(4, 3, dtype=torch.int64)), r"\(m,\)"),
    ],
)
def test_mistakes_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
