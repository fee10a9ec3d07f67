"""Runs: a folder taken, trained in, used."""

from widehead.runs.index import RunIndex
from widehead.runs.rehearsal import Rehearsal, rehearse
from widehead.runs.run import Run

__all__ = ["Rehearsal", "Run", "RunIndex", "rehearse"]
