"""Trainer of transformers as it is: with one optimiser for encoder and head it trains what a loop by hand trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.stacks import BATCH, Examples, Model, assert_same, by_hand, parts, together

import widehead as wh

pytest.importorskip("accelerate", reason="make test-stacks installs it")
transformers = pytest.importorskip("transformers", reason="make test-stacks installs it")


def trainer(folder: Path, model: Model, **options: Any) -> Any:
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        **options,
    }
    optimizers = together(model), None
    arguments = transformers.TrainingArguments(**given)
    data = Examples()
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data, optimizers=optimizers
    )


def test_it_is_the_loop_by_hand(tmp_path: Path) -> None:
    model = Model()
    trainer(tmp_path, model).train()
    assert_same(model.weights(), by_hand(Examples().batches(2)).weights())


@pytest.mark.parametrize("passes", [1, 3])
def test_clipping_and_accumulation(tmp_path: Path, passes: int) -> None:
    model = Model()
    trainer(tmp_path, model, max_grad_norm=0.05, gradient_accumulation_steps=passes).train()
    expected = by_hand(Examples().batches(2), clip=0.05, passes=passes)
    assert_same(model.weights(), expected.weights(), exactly=False)
    free = by_hand(Examples().batches(2), passes=passes)
    assert not torch.allclose(expected.head.weight(), free.head.weight(), rtol=1e-2)


def test_its_defaults_clip_and_anneal_both(tmp_path: Path) -> None:
    model = Model()
    trainer(tmp_path, model, lr_scheduler_type="linear", max_grad_norm=1.0).train()

    def linear(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return transformers.get_linear_schedule_with_warmup(optimizer, 0, 12)

    expected = by_hand(Examples().batches(2), clip=1.0, schedule=linear)
    assert_same(model.weights(), expected.weights(), exactly=False)


def test_bfloat16(tmp_path: Path) -> None:
    model = Model()
    trainer(tmp_path, model, bf16=True).train()
    assert_same(model.weights(), by_hand(Examples().batches(2), autocast=True).weights())


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    whole = Model()
    options = {"save_strategy": "steps", "save_steps": 5, "lr_scheduler_type": "cosine"}
    trainer(tmp_path, whole, **options).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-10",
        "checkpoint-12",
        "checkpoint-5",
    ]
    resumed = Model()
    trainer(tmp_path, resumed, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert_same(resumed.weights(), whole.weights())


def test_it_evaluates_compiles_and_keeps_the_best(tmp_path: Path) -> None:
    model = Model()
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    own = trainer(tmp_path, model, torch_compile=True, torch_compile_backend="eager", **options)
    own.train()
    best = Model()
    best.load_state_dict({name.removeprefix("_orig_mod."): part for name, part in own.model.state_dict().items()})
    with torch.no_grad():
        loss = sum(float(best(x, labels)["loss"]) for x, labels in Examples().batches()) / 6
    assert own.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-4)
    assert_same(best.weights(), by_hand(Examples().batches(2)).weights(), exactly=False)


def test_weight_decay_and_a_trainer_of_its_own_optimiser_leave_w_and_say_so(tmp_path: Path) -> None:
    model = Model()
    weight = model.head.weight()
    own = trainer(tmp_path, model)
    own.optimizer = None
    with pytest.warns(wh.errors.NoOptimizerWarning, match=r"wh\.optim"):
        own.train()
    assert torch.equal(model.head.weight(), weight)


class InCallback(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
    """Steps the head's optimiser beside a Trainer that knows nothing of it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.optimizer.step()


def test_a_callback_steps_the_head_too(tmp_path: Path) -> None:
    model = Model()
    encoders, heads = parts(model)
    own = trainer(tmp_path, model)
    own.optimizer = encoders
    own.add_callback(InCallback(heads))
    own.train()
    assert_same(model.weights(), by_hand(Examples().batches(2)).weights())
