"""The training loop: steps, log, evaluations, checkpoints, limits, interruption and resumption.

A run that was killed and resumed ends with the same bits as one that was not, on one machine with one number of
threads: all that decides the next step is in the checkpoint. (With a limit in minutes, time decides too, and with
several threads how busy the machine is, as fewer of them work in a crowd.)
"""

import itertools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from widehead.arithmetic import sharing
from widehead.errors import CheckpointError, NonFiniteError
from widehead.models import EncoderOptimizer, WideNetwork
from widehead.models.optimizer import average_gradients
from widehead.optim import HeadOptimizer
from widehead.options import TrainingConfig
from widehead.options.heads import split_heads
from widehead.options.intervals import Interval
from widehead.split import Peers, is_split
from widehead.targets import Inputs, SparseTargets, on_device
from widehead.training.contract import Evaluator, OnLog, Outcome, TrainingBatches
from widehead.training.folder import RunFolder
from widehead.training.interruption import Interruption
from widehead.training.joining import Joining
from widehead.training.log import Display, MetricsLog, Status
from widehead.training.position import Position
from widehead.training.state import Origin, RunState
from widehead.training.timing import HeadClock, rate_factor

_LOSS, _NORM = "the loss", "the norm of the encoder's gradient"
_HEAD_NORM = "the norm of the output layer's gradient"


class Trainer:
    """Trains a network on batches; ``restore`` first to go on from the last checkpoint, then ``run``.

    Args:
        network: encoder and head, on ``config.device``, in the state to start from.
        folder: where metrics and checkpoints go.
        sizes: what the network was built for ("inputs", "classes"), kept in checkpoints and checked on return.
        evaluator: how to judge, or None.
        display: what people see; nothing by default.
        peers: the processes that have the head's rows, each of which gives the network its share of every batch. Only
            the first writes; all of them hear of a signal that one heard.
        on_log: is called with the network and each record of the log; if it returns true, training ends there, with a
            checkpoint.
        joining: the examples that join late, if there are some.

    Raises:
        ValueError: there is no batch to train on.
    """

    def __init__(
        self,
        config: TrainingConfig,
        network: WideNetwork,
        head_optimizer: Optimizer,
        batches: TrainingBatches,
        folder: RunFolder,
        *,
        sizes: Mapping[str, int],
        evaluator: Evaluator | None = None,
        display: Display | None = None,
        on_log: OnLog | None = None,
        peers: Peers | None = None,
        joining: Joining | None = None,
    ) -> None:
        if len(batches) == 0:
            raise ValueError("There should be at least one example to train on. Found none.")
        self.config, self.network, self.batches, self.folder = config, network, batches, folder
        self.evaluator, self._joining = evaluator, joining
        self._display = display or Display()
        self._on_log, self._ended = on_log, False
        self.peers, self._splits = peers or Peers(), config.head in split_heads()
        self._interruption, self._stops = Interruption(), False
        self._log = MetricsLog(folder.metrics_path if self.peers.is_first else None)
        self._evaluate_every = Interval.parse(config.evaluate_every)
        self._checkpoint_every = Interval.parse(config.checkpoint_every)
        self._lap = self._shown = self._unsaid = self._seconds = 0.0
        self._figures: dict[str, float] = {}
        # Numbers of the steps since the last look at them: step, what it is, () the number on the device.
        self._unread: list[tuple[int, str, Tensor]] = []
        device = torch.device(config.device)
        self._clock = HeadClock(device)
        network.encoder.requires_grad_(config.encoder_lr > 0.0)
        encoder_optimizer = EncoderOptimizer(
            network.encoder,
            config.encoder_lr,
            rule=config.encoder_optimizer,
            weight_decay=config.encoder_weight_decay,
            max_grad_norm=config.encoder_max_grad_norm,
        )
        origin = Origin.of(config, sizes, folder.vocabulary_sums())
        self.state = RunState(network, head_optimizer, encoder_optimizer, [], Position(), origin, device)
        self.state.schedulers += [LambdaLR(o, self._rate) for o in (head_optimizer, *encoder_optimizer.parts)]

    def restore(self) -> None:
        """Go back to the last checkpoint, or to the beginning if there is none yet, and cut the log off there.

        Raises:
            CheckpointError: the checkpoint or the log is damaged, or of another run.
        """
        if self.peers.said_by_first(self.folder.last_checkpoint.exists()):
            self.state.restore(self.folder.last_checkpoint)
            if self.state.position.joined and self._joining is not None:
                self.batches = self._joining.batches
            if (batch := self.state.position.batch) >= len(self.batches):
                raise CheckpointError(
                    f"{self.folder.last_checkpoint} should be of a run with {len(self.batches)} batches an epoch. "
                    f"Found one that stopped in batch {batch + 1}: the training data changed."
                )
        self._log.cut(self.state.position.step, self.state.position.joined)

    def run(self) -> Outcome:
        """Train to the limit of epochs or minutes, or until SIGINT or SIGTERM, and leave a checkpoint of the end.

        Raises:
            NonFiniteError: a step met a NaN or an infinity; the last checkpoint is from before it. On the CPU that
                step changed nothing. Another device is asked each time that something is logged, judged or saved.
            CheckpointError: a checkpoint or the log could not be written; the last checkpoint is still valid.
        """
        stops = finished = self._done() >= 1.0
        with self._interruption:
            self._lap = time.perf_counter()
            while not stops:
                if self._joins():
                    self._join()
                for inputs, targets in self.batches.epoch(self.state.position.epoch, self.state.position.batch):
                    with sharing:
                        self._step(inputs, targets)
                    finished = self._done() >= 1.0
                    stops = self._between_steps(finished)
                    if stops or self._joins():
                        break
        position = self.state.position
        status = "finished" if finished or self._ended else "interrupted"
        seconds, epochs = (position.seconds, position.preparation_seconds), position.epochs(len(self.batches))
        return Outcome(status, position.step, epochs, *seconds, dict(position.metrics))

    def rehearse(self, seconds: float) -> list[float]:
        """Make steps for so many seconds, three at least; how long each took. Nothing is written."""
        begin, took = time.perf_counter(), list[float]()
        for inputs, targets in itertools.chain.from_iterable(map(self.batches.epoch, itertools.count())):
            before = time.perf_counter()
            with sharing:
                self._step(inputs, targets)
            self._read()  # which waits for the device
            took.append(time.perf_counter() - before)
            if len(took) >= 3 and self.peers.said_by_first(time.perf_counter() - begin > seconds):
                break
        return took

    @property
    def num_steps(self) -> int | None:
        """Steps of the whole run, asked before any joined; None if time alone ends it."""
        epochs = self.config.epochs
        if epochs is None or self._joining is None:
            return None if epochs is None else epochs * len(self.batches)
        return self._joining.num_steps(epochs, len(self.batches))

    def _joins(self) -> bool:
        return self._joining is not None and self._joining.is_due(self.state.position, self._done())

    def _join(self) -> None:
        """Choose by the examples that were held out, and train on them too from here on."""
        joining, position = self._joining, self.state.position
        assert joining is not None
        self._read()
        if self.peers.size > 1:  # the first then chooses by itself, with the whole network
            self._checkpoint()
        self.network.eval()
        if told := joining.choose():
            self._display.say(told)
        position.join(len(self.batches), len(joining.batches))
        self.batches = joining.batches
        where = position.where(len(self.batches))
        self._record({"kind": "joined", **where, "examples": joining.count})
        more = f"from here on {joining.what}, which were held out to choose by, train the network too."
        self._display.say(f"epoch {where['epoch']:.2f}, step {where['step']:,}: {more}")
        self._lap = time.perf_counter()

    def _done(self) -> float:
        return self.state.position.done(self.config, len(self.batches))

    def _rate(self, step: int) -> float:
        return rate_factor(self.config.schedule, self.config.warmup_steps, step, self._done())

    def _step(self, inputs: Inputs, targets: SparseTargets) -> None:
        inputs, targets = _on(self.state.device, inputs, self.network.head.prepare_targets(targets))
        self.network.train()
        self.peers.seed_step(self.config.seed, self.state.position.step)
        self.state.encoder_optimizer.zero_grad()
        self.state.head_optimizer.zero_grad()
        hidden = self.network.hidden(inputs)
        begin = self._clock.mark()
        if hidden.requires_grad:
            # The head's share of the backward pass ends when the gradient reaches the hidden layer.
            hidden.register_hook(lambda gradient: self._clock.add(begin, self._clock.mark()))
        loss, examples = (self._loss if self.peers.size == 1 else self._part_of_loss)(hidden, targets)
        loss.backward()
        if not hidden.requires_grad:
            self._clock.add(begin, self._clock.mark())
        self._change_weights()
        self.state.position.count(examples, self._spent(), len(self.batches))
        for scheduler in self.state.schedulers:
            scheduler.step()

    def _loss(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, int]:
        """The mean loss of a batch, and its examples."""
        loss = self.network.head(hidden, targets)
        self._note(_LOSS, loss.detach())
        return loss, len(targets)

    def _part_of_loss(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, int]:
        """This process's part of that mean, P times, as heads and encoders train the mean of what processes have.

        All hear here what one of them may know alone: how long the first worked, and who was asked to stop.
        """
        head = self.network.head
        loss = head(hidden, targets, reduction="sum")
        counts = head.num_counted(targets)
        asked = self._interruption.requested or self._ended
        told = self.peers.sums(float(loss.detach()), counts, len(targets), asked, self._until_now())
        total, counted, examples, stops, self._seconds = told
        self._stops = stops > 0
        self._note(_LOSS, torch.tensor(total / max(counted, 1.0), dtype=torch.float64))
        return loss * (self.peers.size / max(counted, 1.0)), int(examples)

    def _lapsed(self) -> float:
        """Seconds of training since the last call."""
        now = time.perf_counter()
        lapsed, self._lap = now - self._lap, now
        return lapsed

    def _until_now(self) -> float:
        """Those that were not told to the others, of the first process, whose clock counts for all."""
        return (self._unsaid + self._lapsed()) * self.peers.is_first

    def _spent(self) -> float:
        """Those of a step that ends."""
        lapsed = self._lapsed()
        if self.peers.size == 1:
            return lapsed
        self._unsaid = lapsed
        return self._seconds

    def _change_weights(self) -> None:
        """Make the steps of head and encoder, or neither."""
        self.state.encoder_optimizer.average(self.peers)
        if not self._splits:  # each process has the whole head
            average_gradients(list(self.network.head.parameters()), self.peers)
        norm = self.state.encoder_optimizer.gradient_norm()
        if norm is not None:
            self._note(_NORM, norm)
        begin = self._clock.mark()
        try:
            self.state.head_optimizer.step()
        except NonFiniteError as error:
            self._read()
            raise self._not_finite(str(error), self.state.position.step + 1) from error
        self._clock.add(begin, self._clock.mark())
        if (clipped := getattr(self.state.head_optimizer, "clipped_norm", None)) is not None:
            self._note(_HEAD_NORM, clipped)
        self.state.encoder_optimizer.step()

    def _note(self, what: str, value: Tensor) -> None:
        """Keep a number () of this step, which should be finite: the CPU tells it at once, another device by and by."""
        self._unread.append((self.state.position.step + 1, what, value))
        if self.state.device.type == "cpu":
            self._read()

    def _read(self) -> None:
        """Look at what was kept, which waits for the device once; NonFiniteError if a number is not finite."""
        kept, self._unread = self._unread, []
        numbers = torch.stack([value for _, _, value in kept]).tolist() if kept else []
        for (step, what, _), number in zip(kept, numbers, strict=True):
            if not math.isfinite(number):
                raise self._not_finite(f"{what} is {number}", step)
            if what == _LOSS:
                self.state.position.loss_sum += number

    def _not_finite(self, what: str, step: int) -> NonFiniteError:
        last = self.folder.last_checkpoint
        left = f"The last good checkpoint is {last}" if last.exists() else "There is no checkpoint yet"
        return NonFiniteError(
            f"Training stopped at step {step}: {what.rstrip('.')}. {left}. Lower learning "
            f"rates (the head's is {self._head_lr():.3g}, the encoder's {self.state.encoder_optimizer.lr:.3g}) or "
            "limits on gradient norms help."
        )

    def _between_steps(self, finished: bool) -> bool:
        """Show, log, evaluate and save, each if it is time; whether the run stops here, which is then saved."""
        position = self.state.position
        logs = position.step % self.config.log_every == 0 or finished
        waited = position.seconds - position.evaluated_seconds
        evaluates = self.evaluator is not None and (finished or self._due(self._evaluate_every, waited))
        if logs or evaluates:  # nothing is judged that a step before has spoilt
            self._read()
        if self._lap - self._shown >= 0.2:
            self._show()
        if logs:
            self._write_line()
        if evaluates:
            self._evaluate()
        # Asked once a step, so that no run stops without its checkpoint.
        asked = self._stops if self.peers.size > 1 else self._ended or self._interruption.requested
        stops = finished or asked
        if stops or self._due(self._checkpoint_every, position.seconds - position.saved_seconds):
            self._read()  # nor saved
            self._checkpoint()
        self._lap = time.perf_counter()
        return stops

    def _checkpoint(self) -> None:
        """The last checkpoint, of now."""
        self.state.position.saved_seconds = self.state.position.seconds
        self._read_clock()
        self._save(self.folder.last_checkpoint)

    def _save(self, path: Path) -> None:
        """All processes together, if each has rows of its own."""
        if self._splits or self.peers.is_first or any(map(is_split, self.network.encoder.parameters())):
            self.state.save(path)

    def _due(self, interval: Interval, waited: float) -> bool:
        position = self.state.position
        return interval.due(step=position.step, epochs=position.epoch, epoch_ends=position.batch == 0, waited=waited)

    def _show(self) -> None:
        self._shown = self._lap
        done, position = self._done(), self.state.position
        if not self._unread:  # else figures are those of the last time that the device was waited for
            self._read_clock()
            self._figures = position.figures()
        left = position.left(self.config, len(self.batches))
        if self._figures:
            self._display.update(Status(done=min(done, 1.0), step=position.step, seconds_left=left, **self._figures))

    def _write_line(self) -> None:
        self._read_clock()
        position = self.state.position
        rates = {"head_lr": self._head_lr(), "encoder_lr": self.state.encoder_optimizer.lr}
        rates |= self.network.head.monitors()
        if isinstance(self.state.head_optimizer, HeadOptimizer):
            rates |= self.state.head_optimizer.monitors()
        self._record({"kind": "train", **position.where(len(self.batches)), **position.figures(), **rates})
        position.forget()

    def _evaluate(self) -> None:
        position, evaluator = self.state.position, self.evaluator
        assert evaluator is not None
        position.evaluated_step, position.evaluated_seconds = position.step, position.seconds
        position.metrics = metrics = self.judge("evaluation")
        objective = metrics[evaluator.objective]
        goodness = -objective if evaluator.lower_is_better else objective
        if not math.isnan(goodness) and (position.best is None or goodness > position.best):
            position.best = goodness
            if self.config.keep_best:
                self._save(self.folder.best_checkpoint)

    def judge(self, kind: str, whose: str = "") -> dict[str, float]:
        """Metrics of the network as it is, for the log as that ``kind``, and for people with ``whose`` they are."""
        assert self.evaluator is not None
        self.network.eval()
        metrics, where = dict(self.evaluator.metrics()), self.state.position.where(len(self.batches))
        self._record({"kind": kind, **where, **metrics})
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._display.say(f"epoch {where['epoch']:.2f}, step {where['step']:,}{whose}: {said}")
        return metrics

    def _record(self, record: dict[str, Any]) -> None:
        self._log.write(record)
        if self._on_log is not None and self._on_log(self.network, dict(record)):
            self._ended = True

    def _read_clock(self) -> None:
        self.state.position.head_span += self._clock.take()

    def _head_lr(self) -> float:
        return float(self.state.head_optimizer.param_groups[0]["lr"])


def _on(device: torch.device, inputs: Inputs, targets: SparseTargets) -> tuple[Inputs, SparseTargets]:
    """A batch on a device; one object goes there once if it is both."""
    there = targets.to(device)
    return (there if inputs is targets else on_device(inputs, device)), there
