"""What users do with an exact head beyond training steps: contract, errors, types, copies, states."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

import widehead as wh
from widehead.errors import StaleGraphError

D, WIDTH = 50, 6


def make(loss: wh.losses.Loss | None = None, **options: object) -> wh.ExactHead:
    torch.manual_seed(0)
    return wh.ExactHead(WIDTH, D, loss or wh.losses.SquaredError(), **options)  # type: ignore[arg-type]


def test_every_raw_form_of_targets_means_the_same() -> None:
    head, hidden = make(), torch.randn(3, WIDTH)
    lists = [[4, 9], [], [7]]
    table = torch.tensor([[4, 9], [-100, -100], [7, -100]])
    csr = scipy.sparse.csr_matrix(([1.0, 1.0, 1.0], ([0, 0, 2], [4, 9, 7])), shape=(3, D))
    dense = torch.tensor(csr.toarray())
    forms = [lists, table, table.numpy(), csr, csr.tocoo(), dense.to_sparse_csr(), dense.to_sparse_coo()]
    losses = [float(head(hidden, form)) for form in forms]
    assert losses == pytest.approx([losses[0]] * len(forms))
    online = torch.tensor([4, 7, 9])
    assert float(head(hidden, online)) == pytest.approx(float(head(hidden, [[4], [7], [9]])))
    assert float(head(hidden, np.array([4, 7, 9]))) == pytest.approx(float(head(hidden, online)))


def test_reductions_and_example_weights() -> None:
    head, hidden = make(), torch.randn(4, WIDTH)
    targets = [[1], [2, 3], [], [4]]
    each = head(hidden, targets, reduction="none")
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5])
    assert torch.allclose(head(hidden, targets, reduction="sum"), each.sum())
    assert torch.allclose(head(hidden, targets), each.mean())
    assert torch.allclose(head(hidden, targets, weight=weight), (each * weight).sum() / weight.sum())
    assert torch.allclose(head(hidden, targets, weight=weight, reduction="none"), each * weight)
    assert float(head(hidden, targets, weight=torch.zeros(4))) == 0.0
    with pytest.raises(ValueError, match="reduction"):
        head(hidden, targets, reduction="average")
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        head(hidden, targets, weight=torch.ones(3))


def test_examples_without_targets_count_as_ignore_index_does_in_torch() -> None:
    head = make(wh.losses.SphericalSoftmax())
    hidden = torch.randn(3, WIDTH)
    some = head(hidden, torch.tensor([4, -100, 7]))
    assert torch.allclose(some, head(hidden[[0, 2]], torch.tensor([4, 7])))


@pytest.mark.parametrize(
    ("hidden", "targets", "error", "message"),
    [
        (torch.randn(2, WIDTH + 1), [[1], [2]], ValueError, r"shape \(m, 6\). Found \(2, 7\)"),
        (torch.randn(2, WIDTH), [[1]], ValueError, "targets for 2 examples. Found 1"),
        (torch.randn(2, WIDTH), [[1], [D]], ValueError, r"in \[0, 50\). Found class_ids\[1\] = 50 in example 1"),
        (torch.randn(2, WIDTH), [[-1], [1]], ValueError, r"class_ids\[0\] = -1"),
        (torch.randn(2, WIDTH), torch.tensor([0.5, 1.0]), TypeError, "integers"),
        (torch.randn(2, WIDTH), "ab", TypeError, "Targets should be"),
        (torch.ones(2, WIDTH, dtype=torch.int64), [[1], [2]], TypeError, "floating-point"),
        ([[0.0] * WIDTH], [[1]], ValueError, "should be a tensor"),
    ],
)
def test_wrong_input_is_named(hidden: object, targets: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()(hidden, targets)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, D, wh.losses.SquaredError()), ValueError, "in_features"),
        ((WIDTH, -3, wh.losses.SquaredError()), ValueError, "num_classes"),
        ((WIDTH, 2.5, wh.losses.SquaredError()), ValueError, "num_classes"),
        ((WIDTH, D, nn.MSELoss()), TypeError, "widehead.losses"),
    ],
)
def test_wrong_construction_is_named(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wh.ExactHead(*arguments)


def test_low_precision_hidden_layers_are_taken() -> None:
    """As autocast makes them."""
    head = make()
    hidden = torch.randn(3, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    head(hidden, [[1], [2], [3]]).backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_eval_and_no_grad_remember_nothing() -> None:
    head = make()
    hidden = torch.randn(3, WIDTH, requires_grad=True)
    with torch.no_grad():
        assert not head(hidden, [[1], [2], [3]]).requires_grad
    head.eval()
    head(hidden, [[1], [2], [3]]).backward()  # the gradient reaches the hidden layer all the same
    assert hidden.grad is not None
    assert head.pending_gradient() is None
    assert not head(hidden.detach(), [[1], [2], [3]]).requires_grad


def test_plain_data_can_be_the_hidden_layer() -> None:
    head = make()
    head(torch.randn(3, WIDTH), [[1], [2], [3]]).backward()
    assert head.pending_gradient() is not None


def test_bias_is_an_output_weight_of_a_unit_that_is_always_one() -> None:
    head = make(bias=True)
    weight, bias = torch.randn(D, WIDTH), torch.randn(D)
    head.load_weight(weight, bias)
    linear = nn.Linear(WIDTH, D)
    linear.load_state_dict({"weight": weight, "bias": bias})
    optimizer, theirs = wh.optim.SGD(head, lr=0.01, weight_decay=0.1), torch.optim.SGD(linear.parameters(), 0.01)
    theirs.param_groups[0]["weight_decay"] = 0.1
    for step in range(10):
        hidden = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(step))
        head(hidden, torch.arange(4)).backward()
        optimizer.step()
        theirs.zero_grad()
        ((linear(hidden) - torch.eye(4, D)) ** 2).sum(1).mean().backward()
        theirs.step()
    assert torch.allclose(head.weight(), linear.weight, atol=1e-5)
    assert torch.allclose(head.bias(), linear.bias, atol=1e-5)
    ours = head.to_linear()
    assert torch.allclose(ours(hidden), linear(hidden), atol=1e-4)
    assert torch.allclose(head.scores(hidden), linear(hidden), atol=1e-4)


def test_to_linear_is_an_ordinary_layer() -> None:
    head = make()
    linear = head.to_linear()
    assert isinstance(linear, nn.Linear)
    assert (linear.in_features, linear.out_features, linear.bias) == (WIDTH, D, None)
    before = head.weight()
    with torch.no_grad():
        linear.weight.zero_()
    assert torch.equal(head.weight(), before)  # a copy


def test_load_weight_checks_and_copies() -> None:
    head = make()
    weight = torch.randn(D, WIDTH)
    head.load_weight(weight)
    assert torch.equal(head.weight(), weight)
    weight.zero_()
    assert head.weight().abs().sum() > 0
    assert head.audit().gram < 1e-6
    with pytest.raises(ValueError, match=r"shape \(50, 6\)"):
        head.load_weight(torch.randn(D, WIDTH + 1))
    with pytest.raises(ValueError, match="bias"):
        head.load_weight(weight, torch.zeros(D))
    weight[3, 1] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        head.load_weight(weight)


def test_loading_weights_between_forward_and_backward_is_noticed() -> None:
    head = make()
    loss = head(torch.randn(2, WIDTH), [[1], [2]])
    head.load_weight(torch.randn(D, WIDTH))
    with pytest.raises(StaleGraphError):
        loss.backward()


def test_consolidating_between_forward_backward_and_step_is_harmless() -> None:
    head, twin = make(dtype=torch.float64), make(dtype=torch.float64)
    reached: dict[wh.ExactHead, list[torch.Tensor | None]] = {head: [], twin: []}
    for model, consolidates in ((head, True), (twin, False)):
        optimizer = wh.optim.SGD(model, lr=0.05)
        for step in range(30):
            hidden = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            hidden.requires_grad_()
            loss = model(hidden, torch.arange(4) + step)
            if consolidates and step % 3 == 1:
                model.consolidate()
            loss.backward()
            reached[model].append(hidden.grad)
            if consolidates and step % 3 == 0:
                model.consolidate()
            optimizer.step()
    assert torch.allclose(head.weight(), twin.weight(), rtol=1e-12)
    for found, expected in zip(reached[head], reached[twin], strict=True):
        assert found is not None
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_moving_to_another_type_keeps_w_and_goes_on() -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=0.05)
    head(torch.randn(2, WIDTH), [[1], [2]]).backward()
    optimizer.step()
    weight = head.weight()
    head.double()
    assert head.dtype == torch.float64
    assert torch.equal(head.weight(), weight.double())
    assert head.audit().gram < 1e-14
    head(torch.randn(2, WIDTH), [[1], [2]]).backward()
    optimizer.step()
    assert nn.Sequential(head).float()[0].dtype == torch.float32


def test_two_heads_share_an_encoder() -> None:
    torch.manual_seed(0)
    encoder = nn.Linear(3, WIDTH)
    heads = [make(dtype=torch.float32), wh.ExactHead(WIDTH, 20, wh.losses.TaylorSoftmax())]
    linears = [head.to_linear() for head in heads]
    twin = copy.deepcopy(encoder)
    optimizer = wh.optim.SGD(heads, lr=0.05)
    theirs = torch.optim.SGD([*twin.parameters(), *(p for linear in linears for p in linear.parameters())], lr=0.05)
    mine = torch.optim.SGD(encoder.parameters(), lr=0.05)
    for step in range(10):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        hidden = encoder(x)
        mine.zero_grad()
        (heads[0](hidden, torch.arange(4)) + 2 * heads[1](hidden, torch.arange(4))).backward()
        mine.step()
        optimizer.step()
        theirs.zero_grad()
        h = twin(x)
        first = ((linears[0](h) - torch.eye(4, D)) ** 2).sum(1).mean()
        o = linears[1](h)
        p = 1 + o + o**2 / 2
        second = -torch.log(p.diagonal() / p.sum(1)).mean()
        (first + 2 * second).backward()
        theirs.step()
    assert torch.allclose(encoder.weight, twin.weight, atol=1e-6)
    for head, linear in zip(heads, linears, strict=True):
        assert torch.allclose(head.weight(), linear.weight, atol=1e-5)


def test_statistics_make_any_loss_of_the_family() -> None:
    """A sum of two losses on one graph, written by hand, moves W as the dense one does."""
    head = make(dtype=torch.float64)
    weight = head.weight().requires_grad_()
    hidden = torch.randn(3, WIDTH, dtype=torch.float64)
    q, s, a = head.statistics(hidden, [[1], [2, 3], []])
    assert q.shape == s.shape == (3,)
    assert a.shape == (3,)
    (q.sum() + (s**2).sum() + a.exp().sum()).backward()
    o = hidden @ weight.T
    ((o**2).sum() + (o.sum(1) ** 2).sum() + o[[0, 1, 1], [1, 2, 3]].exp().sum()).backward()
    assert weight.grad is not None
    assert torch.isclose(head.grad_norm(), weight.grad.norm(), rtol=1e-10)
    wh.optim.SGD(head, lr=0.01).step()
    assert torch.allclose(head.weight(), weight.detach() - 0.01 * weight.grad, rtol=1e-10)


def test_state_survives_a_file_and_a_wrapping_module() -> None:
    model = nn.Sequential(nn.Linear(3, WIDTH), make())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = nn.Sequential(nn.Linear(3, WIDTH), wh.ExactHead(WIDTH, D, wh.losses.SquaredError()))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other[1].weight(), model[1].weight())


def test_a_state_that_does_not_fit_is_refused_and_nothing_changes() -> None:
    head = make()
    before = head.weight()
    wrong = wh.ExactHead(WIDTH, D + 1, wh.losses.SquaredError()).state_dict()
    with pytest.raises(RuntimeError, match=r"`values` of an exact head should have shape \(50, 6\)"):
        head.load_state_dict(wrong)
    missing = {name: tensor for name, tensor in head.state_dict().items() if name != "versions"}
    with pytest.raises(RuntimeError, match="versions"):
        head.load_state_dict(missing)
    with pytest.raises(RuntimeError, match="extra"):
        head.load_state_dict({**head.state_dict(), "extra": torch.zeros(1)})
    damaged = copy.deepcopy(head.state_dict())
    damaged["versions"][3] = 77
    with pytest.raises(RuntimeError, match="live boundaries"):
        head.load_state_dict(damaged)
    assert torch.equal(head.weight(), before)


def test_a_state_that_shares_memory_with_a_head_trained_since_is_refused() -> None:
    head = make()
    state = head.state_dict()
    head.load_state_dict(state)  # nothing happened since: fine
    state = head.state_dict()
    head(torch.randn(2, WIDTH), [[1], [2]]).backward()
    wh.optim.SGD(head, lr=0.1).step()
    with pytest.raises(RuntimeError, match="shares memory"):
        head.load_state_dict(state)


def test_a_graph_is_freed_with_its_loss() -> None:
    """The statistics must not be held by what they hold: memory would grow with every step."""
    head = make()
    hidden = torch.randn(3, WIDTH, requires_grad=True)
    loss = head(hidden * 1.0, [[1], [2], [3]])
    loss.backward()
    gradient = head.pending_gradient()
    assert gradient is not None
    watched = weakref.ref(gradient.read)
    del loss, gradient
    wh.optim.SGD(head, lr=0.1).step()
    gc.collect()
    assert watched() is None


def test_excluding_more_than_is_left_gives_minus_infinity() -> None:
    head = make()
    hidden = torch.randn(1, WIDTH)
    scores, _ = head.top_k(hidden, 3, exclude=[list(range(D - 1))])
    assert torch.isfinite(scores[0, 0])
    assert (scores[0, 1:] == -torch.inf).all()
    for k in (0, D + 1):
        with pytest.raises(ValueError, match="`k`"):
            head.top_k(hidden, k)


def test_top_k_over_many_blocks() -> None:
    torch.manual_seed(0)
    head = wh.ExactHead(3, 40_000, wh.losses.SquaredError())
    hidden = torch.randn(5, 3)
    scores, ids = head.top_k(hidden, 7, exclude=[[0, 39_999], [20_000], [], [], [1]])
    everything = hidden @ head.weight().T
    everything[[0, 0, 1, 4], [0, 39_999, 20_000, 1]] = -torch.inf
    expected = everything.topk(7, dim=1)
    assert torch.allclose(scores, expected.values, rtol=1e-5)
    assert torch.equal(ids, expected.indices)


def test_repr_says_what_it_is() -> None:
    assert "num_classes=50, loss=SquaredError" in repr(make())
