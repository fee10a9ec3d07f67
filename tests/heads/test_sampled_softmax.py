"""Sampled softmax: gradients given the draws, the normaliser's unbiasedness, the loss's stated bias."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import widehead as wh
from widehead.heads.sampled import accidental_hits
from widehead.sampling import QuadraticSampler, Sampler, UnigramSampler

D, WIDTH = 30, 4
FREQUENCIES = 1.0 / torch.arange(1.0, D + 1.0)
LISTS = [[2], [5, 0], [], [29, 29, 7]]
REPEATS = pytest.mark.parametrize("repeats", [400, pytest.param(2_000, marks=pytest.mark.long)])
SAMPLERS = ["log-uniform", "uniform", "unigram", "in-batch", "quadratic"]


def make(sampler: str = "log-uniform", **options: object) -> wh.SampledSoftmaxHead:
    torch.manual_seed(0)
    frequencies = FREQUENCIES if sampler in ("unigram", "in-batch") else None
    given = {"negatives": 12, "dtype": torch.float64, "frequencies": frequencies, **options}
    head = wh.SampledSoftmaxHead(WIDTH, D, sampler=sampler, **given)  # type: ignore[arg-type]
    with torch.no_grad():
        head.table.mul_(3.0)
    return head


def hidden_layer(m: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(m, WIDTH, dtype=torch.float64)


class Fixed(Sampler):
    """Always the same draws, with the probabilities of another sampler."""

    def __init__(self, ids: Tensor, source: Sampler) -> None:
        super().__init__(source.num_classes)
        self.ids, self.source = ids, source

    def sample(self, n: int) -> Tensor:
        return self.ids

    def log_prob(self, class_ids: Tensor) -> Tensor:
        return self.source.log_prob(class_ids)


def by_hand(head: wh.SampledSoftmaxHead, table: Tensor, hidden: Tensor, ids: list[int], log_q: Tensor) -> Tensor:
    """Losses (m,) of LISTS, term by term as the docstring defines them; log_q (D,)."""
    if head.has_bias:
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
    outputs, losses = hidden @ table.T, []
    for b, targets in enumerate(LISTS):
        n = sum(map(len, LISTS)) - len(targets) if head.in_batch else len(ids)
        terms = [outputs[b, j].exp() / (n * log_q[j].exp()) for j in ids if j not in targets]
        own = [torch.log(outputs[b, y].exp() + sum(terms)) - outputs[b, y] for y in targets]
        losses.append(sum(own, outputs.new_zeros(())) / max(1, len(own)))
    return torch.stack(losses)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sampler", ["log-uniform", "uniform", "unigram", "in-batch"])
def test_loss_and_gradients_are_those_of_the_definition(sampler: str, bias: bool) -> None:
    head, hidden = make(sampler, bias=bias), hidden_layer().requires_grad_()
    ids = torch.tensor([0, 5, 5, 29, 1, 2, 2, 11, 17, 0, 8, 3])
    if not head.in_batch:
        head.sampler = Fixed(ids, head.sampler)  # type: ignore[arg-type]
    drawn = [c for row in LISTS for c in row] if head.in_batch else ids.tolist()
    table = head.table.detach().clone().requires_grad_()
    log_q = head.sampler.log_prob(torch.arange(D))  # type: ignore[operator]
    weight = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    expected = by_hand(head, table, hidden, drawn, log_q)
    found = head(hidden, LISTS, reduction="none")
    torch.testing.assert_close(found, expected)
    by_table, by_hidden = torch.autograd.grad((expected * weight).sum(), [table, hidden])
    sparse, found_by_hidden = torch.autograd.grad((found * weight).sum(), [head.table, hidden])
    assert sparse.is_sparse
    torch.testing.assert_close(sparse.to_dense(), by_table)
    torch.testing.assert_close(found_by_hidden, by_hidden)


def test_gradcheck() -> None:
    head = make()
    head.sampler = Fixed(torch.tensor([4, 2, 2, 0, 19]), head.sampler)  # type: ignore[arg-type]
    head.negatives, head.sparse = 5, False
    assert torch.autograd.gradcheck(lambda h, _: head(h, LISTS), (hidden_layer().requires_grad_(), head.table))


def test_the_gradient_has_rows_for_targets_and_negatives_only() -> None:
    head = make(negatives=7)
    head(hidden_layer(), LISTS).backward()
    assert head.table.grad._nnz() == 6 + 7


def test_accidental_hits_are_all_found() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        negatives = torch.randint(6, (9,))
        for lists in ([[0, 1], [], [5], [3, 3]], [[2], [], [5], [2]], [[], []]):
            found = accidental_hits(negatives, wh.SparseTargets.from_lists(lists))
            assert found.tolist() == [[int(j) in row for j in negatives] for row in lists]


def log_normalizers(head: wh.SampledSoftmaxHead, hidden: Tensor, targets: list[list[int]]) -> Tensor:
    """(m,) log Ẑ of the first target of each example."""
    prepared = wh.SparseTargets.from_lists(targets)
    positive, negative = head.corrected(hidden, prepared)
    return torch.logaddexp(positive[prepared.offsets[:-1]], negative.logsumexp(1))


def true_normalizers(head: wh.SampledSoftmaxHead, hidden: Tensor, targets: list[list[int]]) -> Tensor:
    """(m,) exp(o_y) of the first target plus the sum over all classes that are not targets."""
    outputs = head.scores(hidden).detach()
    rows = [[j for j in range(D) if j not in row[1:]] for row in targets]
    return torch.stack([outputs[b, row].exp().sum() for b, row in enumerate(rows)])


@pytest.mark.parametrize("sampler", ["log-uniform", "uniform", "unigram", "quadratic", "stale quadratic"])
@REPEATS
def test_the_normaliser_is_unbiased(sampler: str, repeats: int) -> None:
    """Within 4 standard errors, with one target and with several."""
    head, hidden, targets = make(sampler.split()[-1], refresh_every=10**6), hidden_layer(2), [[3], [0, 7]]
    if sampler == "stale quadratic":
        head.sampler.refresh(torch.randn_like(head.table))  # type: ignore[operator]
    with torch.no_grad():
        draws = torch.stack([log_normalizers(head, hidden, targets) for _ in range(repeats)]).exp()
    error = (draws.mean(0) - true_normalizers(head, hidden, targets)).abs()
    assert bool((error < 4.0 * draws.std(0) / math.sqrt(repeats)).all())


def test_the_normaliser_of_in_batch_negatives_is_unbiased() -> None:
    """Over batches whose other targets are drawn by frequency: within 4 standard errors over 2,000 batches."""
    head, hidden = make("in-batch"), hidden_layer(1).expand(9, -1)
    source = UnigramSampler(FREQUENCIES, alpha=1.0)
    with torch.no_grad():
        draws = [log_normalizers(head, hidden, [[3], *([j] for j in source.sample(8).tolist())]) for _ in range(2000)]
    first = torch.stack(draws)[:, 0].exp()
    error = (first.mean() - true_normalizers(head, hidden[:1], [[3]])).abs()
    assert float(error) < 4.0 * float(first.std()) / math.sqrt(2000)


def test_the_loss_is_too_low_by_half_the_relative_variance() -> None:
    """bias = −½ Var(Ẑ)/Z² + O(n⁻²): to 4 standard errors and 2/n of it, over 60,000 repeats; so 4 times less at 4n.

    Repeats are computed at once by the definition, of which the first is checked against the head.
    """
    biases = []
    for n in (64, 256):
        head, hidden = make("uniform", negatives=n), hidden_layer(1)
        outputs = head.scores(hidden)[0].detach()
        others = torch.where(torch.arange(D) == 3, 0.0, outputs.exp())
        exact = float(outputs.logsumexp(0) - outputs[3])
        torch.manual_seed(n)
        ids = torch.randint(D, (60_000, n))
        losses = (others[ids].sum(1) * D / n + outputs[3].exp()).log() - outputs[3]
        head.sampler = Fixed(ids[0], head.sampler)  # type: ignore[arg-type]
        torch.testing.assert_close(head(hidden, [[3]]).detach(), losses[0])
        bias, error = float(losses.mean()) - exact, float(losses.std()) / math.sqrt(60_000)
        variance = float((others**2).sum() * D - others.sum() ** 2) / n
        predicted = -0.5 * variance / math.exp(2.0 * float(outputs.logsumexp(0)))
        assert bias + 4.0 * error < 0.0
        assert abs(bias - predicted) < 4.0 * error + 2.0 / n * abs(predicted)
        biases.append(bias)
    assert 3.0 < biases[0] / biases[1] < 5.5


@pytest.mark.parametrize("sampler", ["log-uniform", "uniform", "unigram", "quadratic"])
def test_many_negatives_give_the_full_softmax(sampler: str) -> None:
    head, hidden = make(sampler, negatives=200_000), hidden_layer(3)
    targets = torch.tensor([3, 0, 12])
    sampled = head(hidden, targets, reduction="none")
    full = head.eval()(hidden, targets, reduction="none")
    torch.testing.assert_close(
        full, torch.nn.functional.cross_entropy(hidden @ head.table.T, targets, reduction="none")
    )
    torch.testing.assert_close(sampled, full, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hostile_outputs_and_hits_everywhere(sampler: str) -> None:
    for size in (0.0, 1.0, 1e2):
        head = make(sampler, dtype=torch.float32)
        hidden = (size * hidden_layer().float()).requires_grad_()
        with torch.no_grad():
            head.table.mul_(size)
        loss = head(hidden, LISTS)
        loss.backward()
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(hidden.grad).all())
        assert bool(torch.isfinite(head.table.grad.to_dense()).all())
    if sampler not in ("in-batch", "quadratic"):
        head.sampler = Fixed(torch.full((12,), 2), head.sampler)  # type: ignore[arg-type]
    alone = head(hidden[:1], [[2]])  # in-batch and fixed draws leave nothing but hits
    assert sampler == "quadratic" or alone.item() == 0.0
    alone.backward()
    assert bool(torch.isfinite(hidden.grad).all())


def test_an_example_of_all_hits_has_loss_and_gradient_zero() -> None:
    head, hidden = make(), hidden_layer(1).requires_grad_()
    head.sampler = Fixed(torch.tensor([2] * 12), head.sampler)  # type: ignore[arg-type]
    loss = head(hidden, [[2]])
    (by_hidden,) = torch.autograd.grad(loss, hidden)
    assert loss.item() == 0.0
    assert float(by_hidden.abs().max()) == 0.0


def test_loading_weights_makes_a_fresh_tree() -> None:
    head = make("quadratic")
    assert isinstance(head.sampler, QuadraticSampler)
    head.load_weight(torch.eye(D, WIDTH))
    assert int(head.sampler.age) == 0
    assert float(head.sampler.grams.sum()) == WIDTH


def test_the_tree_is_made_again_as_often_as_asked_for() -> None:
    head, ages = make("quadratic", refresh_every=2), []
    for _ in range(4):
        head(hidden_layer(), LISTS)
        ages.append(int(head.sampler.age))  # type: ignore[arg-type]
    assert ages == [1, 2, 1, 2]


def test_training_with_sparse_adam_lowers_the_full_loss() -> None:
    head = make("unigram", negatives=20)
    optimizer = torch.optim.SparseAdam(list(head.parameters()), lr=0.05)
    hidden, targets = hidden_layer(16), torch.arange(16)
    before = head.eval()(hidden, targets).item()
    head.train()
    for _ in range(100):
        optimizer.zero_grad()
        head(hidden, targets).backward()
        optimizer.step()
    assert head.eval()(hidden, targets).item() < 0.5 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "zipf"}, "Parameter `sampler` should be one of \"log-uniform\", .*Found 'zipf'"),
        ({"negatives": 0}, "Parameter `negatives`"),
        ({"sampler": "unigram"}, "Parameter `frequencies` should be given"),
        ({"sampler": "in-batch"}, "Parameter `frequencies` should be given"),
        ({"sampler": "uniform", "frequencies": FREQUENCIES}, "of no use"),
        ({"sampler": "quadratic", "frequencies": FREQUENCIES}, "of no use"),
        ({"sampler": "unigram", "frequencies": FREQUENCIES[1:]}, r"Found \(29,\)"),
        ({"sampler": "unigram", "frequencies": [1.0] * 31}, r"Found \(31,\)"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wh.SampledSoftmaxHead(WIDTH, D, **options)  # type: ignore[arg-type]
