"""What runs in each process: a head with parameters whose rows are split, beside one that has all rows and examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from split.cases import batches, row_of
from support.head_table import frequencies
from support.properties import relative
from torch import Tensor, nn

import widehead as wh
from widehead.split import local

WIDTH = 6

HEADS: dict[str, Callable[..., Any]] = {
    "full": wh.FullSoftmaxHead,
    "sampled": lambda d, n, **rest: wh.SampledSoftmaxHead(d, n, negatives=7, **rest),
    "sampled, dense": lambda d, n, **rest: wh.SampledSoftmaxHead(d, n, negatives=7, sparse=False, **rest),
    "in-batch": lambda d, n, **rest: wh.SampledSoftmaxHead(
        d, n, sampler="in-batch", frequencies=frequencies(n), **rest
    ),
    "noise-contrastive": lambda d, n, **rest: wh.NoiseContrastiveHead(d, n, negatives=7, **rest),
    "negative sampling": lambda d, n, **rest: wh.NegativeSamplingHead(d, n, frequencies=frequencies(n), **rest),
    "retrieved": lambda d, n, **rest: wh.RetrievedSoftmaxHead(d, n, retrieved=4, tail=4, **rest),
    "retrieved for each": lambda d, n, **rest: wh.RetrievedSoftmaxHead(
        d, n, retrieved=3, tail=3, shared=False, index="exhaustive", **rest
    ),
    "blackout": lambda d, n, **rest: wh.BlackOutHead(d, n, negatives=7, frequencies=frequencies(n), **rest),
}
SPARSE: dict[str, Callable[..., Any]] = {
    "adam": lambda parameters: wh.optim.RowAdam(parameters, lr=0.02),
    "adagrad": lambda parameters: wh.optim.RowAdagrad(parameters, lr=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
}
DENSE: dict[str, Callable[..., Any]] = {
    "adam": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


def optimizer_of(head: Any, name: str) -> Any:
    return (SPARSE if head.sparse else DENSE)[name](head.parameters())


def both(mesh: Any, head: str, classes: int, dtype: torch.dtype, bias: bool) -> tuple[Any, Any]:
    torch.manual_seed(5 + mesh.get_local_rank())
    split = HEADS[head](WIDTH, classes, mesh=mesh, bias=bias, dtype=dtype)
    whole = HEADS[head](WIDTH, classes, bias=bias, dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    weight = torch.randn(classes, WIDTH, generator=generator, dtype=torch.float64)
    beside = torch.randn(classes, generator=generator, dtype=torch.float64) if bias else None
    for one in (split, whole):
        one.load_weight(weight, beside)
    return split, whole


def whole_losses(
    whole: Any, hidden: Sequence[Tensor], targets: Sequence[wh.SparseTargets], seed: int | None
) -> list[Tensor]:
    """The loss of each process by a head that has all of their examples in one batch."""
    if seed is not None:
        torch.manual_seed(seed)
    every = wh.SparseTargets.from_lists([ids for one in targets for ids in one.to_lists()])
    losses = whole(torch.cat(list(hidden)), every, reduction="none").split([len(one) for one in hidden])
    return [part.sum() / max(1, int((one.counts > 0).sum())) for part, one in zip(losses, targets, strict=True)]


def trained(
    mesh: Any, head: str, optimizer: str, classes: int, dtype: torch.dtype, steps: int, bias: bool
) -> dict[str, float]:
    """How far what a split head gives is from what a head does that has everything."""
    size, rank = mesh.size(), mesh.get_local_rank()
    split, whole = both(mesh, head, classes, dtype, bias)
    encoders = [nn.Linear(WIDTH, WIDTH, dtype=dtype), nn.Linear(WIDTH, WIDTH, dtype=torch.float64)]
    with torch.no_grad():
        for encoder in encoders:
            encoder.weight.copy_(torch.eye(WIDTH))
            encoder.bias.zero_()
    parallel = nn.parallel.DistributedDataParallel(encoders[0], process_group=mesh.get_group())
    steppers = [optimizer_of(one, optimizer) for one in (split, whole)]
    steppers += [torch.optim.SGD(encoder.parameters(), lr=0.05) for encoder in encoders]
    off = dict.fromkeys(("loss", "norm", "gradient"), 0.0)
    for step in range(steps):
        parts = batches(row_of("squared"), size, 3, WIDTH, classes, step)
        for stepper in steppers:
            stepper.zero_grad()
        torch.manual_seed(1000 * rank + step)
        loss = split(parallel(parts[rank][0].to(dtype)), parts[rank][1])
        loss.backward()
        hidden = [encoders[1](one) for one, _ in parts]
        expected = whole_losses(whole, hidden, [targets for _, targets in parts], step)
        (sum(expected) / size).backward()
        norms = [
            wh.optim.clip_grad_norm_([*encoder.parameters(), *one.parameters()], [], 0.3)
            for encoder, one in zip(encoders, (split, whole), strict=True)
        ]
        here = local(split.table.grad).to_dense()
        of_whole = whole.table.grad.to_dense()[split.split.first : split.split.end]
        found = {
            "loss": relative(loss.detach(), expected[rank].detach()),
            "norm": relative(*norms),
            "gradient": float((here - of_whole).abs().max()) if len(here) else 0.0,
        }
        off = {name: max(off[name], value) for name, value in found.items()}
        for stepper in steppers:
            stepper.step()
    off["weight"] = relative(split.weight(), whole.weight())
    off["encoder"] = relative(encoders[0].weight.detach(), encoders[1].weight.detach())
    if bias:
        off["bias"] = relative(split.bias(), whole.bias())
    return {**off, **outputs_off(split.eval(), whole.eval(), *parts[rank], dtype)}


def outputs_off(
    split: Any, whole: Any, hidden: Tensor, targets: wh.SparseTargets, dtype: torch.dtype
) -> dict[str, float]:
    """Of all that reads the outputs."""
    hidden, named = hidden.to(dtype), torch.arange(len(hidden))[:, None] % whole.num_classes
    k = min(5, whole.num_classes)
    banned = [[b % whole.num_classes] for b in range(len(hidden))] if whole.num_classes > 5 else None
    reads = {
        "scores": lambda head, h: head.scores(h),
        "named": lambda head, h: head.scores(h, named),
        "top_k": lambda head, h: head.top_k(h, k, exclude=banned)[0],
        "in order": lambda head, h: head.scores(h, split_ids),
        "normalizer": lambda head, h: head.log_normalizer(h),
    }
    if whole.has_probabilities:
        reads["log_prob"] = lambda head, h: head.log_prob(h, named)
        reads["evaluated"] = lambda head, h: head(h, targets)
    split_ids = split.top_k(hidden, k)[1]
    with torch.no_grad():
        pairs = {name: (read(split, hidden), read(whole, hidden.double())) for name, read in reads.items()}
    return {name: float((one - other).norm() / (1.0 + other.norm())) for name, (one, other) in pairs.items()}


class Model(nn.Module):
    """An encoder and a head that is not split, whose forward gives the loss."""

    def __init__(self, head: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.encoder = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        if head == "adaptive":
            self.head: Any = wh.AdaptiveSoftmaxHead(WIDTH, 37, div_value=2.0, dtype=torch.float64)
        else:
            self.head = wh.HierarchicalSoftmaxHead(WIDTH, 37, tree=head, sparse=False, dtype=torch.float64)  # type: ignore[arg-type]

    def forward(self, x: Tensor, targets: wh.SparseTargets) -> Tensor:
        return self.head(self.encoder(x), targets)


def tree_in_data_parallel(mesh: Any, head: str) -> float:
    size, rank = mesh.size(), mesh.get_local_rank()
    model, whole = Model(head), Model(head)
    unused = head == "adaptive"
    parallel = nn.parallel.DistributedDataParallel(model, process_group=mesh.get_group(), find_unused_parameters=unused)
    steppers = [torch.optim.SGD(one.parameters(), lr=0.3) for one in (model, whole)]
    for step in range(8):
        parts = batches(row_of("squared"), size, 1, WIDTH, 37, step)
        parallel(*parts[rank]).backward()
        (sum(whole(*part) for part in parts) / size).backward()
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
    return max(relative(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def estimates(mesh: Any) -> float:
    """Ẑ of a retrieved softmax beside Z, in standard errors, with an index that misses classes on each process."""
    torch.manual_seed(5)
    head = wh.RetrievedSoftmaxHead(WIDTH, 3000, retrieved=40, tail=60, index="ivf", recall=0.3, mesh=mesh)
    generator = torch.Generator().manual_seed(mesh.get_local_rank())
    head.load_weight(1.5 * torch.randn(3000, WIDTH, generator=torch.Generator().manual_seed(9)))
    hidden, target = torch.randn(1, WIDTH, generator=generator), torch.tensor([7])
    with torch.no_grad():
        ratios = torch.stack([head(hidden, target) for _ in range(150)]).double().exp()
        expected = head.eval()(hidden, target).double().exp()
    return float((ratios.mean() - expected).abs() / (ratios.std() / len(ratios) ** 0.5))
