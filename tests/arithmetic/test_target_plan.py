"""The plan of a batch's targets: every product beside a dense S, whatever the sizes of blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from widehead.arithmetic import TORCH, Arithmetic, TargetPlan, find_compiled
from widehead.targets import SparseTargets

# Those who make a plan; the compiled one's products are in C for float32 alone.
MAKERS = [pytest.param(made, id=type(made).__name__) for made in (TORCH, find_compiled()) if made is not None]
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
@pytest.mark.parametrize("maker", MAKERS)
def test_products_beside_a_dense_matrix(
    lists: list[list[int]], small: int, buffer: int, dtype: torch.dtype, maker: Arithmetic
) -> None:
    torch.manual_seed(0)
    targets = SparseTargets.from_lists(lists)
    plan, m, d = maker.plan_targets(targets), len(lists), 300
    n, nnz = plan.class_ids.numel(), targets.class_ids.numel()
    values, of_examples, of_classes = (torch.randn(*shape, dtype=dtype) for shape in ((nnz,), (m, d), (n, d)))
    s = dense(plan, values, m)
    found = {
        "times": (plan.times(values, of_classes), s @ of_classes),
        "transposed_times": (plan.transposed_times(values, of_examples), s.T @ of_examples),
        "transposed_times onto": (
            plan.transposed_times(values, of_examples, of_classes),
            s.T @ of_examples + of_classes,
        ),
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
@pytest.mark.parametrize("maker", MAKERS)
def test_what_the_plan_says(lists: list[list[int]], maker: Arithmetic) -> None:
    targets = SparseTargets.from_lists(lists)
    plan = maker.plan_targets(targets)
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
@pytest.mark.parametrize("maker", MAKERS)
def test_equal_terms_of_a_class_are_summed_in_pieces(count: int, dtype: torch.dtype, maker: Arithmetic) -> None:
    """One by one, while a sum doubles all terms would be rounded in one direction: n/4 units and more."""
    targets = SparseTargets.from_lists([[5, *[2] * (count - 1)], [], [2, 7, 7]])
    plan = maker.plan_targets(targets)
    right = torch.tensor([[0.1, -0.3], [1e3, 1e3], [0.1, -0.3]], dtype=dtype)
    found = plan.transposed_times(torch.ones(len(targets.class_ids), dtype=dtype), right)
    times = torch.tensor([count, 1, 2], dtype=dtype)
    assert plan.class_ids.tolist() == [2, 5, 7]
    units = (found / (times[:, None] * right[0]) - 1.0).abs().max() / (torch.finfo(dtype).eps / 2)
    assert float(units) <= 40 + count / 128


@pytest.mark.parametrize("maker", MAKERS)
def test_small_terms_are_summed_before_they_meet_a_large_row(maker: Arithmetic) -> None:
    """Each below half a unit of the row: one after the other, all of them would be lost."""
    plan = maker.plan_targets(SparseTargets.from_lists([[0] * 40, [0] * 8]))
    small, large = torch.full((2, 5), 2.0**-25), torch.ones(1, 5)
    assert torch.equal(plan.transposed_times(torch.ones(48), small, large), large + 48 * 2.0**-25)


@pytest.mark.parametrize("maker", MAKERS)
def test_many_classes_with_many_examples(maker: Arithmetic) -> None:
    """Classes whose sums come in one piece, in several, and in none of the threads' parts alone."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.rand(600, 9, generator=generator).pow(4).mul(500).long()
    plan = maker.plan_targets(SparseTargets.from_ids(ids))
    values, right = torch.randn(5400, generator=generator), torch.randn(600, 41, generator=generator)
    threads = torch.get_num_threads()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            sums = dense(plan, values.double(), 600).T @ right.double()
            torch.testing.assert_close(plan.transposed_times(values, right).double(), sums, rtol=1e-5, atol=1e-4)
            gram = dense(plan, values.double(), 600) @ sums
            torch.testing.assert_close(plan.gram_times(values, right).double(), gram, rtol=1e-5, atol=1e-3)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("odd", [1.0, 1e-17, 3e15, 0.0])
@pytest.mark.parametrize("columns", [1, 16, 17, 100])
@pytest.mark.parametrize("maker", MAKERS)
def test_classes_of_one_example_each(maker: Arithmetic, columns: int, odd: float) -> None:
    """Their part is diagonal, unless a square of a weight is beyond float32; more threads than blocks of columns."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.cat([torch.randperm(900, generator=generator), torch.tensor([3, 3, 700])]).view(43, 21)
    plan = maker.plan_targets(SparseTargets.from_ids(ids))
    values, right = torch.randn(903, generator=generator), torch.randn(43, columns, generator=generator)
    values[[0, 450]] = odd
    scale = torch.ones(43, dtype=torch.float64)
    scale[plan.examples[[0, 450]]] = max(1.0, odd * odd)
    dense_s = dense(plan, values.double(), 43)
    expected = dense_s @ (dense_s.T @ right.double())
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            found = plan.gram_times(values, right).double()
            torch.testing.assert_close(found / scale[:, None], expected / scale[:, None], rtol=1e-5, atol=1e-3)
    finally:
        torch.set_num_threads(threads)
