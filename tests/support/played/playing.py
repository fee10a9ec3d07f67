"""The functions of torch that know of devices, as they are while a device is played."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.optim.optimizer import _foreach_supported_types

from support.played import torch_cuda
from support.played.counts import Device
from support.played.tensors import CUDA, PLAYED, PlayedTensor, on_host, played, subclass_on_device

_FACTORIES = (
    *(
        "arange",
        "as_tensor",
        "empty",
        "empty_strided",
        "eye",
        "full",
        "linspace",
        "logspace",
        "ones",
        "rand",
        "randint",
    ),
    *("randn", "randperm", "tensor", "asarray", "tril_indices", "triu_indices", "zeros", "sparse_coo_tensor"),
    *("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like"),
)
_METHODS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
_OF_HOST_DATA = ("as_tensor", "tensor", "asarray", "new_tensor")
_WITHOUT_NUMBERS = ("empty", "empty_like", "empty_strided", "new_empty")
_RealGenerator = torch.Generator
_real_to = Tensor.to
_real_as_subclass = Tensor.as_subclass
_real_apply = torch.autograd.Function.apply.__func__
_real_backward = BackwardCFunction.apply
_pinned: dict[int, torch.UntypedStorage] = {}


def now_played() -> Device | None:
    """The device that is being played, or None."""
    return PLAYED[-1] if PLAYED else None


@contextlib.contextmanager
def played_cuda() -> Iterator[Device]:
    """Until the end, the device "cuda" is played."""
    with contextlib.ExitStack() as stack:
        if not PLAYED:
            _replace(stack)
        PLAYED.append(Device())
        stack.callback(PLAYED.pop)
        yield PLAYED[-1]


def _replace(stack: contextlib.ExitStack) -> None:
    def put(owner: Any, name: str, value: Any) -> None:
        stack.enter_context(mock.patch.object(owner, name, value, create=True))

    for owner, names in ((torch, _FACTORIES), (Tensor, _METHODS)):
        for name in names:
            put(owner, name, _factory(name, getattr(owner, name)))
    for method in (_to, _cpu, _cuda, _pin_memory, _is_pinned, _as_subclass):
        put(Tensor, method.__name__[1:], method)
    put(torch, "Generator", Generator)
    put(torch.autograd.Function, "apply", classmethod(_apply))
    put(BackwardCFunction, "apply", _backward)
    for name, value in torch_cuda.NAMES.items():
        put(torch.cuda, name, value)
    # Optimisers of torch take the lists of tensors of a card together.
    _foreach_supported_types.append(PlayedTensor)  # type: ignore[arg-type]
    stack.callback(_foreach_supported_types.remove, PlayedTensor)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
    stack.callback(_pinned.clear)


def _kind(device: Any) -> str | None:
    return None if device is None else "cuda" if isinstance(device, int) else torch.device(device).type


def _factory(name: str, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(real)
    def make(*args: Any, **kwargs: Any) -> Tensor:
        kind = _kind(kwargs.get("device"))
        from_device = any(isinstance(part, PlayedTensor) for part in args[:1])
        if kwargs.pop("pin_memory", False):
            return real(*args, **kwargs).pin_memory()
        if name in _OF_HOST_DATA and from_device and name != "new_tensor" and kind != "cpu":
            return _to(args[0], dtype=kwargs.get("dtype"), copy=name == "tensor")
        if kind == "cpu" and from_device:  # numbers or sizes of the device for the host
            return real(_to(args[0], "cpu"), *args[1:], **kwargs)
        return real(*args, **kwargs) if kind != "cuda" else _made(name, real, args, kwargs)

    return make


def _made(name: str, real: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    device, generator = PLAYED[-1], kwargs.get("generator")
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if name in _OF_HOST_DATA:
        device.wait(f"torch.{name} of what is on the host")
    elif name not in _WITHOUT_NUMBERS:
        device.launch(name)
    requires_grad = kwargs.pop("requires_grad", False)
    make = functools.partial(real, *map(on_host, args), **{**kwargs, "device": "cpu"})
    with torch.no_grad():
        made = make()
    if device.capturing is not None:
        device.capturing.note(make, (), {}, made)
    return played(made.detach()).requires_grad_(requires_grad)


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Tensor.to."""
    copy = kwargs.pop("copy", False)
    other = (
        kwargs.pop("other", None) if "other" in kwargs else args[0] if args and isinstance(args[0], Tensor) else None
    )
    if other is not None:
        args = (other.device, other.dtype, *[part for part in args if part is not other])
    if len(args) > 1 and [type(part) for part in args[-2:]] == [bool, bool]:
        *args, copy = args  # type: ignore[assignment]
    device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
    rest = {"dtype": dtype or tensor.dtype, "copy": copy}
    if layout is not None:
        rest["memory_format"] = layout
    if device is not None and device.type not in ("cpu", "cuda"):
        return _real_to(tensor, device, **rest)
    if device is None or (device.type == "cuda") == isinstance(tensor, PlayedTensor):
        return _real_to(tensor, **rest)
    crossing = _ToHost if isinstance(tensor, PlayedTensor) else _ToDevice
    return _real_to(crossing.apply(tensor, non_blocking), dtype=rest["dtype"])


def _cpu(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _to(tensor, "cpu")


def _cuda(tensor: Tensor, device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Tensor:
    return _to(tensor, CUDA, non_blocking=non_blocking)


def _pin_memory(tensor: Tensor, device: Any = None) -> Tensor:
    if isinstance(tensor, PlayedTensor):
        raise RuntimeError("cannot pin 'torch.cuda.Tensor' only dense CPU tensors can be pinned")
    if _is_pinned(tensor):
        return tensor
    pinned = tensor.detach().clone(memory_format=torch.contiguous_format)
    storage = pinned.untyped_storage()
    _pinned[storage.data_ptr()] = storage  # held, so that no other memory gets this address
    return pinned


def _is_pinned(tensor: Tensor, device: Any = None) -> bool:
    return not isinstance(tensor, PlayedTensor) and tensor.untyped_storage().data_ptr() in _pinned


def _as_subclass(tensor: Tensor, cls: type[Tensor]) -> Tensor:
    if not isinstance(tensor, PlayedTensor):
        return _real_as_subclass(tensor, cls)
    return subclass_on_device(cls)(tensor.host)


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """torch.autograd.Function.apply, which remembers whether its outputs are on the device."""
    out = _real_apply(cls, *args, **kwargs)
    for part in out if isinstance(out, tuple) else (out,):
        if isinstance(part, PlayedTensor) and part.grad_fn is not None:
            part.grad_fn.on_device = True
    return out


def _backward(function: Any, *gradients: Any) -> Any:
    """Gradients of zeros, which autograd makes for outputs that nobody used, are made on their device."""
    if getattr(function, "on_device", False):
        gradients = tuple(map(played, gradients))
    return _real_backward(function, *gradients)


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: PlayedTensor, non_blocking: bool) -> Tensor:
        if not non_blocking or tensor.layout != torch.strided:
            PLAYED[-1].wait("copy to the host")
            return tensor.host.detach().clone()
        # As torch does it: the memory that such a copy goes to is pinned.
        PLAYED[-1].launch("copy to the host")
        made = _pin_memory(torch.empty(tensor.shape, dtype=tensor.dtype))
        PLAYED[-1].copy_later(made, tensor.host)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _to(gradient, CUDA), None


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, non_blocking: bool) -> Tensor:
        if not (non_blocking and _is_pinned(tensor)) and tensor.numel() > 0:
            PLAYED[-1].wait("copy to the device")
        PLAYED[-1].launch("copy to the device")
        return PlayedTensor(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _to(gradient, "cpu"), None


class _AnyGenerator(type(_RealGenerator)):  # type: ignore[misc]
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _RealGenerator)

    def __call__(cls, device: Any = "cpu") -> torch.Generator:
        return super().__call__() if _kind(device) == "cuda" else _RealGenerator(device)


class Generator(_RealGenerator, metaclass=_AnyGenerator):
    """torch.Generator(device="cuda")."""

    device = CUDA  # type: ignore[assignment]
