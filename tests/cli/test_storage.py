"""``widehead train --head-storage FILE``."""

from __future__ import annotations

import json
from pathlib import Path

from support.cli_runs import assert_refused, call, train

from widehead.mapped import PAGE


def test_training_in_a_file_and_going_on(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    called = train("recommender", tmp_path, "--head-storage", rows, "--head-storage-dtype", "bfloat16", "--epochs", "3")
    assert called.code == 0, called
    assert json.loads((tmp_path / "run" / "config.json").read_text())["head_storage"] == str(rows)
    assert rows.stat().st_size == PAGE + 60 * 8 * 2
    assert call("train", "recommender", "--out", tmp_path / "run", "--resume", "--epochs", "4", "--quiet").code == 0
    predicted = call("predict", tmp_path / "run", tmp_path / "input.txt", "--top", "3")
    assert predicted.code == 0, predicted


def test_a_file_that_is_there_is_refused_and_no_run_is_left(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("somebody's data")
    assert_refused(train("recommender", tmp_path, "--head-storage", tmp_path / "rows"), "--head-storage", "delete it")
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "rows").read_text() == "somebody's data"
