"""Rows that are brought forward when they are needed: why the step stays exact for ever (docs/mathematics.md)."""

from widehead.versions.conditioning import cancels, contracts_too_much, drift_of, is_sound
from widehead.versions.row_versions import RowVersions
from widehead.versions.rows import Rows, rounded_by_name

__all__ = ["RowVersions", "Rows", "cancels", "contracts_too_much", "drift_of", "is_sound", "rounded_by_name"]
