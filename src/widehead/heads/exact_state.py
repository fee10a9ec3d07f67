"""How an exact head is a module of torch: its state, its device and type, and what tools do to modules."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from widehead import factored
from widehead.cached import record_of
from widehead.errors import KeptPrecisionWarning, warn_user
from widehead.factored import WeightRecord
from widehead.factored.state import ROWS
from widehead.heads.base import Head
from widehead.heads.handle import Handle
from widehead.heads.processes import in_several, refuse_data_parallel
from widehead.losses import Loss
from widehead.precision import in_full_precision
from widehead.split import SplitWeights, draw_as_one

_NAMES = (*ROWS, "_extra_state")
_numbers = itertools.count(1)


class ExactState(Head):
    """The factored weights of a head as torch's tools see them.

    The state_dict holds "values" (the rows), their "versions", and the rest as bytes, "_extra_state". A tool that
    loads a state by attributes, part by part (transformers), puts the first two among the buffers. There a head itself
    has None, so that nobody copies, casts or broadcasts them. When the weights are next asked for, they are made of
    what was put there.
    """

    loss: Loss
    handle: nn.Parameter
    _given_away: tuple[Tensor, int] | None

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self._buffers.update(dict.fromkeys(ROWS))
        self._given: Tensor | None = None  # an `_extra_state` that was not read yet
        self._told = False
        self._seal_anew(torch.device("cpu"))

    # -- weights ------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> WeightRecord:
        """The record that stands for W."""
        if self._given is not None or self._buffers["values"] is not None or self._buffers["versions"] is not None:
            self._take_given()
        return self._weights

    @weights.setter
    def weights(self, weights: WeightRecord) -> None:
        self._weights = weights

    @property
    def values(self) -> Tensor:
        """(D, order·d) rows as they are stored, or as they were set by a tool that loads a state."""
        put: Tensor | None = self._buffers["values"]
        return self._weights.values if put is None else put

    @property
    def versions(self) -> Tensor:
        """(D,) uint8 versions of the rows, likewise."""
        put: Tensor | None = self._buffers["versions"]
        return self._weights.factored().versions.versions if put is None else put

    def reset_parameters(self) -> None:
        """Draw W anew, as for a new head; the momentum, if there is one, begins at 0."""
        self._draw(self.weights.values.device)

    def draw_as_one(self, state: Tensor) -> None:
        """Draw W anew as one process with all rows does, from a state of torch's generator, which then goes on."""
        old = self._weights
        assert isinstance(old, SplitWeights)
        std = self.loss.initial_std(self.in_features, self.num_classes)
        torch.set_rng_state(draw_as_one(old.split, old.rows, std, state, old.rows.put))
        self._replace(old.fresh(old.rows, old.order))

    def _draw(self, device: torch.device) -> None:
        old = self._weights
        rows = old.rows if old.values.device == device else old.rows.empty_like(device=device)
        old.draw(rows, self.loss.initial_std(self.in_features, self.num_classes))
        if old.order == 2:
            rows.stored[:, old.width :] = 0.0
        self._replace(old.fresh(rows, old.order))

    def _replace(self, weights: WeightRecord) -> None:
        weights = record_of(weights, self._weights)
        weights.revision = self._weights.revision + 1
        weights.layout = self._weights.layout + 1
        self._weights = weights
        if self.handle.is_meta and not weights.values.is_meta:
            there = torch.empty(0, device=weights.values.device, dtype=weights.dtype)
            self.handle = nn.Parameter(there, self.handle.requires_grad)
        self._forget_given()
        self.drop_pending()

    @abstractmethod
    def at_work(self) -> AbstractContextManager[None]:
        """Held while the weights are worked on, so that other threads do not rewrite rows, or wait."""

    @abstractmethod
    def drop_pending(self) -> None:
        """Forget the pending step, as `zero_grad` does."""

    # -- states -------------------------------------------------------------------------------------------------

    @in_full_precision
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self.check_untouched()
        with self.at_work():
            weights = self.weights.for_state()  # of what was put, if something was
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[prefix + "handle"]
        rows = {"values": self._handed_out(weights.values), "versions": weights.versions.versions}
        destination.update({prefix + name: weights.as_saved(part) for name, part in rows.items()})

    def _handed_out(self, values: Tensor) -> Tensor:
        """The same memory as a tensor that counts the changes others make to it, and those alone."""
        if values.is_inference() or self._weights.is_filled_in_place():
            return values
        if self._given_away is None or self._given_away[0].data_ptr() != values.data_ptr():
            alias = values.data
            self._given_away = alias, alias._version
        return self._given_away[0]

    @in_full_precision
    def get_extra_state(self) -> Tensor:
        """The state but for the rows and their versions, as bytes; none of a head on the device meta."""
        weights = self._weights if self._weights.values.is_meta else self.weights
        with self.at_work():
            return factored.pack(weights.factored())

    def set_extra_state(self, state: Tensor) -> None:
        """Take it with the rows, before or after them; all are checked when the weights are next asked for."""
        self._given = state

    def _take_given(self) -> None:
        """Make the weights of what was put into the head; ValueError if it does not fit together."""
        put = {name: tensor for name in ROWS if (tensor := self._buffers[name]) is not None}
        if self._given is None and self._weights.values.is_meta:
            # A head that was made without memory, and nobody knows its weights: these are memory that nobody wrote.
            device = next(iter(put.values())).device
            self._draw(device)
            return
        rest = {} if self._given is None else factored.unpack(self._given)
        like = self._weights.factored()
        self._replace(factored.from_state({**factored.to_state(like), **like.own_state({**put, **rest})}, like))

    def _forget_given(self) -> None:
        self._buffers.update(dict.fromkeys(ROWS))
        self._given = None
        self._seal_anew(self._weights.values.device)
        self._watch_handle()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        _, strict, missing_keys, unexpected_keys, error_msgs = rest
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        unexpected_keys += [prefix + name for name in own if strict and name not in _NAMES]
        missing = [prefix + name for name in _NAMES if name not in own]
        missing_keys += missing
        if missing:
            return
        try:
            given = {"values": own["values"], "versions": own["versions"], **factored.unpack(own["_extra_state"])}
            state = self._weights.own_state(given)
            self._refuse_own_memory(state)
            self._replace(factored.from_state(state, self._weights.factored()))
        except (ValueError, OSError) as error:
            self._weights.tell(error)
            error_msgs.append(str(error))

    def _refuse_own_memory(self, state: Mapping[str, Tensor]) -> None:
        """A state_dict holds V itself, not a copy, as in torch; but V goes on changing while U and Q are replaced."""
        values, given = self._weights.values, state["values"]
        is_dense = isinstance(given, Tensor) and given.layout == torch.strided
        if values.is_meta or not is_dense or given.data_ptr() != values.data_ptr() or not values.numel():
            return
        if self._weights.is_filled_in_place():
            return
        present = factored.to_state(self._weights.factored())
        small = (name for name in present if name not in ("values", "versions", "transforms"))
        if not all(torch.equal(state[name], present[name].to(state[name])) for name in small):
            raise ValueError("The state shares memory with this head, changed since. Keep copy.deepcopy(state_dict()).")

    # -- device and type ----------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.check_untouched(tells=False)  # no process waits for another here, nor need any ever ask again
        weights = self.weights
        handle = self._parameters.pop("handle")  # its gradient stands for another, and is no number to be cast
        try:
            super()._apply(fn, recurse)
        finally:
            self._parameters["handle"] = handle
        self._parameters["handle"] = _moved(handle, fn)
        probe = fn(torch.empty(0, device=weights.values.device, dtype=weights.dtype))
        self._seal_anew(probe.device)
        if weights.values.is_meta and not probe.is_meta:
            self._draw(probe.device)  # there are no numbers to move
            return self
        moved = weights.to(probe.device, self._working_type(probe.dtype))
        if moved is not weights:
            self._weights = record_of(moved, weights)
            self.drop_pending()
        return self

    def _working_type(self, dtype: torch.dtype) -> torch.dtype:
        """``dtype`` if steps can be computed in it; else that of the head, or float32, which it says once."""
        if dtype in (torch.float32, torch.float64):
            return dtype
        if not self._told:
            self._told = True
            warn_user(
                f"An exact head works in float32 or float64. Found {dtype}: it keeps its type, and takes hidden layers "
                "of any. storage_dtype=torch.bfloat16 keeps W in half of the memory.",
                KeptPrecisionWarning,
            )
        return self._weights.dtype if "_weights" in self.__dict__ else torch.float32

    # -- averages -----------------------------------------------------------------------------------------------

    def _seal_anew(self, device: torch.device) -> None:
        """A buffer of numbers of this head alone: what averages or synchronises modules writes into it."""
        self._number = float(next(_numbers))
        device = torch.device("cpu") if device.type == "meta" else device
        # Whoever averages it with itself finds NaN, and NaN is what comes back if that is written into this head.
        self._seal = torch.tensor([self._number, torch.inf], dtype=torch.float64, device=device)
        self.register_buffer("seal", self._seal, persistent=False)
        self._note_seal()
        self._given_away = None
        if (parameter := self._parameters.get("handle")) is not None:  # tools put ordinary ones there
            self._parameters["handle"] = handle = Handle.of(self, parameter)
            if isinstance(handle, Handle) and handle.is_noted:
                handle.note()

    def _watch_handle(self) -> None:
        """Count from now on who writes into the handle."""
        handle = self._parameters["handle"]
        if isinstance(handle, Handle) and not handle.is_noted:
            handle.note()

    def _note_seal(self) -> None:
        """Remember that the seal is whole as it is now, so that a GPU need not be asked again."""
        counted = not self._seal.is_inference()  # else nobody counts its changes
        self._sealed: tuple[Tensor, int] | None = (self._seal, self._seal._version) if counted else None

    def check_untouched(self, *, tells: bool = True) -> None:
        """RuntimeError if a tool wrote into the buffers of this head, as copies of averages are written.

        Args:
            tells: whether other processes hear of it in what they call next, for which this one then waits.
        """
        if self._seal.tolist() != [self._number, torch.inf] or self._was_written():
            try:
                self._refuse_writes()
            except RuntimeError as error:
                if tells:
                    self.refused(error)  # of several processes, the one that was written into may be the only one
                raise
        if not self._seal.is_cpu:
            self._note_seal()

    def _refuse_writes(self) -> NoReturn:
        if in_several():
            refuse_data_parallel(self)  # which writes rank 0's buffers into those of the others
        raise RuntimeError(
            "The weights of this exact head should be changed by its optimiser alone. Found a buffer, a parameter or a "
            "state that another module's was copied or averaged into, as torch.optim.swa_utils.AveragedModel and other "
            "averages do: W, which is no parameter, is not their average. Use widehead.heads.AveragedModel."
        )

    def _was_written(self) -> bool:
        """Whether somebody wrote into what a state_dict holds, or into the handle."""
        given, handle = self._given_away, self._parameters["handle"]
        return (given is not None and given[0]._version != given[1]) or (
            isinstance(handle, Handle) and handle.was_written
        )

    def accept_average(self) -> None:
        """Take it that the buffers were written into: W is going to be set."""
        self._seal_anew(self._seal.device)

    def _widened(self, hidden: Tensor) -> Tensor:
        known = None if self._seal.is_cpu else self._sealed  # a look costs little on a CPU; a GPU is waited for
        if known is None or known[0] is not self._seal or known[1] != self._seal._version or self._was_written():
            self.check_untouched()
        return super()._widened(hidden)

    def train(self, mode: bool = True) -> Self:
        if self.training and not mode:
            self._sealed = None  # what is judged is looked at, once: changes of .data are not counted
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_given_away": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy has another number, unless it is a copy of one that was written into."""
        super().__setstate__(state)
        self._sealed = None
        self._parameters["handle"] = Handle.of(self, self.handle)
        if self._seal.tolist() == [self._number, torch.inf] and not self._was_written():
            self._seal_anew(self._seal.device)
            self._watch_handle()


def _moved(handle: Any, fn: Callable[[Tensor], Tensor]) -> nn.Parameter:
    """The same parameter, as optimisers may have it, unless it gets memory or is of another class of tensors."""
    there = fn(handle.detach())
    if not isinstance(handle, Handle) or type(there) is not Tensor or there.is_meta != handle.is_meta:
        return nn.Parameter(there, handle.requires_grad)
    handle.data = there
    return handle
