"""A hook of MkDocs: the pages must be readable without a network, so nothing in them may be loaded from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError

__all__ = ["on_post_page"]

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^\s"'>]*|<link\b[^>]*\bhref=["']?(?:https?:)?//[^\s"'>]*"""
)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuse a page that loads a script, picture, font or style from the network; links to follow are no matter."""
    found = _LOADED.search(output)
    if found is not None:
        raise PluginError(f"{page.file.src_path} should load nothing from the network. Found {found[0]}.")
    return output
