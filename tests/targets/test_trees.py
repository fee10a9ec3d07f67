"""SparseTargets among torch's containers: trees of tensors, DataLoaders, torch.compile and torch.export."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.played import Device
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, StackDataset, default_collate

from widehead.models import BagEncoder
from widehead.targets import SparseTargets

VALUED = SparseTargets([3, 1, 4], [0, 2, 2, 3], [0.5, 1.0, -2.0])
PLAIN = SparseTargets([3, 1, 4], [0, 2, 2, 3])
BOTH = pytest.mark.parametrize("targets", [VALUED, PLAIN], ids=["values", "plain"])


def same(a: SparseTargets, b: SparseTargets) -> bool:
    values = (a.values is None) == (b.values is None) and (a.values is None or torch.equal(a.values, b.values))
    return torch.equal(a.class_ids, b.class_ids) and torch.equal(a.offsets, b.offsets) and values


@BOTH
def test_a_tree_of_tensors_goes_through_them(targets: SparseTargets) -> None:
    batch = {"x": torch.ones(3, 2), "y": [targets]}
    seen: list[torch.Tensor] = []
    copied = pytree.tree_map(lambda part: seen.append(part) or part.clone(), batch)
    assert len(seen) == 1 + (2 if targets.values is None else 3)
    assert all(isinstance(part, torch.Tensor) for part in seen)
    assert same(copied["y"][0], targets)
    assert copied["y"][0].class_ids is not targets.class_ids
    leaves, tree = pytree.tree_flatten(batch)
    assert same(pytree.tree_unflatten(leaves, pytree.treespec_loads(pytree.treespec_dumps(tree)))["y"][0], targets)


def test_the_leaves_have_names() -> None:
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path({"y": VALUED})[0]]
    assert paths == ["['y'].class_ids", "['y'].offsets", "['y'].values"]


def test_what_a_tree_gives_back_is_not_taken_for_checked(played: Device) -> None:
    """A leaf may have been changed: an id that is now out of range is found, on a GPU too."""
    moved = pytree.tree_map(lambda part: part.to("cuda"), SparseTargets([3, 1], [0, 1, 2]))
    raised = pytree.tree_map(lambda part: part + 5 * (part.shape == (2,)), moved)
    moved.check_classes(4)
    with pytest.raises(ValueError, match="Class ids should be in"):
        raised.check_classes(4)


@BOTH
@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_makes_batches_of_them(targets: SparseTargets, workers: int) -> None:
    data = StackDataset(torch.arange(3), targets)
    loaded = list(DataLoader(data, batch_size=2, num_workers=workers))
    assert [x.tolist() for x, _ in loaded] == [[0, 1], [2]]
    assert same(SparseTargets.concatenate([y for _, y in loaded]), targets)
    assert len(default_collate([{"y": targets}, {"y": targets}])["y"]) == 6


@BOTH
def test_a_data_loader_pins_them(targets: SparseTargets, played: Device) -> None:
    (batch,) = DataLoader(StackDataset(torch.arange(3), targets), batch_size=3, pin_memory=True)
    # The loader pins in a thread, if there is a GPU; here is what it calls.
    pinned = batch[1].pin_memory()
    assert pinned.is_pinned()
    assert not targets.is_pinned()
    assert pinned.offsets.is_pinned()
    assert pinned.values is None or pinned.values.is_pinned()
    assert same(copy.deepcopy(targets), targets)
    moved = pinned.to("cuda")
    assert moved.to("cpu").to_lists() == targets.to_lists()


def test_what_was_known_stays_known_in_pinned_memory(played: Device) -> None:
    pinned = SparseTargets([2, 2], [0, 2]).coalesced().pin_memory()
    assert pinned.coalesced() is pinned
    moved = pinned.to("cuda")
    with played.counting() as seen:
        moved.check_classes(3)
    assert seen.waits == []


@BOTH
def test_an_encoder_of_bags_is_exported_for_any_number_of_bags(targets: SparseTargets) -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(6, 4, hidden=(5,), activation="tanh").eval()
    nnz, rows = torch.export.Dim("nnz"), torch.export.Dim("rows", min=3)
    shapes: Any = [{0: nnz}, {0: rows}] if targets.values is None else [{0: nnz}, {0: rows}, {0: nnz}]
    with torch.no_grad():
        exported = torch.export.export(encoder, (targets,), dynamic_shapes=(shapes,))
    more = SparseTargets.concatenate([targets, targets[[2, 1, 0]], targets[1:]])
    torch.testing.assert_close(exported.module()(more), encoder(more))


def test_a_function_of_them_compiles_as_one_graph() -> None:
    @torch.compile(backend="eager", fullgraph=True)
    def total(batch: dict[str, Any]) -> torch.Tensor:
        return pytree.tree_leaves(batch)[0].sum() + batch["y"].values_or_ones(torch.float32).sum()

    assert float(total({"y": VALUED})) == pytest.approx(7.5)
