"""Runs: a folder taken, trained in, used."""

from widehead.runs.index import RunIndex
from widehead.runs.run import Run

__all__ = ["Run", "RunIndex"]
