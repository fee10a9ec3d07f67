"""A whole training step as a CUDA graph: encoder, exact head, backward pass and optimisers in one launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widehead.cached import CachedWeights
from widehead.errors import check_number
from widehead.heads.contract import checked_targets, reduced
from widehead.heads.exact import ExactHead
from widehead.optim.base import HeadOptimizer
from widehead.precision import in_full_precision
from widehead.targets import SparseTargets, TargetsLike

__all__ = ["GraphedStep"]


class GraphedStep:
    """Calls of the same shape are captured once and replayed: a step costs one launch and some copies.

    The first calls of each shape are made as usual (they warm libraries up and let optimisers make their state); every
    batch is one step, whichever way. Targets are padded to the next power of two, with targets of an example that has
    no weight, so that ragged batches share few graphs. The loss is the mean over examples, as in
    ``head(hidden, targets)``.

    A graph is captured anew if something changes that it was made for: options of optimisers, train mode, autocast,
    frozen parameters, or tensors that were replaced, as by ``load_state_dict``. So give learning rates that change at
    each step as 0-d tensors (``capturable=True`` for optimisers of torch and of widehead), and do nothing in
    ``network`` that asks the device. A step that is not finite is left out and reported by a later call, as always on
    a GPU.

    Args:
        network: what makes the hidden layer (m, d) of the inputs, each a tensor on the head's device or on the host.
        head: an exact head on a CUDA device.
        optimizers: all optimisers, of the network's parameters and of the head; they are stepped in this order.
        warm_up: calls of each shape that are not captured yet, at least 1.

    Raises:
        ValueError: the head is not on a CUDA device, or has no optimiser of its own among these.

    >>> step = GraphedStep(network, head, [encoder_optimizer, head_optimizer])  # doctest: +SKIP
    >>> for inputs, targets in batches:  # doctest: +SKIP
    ...     loss = step(inputs, targets)
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        head: ExactHead,
        optimizers: Iterable[torch.optim.Optimizer],
        *,
        warm_up: int = 3,
    ) -> None:
        if head.device.type != "cuda":
            raise ValueError(f"A step is captured on a CUDA device. Found a head on {head.device}: head.to('cuda').")
        check_number("warm_up", warm_up, least=1)
        self.network, self.head, self.optimizers = network, head, list(optimizers)
        self.warm_up = warm_up
        of_heads = [o for o in self.optimizers if isinstance(o, HeadOptimizer)]
        if [o.heads for o in of_heads] != [[head]]:
            found = f"{len(of_heads)} of exact heads, of {sum(len(o.heads) for o in of_heads)} heads"
            raise ValueError(f"`optimizers` should hold one of this head alone, as wh.optim.SGD(head). Found {found}.")
        (self._of_head,) = of_heads
        self._stream = torch.cuda.Stream()
        self._calls: Counter[Any] = Counter()
        self._graphs: dict[Any, _Graph] = {}
        self._known: list[tuple[Tensor, int]] = []

    def __call__(self, inputs: Tensor | Sequence[Tensor], targets: TargetsLike) -> Tensor:
        """() loss of a step with this batch, on the device; made before W changed.

        Raises:
            NonFiniteError: an earlier step was left out.
            RuntimeError: the head does not train.
            TypeError, ValueError: wrong shapes, types or class ids.
        """
        if not self.head.learns:
            raise RuntimeError("A captured step trains its head. Found one that is frozen, or in eval mode.")
        parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        for part in parts:
            if not isinstance(part, Tensor):
                raise TypeError(f"`inputs` should be a tensor, or several. Found {type(part).__name__}.")
        batch = _Batch.of(self.head, parts, targets)
        self._calls[batch.form] += 1
        if self._calls[batch.form] <= self.warm_up:
            return self._warmed_up(batch)
        record, count = self._record(), batch.targets.class_ids.shape[0]
        record.reserve(count)
        self._forget_what_is_stale(record)
        schedule = self._of_head.schedule()
        key = (batch.form, schedule, self._settings())
        if key not in self._graphs:
            self._graphs[key] = self._captured(batch, record)
        loss = self._graphs[key].replayed(batch)
        record.replayed(count)
        self._of_head.replayed(schedule)
        return loss

    def _forget_what_is_stale(self, record: CachedWeights) -> None:
        """Drop all graphs if one of the tensors that they know is another now, or lies elsewhere."""
        found = record.tensors()
        for optimizer in self.optimizers:
            of_groups = [[*group["params"], *group.values()] for group in optimizer.param_groups]
            of_state = [list(state.values()) for state in optimizer.state.values()]
            found += [value for part in of_groups + of_state for value in part if isinstance(value, Tensor)]
        # The tensors themselves are held, so that no other one can have their names or, while they live, their memory.
        now = [(id(tensor), tensor.data_ptr()) for tensor in found]
        if now != [(id(tensor), place) for tensor, place in self._known]:
            self._graphs.clear()
            self._known = [(tensor, place) for tensor, (_, place) in zip(found, now, strict=True)]

    def _settings(self) -> tuple[Any, ...]:
        """What the host decides of a step, but for what the head's optimiser knows."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        options = tuple(repr(value) for group in groups for name, value in group.items() if _is_option(name, value))
        frozen = tuple(not parameter.requires_grad for group in groups for parameter in group["params"])
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        return options, frozen, autocast, getattr(self.network, "training", None)

    def _record(self) -> CachedWeights:
        record = self.head.weights
        assert isinstance(record, CachedWeights), "a head on a CUDA device has a cached record"
        return record

    def _warmed_up(self, batch: _Batch) -> Tensor:
        """A step as usual, on a stream of its own: nodes of autograd that stay must not know the usual stream."""
        usual = torch.cuda.current_stream()
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            loss = self._step(batch.moved(self.head.device))
        usual.wait_stream(self._stream)
        return loss.detach().clone()

    def _step(self, batch: _Batch) -> Tensor:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = _mean_loss(self.head, self.network(*batch.inputs), batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def _captured(self, batch: _Batch, record: CachedWeights) -> _Graph:
        static, graph = batch.moved(self.head.device), torch.cuda.CUDAGraph()
        pool = next((other.graph.pool() for other in self._graphs.values()), None)
        with record.captured(), torch.cuda.graph(graph, pool=pool):
            loss = self._step(static)
        return _Graph(graph, static, loss.detach())


@in_full_precision
def _mean_loss(head: ExactHead, hidden: Tensor, batch: _Batch) -> Tensor:
    """As ``head(hidden, targets)``, of targets that were checked and have one example more, which has no weight."""
    expected = (len(batch.targets) - 1, head.in_features)
    if hidden.shape != expected:
        raise ValueError(f"The network's output should have shape {expected}. Found {tuple(hidden.shape)}.")
    # A copy of a row, as some losses have no value for a hidden layer of zeros.
    padded = torch.cat([hidden, hidden[:1].detach()])
    losses, counted = head._counted_losses(padded, batch.targets)
    return reduced(losses, counted, batch.weight, "mean")


@dataclass(frozen=True)
class _Batch:
    """Inputs and padded targets, on the host or on the device.

    Attributes:
        targets: of m + 1 examples. weight: (m + 1,) ones, and 0 for the last.
        form: what batches have in common that share a graph.
    """

    inputs: tuple[Tensor, ...]
    targets: SparseTargets
    weight: Tensor
    form: Any

    @classmethod
    def of(cls, head: ExactHead, inputs: tuple[Tensor, ...], targets: TargetsLike) -> _Batch:
        found = SparseTargets.convert(targets)
        m = len(found)
        if m == 0:
            raise ValueError("A batch should have examples. Found none.")
        prepared = head.prepare_targets(checked_targets(found, torch.Size([m]), head.num_classes)).to("cpu")
        padded = _padded(prepared, head.num_classes)
        weight = torch.ones(m + 1, dtype=head.dtype)
        weight[m] = 0.0
        # Losses that refuse negative values look at them before a graph is captured, and not again.
        signs = padded.values is not None and bool((padded.values < 0).any())
        size = (m, padded.class_ids.shape[0], padded.values is not None, signs)
        return cls(inputs, padded, weight, (tuple((x.shape, x.dtype) for x in inputs), size))

    def tensors(self) -> list[Tensor]:
        """All that differs between batches of one form."""
        values = [] if self.targets.values is None else [self.targets.values]
        return [*self.inputs, self.targets.class_ids, self.targets.offsets, *values]

    def moved(self, device: torch.device) -> _Batch:
        """A copy on the device."""
        inputs = tuple(_pinned(x).to(device, non_blocking=True, copy=True) for x in self.inputs)
        weight = _pinned(self.weight).to(device, non_blocking=True)
        return _Batch(inputs, self.targets.to(device), weight, self.form)


@dataclass(frozen=True)
class _Graph:
    """A captured step, what it reads and what it gives."""

    graph: Any
    static: _Batch
    loss: Tensor

    def replayed(self, batch: _Batch) -> Tensor:
        for to, source in zip(self.static.tensors(), batch.tensors(), strict=True):
            to.copy_(_pinned(source), non_blocking=True)
        self.graph.replay()
        return self.loss.clone()


def _is_option(name: str, value: Any) -> bool:
    return name != "params" and not isinstance(value, Tensor)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def _padded(targets: SparseTargets, num_classes: int) -> SparseTargets:
    """The same with one example more, whose targets fill the number up to a power of two; of class 0 and value 0."""
    count = targets.class_ids.shape[0]
    more = (1 << max(0, count - 1).bit_length()) - count
    ids, offsets = targets.class_ids, targets.offsets
    values = None if targets.values is None else torch.cat([targets.values, targets.values.new_zeros(more)])
    least = 0.0 if values is None or count == 0 else float(values.min())
    known = num_classes, least, count + more  # of every batch that shares a graph with this one
    parts = torch.cat([ids, ids.new_zeros(more)]), torch.cat([offsets, offsets[-1:] + more])
    return SparseTargets._trusted(*parts, values, known)
