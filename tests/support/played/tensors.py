"""Tensors on the played device, and every operation on them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

from support.played.counts import Device, names_of

CUDA = torch.device("cuda", 0)
#: devices that are being played, the innermost last
PLAYED: list[Device] = []
# Operations that take tensors of both devices: copies, and indices, which torch moves itself.
_COPIES = ("copy_", "_to_copy", "_foreach_copy_")
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
# Beside pointwise operations, those that take a number of the host's as a tensor without dimensions.
_TAKE_NUMBERS = ("fill_", "masked_fill", "masked_fill_", "where", "lift_fresh", "index_fill", "index_fill_")
_NOT_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first."


class PlayedTensor(Tensor):
    """A tensor on the played device; ``host`` holds its numbers."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> Self:
        options: dict[str, Any] = {"dtype": host.dtype, "layout": host.layout, "device": "cpu", "requires_grad": False}
        if host.layout == torch.strided:
            options |= {"strides": host.stride(), "storage_offset": host.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, host.size(), **options)
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.host!r} on cuda:0"

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def tolist(self) -> Any:
        PLAYED[-1].wait("tolist")
        return self.host.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        raise TypeError(_NOT_NUMPY)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(_NOT_NUMPY)

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> Any:
        return self.host.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> PlayedTensor:
        memo[id(self)] = made = _again(self.host.detach().clone(), self.requires_grad, vars(self))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _again, (self.host.detach().clone(), self.requires_grad, {})


def _again(host: Tensor, requires_grad: bool, attributes: dict[str, Any]) -> PlayedTensor:
    made = PlayedTensor(host).requires_grad_(requires_grad)
    vars(made).update({name: value for name, value in attributes.items() if name != "host"})
    return made  # type: ignore[return-value]


@functools.cache
def subclass_on_device(cls: type[Tensor]) -> type[PlayedTensor]:
    """The class of tensors that are of ``cls``, a subclass of Tensor, and on the device."""
    return type(cls.__name__, (cls, PlayedTensor), {})


def played(tensor: Any) -> Any:
    """A tensor of the host's memory as one on the device; anything else as it is."""
    is_plain = isinstance(tensor, Tensor) and not isinstance(tensor, PlayedTensor) and not tensor.is_meta
    return PlayedTensor(tensor) if is_plain else tensor


def on_host(value: Any) -> Any:
    return value.host if isinstance(value, PlayedTensor) else value


def leaves(value: Any) -> list[Any]:
    """What stands in tuples, lists and dictionaries, which is all that operations are given and give."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return [value]
    return [leaf for part in value for leaf in leaves(part)]


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same with ``function`` of each leaf."""
    if isinstance(value, dict):
        return {name: mapped(function, part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([mapped(function, part) for part in value])
    return function(value)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One of ATen's operations, at least one of whose tensors is on the device."""
    device, name = PLAYED[-1], names_of(func).plain
    flat = leaves((args, kwargs))
    _refuse_mixed(func, name, args, flat)
    if name in _COPIES and _crosses(flat):
        if _copied_later(device, args, kwargs):
            return args[0]
        device.wait(f"{name} between host and device")
    elif name in _INDEXED and any(isinstance(part, Tensor) and not isinstance(part, PlayedTensor) for part in flat):
        device.wait(f"{name} with what is on the host")
    device.saw(func, args, kwargs)
    host_args, host_kwargs = mapped(on_host, args), mapped(on_host, kwargs)
    if host_kwargs.get("device") not in (None, torch.device("meta")):
        host_kwargs["device"] = torch.device("cpu")
    if device.capturing is not None:
        for tensor in _written(func, host_args, host_kwargs):
            device.capturing.before_write(tensor)
    out = func(*host_args, **host_kwargs)
    if device.capturing is not None and torch.Tag.inplace_view not in func.tags:
        device.capturing.note(func, host_args, host_kwargs, out)
    if device.is_counting:
        device.moved(func, leaves((host_args, host_kwargs)), leaves(out))
    if torch.Tag.inplace_view in func.tags:  # t_ and its like: the shape of the tensor itself follows
        with no_dispatch():
            func(*args, **kwargs)
        return args[0]
    if name == "copy_" and not isinstance(args[0], PlayedTensor):
        return args[0]
    # What was given and comes back is itself.
    given = {id(part.host): part for part in flat if isinstance(part, PlayedTensor)}
    return mapped(lambda part: given[id(part)] if id(part) in given else played(part), out)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into."""
    names = [part.name for part in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    written = [part.name for part in func._schema.arguments if part.alias_info is not None and part.alias_info.is_write]
    return [part for name in written for part in leaves(given.get(name)) if isinstance(part, Tensor)]


def _crosses(flat: list[Any]) -> bool:
    return len({isinstance(part, PlayedTensor) for part in flat if isinstance(part, Tensor)}) == 2


def _refuse_mixed(func: Any, name: str, args: tuple[Any, ...], flat: list[Any]) -> None:
    takes_numbers = torch.Tag.pointwise in func.tags or name in _TAKE_NUMBERS or name.startswith("_foreach")
    if name in _COPIES:
        return
    if name in _INDEXED and isinstance(args[0], PlayedTensor):
        flat, takes_numbers = list(args[2:3]), True
    strangers = [part for part in flat if isinstance(part, Tensor) and not isinstance(part, PlayedTensor)]
    strangers = [part for part in strangers if part.dim() > 0 or not takes_numbers]
    strangers += [part for part in flat if isinstance(part, torch._C.Generator) and part.device.type != "cuda"]
    if strangers:
        found = [tuple(part.shape) if isinstance(part, Tensor) else "a generator" for part in strangers]
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({name}: on the CPU {found})"
        )


def _copied_later(device: Device, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``copy_(…, non_blocking=True)`` between the device and pinned memory was started, or is done."""
    to, source, *rest = args
    if not (kwargs.get("non_blocking") or (rest and rest[0])):
        return False
    if isinstance(to, PlayedTensor):
        if not source.is_pinned():
            return False
        device.launch("copy to the device")
        to.host.copy_(source)
        return True
    if not to.is_pinned():
        return False
    device.launch("copy to the host")
    device.copy_later(to, source.host)
    return True
