"""The adaptive softmax against torch.nn.AdaptiveLogSoftmaxWithLoss on classes relabelled by hand."""

from __future__ import annotations

import pytest
import torch

import widehead as wh

D, WIDTH, M = 90, 16, 7


def make(**options: object) -> tuple[wh.AdaptiveSoftmaxHead, torch.Tensor]:
    torch.manual_seed(0)
    frequencies = torch.rand(D)
    head = wh.AdaptiveSoftmaxHead(WIDTH, D, frequencies=frequencies, dtype=torch.float64, **options)
    return head, torch.argsort(torch.argsort(frequencies, descending=True))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cutoffs", [None, [10], [5, 20, 60]])
def test_losses_and_gradients_are_those_of_torch(bias: bool, cutoffs: list[int] | None) -> None:
    head, ranks = make(bias=bias, cutoffs=cutoffs, div_value=2.0)
    assert (head.softmax.head.bias is not None) == bias
    hidden = torch.randn(M, WIDTH, dtype=torch.float64, requires_grad=True)
    ids = torch.argsort(ranks)[torch.tensor([0, 4, 5, 19, 20, 60, 89])]
    weight = torch.rand(M, dtype=torch.float64)
    leaves = (hidden, *head.parameters())
    losses = head(hidden, ids, reduction="none")
    expected = -head.softmax(hidden, ranks[ids]).output
    assert torch.allclose(losses, expected)
    ours = torch.autograd.grad((losses * weight).sum(), leaves)
    theirs = torch.autograd.grad((expected * weight).sum(), leaves)
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.allclose(head.scores(hidden), head.softmax.log_prob(hidden)[:, ranks])


def test_gradcheck_with_several_targets() -> None:
    head, _ = make(div_value=2.0)
    targets = wh.SparseTargets.from_lists([[1, 89, 1], [], [3, 50]], [[1.0, 0.5, 2.0], [], [0.0, 1.0]])
    hidden = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: head(h, targets, reduction="none"), hidden)


def test_a_cluster_without_targets_has_no_gradient() -> None:
    head, ranks = make(cutoffs=[10, 30])
    ids = torch.argsort(ranks)[torch.tensor([0, 9, 12])]
    head(torch.randn(3, WIDTH, dtype=torch.float64), ids).backward()
    given = {name.split(".")[2] for name, p in head.named_parameters() if "tail" in name and p.grad is not None}
    assert given == {"0"}


@pytest.mark.parametrize(
    ("in_features", "num_classes", "cutoffs"),
    [(64, 1_000, (15, 125)), (64, 33_278, (519, 4_159)), (8, 1_000, (15,)), (64, 40, (1, 5)), (64, 2, (1,))],
)
def test_default_cutoffs(in_features: int, num_classes: int, cutoffs: tuple[int, ...]) -> None:
    head = wh.AdaptiveSoftmaxHead(in_features, num_classes)
    assert head.cutoffs == cutoffs
    assert all(projection.out_features >= 1 for projection, _ in head.softmax.tail)


@pytest.mark.parametrize("cutoffs", [[], [0, 5], [5, 5], [9, 3], [D], [2.5]])
def test_wrong_cutoffs_are_refused(cutoffs: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Parameter `cutoffs` should hold rising whole numbers in \[1, 89\]"):
        wh.AdaptiveSoftmaxHead(WIDTH, D, cutoffs=cutoffs)


def test_a_cluster_without_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one unit"):
        wh.AdaptiveSoftmaxHead(WIDTH, D, cutoffs=[5, 10, 20])
    with pytest.raises(ValueError, match="at least one unit"):
        wh.AdaptiveSoftmaxHead(3, D)


@pytest.mark.parametrize("value", [0.5, float("inf"), float("nan")])
def test_wrong_div_values_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Parameter `div_value` should be at least 1"):
        wh.AdaptiveSoftmaxHead(WIDTH, D, div_value=value)


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        wh.AdaptiveSoftmaxHead(WIDTH, 1)


@pytest.mark.parametrize("m", [1, 2, 9])
@pytest.mark.parametrize("targets", [1, 6])
def test_log_probs_of_several_targets_are_those_of_all_scores(m: int, targets: int) -> None:
    """An example may have several in a cluster, and some in one cluster and the next."""
    head, _ = make(cutoffs=[5, 20, 60], div_value=2.0)
    for _ in range(5):
        hidden, ids = torch.randn(m, WIDTH, dtype=torch.float64), torch.randint(D, (m, targets))
        found = head.log_prob(hidden, ids)
        assert torch.allclose(found, head.scores(hidden).gather(1, ids), rtol=1e-10, atol=1e-12)
