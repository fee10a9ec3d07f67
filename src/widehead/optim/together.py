"""Several optimisers as one, for programs that step one: Trainer, Lightning, Fabric, accelerate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from widehead.optim.base import HeadOptimizer, make_steps
from widehead.optim.clipping import check_limit, clip_grad_norm_
from widehead.optim.heads import FactoredHead, StandIn

_BY_PARAMETER = {"params", "param_names"}


class Together(torch.optim.Optimizer):
    """Optimisers of an encoder and of its exact heads as one optimiser, for programs that step one.

    Its parameter groups are those of its parts, one part's after the other's, and not copies: what a scheduler
    writes there is what the parts read. While it lives, each head's ``handle``, one of the parameters of the model, has
    as its gradient what stands for the head's: clipping ``model.parameters()`` by their norm clips encoder and heads by
    their norm together, and ``model.zero_grad()`` drops pending steps. No other optimiser should have the handle, and
    the step of one that has it is refused; where one of the parts has it, as of ``AdamW(model.parameters())``, it is
    taken out.

    Args:
        optimizers: the parts, such as torch.optim.AdamW(encoder.parameters()), wh.optim.Newton(head), and
            wh.optim.RowAdam for tables with sparse gradients. Each parameter and each head belongs to one of them.
        max_grad_norm: clip all gradients by their norm together before each step; None leaves them as they are.

    Raises:
        TypeError: a part is no optimiser, or one that calls a closure several times in a step.
        ValueError: a parameter or a head belongs to two parts; there is no part; or one that clips by itself.

    >>> from widehead import ExactHead, losses, optim
    >>> encoder, head = torch.nn.Linear(2, 4), ExactHead(4, 30, losses.SphericalSoftmax())
    >>> optimizer = Together(torch.optim.AdamW(encoder.parameters(), lr=1e-3), optim.Newton(head))
    >>> head(encoder(torch.ones(1, 2)), torch.tensor([7])).backward()
    >>> optimizer.step()
    """

    parts: tuple[torch.optim.Optimizer, ...]
    max_grad_norm: float | None

    def __init__(self, *optimizers: torch.optim.Optimizer, max_grad_norm: float | None = None) -> None:
        for part in optimizers:
            if not isinstance(part, torch.optim.Optimizer) or isinstance(part, torch.optim.LBFGS):
                known = "optimisers that make a step of one gradient, as torch.optim.AdamW(…) and wh.optim.Newton(head)"
                raise TypeError(f"Expected {known}. Found {type(part).__name__}.")
        check_limit(max_grad_norm)
        if not optimizers:
            raise ValueError("There should be optimisers to put together. Found none.")
        parts = tuple(part for given in optimizers for part in _parts_of(given))
        common = set.intersection(*(set(part.defaults) for part in parts))  # what a scheduler may cycle
        defaults = {name: value for name, value in parts[0].defaults.items() if name in common}
        self.__setstate__({"parts": parts, "max_grad_norm": max_grad_norm, "defaults": defaults})

    @property
    def heads(self) -> list[FactoredHead]:
        """Those whose steps it makes."""
        return [head for part in self._of_heads for head in part.heads]

    @property
    def _of_heads(self) -> list[HeadOptimizer]:
        return [part for part in self.parts if isinstance(part, HeadOptimizer)]

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of all parts, themselves."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> MutableMapping[Any, Any]:  # type: ignore[override]
        """The states of all parts, themselves."""
        return _States(self.parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "max_grad_norm": self.max_grad_norm, "defaults": self.defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._check_distinct()
        self._leave_out()
        for head in self.heads:
            head.lend_handle(self)

    def _leave_out(self) -> None:
        """Take parameters that stand for heads, in the model, out of the groups of torch's optimisers."""
        handles = {id(head.handle) for head in self.heads}
        for part in self.parts:
            for group in part.param_groups:
                for handle in [p for p in group["params"] if id(p) in handles]:
                    part.state.pop(handle, None)
                kept = [id(p) not in handles for p in group["params"]]
                group.update({name: list(compress(group[name], kept)) for name in group.keys() & _BY_PARAMETER})

    def _check_distinct(self) -> None:
        params = [p.head if isinstance(p, StandIn) else p for group in self.param_groups for p in group["params"]]
        counts = Counter(map(id, params))
        if twice := [p for p in params if counts[id(p)] > 1]:
            found = f"a parameter of shape {tuple(twice[0].shape)}" if isinstance(twice[0], Tensor) else "a head"
            raise ValueError(
                f"Each parameter and each head should belong to one optimiser. Found {found} in two: leave it out of "
                "one, as [p for p in model.parameters() if p is not table]."
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the first part that is no optimiser of heads, as in torch."""
        part = next((part for part in self.parts if not isinstance(part, HeadOptimizer)), self.parts[0])
        part.add_param_group(param_group)
        self._leave_out()
        try:
            self._check_distinct()
        except ValueError:
            part.param_groups.pop()
            raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parts, and drop pending steps."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clip all gradients, sparse ones and those of heads included, by their norm together; () the norm before."""
        params = [p for group in self.param_groups for p in group["params"]]
        return clip_grad_norm_(params, self.heads, max_norm)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make the step of every part; of heads first, as they may refuse theirs.

        Raises:
            NonFiniteError: NaN or infinity in some head's step; no part was stepped.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.max_grad_norm is not None:
            self.clip_grad_norm_(self.max_grad_norm)
        if len(self._of_heads) > 1:
            make_steps(self._of_heads)  # and their own step() finds nothing pending
        for part in sorted(self.parts, key=lambda part: not isinstance(part, HeadOptimizer)):
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch: each part loads its own; states of heads with momentum are best loaded before.

        Raises:
            ValueError: the state has other groups than the parts.
        """
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        for part, own in zip(self.parts, self._split(state_dict), strict=True):
            part.load_state_dict(own)
        for done in self._optimizer_load_state_dict_post_hooks.values():
            done(self)

    def _split(self, state_dict: dict[str, Any]) -> list[dict[str, Any]]:
        """A state for each part, with parameters numbered from 0."""
        saved, sizes = state_dict["param_groups"], [len(group["params"]) for group in self.param_groups]
        if (found := [len(group["params"]) for group in saved]) != sizes:
            raise ValueError(f"The state should have groups of {sizes} parameters. Found {found}.")
        states, first = [], 0
        for part in self.parts:
            groups = saved[first : first + len(part.param_groups)]
            first += len(groups)
            numbers = {old: new for new, old in enumerate(n for group in groups for n in group["params"])}
            groups = [{**group, "params": [numbers[n] for n in group["params"]]} for group in groups]
            state = {numbers[n]: value for n, value in state_dict["state"].items() if n in numbers}
            states.append({"state": state, "param_groups": groups})
        return states


def _parts_of(given: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """One part, or those of a `Together`."""
    if not isinstance(given, Together):
        return (given,)
    if given.max_grad_norm is not None:
        raise ValueError(
            f"A `Together` in another should clip nothing. Found max_grad_norm = {given.max_grad_norm}: give it to the "
            "outer one."
        )
    return given.parts


class _States(MutableMapping[Any, Any]):
    """The states of several optimisers by parameter; what is written goes to the one that has the parameter."""

    def __init__(self, parts: tuple[torch.optim.Optimizer, ...]) -> None:
        self._parts = parts
        self._owners = {p: part for part in parts for group in part.param_groups for p in group["params"]}

    def __getitem__(self, parameter: Any) -> Any:
        return self._owners[parameter].state[parameter]

    def __setitem__(self, parameter: Any, value: Any) -> None:
        self._owners[parameter].state[parameter] = value

    def __delitem__(self, parameter: Any) -> None:
        del self._owners[parameter].state[parameter]

    def __contains__(self, parameter: object) -> bool:
        return any(parameter in part.state for part in self._parts)  # asking makes none, as [] would

    def __iter__(self) -> Iterator[Any]:
        return (parameter for part in self._parts for parameter in part.state)

    def __len__(self) -> int:
        return sum(len(part.state) for part in self._parts)
