"""Presets: defaults that go together, by name; and the one that goes with the options that are given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from widehead.names import OPTIMIZERS, PARAMETER_OPTIMIZERS
from widehead.options.checks import one_of, refusal
from widehead.options.config import OPTIONS
from widehead.options.heads import WITHOUT_ROWS

ASKED_FOR = "asked for"
"""Why a preset holds that was named."""


@dataclass(frozen=True)
class Preset:
    """Defaults that were measured together; an option that is not in ``values`` has the default of its own.

    Args:
        name: what users call it.
        help: a sentence that says what it trains.
        values: defaults by option.
        stands_on: a value of one of these that is not the preset's asks for the next preset.
        without_exact_head: whether an option that asks for the exact head asks for the next preset.
        head_options: by head, those of heads other than the preset's.
    """

    name: str
    help: str
    values: Mapping[str, Any] = field(default_factory=dict)
    stands_on: Sequence[str] = ()
    without_exact_head: bool = False
    head_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def value(self, option: str) -> Any:
        """The default of an option."""
        return self.values.get(option, OPTIONS[option].default)

    def against(self, options: Mapping[str, Any]) -> str | None:
        """The first of these options by which another preset is asked for, or None."""
        for name in self.stands_on:
            if name in options and _plain(options[name]) != self.value(name):
                return name
        return asks_for_exact_head(options) if self.without_exact_head else None

    def beside(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The values that go with these options."""
        values = beside(self.values, options, self.value("head"))
        head = options.get("head", self.value("head"))
        if head in self.head_options:
            values["head_options"] = self.head_options[head]
        return values if head == "exact" else {"head_optimizer": next(iter(PARAMETER_OPTIMIZERS)), **values}


def beside(values: Mapping[str, Any], options: Mapping[str, Any], own: str) -> dict[str, Any]:
    """Values for the head ``own``, less those that belong to another head, loss or optimiser than the options."""
    head = options.get("head", own)
    left: set[str] = set()
    if head != own:
        left |= {"head", "head_options"}
    if "exact" in (head, own) and head != own:
        left |= {"head_optimizer", "head_lr", *(name for name, row in OPTIONS.items() if row.exact)}
    if head in WITHOUT_ROWS:
        left.add("tied")
    if "loss" in options and options["loss"] != values.get("loss"):
        left.add("loss_options")
    if "head_optimizer" in options and options["head_optimizer"] != values.get("head_optimizer"):
        left |= {"head_lr", *(name for name, row in OPTIONS.items() if row.of_optimizers)}
    return {name: value for name, value in values.items() if name not in left}


def choose(presets: Sequence[Preset], options: Mapping[str, Any], name: str | None = None) -> tuple[Preset, str]:
    """The preset of that name, or the first one that goes with the options; and why, "" for the first of all."""
    if name is not None:
        named = {preset.name: preset for preset in presets}
        if name not in named:
            raise refusal("preset", f"be {one_of(named)}", name)
        return named[name], ASKED_FOR
    because = ""
    for preset in presets[:-1]:
        option = preset.against(options)
        if option is None:
            return preset, because
        because = f"{option} = {options[option]}"
    return presets[-1], because


def asks_for_exact_head(options: Mapping[str, Any]) -> str | None:
    """The option by which the exact head is asked for: the head, or what only that one has."""
    if "head" in options:
        return "head" if options["head"] == "exact" else None
    if options.get("head_optimizer") in OPTIMIZERS:
        return "head_optimizer"
    return next((name for name, row in OPTIONS.items() if row.exact and name in options), None)


def _plain(value: Any) -> Any:
    """Tuples for the lists of config.json."""
    return tuple(value) if isinstance(value, list) else value
