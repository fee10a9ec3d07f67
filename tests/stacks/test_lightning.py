"""Lightning and Fabric as they are: what they train is what a loop by hand trains."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stacks import BATCH, Examples, Model, assert_same, by_hand, parts, together
from torch import Tensor
from torch.utils.data import DataLoader

from widehead.heads import AveragedModel

lightning = pytest.importorskip("lightning", reason="make test-stacks installs it")


class Automatic(lightning.LightningModule):  # type: ignore[misc,name-defined]
    """One optimiser, which Lightning steps."""

    def __init__(self, schedule: bool = False) -> None:
        super().__init__()
        self.model, self.schedule = Model(), schedule

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss: Tensor = self.model(**batch)["loss"]
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        self.model(**batch)

    def configure_optimizers(self) -> Any:
        optimizer = together(self.model)
        if not self.schedule:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


class Manual(Automatic):
    """Two optimisers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss: Tensor = self.model(**batch)["loss"]
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        return parts(self.model)


def loader() -> DataLoader[dict[str, Tensor]]:
    return DataLoader(Examples(), batch_size=BATCH)


def trainer(folder: Path, epochs: int = 2, **options: Any) -> Any:
    given = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": True}
    return lightning.Trainer(
        max_epochs=epochs, default_root_dir=folder, enable_checkpointing=False, **{**given, **options}
    )


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield


@pytest.mark.parametrize("kind", [Automatic, Manual])
def test_it_is_the_loop_by_hand(tmp_path: Path, kind: Any) -> None:
    module = kind()
    trainer(tmp_path).fit(module, loader())
    assert_same(module.model.weights(), by_hand(Examples().batches(2)).weights())


@pytest.mark.parametrize("passes", [1, 3])
def test_clipping_and_accumulation(tmp_path: Path, passes: int) -> None:
    module = Automatic()
    trainer(tmp_path, gradient_clip_val=0.05, accumulate_grad_batches=passes).fit(module, loader())
    expected = by_hand(Examples().batches(2), clip=0.05, passes=passes)
    assert_same(module.model.weights(), expected.weights(), exactly=False)


def test_schedules_bfloat16_and_clipping_by_value(tmp_path: Path) -> None:
    module = Automatic(schedule=True)
    trainer(tmp_path, precision="bf16-mixed", enable_model_summary=False).fit(module, loader())

    def by_epoch(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** (step // 6))

    assert_same(module.model.weights(), by_hand(Examples().batches(2), schedule=by_epoch, autocast=True).weights())
    by_value = trainer(tmp_path, gradient_clip_val=1e-3, gradient_clip_algorithm="value")
    with pytest.raises(ValueError, match="clipped by value"):
        by_value.fit(Automatic(), loader())


@pytest.mark.parametrize("order", [1, "inf"])
def test_fabric_clips_by_no_other_norm(order: Any) -> None:
    fabric = lightning.Fabric(accelerator="cpu")
    bare = Model()
    model, optimizer = fabric.setup(bare, together(bare))
    fabric.backward(model(*Examples().batches()[0])["loss"])
    with pytest.raises(ValueError, match="norm of order 2"):
        fabric.clip_gradients(model, optimizer, max_norm=0.1, norm_type=order)


@pytest.mark.parametrize("kind", [Automatic, Manual])
def test_it_goes_on_from_a_checkpoint(tmp_path: Path, kind: Any) -> None:
    whole, first, second = kind(), kind(), kind()
    trainer(tmp_path, 3).fit(whole, loader())
    begun = trainer(tmp_path, 1)
    begun.fit(first, loader())
    begun.save_checkpoint(tmp_path / "begun.ckpt")
    trainer(tmp_path, 3).fit(second, loader(), ckpt_path=tmp_path / "begun.ckpt")
    assert_same(second.model.weights(), whole.model.weights())


@pytest.mark.parametrize("name", ["StochasticWeightAveraging", "EMAWeightAveraging"])
def test_averages_that_leave_w_out_are_errors(tmp_path: Path, name: str) -> None:
    from lightning.pytorch import callbacks

    callback = getattr(callbacks, name)(**({"swa_lrs": 0.01} if name[0] == "S" else {}))
    module = Automatic()
    with pytest.raises(RuntimeError, match=r"widehead\.heads\.AveragedModel"):
        trainer(tmp_path, 6, callbacks=[callback]).fit(module, loader(), loader())


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("kind", [Automatic, Manual])
def test_an_average_that_is_copied_back_at_the_end_is_an_error_too(tmp_path: Path, buffers: bool, kind: Any) -> None:
    """Without a validation, in which it would have been seen."""
    from lightning.pytorch.callbacks import EMAWeightAveraging

    module = kind()
    with pytest.raises(RuntimeError, match=r"widehead\.heads\.AveragedModel"):
        trainer(tmp_path, 2, callbacks=[EMAWeightAveraging(use_buffers=buffers)]).fit(module, loader())
    for use in (lambda: module.model(*Examples().batches()[0]), module.state_dict, module.model.head.to_scorer):
        with pytest.raises(RuntimeError, match=r"widehead\.heads\.AveragedModel"):
            use()


def test_an_average_with_w_is_kept_by_a_callback(tmp_path: Path) -> None:
    class Averaging(lightning.Callback):  # type: ignore[misc,name-defined]
        def on_fit_start(self, _: Any, module: Any) -> None:
            self.average = AveragedModel(module.model)

        def on_train_batch_end(self, _: Any, module: Any, *__: Any) -> None:
            self.average.update_parameters(module.model)

    module, callback = Automatic(), Averaging()
    trainer(tmp_path, 1, callbacks=[callback]).fit(module, loader())
    of_steps = [by_hand(Examples().batches()[: n + 1]).weights() for n in range(6)]
    for found, *single in zip(callback.average.module.weights(), *of_steps, strict=True):
        assert torch.allclose(found, sum(single) / 6, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_fabric(tmp_path: Path, precision: str, clip: float | None) -> None:
    fabric = lightning.Fabric(accelerator="cpu", precision=precision)
    bare = Model()
    optimizer = together(bare)
    model, optimizer = fabric.setup(bare, optimizer)
    for epoch in range(2):
        for batch in fabric.setup_dataloaders(loader()):
            fabric.backward(model(**batch)["loss"])
            if clip is not None:
                fabric.clip_gradients(model, optimizer, max_norm=clip)
            optimizer.step()
            optimizer.zero_grad()
        if epoch == 0:
            fabric.save(tmp_path / "state.ckpt", {"model": model, "optimizer": optimizer})
            fabric.load(tmp_path / "state.ckpt", {"model": model, "optimizer": optimizer})
    expected = by_hand(Examples().batches(2), clip=clip, autocast=precision == "bf16-mixed")
    assert_same(bare.weights(), expected.weights(), exactly=clip is None)


def test_fabric_takes_parts_too() -> None:
    fabric = lightning.Fabric(accelerator="cpu")
    bare = Model()
    model, *optimizers = fabric.setup(bare, *parts(bare))
    for x, labels in Examples().batches(2):
        fabric.backward(model(x, labels)["loss"])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_same(bare.weights(), by_hand(Examples().batches(2)).weights())
