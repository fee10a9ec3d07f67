"""``--config FILE``: options of a run by their names, in TOML or as a run's config.json has them."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from widehead.errors import DataError
from widehead.kinds import Kind
from widehead.options import OPTIONS
from widehead.options.config import check_known
from widehead.options.presets import beside, choose

_OF_ONE_RUN = ("out", "preset", "because", "train_checksum")


def read_options(path: Path) -> dict[str, Any]:
    """The options of a file, whose names may have dashes; of a run's config.json less what is of that run alone.

    Raises:
        DataError: it cannot be read. ValueError: a name that is no option.
    """
    found = _parsed(path)
    options = {str(name).replace("-", "_"): value for name, value in found.items()}
    check_known(options, str(path))
    of_run = path.suffix == ".json"
    return {name: value for name, value in options.items() if not (of_run and name in _OF_ONE_RUN)}


def merged(asked: Mapping[str, Any], given: Mapping[str, Any], kind: type[Kind], source: str) -> dict[str, Any]:
    """Options of a file and those given beside them, which win: what belongs to another head, loss or optimiser goes.

    Raises:
        ValueError: an option of another job.
    """
    for name, value in asked.items():
        row = OPTIONS[name]
        if not (row.shared or name in kind.takes) and _plain(value) != row.default:
            raise ValueError(f"Expected options of the job {kind.name} in {source}. Found {name!r}.")
    asked = {name: value for name, value in asked.items() if OPTIONS[name].shared or name in kind.takes}
    own = asked.get("head", choose(kind.presets, asked, asked.get("preset"))[0].value("head"))
    options = {**beside(asked, given, own), **given}
    if "minutes" in given and "epochs" not in given:  # as without a file
        options["epochs"] = None
    return options


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


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
