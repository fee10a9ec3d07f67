"""Examples that join a run late: when they do, what is chosen before, and that nothing of it depends on stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import SmallBatches, build, log_without_timings, small_config

from widehead.training.checkpoint import load_checkpoint
from widehead.training.folder import RunFolder
from widehead.training.joining import BEGIN, Joining
from widehead.training.position import Position

BEFORE, AFTER, EPOCHS = 25, 31, 4
JOINS = 80  # the first step of four epochs of 25 after which four fifths are done
END = JOINS + 31 - 7  # a fifth of the fourth epoch is done, 5 batches of 25 or 7 of 31


class Killed(Exception):
    """In the place of a kill: nothing is written after it."""


class Watched:
    """A trainer whose batches and choices are written down; it dies where it is told to."""

    def __init__(self, out: Path, dies: str = "", **options: Any) -> None:
        given = {"log_every": 1, "schedule": "linear", "warmup_steps": 0, **options}
        new = not out.exists()
        folder, config = RunFolder.open(out) if not new else (None, small_config(out, **given))
        self.chosen: list[float] = []
        self.seen: list[tuple[int, int, int]] = []  # of the larger epochs, or not; epoch and first batch
        self.dies = dies
        joining = Joining(self._batches(AFTER), 240, "40 bags", self._choose)
        self.trainer = build(config, folder or RunFolder.create(config), joining=joining, on_log=self._hear)
        self.trainer.batches = self._batches(BEFORE)
        if not new:
            self.trainer.restore()

    def _batches(self, count: int) -> SmallBatches:
        made, seen = SmallBatches(count), self.seen

        class Told(SmallBatches):
            def epoch(self, n: int, start: int = 0) -> Any:
                seen.append((count, n, start))
                return made.epoch(n, start)

        return Told(count)

    def _choose(self) -> str:
        assert not self.trainer.network.training
        self.chosen.append(float(self.trainer.network.head.weight().square().sum()))  # type: ignore[operator]
        if self.dies == "choosing":
            raise Killed
        return "chosen"

    def _hear(self, _: Any, record: dict[str, Any]) -> bool:
        if record["kind"] == self.dies or f"step {record['step']}" == self.dies:
            raise Killed
        return f"stop {record['step']}" == self.dies


def run_to_the_end(out: Path, **options: Any) -> Watched:
    watched = Watched(out, **options)
    assert watched.trainer.run().status == "finished"
    return watched


def state(out: Path) -> list[torch.Tensor]:
    tree = load_checkpoint(out / "checkpoints" / "last.safetensors")
    parts = (tree["encoder"], tree["head"], tree["encoder_optimizer"]["parts"][0]["state"][0], tree["random"])
    found = [value for part in parts for value in part.values()]
    return [value for value in found if isinstance(value, torch.Tensor)]


def test_they_train_in_the_last_fifth_and_the_rates_fall_on(tmp_path: Path) -> None:
    watched = run_to_the_end(tmp_path / "run")
    trainer, log = watched.trainer, log_without_timings(tmp_path / "run")
    assert watched.seen == [(BEFORE, 0, 0), (BEFORE, 1, 0), (BEFORE, 2, 0), (BEFORE, 3, 0), (AFTER, 3, 7)]
    assert len(watched.chosen) == 1
    position = trainer.state.position
    assert (position.step, position.epoch, position.batch, position.joined) == (END, EPOCHS, 0, True)
    joined = [line for line in log if line["kind"] == "joined"]
    assert joined == [{"kind": "joined", "step": JOINS, "epoch": 3 + 7 / 31, "examples": 240}]
    train = [line for line in log if line["kind"] == "train"]
    assert [line["step"] for line in train] == list(range(1, END + 1))
    rates = [line["encoder_lr"] for line in train]
    parts = [step / BEFORE if step <= JOINS else 3 + (step - JOINS + 7) / AFTER for step in range(1, END + 1)]
    assert rates == pytest.approx([0.01 * (1 - part / EPOCHS) for part in parts], abs=1e-12)


def test_the_steps_of_a_run_are_known_before(tmp_path: Path) -> None:
    assert Watched(tmp_path / "run").trainer.num_steps == END
    config = small_config(tmp_path / "plain")
    assert build(config, RunFolder.create(config)).num_steps == EPOCHS * BEFORE
    config = small_config(tmp_path / "timed", epochs=None, minutes=1.0)
    assert build(config, RunFolder.create(config)).num_steps is None


@pytest.mark.parametrize(
    "dies",
    ["choosing", "joined", "step 79", f"step {JOINS}", "step 81", "step 95", "stop 40", f"stop {JOINS}", "stop 81"],
)
@pytest.mark.parametrize("every", ["1 steps", "7 steps", "1000 steps"])
def test_a_run_that_dies_anywhere_goes_on_to_the_same_bits(tmp_path: Path, dies: str, every: str) -> None:
    whole = run_to_the_end(tmp_path / "whole", checkpoint_every=every)
    dying = Watched(tmp_path / "parts", dies, checkpoint_every=every)
    if dies.startswith("stop"):
        dying.trainer.run()
    else:
        with pytest.raises(Killed):
            dying.trainer.run()
    after = Watched(tmp_path / "parts")
    joined = after.trainer.state.position.joined
    assert after.trainer.run().status == "finished"
    assert after.chosen == ([] if joined else whole.chosen)
    assert log_without_timings(tmp_path / "whole") == log_without_timings(tmp_path / "parts")
    assert all(map(torch.equal, state(tmp_path / "whole"), state(tmp_path / "parts")))


def test_a_longer_run_goes_on_with_all_examples(tmp_path: Path) -> None:
    run_to_the_end(tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"epochs": 4', '"epochs": 6'))
    watched = run_to_the_end(tmp_path / "run")
    assert watched.seen == [(AFTER, 4, 0), (AFTER, 5, 0)]
    assert watched.chosen == []
    assert [line["kind"] for line in log_without_timings(tmp_path / "run")].count("joined") == 1


@pytest.mark.parametrize(("seconds", "joins"), [(0.9, True), (1.1, False)])
def test_time_counts_too(tmp_path: Path, seconds: float, joins: bool) -> None:
    """Four fifths of the minutes or of the passes, whichever is first; a run that is over lets nobody join."""
    config = small_config(tmp_path / "run", minutes=1 / 60, epochs=100)
    position = Position(step=1, batch=1, seconds=seconds)
    joining = Joining(SmallBatches(AFTER), 240, "40 bags", lambda: None)
    assert joining.is_due(position, position.done(config, BEFORE)) == joins
    assert not joining.is_due(Position(), 0.79)
    assert not joining.is_due(Position(joined=True), 0.9)


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7, 9, 15])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3), (3, 4), (10, 11), (311, 327), (100, 101)])
def test_the_number_of_steps_is_that_of_a_run(epochs: int, before: int, after: int, tmp_path: Path) -> None:
    """The slow twin counts them one by one."""
    config, position = small_config(tmp_path / "run", epochs=epochs), Position()
    joining, length = Joining(SmallBatches(after), 0, "", lambda: None), before
    while position.done(config, length) < 1.0:
        if joining.is_due(position, position.done(config, length)):
            done = position.done(config, length)
            position.join(length, after)
            length = after
            assert done <= position.done(config, length) < done + 1 / (epochs * after) + 1e-12
        position.count(8, 0.0, length)
    assert position.joined == (epochs * before >= 1 / (1 - BEGIN) - 1e-9)
    assert joining.num_steps(epochs, before) == position.step


def test_a_checkpoint_that_does_not_say_whether_they_joined_is_refused(tmp_path: Path) -> None:
    saved = dict(vars(Position()))
    with pytest.raises(TypeError, match=r"`joined` should be true or false\. Found 3"):
        Position.of({**saved, "joined": 3})
    assert Position.of({**saved, "joined": True}).joined
