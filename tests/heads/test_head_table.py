"""Every head × every property of the contract that they share. A new head is a new row."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import widehead as wh
from widehead.heads import base, normalized

D, WIDTH, M = 60, 8, 6


@dataclass(frozen=True)
class Row:
    """A head: ``make(in_features, num_classes, dtype, bias)``; whether its training loss has no random part."""

    name: str
    make: Callable[[int, int, torch.dtype, bool], Any]
    deterministic: bool = True
    #: what the held-out recall@1 of the learnable problem below should exceed; chance is 1/40
    recall: float = 0.9
    #: a step size for ExactHead, which no optimiser of torch can train; None for heads with parameters
    exact_lr: float | None = None


def frequencies(num_classes: int) -> Tensor:
    """Zipf's law, in an order of ids that is not the order of frequency."""
    ranks = torch.randperm(max(num_classes, 0), generator=torch.Generator().manual_seed(5))
    return 1.0 / (1.0 + ranks.double())


def exact(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.ExactHead(d, n, wh.losses.SphericalSoftmax(), bias=bias, dtype=dtype)


def full(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.FullSoftmaxHead(d, n, bias=bias, dtype=dtype)


def two_level(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.HierarchicalSoftmaxHead(d, n, frequencies=frequencies(n), bias=bias, dtype=dtype)


def huffman(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.HierarchicalSoftmaxHead(d, n, tree="huffman", frequencies=frequencies(n), bias=bias, dtype=dtype)


def adaptive(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.AdaptiveSoftmaxHead(d, n, div_value=2.0, frequencies=frequencies(n), bias=bias, dtype=dtype)


def sampled(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.SampledSoftmaxHead(d, n, negatives=15, frequencies=frequencies(n), bias=bias, dtype=dtype)


def in_batch(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.SampledSoftmaxHead(d, n, sampler="in-batch", frequencies=frequencies(n), bias=bias, dtype=dtype)


def quadratic(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.SampledSoftmaxHead(d, n, negatives=15, sampler="quadratic", bias=bias, dtype=dtype)


def noise_contrastive(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.NoiseContrastiveHead(d, n, negatives=15, frequencies=frequencies(n), bias=bias, dtype=dtype)


def negative_sampling(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.NegativeSamplingHead(d, n, frequencies=frequencies(n), bias=bias, dtype=dtype)


def black_out(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.BlackOutHead(d, n, negatives=15, frequencies=frequencies(n), bias=bias, dtype=dtype)


def retrieved(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.RetrievedSoftmaxHead(d, n, retrieved=4, tail=4, bias=bias, dtype=dtype)


def retrieved_each(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.RetrievedSoftmaxHead(d, n, retrieved=4, tail=4, shared=False, bias=bias, dtype=dtype)


TABLE = [
    Row("exact", exact, exact_lr=0.05),
    Row("full", full),
    Row("hierarchical two-level", two_level),
    # Classes that have nothing in common share decisions, rare ones have a narrow projection or few negatives.
    Row("hierarchical huffman", huffman, recall=0.7),
    Row("adaptive", adaptive, recall=0.7),
    Row("sampled", sampled, deterministic=False),
    Row("sampled in-batch", in_batch, deterministic=False),
    Row("sampled quadratic", quadratic, deterministic=False),
    Row("noise-contrastive", noise_contrastive, deterministic=False),
    Row("negative sampling", negative_sampling, deterministic=False, recall=0.5),
    Row("blackout", black_out, deterministic=False),
    Row("retrieved", retrieved, deterministic=False),
    Row("retrieved for each", retrieved_each, deterministic=False),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
LINEAR = pytest.mark.parametrize(
    "row", [row for row in TABLE if not row.name.startswith(("hierarchical", "adaptive"))], ids=lambda row: row.name
)
TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
BIAS = pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
RAGGED = [[3, 17, 59], [], [4], [0, 1], [], [33]]
VALUES = [[1.0, 2.0, 0.5], [], [3.0], [0.0, 1.0], [], [2.0]]


def make(
    row: Row,
    dtype: torch.dtype = torch.float64,
    bias: bool = False,
    *,
    d: int = WIDTH,
    n: int = D,
    seed: int = 1,
) -> Any:
    """A head with weights of ordinary size, a bias other than 0 where it has one."""
    torch.manual_seed(seed)
    head = row.make(d, n, dtype, bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def hidden_of(m: int = M, d: int = WIDTH, dtype: torch.dtype = torch.float64, seed: int = 2) -> Tensor:
    values = torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def loss_of(head: Any, hidden: Tensor, targets: Any, **options: Any) -> Tensor:
    """The loss with the same random draws at every call."""
    torch.manual_seed(11)
    loss: Tensor = head(hidden, targets, **options)
    return loss


def gradients(head: Any, hidden: Tensor) -> list[Tensor]:
    """Of the hidden layer and of all parameters that have one, dense; the step's norm for the exact head."""
    assert hidden.grad is not None
    own = [p.grad.to_dense() for p in head.parameters() if p.grad is not None]
    return [hidden.grad, *own, *([head.grad_norm()] if isinstance(head, wh.ExactHead) else [])]


def valued(values: list[list[float]] = VALUES) -> wh.SparseTargets:
    return wh.SparseTargets.from_lists(RAGGED, values)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of classes, or of examples, that do not come out even."""
    monkeypatch.setattr(base, "_BLOCK", 16)
    monkeypatch.setattr(normalized, "_BLOCK_NUMBERS", 4 * D)


@ROWS
@TYPES
@BIAS
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_agree(row: Row, dtype: torch.dtype, bias: bool, weighted: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype)
    weight = torch.tensor([0.5, 7.0, 2.0, 0.0, 1.0, 3.0], dtype=dtype) if weighted else None
    scale = torch.ones(M, dtype=dtype) if weight is None else weight
    plain = loss_of(head, hidden, RAGGED, reduction="none")
    losses = loss_of(head, hidden, RAGGED, reduction="none", weight=weight)
    assert losses.shape == (M,)
    assert losses.dtype == dtype
    assert losses[1] == losses[4] == 0.0
    assert torch.allclose(losses, plain * scale)
    total = loss_of(head, hidden, RAGGED, reduction="sum", weight=weight)
    assert torch.allclose(total, losses.sum())
    named = torch.tensor([bool(ids) for ids in RAGGED])
    mean = loss_of(head, hidden, RAGGED, reduction="mean", weight=weight)
    assert torch.allclose(mean, losses.sum() / scale[named].sum())


@ROWS
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_reductions_are_those_of_weighted_losses(row: Row, reduction: Any) -> None:
    weight = torch.tensor([0.5, 7.0, 2.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    head, hidden = make(row), hidden_of()
    twin, other = copy.deepcopy(head), hidden_of()
    loss_of(head, hidden, RAGGED, weight=weight, reduction=reduction).backward()
    total = weight[[0, 2, 3, 5]].sum() if reduction == "mean" else 1.0
    (loss_of(twin, other, RAGGED, reduction="none") * weight / total).sum().backward()
    for a, b in zip(gradients(head, hidden), gradients(twin, other), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@ROWS
def test_weights_of_examples_have_any_type(row: Row) -> None:
    head, hidden = make(row, torch.float32), hidden_of(dtype=torch.float32)
    weight = torch.tensor([1, 7, 2, 0, 1, 3])
    expected = loss_of(head, hidden, RAGGED, weight=weight.float())
    for other in (weight, weight.double()):
        loss = loss_of(head, hidden, RAGGED, weight=other)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)


@ROWS
def test_padded_and_ragged_targets_are_the_same_as_lists(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    expected = loss_of(head, hidden, RAGGED, reduction="none")
    padded = torch.full((M, 3), -100)
    for b, ids in enumerate(RAGGED):
        padded[b, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    for targets in (padded, padded.numpy(), wh.SparseTargets.from_lists(RAGGED), padded.to(torch.int32)):
        assert torch.equal(loss_of(head, hidden, targets, reduction="none"), expected)
    single = torch.tensor([3, -100, 4, 0, -100, 33])
    lists = [[3], [], [4], [0], [], [33]]
    assert torch.equal(loss_of(head, hidden, single), loss_of(head, hidden, lists))


@ROWS
@TYPES
def test_several_targets_are_the_mean_of_single_ones_by_value(row: Row, dtype: torch.dtype) -> None:
    if not row.deterministic:
        pytest.skip("several targets and one at a time draw different classes")
    head, hidden = make(row, dtype), hidden_of(dtype=dtype)
    for values in (VALUES, None):
        losses = loss_of(head, hidden, RAGGED if values is None else valued(values), reduction="none")
        for b, ids in enumerate(RAGGED):
            if not ids:
                continue
            singles = loss_of(head, hidden[b].expand(len(ids), -1), torch.tensor(ids), reduction="none")
            share = torch.ones(len(ids), dtype=dtype) if values is None else torch.tensor(values[b], dtype=dtype)
            assert torch.allclose(losses[b], (share * singles).sum() / share.sum(), rtol=1e-5)


@ROWS
@BIAS
def test_loss_in_eval_mode_is_minus_log_prob(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias).eval(), hidden_of()
    if not getattr(head, "has_probabilities", True):
        with pytest.raises(TypeError, match="no probabilities"):
            head.log_prob(hidden, torch.tensor([0] * M))
        assert torch.isfinite(loss_of(head, hidden, RAGGED))
        return
    log_p = head.log_prob(hidden, torch.arange(D).expand(M, D))
    assert torch.allclose(log_p.exp().sum(1), torch.ones(M, dtype=torch.float64), rtol=1e-10)
    losses = loss_of(head, hidden, valued(), reduction="none")
    for b, (ids, values) in enumerate(zip(RAGGED, VALUES, strict=True)):
        share = torch.tensor(values, dtype=torch.float64)
        expected = -(share * log_p[b, ids]).sum() / share.sum() if ids else torch.zeros(())
        assert torch.allclose(losses[b], expected.to(losses), rtol=1e-9)
    ragged = wh.SparseTargets.from_lists(RAGGED)
    assert torch.allclose(head.log_prob(hidden, ragged), log_p[ragged.example_ids, ragged.class_ids])
    assert torch.allclose(head.log_prob(hidden, torch.arange(M)), log_p[torch.arange(M), torch.arange(M)])
    if row.deterministic:
        assert torch.allclose(losses, loss_of(head.train(), hidden, valued(), reduction="none"))


@ROWS
@TYPES
@BIAS
def test_scores_of_some_classes_agree_with_those_of_all(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype).detach()
    everything = head.scores(hidden)
    assert everything.shape == (M, D)
    assert everything.dtype == dtype
    one = torch.tensor([5, 59, 0, 5, 5, 31])
    several = torch.tensor([[5, 5, 0], [1, 2, 59]] + [[7, 8, 9]] * 4)
    ragged = wh.SparseTargets.from_lists(RAGGED)
    assert torch.allclose(head.scores(hidden, one), everything[torch.arange(M), one], rtol=1e-4, atol=1e-5)
    assert torch.allclose(head.scores(hidden, several), everything.gather(1, several), rtol=1e-4, atol=1e-5)
    expected = everything[ragged.example_ids, ragged.class_ids]
    assert torch.allclose(head.scores(hidden, ragged), expected, rtol=1e-4, atol=1e-5)


@ROWS
@TYPES
@BIAS
def test_top_k_equals_sorting_all_scores(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype).detach()
    everything = head.scores(hidden)
    best = [[int(i)] for i in everything.argmax(1)]
    for exclude in (None, best, RAGGED, [[] for _ in range(M)]):
        expected = everything.clone()
        for b, banned in enumerate(exclude or []):
            expected[b, banned] = -torch.inf
        for k in (1, 13):
            scores, ids = head.top_k(hidden, k, exclude=exclude)
            assert torch.allclose(scores, expected.sort(dim=1, descending=True).values[:, :k], rtol=1e-5, atol=1e-6)
            assert torch.allclose(expected.gather(1, ids), scores, rtol=1e-5, atol=1e-6)
            assert all(len(set(line)) == k for line in ids.tolist())
            assert not scores.requires_grad
    _, ids = head.top_k(hidden, D)
    assert torch.equal(ids.sort(dim=1).values, torch.arange(D).expand(M, D))


@ROWS
def test_top_k_with_too_few_classes_left_says_minus_infinity(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    left = [2, 40]
    scores, ids = head.top_k(hidden, 5, exclude=[[c for c in range(D) if c not in left]] * M)
    assert all(sorted(line) == left for line in ids[:, :2].tolist())
    assert torch.isfinite(scores[:, :2]).all()
    assert torch.equal(scores[:, 2:], torch.full((M, 3), -torch.inf, dtype=torch.float64))


@ROWS
def test_wrong_arguments_are_refused(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    for k in (0, -1, D + 1):
        with pytest.raises(ValueError, match=r"Parameter `k` should be in \[1, num_classes = 60\]"):
            head.top_k(hidden, k)
    for wrong in (hidden[:, :-1], hidden[0], hidden[None], [[1.0] * WIDTH] * M):
        with pytest.raises(ValueError, match=r"`hidden` should be a tensor of shape \(m, 8\)"):
            head(wrong, RAGGED)
    with pytest.raises(TypeError, match="floating-point"):
        head(torch.ones(M, WIDTH, dtype=torch.int64), RAGGED)
    with pytest.raises(ValueError, match=r"Class ids should be in \[0, 60\). Found class_ids\[2\] = 60 in example 3"):
        head(hidden, [[1], [], [2], [60], [], []])
    with pytest.raises(ValueError, match="Class ids should be at least 0"):
        head(hidden, torch.tensor([1, 2, -1, 3, 4, 5]))
    with pytest.raises(ValueError, match="targets for 6 examples"):
        head(hidden, RAGGED[:-1])
    with pytest.raises(ValueError, match="`reduction`"):
        head(hidden, RAGGED, reduction="average")
    with pytest.raises(ValueError, match=r"`weight` should have shape \(6,\)"):
        head(hidden, RAGGED, weight=torch.ones(M, 1))
    with pytest.raises(ValueError, match=r"Class ids should be in \[0, 60\)"):
        head.top_k(hidden, 3, exclude=[[60]] * M)
    for sizes in ((0, D), (WIDTH, 0), (WIDTH, -3)):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            row.make(*sizes, torch.float32, False)


@ROWS
@TYPES
@BIAS
def test_state_goes_through_a_file_into_another_head(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, other = make(row, dtype, bias), make(row, dtype, bias, seed=99)
    hidden = hidden_of(dtype=dtype).detach()
    assert not torch.equal(head.scores(hidden), other.scores(hidden))
    state = head.state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())
    starts = [t.untyped_storage().data_ptr() for t in state.values() if t.numel()]
    assert len(set(starts)) == len(starts)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    assert torch.equal(head.scores(hidden), other.scores(hidden))
    assert torch.equal(loss_of(head, hidden, RAGGED), loss_of(other, hidden, RAGGED))
    assert torch.equal(head.top_k(hidden, 9)[1], other.top_k(hidden, 9)[1])


@ROWS
@TYPES
def test_the_same_seed_gives_the_same_bits(row: Row, dtype: torch.dtype) -> None:
    found = []
    for _ in range(2):
        head, hidden = make(row, dtype), hidden_of(dtype=dtype)
        losses = loss_of(head, hidden, valued(), reduction="none")
        losses.sum().backward()
        found.append([losses, *gradients(head, hidden)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@ROWS
@TYPES
@BIAS
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_hostile_scales_of_the_hidden_layer(row: Row, dtype: torch.dtype, bias: bool, scale: float) -> None:
    head = make(row, dtype, bias)
    hidden = (hidden_of(dtype=dtype).detach() * scale).requires_grad_()
    loss = loss_of(head, hidden, RAGGED)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(head, hidden))
    assert torch.isfinite(loss_of(head.eval(), hidden, RAGGED))
    assert not torch.isnan(head.top_k(hidden, 3)[0]).any()


@ROWS
@TYPES
@pytest.mark.parametrize("m", [0, 3])
def test_batches_without_targets_have_loss_0_and_gradient_0(row: Row, dtype: torch.dtype, m: int) -> None:
    head, hidden = make(row, dtype), hidden_of(m, dtype=dtype)
    targets: list[list[int]] = [[] for _ in range(m)]
    for reduction in ("mean", "sum"):
        loss = loss_of(head, hidden, targets, reduction=reduction)
        loss.backward()
        assert loss == 0.0
    assert all((gradient == 0).all() for gradient in gradients(head, hidden))
    assert loss_of(head, hidden, targets, reduction="none").shape == (m,)
    assert head.scores(hidden).shape == (m, D)
    assert head.top_k(hidden, 4)[1].shape == (m, 4)
    assert head.top_k(hidden, 4, exclude=targets)[1].shape == (m, 4)
    assert loss_of(head.eval(), hidden, targets) == 0.0


@ROWS
def test_examples_without_targets_change_nothing(row: Row) -> None:
    if not row.deterministic:
        pytest.skip("another batch draws other classes")
    head, hidden = make(row), hidden_of()
    twin, kept = copy.deepcopy(head), hidden_of().detach()[[0, 2, 3, 5]].requires_grad_()
    loss_of(head, hidden, RAGGED).backward()
    loss_of(twin, kept, [RAGGED[b] for b in (0, 2, 3, 5)]).backward()
    (by_hidden, *own), (by_kept, *others) = gradients(head, hidden), gradients(twin, kept)
    assert torch.allclose(by_hidden[[0, 2, 3, 5]], by_kept)
    assert (by_hidden[[1, 4]] == 0).all()
    assert all(torch.allclose(a, b) for a, b in zip(own, others, strict=True))


@ROWS
@BIAS
def test_gradients_are_sparse_where_the_head_says_so(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of()
    loss_of(head, hidden, RAGGED).backward()
    assert hidden.grad is not None
    assert not hidden.grad.is_sparse
    if row.exact_lr is not None:
        assert list(head.parameters()) == []
        return
    given = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert given
    assert all(gradient.is_sparse == head.sparse for gradient in given)


def optimizer_for(row: Row, head: Any) -> torch.optim.Optimizer:
    if row.exact_lr is not None:
        return wh.optim.SGD(head, lr=row.exact_lr)
    kind = torch.optim.SparseAdam if head.sparse else torch.optim.Adam
    return kind(head.parameters(), lr=0.05)


@ROWS
@TYPES
def test_sixty_steps_learn(row: Row, dtype: torch.dtype) -> None:
    """40 classes, each a direction with noise around it: a linear head can tell nearly all held-out examples apart."""
    classes, d = 40, 24
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(classes, d, generator=generator)

    def examples(m: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(0, classes, (m,), generator=generator)
        return (centres[ids] + 0.3 * torch.randn(m, d, generator=generator)).to(dtype), ids

    head = make(row, dtype, d=d, n=classes)
    optimizer = optimizer_for(row, head)
    for _ in range(60):
        hidden, ids = examples(64)
        optimizer.zero_grad()
        head(hidden, ids).backward()
        optimizer.step()
    hidden, ids = examples(400)
    found = head.eval().top_k(hidden, 1)[1].squeeze(1)
    assert (found == ids).double().mean() > row.recall


@ROWS
@BIAS
def test_a_deep_copy_is_another_head(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of()
    twin, before = copy.deepcopy(head), head.scores(hidden)
    assert torch.equal(twin.scores(hidden), before)
    optimizer = optimizer_for(row, twin)
    loss_of(twin, hidden, RAGGED).backward()
    optimizer.step()
    assert torch.equal(head.scores(hidden), before)
    assert not torch.allclose(twin.scores(hidden), before)


@ROWS
@BIAS
def test_a_head_changes_its_type(row: Row, bias: bool) -> None:
    head, hidden = make(row, torch.float32, bias), hidden_of().detach()
    before = head.scores(hidden)
    assert before.dtype == torch.float32
    head.to(torch.float64)
    assert head.dtype == torch.float64
    after = head.scores(hidden.float())
    assert after.dtype == torch.float64
    assert torch.allclose(after.float(), before, rtol=1e-4, atol=1e-5)
    assert loss_of(head, hidden.float(), RAGGED).dtype == torch.float64


@ROWS
@TYPES
@BIAS
def test_a_linear_layer_ranks_alike_where_there_is_one(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype).detach()
    if not hasattr(head, "load_weight"):
        with pytest.raises(TypeError, match="no single nn"):
            head.to_linear()
        return
    linear = head.to_linear()
    assert (linear.bias is not None) == bias
    outputs = linear(hidden)
    other = make(row, dtype, bias, seed=7)
    other.load_weight(linear.weight, linear.bias)
    assert torch.allclose(other.to_linear()(hidden), outputs)
    if row.exact_lr is None:
        assert torch.allclose(head.scores(hidden), outputs, rtol=1e-4, atol=1e-5)


@LINEAR
@BIAS
def test_weights_are_copied_in_and_out(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of().detach()
    weight = torch.randn(D, WIDTH, dtype=torch.float64)
    given = weight.clone()
    head.load_weight(given)
    given.zero_()
    assert torch.allclose(head.weight(), weight)
    before = head.scores(hidden)
    head.weight().zero_()
    linear = head.to_linear()
    torch.nn.init.ones_(linear.weight)
    if bias:
        assert torch.equal(head.bias(), torch.zeros(D, dtype=torch.float64))
        head.bias().fill_(1.0)
        torch.nn.init.ones_(linear.bias)
    assert torch.equal(head.scores(hidden), before)


@LINEAR
@BIAS
def test_weights_of_another_shape_or_infinite_are_refused(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of().detach()
    before, weight = head.scores(hidden), torch.randn(D, WIDTH, dtype=torch.float64)
    infinite = weight.clone()
    infinite[3, 1] = torch.inf
    with pytest.raises(ValueError, match="should be finite"):
        head.load_weight(infinite)
    with pytest.raises(ValueError, match=r"`weight` should have shape \(60, 8\)"):
        head.load_weight(weight[1:])
    for wrong in [torch.zeros(D + 1), torch.zeros(D, 1), *([] if bias else [torch.zeros(D)])]:
        with pytest.raises(ValueError, match=r"`bias` should have shape \(60,\)"):
            head.load_weight(weight, wrong)
    assert torch.equal(head.scores(hidden), before)


@LINEAR
def test_a_bias_is_0_at_first(row: Row) -> None:
    if row.exact_lr is not None:
        pytest.skip("an exact head draws it like the weights")
    assert torch.equal(row.make(WIDTH, D, torch.float64, True).bias(), torch.zeros(D, dtype=torch.float64))


@ROWS
@pytest.mark.parametrize("sizes", [(5, 2), (4, 3), (7, 5)], ids=str)
def test_small_layers(row: Row, sizes: tuple[int, int]) -> None:
    d, n = sizes
    head, hidden = make(row, d=d, n=n), hidden_of(4, d)
    loss = loss_of(head, hidden, [[0], [n - 1], [], [0, 1]])
    loss.backward()
    assert torch.isfinite(loss)
    assert head.scores(hidden).shape == (4, n)
    assert head.top_k(hidden, n)[1].sort(dim=1).values.tolist() == [list(range(n))] * 4
