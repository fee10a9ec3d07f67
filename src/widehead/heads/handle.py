"""What stands for W among the parameters of a model."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from torch import Tensor, nn

_data: Any = Tensor.data
_grad: Any = Tensor.grad
_WRITTEN = -1  # no version of a tensor


class Lending(Protocol):
    """What a handle needs of its head."""

    @property
    def lends_handle(self) -> bool: ...
    def lent_norm(self) -> Tensor | None: ...
    def set_gradient(self, value: Tensor | None) -> None: ...


class Handle(nn.Parameter):
    """An empty parameter, which shows what programs do to the parameters of a model.

    While its head lends it, its gradient has the norm of W's: programs that clip the parameters of a model by their
    norm, or forget their gradients, do the same to the head's. Else it has no gradient, and optimisers pass it by. So
    nobody but who averages parameters, or sets them, writes into it. Before the first training pass that is who
    initialises them; `note` begins to count.
    """

    _lender: weakref.ref[Lending] | None = None
    _noted: int | None = None

    @staticmethod
    def of(head: Any, like: Any) -> Any:
        """``like``, as the handle of ``head`` (`Lending`); tensors of other classes stay what they are."""
        if type(like.detach()) is not Tensor:
            return like
        made = like if isinstance(like, Handle) else Handle(like.detach(), like.requires_grad)
        if made._lender is None or made._lender() is None:  # a shallow copy of a head has the handle of that
            made._lender = weakref.ref(head)
        return made

    @property
    def is_noted(self) -> bool:
        """Whether changes are counted."""
        return self._noted is not None

    def note(self) -> None:
        """Take it that it is whole as it is now."""
        self._noted = None if self.is_inference() else self._version  # nobody counts changes of inference tensors

    @property
    def was_written(self) -> bool:
        """Whether somebody wrote into it since."""
        return self._noted is not None and self._noted != self._version

    @property
    def _head(self) -> Lending | None:
        head = None if self._lender is None else self._lender()
        return head if head is not None and head.lends_handle else None

    @property
    def grad(self) -> Tensor | None:
        """(2,) or None."""
        return None if (head := self._head) is None else head.lent_norm()

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if (head := self._head) is not None:
            head.set_gradient(value)

    @property
    def data(self) -> Tensor:
        """The same memory; what is written there is counted, which it is not in torch's."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        _data.__set__(self, value)
        _grad.__set__(self, None)  # autograd's, which is empty: of the device and type before
        self._noted = None if self._noted is None else _WRITTEN

    def __deepcopy__(self, memo: dict[int, Any]) -> Handle:
        return memo.setdefault(id(self), _copied(self.detach().clone(), self.requires_grad, self.was_written))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _copied, (self.detach(), self.requires_grad, self.was_written)


def _copied(data: Tensor, requires_grad: bool, was_written: bool) -> Handle:
    """A copy, which is no head's yet."""
    made = Handle(data, requires_grad)
    made._noted = _WRITTEN if was_written else None
    return made
