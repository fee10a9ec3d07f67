"""What optimisers of tables share if a step touches few rows: the loop over sparse gradients, and their rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.errors import check_number
from widehead.optim.light import LightOptimizer
from widehead.split import local


class RowOptimizer(LightOptimizer, ABC):
    """Changes the rows that have a gradient, in place, by a rule of its own; all others stay as they are.

    Args:
        params: as in torch; each needs gradients that are sparse in their rows (``sparse=True`` of nn.Embedding).
        lr: step size.
        eps: added to the root of what the rule sums or averages.
        options: what else stands in each parameter group.
    """

    def __init__(self, params: Iterable[Any], lr: float, eps: float, **options: Any) -> None:
        check_number("lr", lr)
        check_number("eps", eps)
        if isinstance(params, torch.nn.Module):
            name = type(params).__name__
            raise TypeError(
                f"{type(self).__name__} should be given parameters. Found {name}: give {name}.parameters()."
            )
        super().__init__(params, {"lr": lr, "eps": eps, **options})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch."""
        super().add_param_group(param_group)
        self._watch(self.param_groups[-1:])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._watch(self.param_groups)

    @staticmethod
    def _watch(groups: list[dict[str, Any]]) -> None:
        """Make gradients that torch can clip, from the next backward pass on."""
        for parameter in (p for group in groups for p in group["params"] if p.requires_grad and p.is_leaf):
            if _make_clippable not in (parameter._post_accumulate_grad_hooks or {}).values():
                parameter.register_post_accumulate_grad_hook(_make_clippable)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Change the rows that have a gradient.

        Raises:
            TypeError: a gradient is not sparse in its rows; no parameter of its group or of later ones was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            found = [(p, _sparse_rows(p.grad, type(self).__name__, group["lr"])) for p in given]
            for parameter, (ids, gradient) in found:
                self._change(parameter, ids, gradient, group)
        return loss

    @abstractmethod
    def _change(self, parameter: Tensor, ids: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Apply the rule to rows ``ids`` (n,), distinct, of a parameter, by their ``gradient`` (n, …)."""


class RowGradient(Tensor):
    """A gradient that is sparse in its rows and has a norm, which torch's own sparse tensors have not.

    So torch's clipping takes it, and what trainers make of that.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.linalg.vector_norm:
                args = values_of(args[0]), *args[1:]
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return memo.setdefault(id(self), self.clone())  # one of torch's


def _make_clippable(parameter: Tensor) -> None:
    """After a backward pass."""
    if (gradient := parameter.grad) is not None and gradient.is_sparse and type(gradient) is Tensor:
        gradient.__class__ = RowGradient  # a sparse tensor has no storage that torch makes a subclass of


def _sparse_rows(gradient: Tensor, optimizer: str, lr: float) -> tuple[Tensor, Tensor]:
    """(n,) distinct row ids and their (n, …) gradients; TypeError names the ``optimizer`` that needs them sparse.

    Of a dense gradient none if ``lr`` is 0: so torch.distributed.checkpoint has states made, to be loaded into.
    """
    gradient = local(gradient)
    if gradient.layout == torch.strided and lr == 0.0:
        return torch.empty(0, dtype=torch.int64, device=gradient.device), gradient[:0]
    if not gradient.is_sparse or gradient.sparse_dim() != 1:
        raise TypeError(
            f"{optimizer} should be given parameters with gradients that are sparse in their rows. Found a gradient "
            f"of layout {gradient.layout}. Use torch.optim.{optimizer.removeprefix('Row')} for it, or sparse=True "
            "where the embedding is made."
        )
    gradient = coalesced(gradient)
    return gradient._indices()[0], gradient._values()


def values_of(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, dense, whose norms are its own: of a sparse one each row once."""
    if not gradient.is_sparse:
        return gradient
    return gradient.dense_rows() if hasattr(gradient, "dense_rows") else coalesced(gradient)._values()


def coalesced(gradient: Tensor) -> Tensor:
    """A gradient that is sparse in its rows, with each row once, rising; its values are shared if it is so already.

    Autograd forgets that a gradient was coalesced, and on a CPU looking costs far less than sorting and summing again.
    A GPU is waited for once, to know how many rows there are.
    """
    ids = gradient._indices()[0]
    if gradient.is_coalesced() or gradient.device.type != "cpu" or not bool((ids[1:] > ids[:-1]).all()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        ids[None], gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False
    )
