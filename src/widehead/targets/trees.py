"""SparseTargets among torch's containers: a node of its trees of tensors, and what a DataLoader makes a batch of."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data._utils.collate import default_collate_fn_map

from widehead.targets.sparse import SparseTargets

_NAMES = ("class_ids", "offsets", "values")


def _flat(targets: SparseTargets) -> tuple[list[Tensor], bool]:
    """The tensors, and whether there are values: None would be a leaf, which functions of tensors do not take."""
    tensors = [targets.class_ids, targets.offsets]
    return tensors if targets.values is None else [*tensors, targets.values], targets.values is not None


def _flat_with_keys(targets: SparseTargets) -> tuple[list[tuple[pytree.KeyEntry, Any]], bool]:
    tensors, valued = _flat(targets)
    return [(pytree.GetAttrKey(name), part) for name, part in zip(_NAMES, tensors, strict=False)], valued


def _whole(parts: Any, valued: bool) -> SparseTargets:
    """Not checked: a tree's leaves may be anything for a while."""
    class_ids, offsets, *values = parts
    return SparseTargets._trusted(class_ids, offsets, values[0] if valued else None)


def _collated(batch: Sequence[SparseTargets], *, collate_fn_map: Any = None) -> SparseTargets:
    return SparseTargets.concatenate(batch)


pytree.register_pytree_node(
    SparseTargets, _flat, _whole, serialized_type_name="widehead.SparseTargets", flatten_with_keys_fn=_flat_with_keys
)
default_collate_fn_map[SparseTargets] = _collated  # as torch's documentation of it says
