"""What Python and C agree on, read from c/interface.h: limits, structures and the types of functions."""

import ctypes
import re
from pathlib import Path
from typing import Any

#: the folder of the C files
SOURCES = Path(__file__).parent / "c"

_TYPES = {"Int": ctypes.c_int64, "int": ctypes.c_int, "double": ctypes.c_double, "void": None}
_TEXT = re.sub(r"/\*.*?\*/", "", (SOURCES / "interface.h").read_text(encoding="utf-8"), flags=re.DOTALL)


def _limits() -> dict[str, int]:
    (entries,) = re.findall(r"enum \{(.*?)\};", _TEXT)
    return {name: int(number) for name, number in re.findall(r"(\w+) = (-?\d+)", entries)}


def _structure(name: str, body: str) -> type[ctypes.Structure]:
    fields: list[tuple[str, Any]] = []
    for kind, names in re.findall(r"(?:const )?(\w+) ([^;]+);", body):
        for declared in names.split(", "):
            fields.append((declared.lstrip("*"), ctypes.c_void_p if "*" in declared else _TYPES[kind]))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _type(declaration: str) -> Any:
    return ctypes.c_void_p if "*" in declaration else _TYPES[declaration.split()[0]]


def _functions() -> dict[str, tuple[Any, list[Any]]]:
    found = re.findall(r"^(\w+) (widehead_\w+)\(([^)]*)\);$", _TEXT, flags=re.MULTILINE)
    return {
        name: (_TYPES[result], [] if given == "void" else [_type(part.strip()) for part in given.split(",")])
        for result, name, given in found
    }


#: numbers that bound what C is given
LIMITS = _limits()
SLOTS, MOST_CORRECTIONS = LIMITS["SLOTS"], LIMITS["MOST_CORRECTIONS"]
#: ctypes structures by name
STRUCTURES = {name: _structure(name, body) for body, name in re.findall(r"struct \{(.*?)\} (\w+);", _TEXT, re.DOTALL)}
#: (type of the result, types of the arguments) of each function by name
FUNCTIONS = _functions()


def handshake() -> list[int]:
    """What `widehead_handshake` of a library made of this header says: its limits, and the sizes of its structures."""
    return [*LIMITS.values(), *(ctypes.sizeof(kind) for kind in STRUCTURES.values())]
