"""Random walks over all that an exact head can do: short ones at each change, long ones as a slow proof.

The slow ones make 200,000 actions in all and take an hour or two:

    OMP_NUM_THREADS=1 pytest -m slow tests/test_random_walk.py
"""

from __future__ import annotations

from typing import Any

import pytest
from support.walk.run import one_walk, report, walk
from support.walk.twin import Twin
from support.walk.walker import Actions
from torch import Tensor

pytestmark = pytest.mark.long

SHORT = [pytest.param(seed, 700, id=f"{seed}") for seed in range(3)]
LONG = [pytest.param(seed, 10_000, id=f"{seed}, long", marks=pytest.mark.slow) for seed in range(100, 120)]


@pytest.mark.parametrize(("seed", "actions"), SHORT + LONG)
def test_a_random_walk_stays_beside_its_twin(seed: int, actions: int) -> None:
    found = walk(seed, actions)
    print(report(found))
    assert not found.failures, "\n".join(found.failures)


CACHED = [pytest.param(seed, 700, id=f"{seed}") for seed in (50,)]
CACHED += [pytest.param(seed, 10_000, id=f"{seed}, long", marks=pytest.mark.slow) for seed in range(150, 155)]


@pytest.mark.parametrize(("seed", "actions"), CACHED)
def test_so_does_one_of_the_record_for_a_gpu(seed: int, actions: int) -> None:
    """On a CPU, which has it told at once of steps that are not finite."""
    found = walk(seed, actions, cached=True)
    print(report(found))
    assert not found.failures, "\n".join(found.failures)


def test_a_step_that_is_a_little_off_is_seen_and_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin goes a ten-thousandth further than it should; what fails names the seed and the walk, and repeats."""
    real = Twin.sgd

    def further(self: Twin, gradient: Tensor, group: dict[str, Any]) -> None:
        real(self, gradient * 1.0001, group)

    monkeypatch.setattr(Twin, "sgd", further)
    number, failure = next((n, f) for n in range(10) if (f := one_walk(0, n, Actions())))
    assert failure.startswith(f"seed 0 walk {number}: Difference: W is off by")
    assert "step sgd" in failure or "step momentum" in failure or "step nesterov" in failure
    assert one_walk(0, number, Actions()) == failure
