"""accelerate as it is: prepared optimisers and schedules, clipping, accumulation, saved states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stacks import BATCH, Examples, Model, assert_same, by_hand, parts, together
from torch.utils.data import DataLoader

accelerate = pytest.importorskip("accelerate", reason="make test-stacks installs it")


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def decaying(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


@pytest.mark.parametrize("as_one", [True, False])
@pytest.mark.parametrize(("clip", "passes"), [(None, 1), (0.05, 1), (0.05, 3)])
def test_it_is_the_loop_by_hand(as_one: bool, clip: float | None, passes: int) -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=passes)
    bare = Model()
    made = [together(bare)] if as_one else list(parts(bare))
    schedules = [decaying(optimizer) for optimizer in made]
    loader = DataLoader(Examples(), batch_size=BATCH)
    model, loader, *prepared = accelerator.prepare(bare, loader, *made, *schedules)
    for _ in range(2):
        for batch in loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch)["loss"])
                if clip is not None and accelerator.sync_gradients:
                    if as_one:
                        accelerator.clip_grad_norm_(model.parameters(), clip)
                    else:
                        accelerator.clip_grad_norm_(
                            [p for o in prepared[:2] for g in o.param_groups for p in g["params"]], clip
                        )
                for each in prepared:
                    each.step()
                for each in prepared[: len(made)]:
                    each.zero_grad()
    expected = by_hand(Examples().batches(2), clip=clip, passes=passes, schedule=decaying)
    assert_same(bare.weights(), expected.weights(), exactly=clip is None)


def test_a_scaled_loss_is_clipped_and_stepped_unscaled() -> None:
    """As with mixed_precision="fp16" on a GPU: the scaler is handed to the wrapper."""
    accelerator = accelerate.Accelerator(cpu=True)
    bare, scaler = Model(), torch.amp.GradScaler("cpu")
    optimizer = accelerate.optimizer.AcceleratedOptimizer(together(bare), scaler=scaler)
    for x, labels in Examples().batches(2):
        scaler.scale(bare(x, labels)["loss"]).backward()
        scaler.unscale_(optimizer.optimizer)
        accelerator.clip_grad_norm_(bare.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        assert not optimizer.step_was_skipped
    assert_same(bare.weights(), by_hand(Examples().batches(2), clip=0.05).weights(), exactly=False)
    before = bare.weights()
    scaler.scale(bare(x, labels)["loss"] * 1e38).backward()
    optimizer.step()
    assert optimizer.step_was_skipped
    assert all(torch.equal(a, b) for a, b in zip(before, bare.weights(), strict=True))


def test_a_saved_state_is_loaded(tmp_path: Path) -> None:
    def run(first: int, last: int, load: bool = False) -> Any:
        accelerator = accelerate.Accelerator(cpu=True)
        bare = Model()
        model, optimizer = accelerator.prepare(bare, together(bare))
        if load:
            accelerator.load_state(tmp_path / "state")
        for x, labels in Examples().batches(2)[first:last]:
            accelerator.backward(model(x, labels)["loss"])
            optimizer.step()
            optimizer.zero_grad()
        if not load:
            accelerator.save_state(tmp_path / "state")
        return bare.weights()

    run(0, 7)
    assert_same(run(7, 12, load=True), by_hand(Examples().batches(2)).weights())
