"""The loop: it learns, keeps to its limits and schedule, logs what it says, and stops cleanly."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import scipy.sparse
import torch
from support.played import Device
from support.small_run import CLASSES, INPUTS, SmallBatches, build, log_without_timings, small_config

from widehead.data import RowExamples
from widehead.errors import CheckpointError, NonFiniteError
from widehead.heads import FullSoftmaxHead
from widehead.jobs.network import bag_encoder
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.training.checkpoint import load_checkpoint
from widehead.training.contract import Evaluator
from widehead.training.folder import RunFolder
from widehead.training.log import read_metrics
from widehead.training.loop import Trainer
from widehead.training.optimizers import make_head_optimizer


def trainer_in(path: Path, **options: object) -> Trainer:
    config = small_config(path / "run", **options)
    return build(config, RunFolder.create(config))


def test_a_run_learns_and_leaves_a_log_and_a_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, loss="squared-error", head_lr=0.5, schedule="constant", warmup_steps=0, epochs=6)
    outcome = trainer.run()
    assert (outcome.status, outcome.step, outcome.epoch) == ("finished", 150, 6.0)
    lines = log_without_timings(tmp_path / "run")
    train = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in train] == [*range(7, 150, 7), 150]
    assert [line["step"] for line in evaluations] == [25, 50, 75, 100, 125, 150]
    assert evaluations[-1]["loss"] < 0.95 * evaluations[0]["loss"]
    assert set(train[0]) == {"kind", "step", "epoch", "loss", "head_lr", "encoder_lr"}
    assert train[0]["epoch"] == pytest.approx(7 / 25)
    assert outcome.metrics == {k: v for k, v in evaluations[-1].items() if k in ("loss", "perplexity")}
    tree = load_checkpoint(trainer.folder.last_checkpoint)
    assert tree["position"]["step"] == 150
    assert not trainer.folder.best_checkpoint.exists()


def test_log_lines_hold_the_mean_loss_and_a_share_of_time(tmp_path: Path) -> None:
    import json

    trainer_in(tmp_path, epochs=1).run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert all(0.0 < line["head_share"] < 1.0 for line in train)
    assert all(line["examples_per_second"] > 0 for line in train)
    seconds = [line["seconds"] for line in train]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_the_schedule_moves_both_learning_rates(tmp_path: Path) -> None:
    trainer_in(tmp_path, log_every=1, epochs=2).run()
    train = [line for line in log_without_timings(tmp_path / "run") if line["kind"] == "train"]
    head = [line["head_lr"] for line in train]
    # The rate in a line is the one of the next step: it rises for 10 steps, then falls to nothing.
    assert head[0] == pytest.approx(0.2 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi / 50))).item())
    assert max(range(50), key=head.__getitem__) == 8
    assert head[-1] == pytest.approx(0.0, abs=1e-12)
    assert [line["encoder_lr"] for line in train] == pytest.approx([0.01 * lr for lr in head])


def test_a_limit_in_minutes_ends_the_run(tmp_path: Path) -> None:
    outcome = trainer_in(tmp_path, epochs=None, minutes=0.005).run()
    assert outcome.status == "finished"
    assert 0.3 <= outcome.seconds < 3.0


def test_keep_best_keeps_the_checkpoint_with_the_best_objective(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, keep_best=True, epochs=3)
    values = iter([3.0, 1.0, 2.0])
    object.__setattr__(trainer.evaluator, "metrics", lambda: {"loss": next(values)})
    trainer.run()
    assert load_checkpoint(trainer.folder.best_checkpoint)["position"]["step"] == 50
    assert load_checkpoint(trainer.folder.last_checkpoint)["position"]["step"] == 75


def test_checkpoints_come_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_in(tmp_path, checkpoint_every="20 steps", epochs=2)
    steps: list[int] = []
    monkeypatch.setattr(trainer.state, "save", lambda path: steps.append(trainer.state.position.step))
    trainer.run()
    assert steps == [20, 40, 50]


def test_an_evaluation_without_a_value_is_never_the_best(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, keep_best=True, epochs=3)
    values = iter([float("nan"), 2.0, float("nan")])
    object.__setattr__(trainer.evaluator, "metrics", lambda: {"loss": next(values)})
    trainer.run()
    assert load_checkpoint(trainer.folder.best_checkpoint)["position"]["step"] == 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    trainer = trainer_in(tmp_path, epochs=1000)
    before = signal.getsignal(number)
    original = trainer.batches.epoch

    def epoch(n: int, start: int = 0):  # type: ignore[no-untyped-def]
        for i, batch in enumerate(original(n, start)):
            if (n, i) == (2, 5):
                os.kill(os.getpid(), number)
            yield batch

    trainer.batches.epoch = epoch  # type: ignore[method-assign]
    outcome = trainer.run()
    assert (outcome.status, outcome.step) == ("interrupted", 56)
    assert load_checkpoint(trainer.folder.last_checkpoint)["position"]["step"] == 56
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, epochs=1000)

    def slow_evaluation() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the evaluation should have been cut short")

    object.__setattr__(trainer.evaluator, "metrics", slow_evaluation)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, epochs=1)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(trainer.run()))
    thread.start()
    thread.join()
    assert outcomes[0].status == "finished"


@pytest.mark.filterwarnings("ignore::widehead.errors.UnstableStepWarning")
def test_a_step_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, loss="squared-error", head_lr=0.01, checkpoint_every="10 steps", log_every=1)
    original = trainer.batches.epoch

    def epoch(n: int, start: int = 0):  # type: ignore[no-untyped-def]
        for i, batch in enumerate(original(n, start)):
            if i == 13:
                trainer.state.schedulers[0].base_lrs[0] = 1e15
            yield batch

    trainer.batches.epoch = epoch  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=r"stopped at step 1[4-9].*last good checkpoint is .*last\.safetensors"):
        trainer.run()
    tree = load_checkpoint(trainer.folder.last_checkpoint)
    assert tree["position"]["step"] == 10
    assert bool(torch.isfinite(tree["head"]["values"]).all())


def test_an_infinite_loss_stops_the_run_before_anything_changes(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    with torch.no_grad():
        trainer.network.encoder.embeddings.weight.fill_(torch.nan)
    before = trainer.network.head.weight().clone()
    with pytest.raises(NonFiniteError, match=r"step 1: .*no checkpoint yet"):
        trainer.run()
    assert torch.equal(trainer.network.head.weight(), before)


def test_a_full_disk_stops_the_run_with_one_message(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, checkpoint_every="1000 steps")
    trainer.folder.last_checkpoint.parent.rmdir()
    with pytest.raises(CheckpointError, match=r"last\.safetensors could not be written"):
        trainer.run()


def test_a_run_needs_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallBatches, "__len__", lambda self: 0)
    with pytest.raises(ValueError, match="at least one example"):
        trainer_in(tmp_path)


def build_parameter_head(config: TrainingConfig, device: str) -> Trainer:
    """A trainer of a head with ordinary parameters, on a device."""
    torch.manual_seed(config.seed)
    network = WideNetwork(bag_encoder(INPUTS, config), FullSoftmaxHead(config.width, CLASSES)).to(device)
    examples = RowExamples(scipy.sparse.identity(CLASSES, format="csr"))
    optimizer = make_head_optimizer(config, network, examples)
    sizes = {"inputs": INPUTS, "classes": CLASSES}
    return Trainer(config, network, optimizer, SmallBatches(), RunFolder.create(config), sizes=sizes)


def quiet_trainer(path: Path, device: str, **options: object) -> Trainer:
    """Without anything random in the encoder, nor evaluations."""
    trainer = trainer_in(path, device=device, dropout=0.0, input_dropout=0.0, epochs=2, **options)
    trainer.network.to(device)
    trainer.evaluator = None
    return trainer


@pytest.mark.parametrize("often", [False, True])
def test_a_run_on_a_device_is_asked_for_its_losses_once_a_line(played: Device, tmp_path: Path, often: bool) -> None:
    """Whether or not it is shown after each step."""
    lines, reads = [], []
    for device in ("cpu", "cuda"):
        trainer = quiet_trainer(tmp_path / device, device)
        if often:
            trainer.network.encoder.register_forward_hook(lambda *_, t=trainer: setattr(t, "_shown", -1e9))
        with played.counting() as seen:
            trainer.run()
        reads.append([wait for wait in seen.waits if wait.lines[0].endswith((" _read", " _note", " _show", " take"))])
        lines.append([line for line in log_without_timings(tmp_path / device / "run") if line["kind"] == "train"])
    assert not reads[0]
    assert len(reads[1]) == len(lines[1]) == 50 // 7 + 1
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for here, there in zip(*lines, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)


@pytest.mark.parametrize("bad", [1, 3, 5, 7, 8, 20, 25, 49, 50])
def test_on_a_device_a_loss_that_is_not_finite_is_told_late_but_surely(
    played: Device, tmp_path: Path, bad: int
) -> None:
    trainer = quiet_trainer(tmp_path, "cuda", checkpoint_every="10 steps")
    steps = iter(range(1, 1_000))

    def hook(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * float("nan") if next(steps) == bad else output

    trainer.network.encoder.register_forward_hook(hook)
    with pytest.raises(NonFiniteError, match=f"stopped at step {bad}: the loss is nan"):
        trainer.run()
    last = trainer.folder.last_checkpoint
    if bad > 10:
        position = load_checkpoint(last)["position"]
        assert position["step"] == (bad - 1) // 10 * 10
    else:
        assert not last.exists()
    assert all(line["step"] < bad for line in read_metrics(trainer.folder.metrics_path))


def test_on_a_device_nothing_is_judged_that_a_step_before_has_spoilt(played: Device, tmp_path: Path) -> None:
    trainer, judged = quiet_trainer(tmp_path, "cuda", evaluate_every="4 steps"), []

    def judge() -> dict[str, float]:
        judged.append(trainer.state.position.step)
        return {"recall@1": 0.5}

    trainer.evaluator = Evaluator(judge, "recall@1")
    steps = iter(range(1, 1_000))

    def hook(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * float("nan") if next(steps) == 16 else output

    trainer.network.encoder.register_forward_hook(hook)
    with pytest.raises(NonFiniteError, match="stopped at step 16: the loss is nan"):
        trainer.run()
    assert judged == [4, 8, 12]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gradient_of_the_output_layer_that_is_not_finite_stops_the_run(
    played: Device, tmp_path: Path, device: str
) -> None:
    config = small_config(tmp_path / "run", head="full", loss=None, head_max_grad_norm=1.0, device=device, epochs=1)
    trainer = build_parameter_head(config, device)
    steps = iter(range(1, 100))

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan") if next(steps) == 10 else gradient

    next(trainer.network.head.parameters()).register_hook(poison)
    with pytest.raises(NonFiniteError, match=r"stopped at step 10: .*output layer"):
        trainer.run()
    assert not trainer.folder.last_checkpoint.exists()
