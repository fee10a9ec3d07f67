"""What an option is: a field of TrainingConfig that carries its check, its help and its place in the command line."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, Literal

from widehead.names import OPTIMIZERS
from widehead.options.checks import INTERVAL, PATH, Check, or_none


@dataclass(frozen=True)
class Option:
    """One row of the table of options.

    Attributes:
        check: whether a value holds, and what it should be; None holds too if the field's type says so.
        help: what it is.
        panel: group of the command line's help; "" for what is no option there.
        metavar: how its value is shown; a FILE or FOLDER is kept as an absolute path.
        shared: whether every job takes it; the others are those that a job names.
        resumed: whether a resumed run keeps it ("kept"), may be given a "new" value, or finds it "moved" elsewhere.
        exact: whether it is of the exact head alone.
        of_optimizers: whether it is a parameter of some optimisers of the exact head.
        name, default: of the field. kind: bool, int, float, str, tuple for whole numbers, or dict for NAME=VALUE pairs.
    """

    check: Check
    help: str
    panel: str
    metavar: str | None = None
    shared: bool = True
    resumed: Literal["kept", "new", "moved"] = "kept"
    exact: bool = False
    of_optimizers: bool = False
    name: str = ""
    default: Any = None
    kind: type = str

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimisers of the exact head whose constructors take it; () for an option of something else."""
        kinds = OPTIMIZERS.items() if self.of_optimizers else []
        parameter = self.name.removeprefix("head_")
        return tuple(name for name, kind in kinds if parameter in inspect.signature(kind).parameters)

    @property
    def is_path(self) -> bool:
        return self.metavar in ("FILE", "FOLDER")


def option(default: Any, check: Check, help: str, panel: str, *, compare: bool = True, **more: Any) -> Any:
    """A field of a dataclass that is an option; ``more`` are attributes of `Option`. A default of {} is a new one."""
    metadata = {"option": Option(check, help, panel, **more)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, compare=compare)


def options_of(table: type) -> dict[str, Option]:
    """The options of a dataclass by their names, in the order of its fields; kinds are those of the annotations."""
    return {field.name: _row(field) for field in dataclasses.fields(table)}


def _row(field: dataclasses.Field[Any]) -> Option:
    row: Option = field.metadata["option"]
    annotation = str(field.type)
    kind = _KINDS.get(annotation.split("[")[0].split(" ")[0], str)
    return dataclasses.replace(
        row,
        name=field.name,
        default={} if field.default_factory is dict else field.default,
        kind=kind,
        check=or_none(row.check) if annotation.endswith("| None") else row.check,
        metavar=row.metavar or _SHOWN.get(row.check) or _SHOWN.get(kind),
    )


_KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "tuple": tuple, "Mapping": dict}
_SHOWN: dict[Any, str] = {PATH: "FILE", INTERVAL: "INTERVAL", str: "NAME", tuple: "N,N,…", dict: "NAME=VALUE"}
