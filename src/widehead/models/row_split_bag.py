"""Sums of embeddings, one a bag of ids, of a table whose rows are split over processes.

Letters: P processes, m bags of this one, M of all, N input ids, nnz ids in all bags of all, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from widehead.arithmetic import TargetPlan
from widehead.errors import check_whole
from widehead.heads.contract import opaque, told
from widehead.heads.graph import differentiable_once
from widehead.split import (
    Batch,
    Form,
    RowSplit,
    as_split,
    draw_as_one,
    draw_table,
    first_table,
    gather_batch,
    gradient_of_rows,
    local,
    own_targets,
    split_by,
)
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_WHOLE = (torch.int64, torch.int32)


class RowSplitBag(nn.Module):
    """nn.EmbeddingBag whose rows are split over the processes of a mesh, ⌈N/P⌉ on each: ids (m bags) to (m, d).

    Each process sums its rows for the bags of all, and the sums are added up: M·d numbers in the forward pass, as many
    in the backward pass, and the ids. The parameter ``weight`` (N, d) is a DTensor, `Shard(0)`. Its gradient is that of
    the mean of the processes' losses, as in DistributedDataParallel; the bag itself stays outside of that.

    Args:
        num_embeddings: N.
        embedding_dim: d.
        mode: "sum" or "mean".
        sparse: gradients name the rows of the batch alone, for `widehead.optim.RowAdam`, `RowAdagrad` and
            torch.optim.SGD.
        include_last_offset: ``offsets`` end with the number of ids, as in nn.EmbeddingBag.
        mesh: a DeviceMesh of one dimension.
        device, dtype: as in torch.

    Raises:
        ValueError: a parameter out of range, or no mesh of one dimension.
        ProcessesError: processes make bags that differ.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        mesh: DeviceMesh,
        mode: str = "sum",
        sparse: bool = True,
        include_last_offset: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_whole("num_embeddings", num_embeddings)
        check_whole("embedding_dim", embedding_dim)
        if mode not in ("sum", "mean"):
            raise ValueError(f'Parameter `mode` should be "sum" or "mean" if rows are split. Found {mode!r}.')
        self.num_embeddings, self.embedding_dim, self.mode = num_embeddings, embedding_dim, mode
        self.sparse, self.include_last_offset = sparse, include_last_offset
        probe = torch.empty(0, device=device, dtype=dtype)
        self.split: RowSplit = split_by(mesh, num_embeddings, probe.device)
        self.split.check_same(f"RowSplitBag({self.extra_repr()}, {probe.dtype})")
        self.weight = first_table(self.split, Form(embedding_dim, probe.dtype, probe.device), 1.0, embedding_dim)

    @opaque
    @told
    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(m, d) sums or means of rows, zeros for a bag without ids.

        Args:
            input: (m, n) ids, or (nnz,) with ``offsets``.
            offsets: (m,) at which of the ids each bag begins.
            per_sample_weights: in the shape of ``input``, if the mode is "sum"; they have no gradient.

        Raises:
            TypeError, ValueError: ids that are not whole numbers below N, or shapes that do not fit.
            ProcessesError: another process refused what it was given, or did something else.
        """
        bags = self._bags(input, offsets, per_sample_weights)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        nothing = torch.empty(len(bags), 0, dtype=self.weight.dtype, device=self.weight.device)
        batch = gather_batch(self.split, Form.of(self.weight), nothing, bags, learns=learns, what="bags")
        sums: Tensor = _Sums.apply(self.weight, self.split, batch, self.sparse)
        return sums if self.mode == "sum" else sums / bags.counts.clamp(min=1)[:, None].to(sums.dtype)

    def _bags(self, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> SparseTargets:
        if not isinstance(input, Tensor) or input.dtype not in _WHOLE or input.ndim != (2 if offsets is None else 1):
            found = f"{input.dtype} {tuple(input.shape)}" if isinstance(input, Tensor) else type(input).__name__
            raise TypeError(f"`input` should be whole numbers, (m, n), or (nnz,) with `offsets`. Found {found}.")
        if input.numel() and not 0 <= int(input.min()) <= int(input.max()) < self.num_embeddings:
            raise ValueError(
                f"Ids should be from 0 to {self.num_embeddings - 1}. Found {int(input.min())} to {int(input.max())}."
            )
        if weights is not None and (self.mode != "sum" or weights.shape != input.shape or weights.requires_grad):
            raise ValueError(
                '`per_sample_weights` should have the shape of `input` and no gradient, with mode "sum". Found '
                f'{tuple(weights.shape)}, requires_grad={weights.requires_grad}, mode "{self.mode}".'
            )
        device = self.weight.device
        values = None if weights is None else weights.reshape(-1).to(device, self.weight.dtype)
        return SparseTargets._trusted(input.reshape(-1).to(device).long(), self._ends(input, offsets), values)

    def _ends(self, input: Tensor, offsets: Tensor | None) -> Tensor:
        """(m + 1,), all on this module's device."""
        device, count = self.weight.device, input.numel()
        if offsets is None:
            return torch.arange(len(input) + 1, device=device) * input.shape[1]
        if offsets.ndim != 1 or offsets.dtype not in _WHOLE:
            raise TypeError(f"`offsets` should be (m,) whole numbers. Found {offsets.dtype} {tuple(offsets.shape)}.")
        ends = (
            offsets.to(device).long()
            if self.include_last_offset
            else pad(offsets.to(device).long(), (0, 1), value=count)
        )
        if not len(ends) or int(ends[0]) != 0 or int(ends[-1]) != count or bool((ends.diff() < 0).any()):
            last = f", end with {count}" if self.include_last_offset else ""
            raise ValueError(
                f"`offsets` should begin with 0, not fall{last}. Found {offsets.tolist()[:8]} for {count} ids."
            )
        return ends

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the rows anew, from N(0, 1): the same however many processes there are."""
        self.split.meet("drawing", rows=Form.of(self.weight))
        draw_table(self.split, local(self.weight), 1.0, self.embedding_dim)

    @torch.no_grad()
    def draw_as_one(self, state: Tensor, std: float) -> Tensor:
        """Draw the rows anew as one process with all of them does, from N(0, std²).

        Args:
            state: of torch's generator of the CPU, the same in all processes; it comes back as it is afterwards.
        """
        here = local(self.weight)

        def put(start: int, rows: Tensor) -> None:
            here[start : start + len(rows)] = rows

        return draw_as_one(self.split, Form.of(here), std, state, put)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Of a state whose rows were split over other processes, or not at all, the rows here."""
        given, error_msgs = state_dict.get(prefix + "weight"), rest[-1]
        if given is not None:
            state_dict = {**state_dict, prefix + "weight": as_split(self.split, self.weight, given)}
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if error_msgs:
            self.refused(ValueError(error_msgs[-1]))

    def refused(self, error: Exception) -> None:
        """Other processes hear of it."""
        self.split.tell(error, Form.of(self.weight))

    def extra_repr(self) -> str:
        made = f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode!r}, sparse={self.sparse}"
        return f"{made}, processes={self.split.size}"


class _Sums(torch.autograd.Function):
    """(table, split, the bags of all, whether gradients are sparse) → this process's sums (m, d)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, split: RowSplit, batch: Batch, sparse: bool) -> Tensor:
        mine, bags = local(table), batch.targets
        own, chosen = own_targets(split, bags)
        values = bags.values_or_ones(mine.dtype)[chosen]
        ctx.table, ctx.split, ctx.sparse, ctx.examples = table.detach(), split, sparse, batch.examples
        ctx.plan, ctx.values = TargetPlan.of(own), values
        return split.sums_of_parts(ctx.plan.times(values, mine[ctx.plan.class_ids]), batch.examples, "sums")

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, by_sums: Tensor) -> Any:
        """Of the mean of all processes' losses, as torch averages the gradients of encoders."""
        split, plan = ctx.split, ctx.plan
        split.meet("backward", rows=Form.of(ctx.table))
        joint = split.all_rows(by_sums, ctx.examples, "gradients of sums") / split.size
        rows = plan.transposed_times(ctx.values, joint)
        return gradient_of_rows(ctx.table, plan.class_ids, rows, sparse=ctx.sparse), None, None, None
