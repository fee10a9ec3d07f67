"""Runs: a folder taken, trained in, used."""

from widehead.runs.run import Run

__all__ = ["Run"]
