"""``--config FILE``: options of a run by their names, in TOML or as a run's config.json has them."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from widehead.errors import DataError
from widehead.kinds import Kind
from widehead.options import OPTIONS
from widehead.options.checks import refusal
from widehead.options.config import check_known
from widehead.options.presets import asks_for_exact_head, beside

_OF_ONE_RUN = ("out", "preset", "because", "train_checksum")


def read_options(path: Path) -> dict[str, Any]:
    """The options of a file, whose names may have dashes; of a run's config.json less what is of that run alone.

    Raises:
        DataError: it cannot be read. ValueError: a name that is no option or is there twice, or a value out of range.
    """
    found = _parsed(path)
    options = {name.replace("-", "_"): tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    check_known(options, str(path))
    if len(options) < len(found):
        raise ValueError(f"Expected each option once in {path}. Found one with dashes and with underscores.")
    for name, value in options.items():
        if not OPTIONS[name].check.holds(value):
            raise refusal(name, f"be {OPTIONS[name].check.should}", value)
    of_run = path.suffix == ".json"
    return {name: value for name, value in options.items() if not (of_run and name in _OF_ONE_RUN)}


def merged(asked: Mapping[str, Any], given: Mapping[str, Any], kind: type[Kind], source: str) -> dict[str, Any]:
    """Options of a file and those given beside them, which win: what belongs to another head, loss or optimiser goes.

    What a file says of a head, loss or optimiser that it does not name is of the one that is given.

    Raises:
        ValueError: an option of another job.
    """
    for name, value in asked.items():
        row = OPTIONS[name]
        if not (row.shared or name in kind.takes) and value != row.default:
            raise ValueError(f"Expected options of the job {kind.name} in {source}. Found {name!r}.")
    asked = {name: value for name, value in asked.items() if OPTIONS[name].shared or name in kind.takes}
    if "minutes" in given:  # they alone end the run, as without a file
        asked.pop("epochs", None)
    own = "exact" if asks_for_exact_head(asked) else given.get("head", "")
    named = {name: given[name] for name in ("loss", "head_optimizer") if name in given}
    return {**beside({**named, **asked}, given, asked.get("head", own)), **given}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8. Found bytes that are none.") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML, such as width = 128"
        raise DataError(f"{path}: expected {kind}. Found an error: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object of options by name. Found {type(found).__name__}.")
    return found
