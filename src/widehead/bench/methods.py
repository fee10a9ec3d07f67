"""One training step of an output layer by each method: forward, backward, gradient to the encoder, update of W."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from widehead.arithmetic import TORCH, using
from widehead.bench.memory import Need
from widehead.bench.problem import OutputLayerProblem
from widehead.cuda import GraphedStep
from widehead.heads import ExactHead, Head, ParameterHead
from widehead.heads.contract import linear_of
from widehead.losses import SquaredError
from widehead.names import HEADS
from widehead.optim import SGD, HeadOptimizer, Muon, Newton, RowAdam, Shampoo
from widehead.options.heads import split_heads
from widehead.targets import SparseTargets

_LR = 1e-4  # far below the limit of stability, so that no method leaves the range of ordinary numbers


class Method(ABC):
    """A layer that can make a step, with an optimiser of it; variants differ in the loss."""

    optimizer: torch.optim.Optimizer
    warm_up = 1  # calls that do what later ones do not have to

    def step(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        """One training step; returns the loss, () on the device."""
        loss = self._loss(hidden.requires_grad_(), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @abstractmethod
    def _loss(self, hidden: Tensor, targets: SparseTargets) -> Tensor: ...


class HeadMethod(Method):
    """A head with its own loss."""

    head: Head

    def _loss(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return self.head(hidden, targets)


class Exact(HeadMethod):
    """The exact head, with plain SGD or another optimiser."""

    head: ExactHead

    def __init__(
        self,
        problem: OutputLayerProblem,
        device: torch.device,
        optimizer: Callable[..., HeadOptimizer] = SGD,
        mesh: Any = None,
        **options: float,
    ) -> None:
        self.head = ExactHead(problem.width, problem.classes, SquaredError(), device=device, mesh=mesh)
        self.optimizer = optimizer(self.head, **{"lr": _LR, **options})


class ExactWithoutKernels(Exact):
    """The same, made of torch operations."""

    def step(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        with using(TORCH):
            return super().step(hidden, targets)


class ExactWithoutAutograd(Exact):
    """The same by `ExactHead.loss_and_gradient`: the gradient to the encoder is there, and no graph was made."""

    def step(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        loss, _ = self.head.loss_and_gradient(hidden, targets)
        self.optimizer.step()
        return loss


class ExactCaptured(Exact):
    """The same, captured as a CUDA graph and replayed."""

    warm_up = 3  # two calls as usual, and the one that is captured

    def __init__(self, problem: OutputLayerProblem, device: torch.device) -> None:
        super().__init__(problem, device)
        self.graphed = GraphedStep(
            lambda hidden: hidden.detach().requires_grad_(), self.head, [self.optimizer], warm_up=2
        )

    def step(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return self.graphed(hidden, targets)


class PlainLayer(Method):
    """An ordinary nn.Linear with torch.optim.SGD, trained as plain PyTorch does it."""

    def __init__(self, problem: OutputLayerProblem, device: torch.device) -> None:
        weight = torch.empty(problem.classes, problem.width, device=device)
        nn.init.normal_(weight, std=SquaredError().initial_std(problem.width, problem.classes))
        self.layer = linear_of(weight, None)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), lr=_LR)


class Dense(PlainLayer):
    """The loss of the exact methods; no one-hot matrix is formed."""

    def _loss(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        outputs, targets = self.layer(hidden), targets.to(hidden.device)
        at_targets = outputs[targets.example_ids, targets.class_ids]
        squared_norm = torch.linalg.vecdot(outputs, outputs)
        return SquaredError()(squared_norm, outputs.sum(1), at_targets, targets, outputs.shape[1]).mean()


class DenseRounded(Dense):
    """The same with products of float32 that torch may round, to TF32 on a GPU."""

    def step(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return super().step(hidden, targets)
        finally:
            torch.set_float32_matmul_precision(before)


class DenseCrossEntropy(PlainLayer):
    """All m × D outputs and the cross entropy of their softmax; one target an example."""

    def _loss(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return F.cross_entropy(self.layer(hidden), targets.class_ids.to(hidden.device))


class LinearCrossEntropy(PlainLayer):
    """The same by torch's fused function, a quarter of the m × D outputs at a time; one target an example.

    The chunks that torch chooses by itself were more than four times slower (676 ms a step against 152 at D = 100,000,
    d = m = 64, one thread).
    """

    def __init__(self, problem: OutputLayerProblem, device: torch.device) -> None:
        super().__init__(problem, device)
        self.options = nn.LinearCrossEntropyOptions(batch_chunk_size=-(-problem.batch // 4))

    def _loss(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        class_ids = targets.class_ids.to(hidden.device)
        return F.linear_cross_entropy(hidden, self.layer.weight, class_ids, options=self.options)


class Other(HeadMethod):
    """Another head with its own loss, an ordinary softmax or what stands for one, with Adam on what has a gradient."""

    def __init__(self, problem: OutputLayerProblem, device: torch.device, head: str, mesh: Any = None) -> None:
        made = HEADS[head](problem.width, problem.classes, device=device, **({} if mesh is None else {"mesh": mesh}))
        assert isinstance(made, ParameterHead)
        self.head = made
        kind = (torch.optim.SparseAdam if mesh is None else RowAdam) if made.sparse else torch.optim.Adam
        self.optimizer = kind(list(self.head.parameters()), lr=_LR)


METHODS: dict[str, Callable[..., Method]] = {
    "exact": Exact,
    "exact-without-kernels": ExactWithoutKernels,
    "exact-captured": ExactCaptured,
    "exact-without-autograd": ExactWithoutAutograd,
    "exact-momentum": partial(Exact, momentum=0.9),
    "exact-newton": partial(Exact, optimizer=Newton, lr=1.0),  # its natural scale; no step of it is unstable
    "exact-shampoo": partial(Exact, optimizer=Shampoo),
    "exact-muon": partial(Exact, optimizer=Muon),
    "dense": Dense,
    "dense-tf32": DenseRounded,
    "dense-cross-entropy": DenseCrossEntropy,
    "linear-cross-entropy": LinearCrossEntropy,
    **{name: partial(Other, head=name) for name in HEADS if name != "exact"},
}


def splits(name: str) -> bool:
    """Whether a method is there for rows that are split over processes."""
    return name != CAPTURED and name in {*(method for method in METHODS if method.startswith("exact")), *split_heads()}


CAPTURED = "exact-captured"  # on CUDA devices alone
FUSED = "linear-cross-entropy"  # not in every torch that the package runs with
#: methods that take exactly one target an example
ONE_TARGET = frozenset({"dense-cross-entropy", FUSED})


# Resident and working memory in units of D × d floats, and working memory in units of m × D floats. Measured at
# (D, d, m) = (400,000, 64, 16), (400,000, 16, 128), (200,000, 64, 64), rounded up; tests/bench/test_memory.py compares.
_NEEDS = {
    "exact": (1.05, 0.3, 0.0),
    "exact-without-kernels": (1.05, 0.3, 0.0),
    "exact-captured": (1.05, 0.3, 0.0),
    "exact-without-autograd": (1.05, 0.3, 0.0),
    "exact-momentum": (2.05, 1.6, 0.0),
    "exact-newton": (1.05, 0.4, 0.0),
    "exact-shampoo": (1.05, 0.4, 0.0),
    "exact-muon": (1.05, 0.4, 0.0),
    "dense": (2.0, 0.25, 4.0),
    "dense-tf32": (2.0, 0.25, 4.0),
    "dense-cross-entropy": (2.0, 2.0, 4.0),
    "linear-cross-entropy": (2.0, 2.0, 1.0),
    "full": (4.0, 3.0, 1.0),
    "retrieved": (5.0, 4.0, 4.0),
    "sampled": (3.0, 0.1, 0.1),
    "noise-contrastive": (3.0, 0.1, 0.0),
    "negative-sampling": (3.0, 0.1, 0.0),
    "blackout": (3.0, 0.1, 0.0),
    "hierarchical": (3.3, 0.6, 0.3),
    "adaptive": (0.5, 1.0, 3.0),
}
_UNMEASURED = (5.0, 4.0, 4.0)  # a head that was not measured counts as the hungriest


def memory_need(name: str, problem: OutputLayerProblem) -> Need:
    """What a method needs of memory, as far as it grows with D."""
    resident, working, outputs = _NEEDS.get(name, _UNMEASURED)
    weight, output = 4 * problem.classes * problem.width, 4 * problem.classes * problem.batch
    return Need(int(resident * weight), int(working * weight + outputs * output))
