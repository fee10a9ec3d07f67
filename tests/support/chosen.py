"""What a job chose after training, by data that its network had not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from widehead.errors import RankingWarning
from widehead.runs import Run


def train_on_and_die(run: Run, chooser: type[Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of one epoch, opened again after it went on and died as it chose anew: it ranks by its network alone."""
    assert run.network.beside is not None

    def killed(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(chooser, "chosen", killed)
        with pytest.raises(MemoryError):
            run.train(quiet=True, epochs=2)
    again = Run.open(Path(run.folder.path))
    with pytest.warns(RankingWarning, match="ranks by the network alone.*one process"):
        assert again.network.beside is None
    return again
