"""What stands for W among the parameters of a model, if one optimiser steps them all."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from torch import Tensor, nn

_own: Any = Tensor.grad


class Lending(Protocol):
    """What a handle needs of its head."""

    handle: nn.Parameter

    def lent_norm(self) -> Tensor | None: ...
    def drop_pending(self) -> None: ...


class Handle(nn.Parameter):
    """An empty parameter whose gradient, while its owner lives, has the norm of its head's.

    So programs that clip the parameters of a model by their norm, or forget their gradients, do the same to the head's.
    Copies and pickles are ordinary parameters: who owns a copy of the head says so anew.
    """

    _lender: tuple[weakref.ref[Lending], weakref.ref[object]]
    _noted: int

    @staticmethod
    def of(head: Lending, owner: object) -> Handle:
        """In the place of the handle that the head has."""
        made = Handle(head.handle.detach(), head.handle.requires_grad)
        made._lender = weakref.ref(head), weakref.ref(owner)
        made.note()
        return made

    def note(self) -> None:
        """Take it that it is whole as it is now."""
        self._noted = self._version

    @property
    def was_written(self) -> bool:
        """Whether somebody wrote into it since, as those do who average parameters: no optimiser has it."""
        return self._version != self._noted

    @property
    def _head(self) -> Lending | None:
        head, owner = self._lender
        return None if owner() is None else head()

    @property
    def grad(self) -> Tensor | None:
        """(2,) or None; what autograd left, if there is no owner."""
        return _own.__get__(self) if (head := self._head) is None else head.lent_norm()

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if (head := self._head) is None or value is not None:
            _own.__set__(self, value)
        else:
            head.drop_pending()

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        return memo.setdefault(id(self), nn.Parameter(self.detach().clone(), self.requires_grad))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return nn.Parameter(self.detach(), self.requires_grad).__reduce_ex__(protocol)
