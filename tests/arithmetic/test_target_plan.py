"""The plan of a batch's targets: every product beside a dense S, whatever the sizes of blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from widehead.arithmetic import TargetPlan
from widehead.targets import SparseTargets

LISTS = {
    "ragged": [[4, 1, 9], [], [1], [9, 0, 4, 7]],
    "repeated": [[3, 3], [3, 1, 3], [1]],
    "one each": [[5], [2], [8]],
    "more than pairs": [[3, 8, 8, 3, 8], [], [8] * 9, [8]],
    "one pair": [[6] * 7],
    "none": [[], []],
}


def dense(plan: TargetPlan, values: Tensor, m: int) -> Tensor:
    return values.new_zeros(m, plan.class_ids.numel()).index_put_((plan.examples, plan.positions), values, True)


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS.keys())
@pytest.mark.parametrize(("small", "buffer"), [(1 << 16, 1 << 20), (0, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_beside_a_dense_matrix(lists: list[list[int]], small: int, buffer: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    targets = SparseTargets.from_lists(lists)
    plan, m, d = TargetPlan.of(targets), len(lists), 70
    n, nnz = plan.class_ids.numel(), targets.class_ids.numel()
    values, of_examples, of_classes = (torch.randn(*shape, dtype=dtype) for shape in ((nnz,), (m, d), (n, d)))
    s = dense(plan, values, m)
    found = {
        "times": (plan.times(values, of_classes), s @ of_classes),
        "transposed_times": (plan.transposed_times(values, of_examples), s.T @ of_examples),
        "gram_times": (plan.gram_times(values, of_examples, buffer), s @ (s.T @ of_examples)),
        "dots": (
            plan.dots(of_examples, of_classes, small),
            (of_examples @ of_classes.T)[plan.examples, plan.positions],
        ),
        "class_sums": (plan.class_sums(values), s.sum(0)),
        "row_sums": (plan.row_sums(values), s.sum(1)),
    }
    for name, (product, expected) in found.items():
        torch.testing.assert_close(product, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS.keys())
def test_what_the_plan_says(lists: list[list[int]]) -> None:
    targets = SparseTargets.from_lists(lists)
    plan = TargetPlan.of(targets)
    flat = [c for row in lists for c in row]
    assert plan.class_ids.tolist() == sorted(set(flat))
    assert plan.class_ids[plan.positions].tolist() == flat
    assert plan.examples.tolist() == [b for b, row in enumerate(lists) for _ in row]
    ordered = sorted(range(len(flat)), key=lambda t: flat[t])
    assert plan.by_class.tolist() == ordered
    assert plan.examples_by_class.tolist() == [plan.examples[t].item() for t in ordered]
    assert plan.class_offsets.diff().tolist() == [flat.count(c) for c in sorted(set(flat))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [64, 65, 128, 5_000, 20_001])
def test_equal_terms_of_a_class_are_summed_in_pieces(count: int, dtype: torch.dtype) -> None:
    """One by one, while a sum doubles all terms would be rounded in one direction: n/4 units and more."""
    targets = SparseTargets.from_lists([[5, *[2] * (count - 1)], [], [2, 7, 7]])
    plan = TargetPlan.of(targets)
    right = torch.tensor([[0.1, -0.3], [1e3, 1e3], [0.1, -0.3]], dtype=dtype)
    found = plan.transposed_times(torch.ones(len(targets.class_ids), dtype=dtype), right)
    times = torch.tensor([count, 1, 2], dtype=dtype)
    assert plan.class_ids.tolist() == [2, 5, 7]
    units = (found / (times[:, None] * right[0]) - 1.0).abs().max() / (torch.finfo(dtype).eps / 2)
    assert float(units) <= 40 + count / 128
