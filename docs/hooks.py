"""Hooks of MkDocs: tables made of the options, and pages that must be readable without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mkdocs.exceptions import PluginError

from widehead.jobs import JOBS
from widehead.options import OPTIONS, Option

__all__ = ["on_page_markdown", "on_post_page", "options_table", "presets_table"]

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^\s"'>]*|<link\b[^>]*\bhref=["']?(?:https?:)?//[^\s"'>]*"""
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Tables in the place of <!-- options --> and <!-- presets -->."""
    return markdown.replace("<!-- options -->", options_table()).replace("<!-- presets -->", presets_table())


def options_table() -> str:
    """A row for each option."""
    rows = [
        f"| `{name}` | {row.help} | {_shown(row.default)} | {row.check.should} | {_jobs_of(row)} |"
        for name, row in OPTIONS.items()
        if row.panel
    ]
    return "\n".join(["| option | what it is | default | should be | jobs |", "|---|---|---|---|---|", *rows])


def presets_table() -> str:
    """A row for each preset of each job, in the order in which they are tried."""
    rows = [
        f"| {name} | `{preset.name}` | {preset.help} | "
        + ", ".join(f"`{option} = {_shown(value)}`" for option, value in preset.values.items())
        + "".join(f"; `head_options = {_shown(of)}` with the head {head}" for head, of in preset.head_options.items())
        + " |"
        for name, job in JOBS.items()
        for preset in job.presets
    ]
    return "\n".join(["| job | preset | what it trains | defaults |", "|---|---|---|---|", *rows])


def _jobs_of(row: Option) -> str:
    return "all" if row.shared else ", ".join(name for name, job in JOBS.items() if row.name in job.takes)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={number}" for name, number in value.items())
    return (
        ",".join(str(number) for number in value) if isinstance(value, tuple) else "" if value is None else str(value)
    )


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuse a page that loads a script, picture, font or style from the network; links to follow are no matter."""
    found = _LOADED.search(output)
    if found is not None:
        raise PluginError(f"{page.file.src_path} should load nothing from the network. Found {found[0]}.")
    return output
