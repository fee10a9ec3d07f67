"""One walk: a head of random size, loss, type and storage, and random actions beside the twin."""

from __future__ import annotations

import collections
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import widehead as wh
from support.properties import TABLE, Row
from support.walk.batches import DOUBLE, Batch, Source
from support.walk.bounds import INVERSE, UNDERFLOW, Bounds, PassBounds
from support.walk.twin import Passed, Preconditioner, Twin
from support.walk.watched import watched
from widehead.arithmetic import TORCH, using
from widehead.errors import StaleGraphError
from widehead.optim import SGD, Muon, Newton, Shampoo
from widehead.optim.base import HeadOptimizer, Proposal

# Ordinary sizes, and those at which something is left out: one class, one column, fewer classes than columns.
SIZES = [(600, 24)] * 6 + [(2000, 17), (2000, 24), (300, 64), (997, 33)]
SIZES += [(1, 1), (1, 7), (2, 2), (3, 24), (17, 24), (50, 3), (700, 1)]
KINDS = ["sgd"] * 3 + ["momentum"] * 2 + ["nesterov", "newton", "newton", "shampoo", "muon"]
STORAGES = ["memory"] * 6 + ["file", "bfloat16"]

Result = TypeVar("Result")


class Difference(AssertionError):
    """The head is not what the twin says."""


class Actions:
    """What a walk counts and remembers: names of actions, the last ones in words, the worst share of each bound."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.last: collections.deque[str] = collections.deque(maxlen=40)
        self.worst: dict[tuple[str, str], float] = {}
        self.compared = 0

    def note(self, name: str, *details: object) -> None:
        self.counts[name] += 1
        self.last.append(" ".join(map(str, (name, *details))))


class Walker:
    """The head, its optimiser, the twin and what may have come together between them.

    Args:
        seed: of all that is drawn.
        actions: what is counted.
    """

    def __init__(self, seed: str, actions: Actions) -> None:
        self.source, self.actions = Source(seed), actions
        self.choose = self.source.random.choice
        self.folder = tempfile.TemporaryDirectory(prefix="walk")
        self.classes, self.width = self.choose(SIZES)
        # z of few classes hardly moves. An only class has the probability 1, and T is rounding, which momentum and an
        # lr that is suddenly a thousand times another make as large as W: docs/limits.md.
        few = {"z-loss": 50, "spherical softmax": 2, "spherical softmax, values": 2, "taylor softmax": 2}
        rows = [row for row in TABLE if self.classes >= few.get(row.name, 1)]
        self.row: Row = self.choose(rows)
        self.bias = self.source.chance(0.3)
        self.storage = self.choose(STORAGES)
        self.dtype = torch.float32 if self.storage == "bfloat16" else self.choose([torch.float32] * 4 + [DOUBLE])
        self.head = self.new_head()
        self.twin = Twin(self.row, self.head.weights.dense().double())
        self.bounds = Bounds(self.dtype, self.twin, narrow=self.storage == "bfloat16")
        self.steps = 0
        self.optimizer = self.new_optimizer()
        self.actions.note("begin", self)

    def __str__(self) -> str:
        return f"D {self.classes} d {self.width} {self.row.name} bias {self.bias} {self.dtype} {self.storage}"

    def close(self) -> None:
        torch.set_num_threads(1)
        self.folder.cleanup()

    # -- heads and optimisers -----------------------------------------------------------------------------------------

    def new_head(self) -> wh.ExactHead:
        torch.manual_seed(self.source.random.getrandbits(30))
        options: dict[str, Any] = {}
        if self.storage == "file":
            options["storage"] = Path(tempfile.mkdtemp(dir=self.folder.name)) / "rows"
        if self.storage == "bfloat16":
            options["storage_dtype"] = torch.bfloat16
        return wh.ExactHead(self.width, self.classes, self.row.make(), bias=self.bias, dtype=self.dtype, **options)

    def new_optimizer(self, kind: str | None = None) -> HeadOptimizer:
        """An optimiser with random options; what is kept of the one before is forgotten."""
        self.kind, order = kind or self.choose(KINDS), self.head.weights.order
        options: dict[str, Any] = {
            "weight_decay": self.choose([0.0, 0.0, 1e-4, 0.01]),
            "max_grad_norm": self.choose([None] * 4 + [0.01, 1.0, 100.0]),
        }
        if self.kind in ("sgd", "momentum", "nesterov"):
            if self.kind != "sgd":
                options |= {"momentum": self.choose([0.5, 0.9, 0.99]), "nesterov": self.kind == "nesterov"}
                options |= {"decoupled": self.source.chance(0.5)}
            made: HeadOptimizer = watched(SGD)(self.head, lr=0.01, **options)
        else:
            options |= {"damping": self.choose([0.05, 0.1, 0.5]), "lr": self.choose([None, 0.1, 1.0])}
            if self.kind != "muon":
                options |= {"decay": self.choose([0.0, 0.5, 0.95, 1.0]), "refresh_every": self.choose([1, 3, None])}
            if self.kind == "newton" and self.source.chance(0.3):
                options |= {"ridge": self.choose([0.1, 10.0])}
            made = watched({"newton": Newton, "shampoo": Shampoo, "muon": Muon}[self.kind])(self.head, **options)
        if self.head.weights.order != order:
            self.twin.momentum = torch.zeros_like(self.twin.weight)
        self.right = Preconditioner(self.kind, made.param_groups[0])
        return made

    @property
    def group(self) -> dict[str, Any]:
        return self.optimizer.param_groups[0]

    # -- comparing ----------------------------------------------------------------------------------------------------

    def see(self, what: str, error: float, bound: float) -> None:
        key = (str(self.dtype).removeprefix("torch."), what)
        if not bound < float("inf"):  # or no number, of infinite parts: anything is allowed
            return
        bound += UNDERFLOW[self.dtype]
        share = error / bound if bound > 0.0 else (0.0 if error == 0.0 else float("inf"))
        self.actions.worst[key] = max(self.actions.worst.get(key, 0.0), share if share == share else float("inf"))
        if not share <= 1.0:
            raise Difference(
                f"{what} is off by {error:.3g}, and {bound:.3g} is allowed, after {self.steps} steps; {self}"
            )

    def compare(self) -> None:
        """W and M. The twin takes them over, so that each action's own error is seen, against the smallest bound."""
        ours, twin = self.head.weights.dense().double(), self.twin
        wrong = float((ours - twin.weight).norm())
        self.see("W", wrong, self.bounds.weight + self.bounds.resting(twin) + self.bounds.rounded(twin))
        if self.head.weights.order == 2:
            momentum = self.head.weights.momentum().double()
            bound = self.bounds.momentum + self.bounds.resting_momentum(twin) + self.bounds.rounded_momentum(twin)
            self.see("M", float((momentum - twin.momentum).norm()), bound)
        self.actions.compared += 1
        self.take_over()

    def take_over(self) -> None:
        self.twin.weight = self.head.weights.dense().double()
        if self.head.weights.order == 2:
            self.twin.momentum = self.head.weights.momentum().double()
        self.bounds.weight = self.bounds.momentum = 0.0

    # -- what should not matter ---------------------------------------------------------------------------------------

    @contextmanager
    def around(self) -> Iterator[None]:
        """Without kernels, or inside autocast, for a part of a step."""
        with ExitStack() as stack:
            if self.source.chance(0.25):
                stack.enter_context(using(TORCH))
            if self.source.chance(0.05):
                stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
            yield

    def somewhere(self, work: Callable[[], Result]) -> Result:
        """In this thread or, seldom, in another."""

        def inside() -> Result:
            with self.around():
                return work()

        if not self.source.chance(0.03):
            return inside()
        self.actions.note("other thread")
        found: list[Result | BaseException] = []

        def run() -> None:
            try:
                found.append(inside())
            except BaseException as error:  # noqa: BLE001  it is raised again in this thread
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def disturb(self, when: str) -> None:
        """Something between the parts of a step that must not matter."""
        if not self.source.chance(0.06):
            return
        head, other = self.head, self.batch(3)
        things: dict[str, Callable[[], object]] = {
            # in bfloat16 that rounds all rows anew, and W is another
            "consolidate": (lambda: None) if self.storage == "bfloat16" else head.consolidate,
            "audit": self.audit,
            "state_dict": head.state_dict,
            "no_grad": lambda: torch.no_grad()(head)(other.given, other.targets),
            "inference_mode": lambda: torch.inference_mode()(head)(other.given, other.targets),
            "eval": lambda: (head.eval(), head(other.given, other.targets), head.train()),
            "top_k": lambda: head.top_k(other.given, min(5, self.classes)),
            "to_linear": lambda: (head.weight(), head.to_linear()),
            "grad_norm": head.grad_norm,
            "threads": lambda: torch.set_num_threads(self.choose([1, 2, 3])),
        }
        name = self.choose(list(things))
        self.actions.note(name, when)
        things[name]()

    def audit(self) -> None:
        """What is kept of W beside what it says: Q, w̄ and U⁻¹."""
        found, weight = self.head.audit(), self.twin.weight
        if not found.finite:
            raise Difference("The audit found numbers that are not finite.")
        if self.head.weights.order == 1:
            gram = float((weight.T @ weight).norm())
            self.see("Q", found.gram * gram, self.bounds.gram(self.twin))
            self.see("w̄", found.column_sum * float(weight.norm()), self.bounds.column_sum(self.twin))
        self.see("U⁻¹", found.inverse, INVERSE[self.dtype])

    # -- a step -------------------------------------------------------------------------------------------------------

    def batch(self, m: int | None = None) -> Batch:
        return self.source.batch(self.row, self.head, self.steps, m)

    def one_pass(self) -> tuple[Passed, PassBounds]:
        """Forward and backward, of the head and the twin."""
        batch, bounds = self.batch(0 if self.source.chance(0.01) else None), self.bounds
        hidden = batch.given.clone(memory_format=torch.preserve_format).requires_grad_(self.source.chance(0.8))
        details = (
            f"m {batch.size} values {batch.values is not None} {batch.reduction} weight {batch.weight is not None}"
        )
        self.actions.note("pass", batch.kind, details, f"needs {hidden.requires_grad} {hidden.dtype}")
        options = {"weight": batch.weight, "reduction": batch.reduction}
        loss = self.somewhere(lambda: self.head(hidden, batch.targets, **options))
        loss = (loss * batch.shares.to(loss)).sum() if batch.reduction == "none" else loss
        part = self.twin.passed(batch)
        allowed = bounds.of_pass(self.row, part, self.twin)
        self.disturb("after forward")
        again = 2 if self.source.chance(0.03) else 1
        for time in range(again):
            self.somewhere(lambda time=time: loss.backward(retain_graph=time + 1 < again))
        self.see("loss", abs(float(loss.detach()) - part.loss), allowed.loss)
        if again == 2:
            self.actions.note("backward twice")
            part, allowed = part.twice(), allowed.twice()
        if hidden.grad is not None:
            wanted = (part.by_outputs @ self.twin.weight)[:, : self.width]
            wanted = wanted[: batch.size] * again
            wrong = (hidden.grad.double() - wanted).norm()
            rounding = self.bounds.unit * float(wanted.norm())  # the gradient comes in the type of the hidden layer
            self.see("gradient", float(wrong), again * float(allowed.by_hidden[: batch.size].norm()) + rounding)
        return part, allowed

    def step(self) -> None:
        """Some passes, what may come between, and the step."""
        parts: list[tuple[Passed, PassBounds]] = []
        for _ in range(1 if self.source.chance(0.85) else self.choose([2, 3])):
            parts.append(self.one_pass())
            self.disturb("after backward")
        if self.source.chance(0.02):
            self.actions.note("zero_grad")
            self.optimizer.zero_grad()
            return
        if self.source.chance(0.03):
            factor = self.choose([0.5, 2.0, 0.0, torch.tensor(0.25)])
            self.actions.note("scale_pending", factor)
            self.head.scale_pending(factor)
            parts = [(part.scaled(float(factor)), bounds.scaled(float(factor))) for part, bounds in parts]
        if self.source.chance(0.03):
            self.actions.note("another optimiser before the step")
            order = self.head.weights.order
            self.optimizer = self.new_optimizer()
            if self.storage == "bfloat16" and self.head.weights.order != order:
                self.is_stale()
                return
        passed, bounds = [part for part, _ in parts], [bound for _, bound in parts]
        factor = self.norm(passed, bounds)
        passed, bounds = [part.scaled(factor) for part in passed], [bound.scaled(factor) for bound in bounds]
        self.change_options(passed)
        group = self.group
        self.actions.note(
            "step", self.kind, f"lr {group['lr']:.4g} decay {group['weight_decay']}", f"parts {len(parts)}"
        )
        self.optimizer.proposal = None
        self.somewhere(self.optimizer.step)
        self.steps += 1
        self.follow(passed, bounds)
        if not self.is_ordinary():
            self.load_weight()

    def is_stale(self) -> None:
        """All rows were rounded anew, so W is another than the gradient's."""
        try:
            self.head.grad_norm()
        except StaleGraphError:
            self.optimizer.zero_grad()
            return
        raise Difference(f"A gradient of another W went unnoticed; {self}")

    def norm(self, passed: list[Passed], bounds: list[PassBounds]) -> float:
        """What the gradient will be clipped by, by the head's own norm, which is compared first."""
        limit = self.group["max_grad_norm"]
        if limit is None and not self.source.chance(0.1):
            return 1.0
        hidden = torch.cat([part.batch.hidden for part in passed])
        wanted = float((torch.cat([part.by_outputs for part in passed]).T @ hidden).norm())
        found = float(self.head.grad_norm())
        self.see("grad_norm", abs(found - wanted), self.bounds.of_norm(hidden, bounds, wanted))
        return 1.0 if limit is None else min(1.0, limit / (found + 1e-6))

    def follow(self, passed: list[Passed], bounds: list[PassBounds]) -> None:
        """The twin's step."""
        hidden = torch.cat([part.batch.hidden for part in passed])
        by_outputs = torch.cat([part.by_outputs for part in passed])
        group, before = self.group, self.twin.weight
        if self.kind in ("sgd", "momentum", "nesterov"):
            self.twin.sgd(by_outputs.T @ hidden, group)
            length, momentum, hr = group["lr"], group["momentum"], hidden
        else:
            length, hr = self.check_proposal(passed, bounds, hidden)
            self.twin.preconditioned(by_outputs, hr, length, group["lr"] * group["weight_decay"])
            momentum = 0.0
        stiffness = sum(map(self.curvature, passed)) if momentum else 0.0
        self.bounds.after_step(before, self.twin, hr, bounds, length, momentum, stiffness)

    def check_proposal(self, passed: list[Passed], bounds: list[PassBounds], hidden: Tensor) -> tuple[float, Tensor]:
        """η and HR (m, d) of the head's own step, once they were compared."""
        proposal: Proposal | None = self.optimizer.proposal
        assert proposal is not None, "a step should have been made"
        length = -proposal.rule.gain[0]
        if not 0.0 <= length <= self.group["lr"] * (1.0 + 1e-6):
            raise Difference(f"A step should be at most lr = {self.group['lr']} long. Found {length}.")
        if not bool(hidden.any()):  # nothing to learn
            return length, hidden
        assert proposal.hr is not None, "a preconditioned step should have an HR"
        found = proposal.hr.double()
        self.right.observe(self.row, passed)
        self.right.advance(self.bounds.of_sum(self.right, hidden, bounds), self.dtype)
        wrong = float((found - hidden @ self.right.now).norm())
        self.see(f"HR of {self.kind}", wrong, self.bounds.of_right(self.right, hidden))
        products = found @ hidden.T  # HRHᵀ
        wrong = float((products - products.T).norm())
        self.see(f"symmetry of {self.kind}", wrong, self.bounds.of_symmetry(self.right, hidden))
        return length, found

    def change_options(self, passed: list[Passed]) -> None:
        """A random share of the largest stable step of this batch, and other options that schedules change."""
        group, random = self.group, self.source.random
        if self.source.chance(0.02):
            group["weight_decay"] = self.choose([0.0, 1e-3, 0.05])
        if self.kind in ("momentum", "nesterov") and self.source.chance(0.03):
            group["momentum"] = self.choose([0.3, 0.9, 0.99] + [0.0] * (self.kind == "momentum"))
        if self.kind not in ("sgd", "momentum", "nesterov"):
            group["lr"] = self.choose([0.0, 0.01, 0.3, 1.0]) if self.source.chance(0.2) else group["lr"]
        else:
            share = self.choose([0.0, 1e-6, 0.01, 0.1, 0.5, 0.5, 0.9, 1.0]) * self.choose([1.0, random.random()])
            if self.row.quadratic and self.kind == "sgd" and self.source.chance(0.1):
                share = 1.0  # for one example 2η‖h‖² = 1: the published update divides by zero
            share *= 1.0 if self.kind == "sgd" else 0.5
            group["lr"] = min(share / max(sum(map(self.curvature, passed)), 1e-3), 1e3)
        if group["lr"] * group["weight_decay"] >= 0.5:
            group["weight_decay"] = 0.0

    def curvature(self, part: Passed) -> float:
        """A bound of the largest curvature of this batch's loss in W: of squared errors, as they are."""
        counts = max((len(row) for row in part.batch.ids), default=0)
        factors, hidden = part.factors.abs(), part.batch.hidden
        if not self.row.quadratic:
            most = {"user's": 2.0 + 1e-3 * self.classes, "z-loss": 5.0, "taylor softmax": 1.0}.get(self.row.name, 10.0)
            return most * (1 + counts) * float((factors @ hidden**2).sum()) * 2.0
        values = max((abs(y) for row in part.batch.values or [] for y in row), default=1.0)
        most = {"weighted squared, weights": max(1.0, values), "weighted squared, targets": 1.5}.get(self.row.name, 1.0)
        weighted = hidden * factors.sqrt()[:, None]
        return 2.0 * most * (float(torch.linalg.matrix_norm(weighted, 2)) ** 2 if part.batch.size else 0.0)

    def is_ordinary(self) -> bool:
        """Whether W is of a size to go on with."""
        size, momentum = float(self.twin.weight.norm()), float(self.twin.momentum.norm())
        return 1e-5 * self.classes**0.5 <= size <= 1e5 and momentum <= 1e7

    def load_weight(self) -> None:
        self.actions.note("load_weight")
        columns = self.width + self.bias
        weight = (self.source.normal(self.classes, columns) / self.width**0.5).to(self.dtype)
        self.head.load_weight(weight[:, : self.width], weight[:, self.width] if self.bias else None)
        if self.storage == "bfloat16":
            weight = weight.to(torch.bfloat16)
        self.twin = Twin(self.row, weight.double())
        self.bounds.renew(self.dtype, self.twin)
        self.optimizer = self.new_optimizer(self.kind)
