"""What runs in each process: a head whose rows are split, beside one that has all rows and all examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from support.properties import TABLE, Row, relative
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

import widehead as wh
from widehead.errors import RankingWarning

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda head: wh.optim.SGD(head, lr=0.03),
    "decay and clipping": lambda head: wh.optim.SGD(head, lr=0.03, weight_decay=0.1, max_grad_norm=0.5),
    "momentum": lambda head: wh.optim.SGD(head, lr=0.02, momentum=0.9),
    "nesterov": lambda head: wh.optim.SGD(head, lr=0.02, momentum=0.9, nesterov=True),
    "newton": wh.optim.Newton,
    "shampoo": wh.optim.Shampoo,
    "muon": wh.optim.Muon,
}


def row_of(name: str) -> Row:
    return next(row for row in TABLE if row.name == name)


def batches(row: Row, size: int, m: int, d: int, classes: int, seed: int) -> list[tuple[Tensor, wh.SparseTargets]]:
    """One for each process: of unlike sizes, ragged, some examples without targets, classes several times."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for rank in range(size):
        count = m + 2 * rank if row.name != "empty" else m
        lengths = torch.randint(0, 4, (count,), generator=generator)
        lengths[0] = max(1, int(lengths[0]))
        ids = [torch.randint(0, classes, (int(k),), generator=generator).tolist() for k in lengths]
        values = None
        if row.valued:
            values = [torch.rand(len(one), generator=generator).add(0.5).tolist() for one in ids]
        hidden = torch.randn(count, d, generator=generator, dtype=torch.float64)
        made.append((hidden, wh.SparseTargets.from_lists(ids, values)))
    return made


def trained(
    mesh: Any, loss: str, optimizer: str, classes: int, d: int, m: int, dtype: torch.dtype, steps: int, options: Any
) -> dict[str, float]:
    """How far what a split head gives is from what a head does that has everything."""
    row, size, rank = row_of(loss), mesh.size(), mesh.get_local_rank()
    torch.manual_seed(5)
    split = wh.ExactHead(d, classes, row.make(), mesh=mesh, dtype=dtype, **options)
    whole = wh.ExactHead(d, classes, row.make(), dtype=torch.float64, bias=options.get("bias", False))
    bias = torch.randn(classes, dtype=torch.float64) if options.get("bias") else None
    weight = torch.randn(classes, d, dtype=torch.float64) * d**-0.5
    split.load_weight(weight, bias)
    whole.load_weight(weight, bias)
    mine, theirs = OPTIMIZERS[optimizer](split), OPTIMIZERS[optimizer](whole)
    off = {"loss": 0.0, "hidden": 0.0, "norm": 0.0}
    for step in range(steps):
        parts = batches(row, size, m, d, classes, step)
        hidden = parts[rank][0].to(dtype, copy=True).requires_grad_()
        loss_here = split(hidden, parts[rank][1])
        loss_here.backward()
        of_all = [part[0].clone().requires_grad_() for part in parts]
        losses = [whole(one, part[1]) for one, part in zip(of_all, parts, strict=True)]
        (sum(losses) / size).backward()
        expected = of_all[rank].grad * size
        found = {
            "loss": relative(loss_here.detach(), losses[rank].detach()),
            "hidden": relative(hidden.grad, expected) if bool(expected.any()) else 0.0,
            "norm": relative(split.grad_norm(), whole.grad_norm()),
        }
        off = {name: max(off[name], value) for name, value in found.items()}
        mine.step()
        theirs.step()
        mine.zero_grad()
        theirs.zero_grad()
    off["weight"] = relative(split.weight(), whole.weight())
    if bias is not None:
        off["bias"] = relative(split.bias(), whole.bias())
    off["outputs"] = _outputs_off(split, whole, parts[rank][0].to(dtype))
    off["read"] = _read_off(split, whole, parts[rank][0].to(dtype), parts[rank][1])
    audit = split.audit()
    return {**off, "gram": audit.gram, "column_sum": audit.column_sum, "closes": float(audit.closes)}


@torch.no_grad()
def _outputs_off(split: wh.ExactHead, whole: wh.ExactHead, hidden: Tensor) -> float:
    k = min(5, whole.num_classes)
    banned = [[b % whole.num_classes] for b in range(len(hidden))] if whole.num_classes > 5 else None
    scores, ids = split.top_k(hidden, k, exclude=banned)
    expected, _ = whole.top_k(hidden.double(), k, exclude=banned)
    named = whole.scores(hidden.double(), ids)
    every = split.scores(hidden), whole.scores(hidden.double())
    some = torch.arange(len(hidden))[:, None] % whole.num_classes
    pairs = [(scores, expected), (scores, named), every, (split.scores(hidden, some), every[1].gather(1, some))]
    return max(relative(a, b) for a, b in pairs)


@torch.no_grad()
def _read_off(split: wh.ExactHead, whole: wh.ExactHead, hidden: Tensor, targets: wh.SparseTargets) -> float:
    """How far log-probabilities of the targets and W as an ordinary layer are, read again after `consolidate`."""
    named = wh.SparseTargets.from_lists(targets.to_lists())
    split.consolidate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankingWarning)  # what ranks otherwise than outputs do is told, rightly
        off = relative(split.to_linear().weight, whole.to_linear().weight)
    if not whole.loss.has_probabilities:
        return off
    found, expected = split.log_prob(hidden, named), whole.log_prob(hidden.double(), named)
    return max(off, *((found - expected).abs() / expected.abs().clamp_min(1.0)).tolist())


def kept_apart(mesh: Any, folder: str, kind: str) -> dict[str, float]:
    """The same with rows in a file, or in bfloat16: Q and w̄ are those of the rows as they are stored."""
    rank = mesh.get_local_rank()
    options = {"storage": f"{folder}/rows-{rank}"} if kind == "file" else {"storage_dtype": torch.bfloat16}
    torch.manual_seed(5)
    head = wh.ExactHead(8, 90, wh.losses.SphericalSoftmax(), bias=True, mesh=mesh, **options)
    whole = wh.ExactHead(8, 90, wh.losses.SphericalSoftmax(), bias=True, dtype=torch.float64)
    whole.load_weight(head.weight().double(), head.bias().double())
    mine, theirs = wh.optim.Newton(head), wh.optim.Newton(whole)
    for step in range(80):
        parts = batches(row_of("spherical softmax"), mesh.size(), 4, 8, 90, step)
        head(parts[rank][0].float(), parts[rank][1]).backward()
        sum(whole(*part) for part in parts).div(mesh.size()).backward()
        mine.step()
        theirs.step()
    audit = head.audit()
    return {"weight": relative(head.weight(), whole.weight()), "gram": audit.gram, "column_sum": audit.column_sum}


def both(mesh: Any, loss: wh.losses.Loss) -> tuple[wh.ExactHead, wh.ExactHead]:
    """A split head and one with all rows, of the same W."""
    torch.manual_seed(5)
    split = wh.ExactHead(6, 37, loss, mesh=mesh, dtype=torch.float64)
    whole = wh.ExactHead(6, 37, loss, dtype=torch.float64)
    whole.load_weight(split.weight())
    return split, whole


def accumulated(mesh: Any) -> dict[str, float]:
    """Two passes a step, the losses scaled by hand, and clipping by torch."""
    rank, size = mesh.get_local_rank(), mesh.size()
    head, whole = both(mesh, wh.losses.SphericalSoftmax())
    mine, theirs = wh.optim.SGD(head, lr=0.5), wh.optim.SGD(whole, lr=0.5)
    for step in range(6):
        for part in range(2):
            parts = batches(row_of("spherical softmax"), size, 3, 6, 37, 2 * step + part)
            (head(*parts[rank], reduction="sum") / (step + 1)).backward()
            sum(whole(*one, reduction="sum") for one in parts).div(size * (step + 1)).backward()
            if step == 3 and part == 0:
                for one in (head, whole):
                    one.scale_pending(0.5)
        if step % 2:
            for one in (head, whole):
                one.consolidate()
        mine.step()
        theirs.step()
    return {"weight": relative(head.weight(), whole.weight()), "gram": head.audit().gram}


def own_loss(mesh: Any) -> dict[str, float]:
    """A loss by hand from the statistics, on one process without s."""
    rank, size = mesh.get_local_rank(), mesh.size()
    head, whole = both(mesh, wh.losses.SquaredError())
    mine, theirs = wh.optim.SGD(head, lr=0.05), wh.optim.SGD(whole, lr=0.05)

    def loss(one: wh.ExactHead, part: Any, at: int) -> Tensor:
        q, s, a = one.statistics(*part)
        return (q + (0.1 * s.tanh() if at else 0.0)).mean() - a.sin().sum()

    for step in range(6):
        parts = batches(row_of("squared"), size, 3, 6, 37, step)
        loss(head, parts[rank], rank).backward()
        sum(loss(whole, part, at) for at, part in enumerate(parts)).div(size).backward()
        mine.step()
        theirs.step()
    return {"weight": relative(head.weight(), whole.weight()), "gram": head.audit().gram}


def drawn(mesh: Any, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(3 + mesh.get_local_rank())
    return wh.ExactHead(6, 9001, wh.losses.SquaredError(), mesh=mesh, dtype=dtype).weight()


def bytes_of_a_step(mesh: Any, classes: int) -> dict[str, int]:
    torch.manual_seed(0)
    head = wh.ExactHead(8, classes, wh.losses.SquaredError(), mesh=mesh)
    optimizer, split = wh.optim.SGD(head, lr=0.01), head.weights.split
    split.sent.clear()
    for step in range(3):
        parts = batches(row_of("squared"), mesh.size(), 5, 8, 300, step)
        head(parts[mesh.get_local_rank()][0].float(), parts[mesh.get_local_rank()][1]).backward()
        optimizer.step()
    return dict(split.sent)


def with_sharded_encoder(mesh: Any) -> dict[str, float]:
    return with_encoder(mesh, sharded=True)


def with_encoder(mesh: Any, *, sharded: bool = False) -> dict[str, float]:
    """An encoder in DistributedDataParallel or under FSDP2, clipped with the head by one norm, and its twin."""
    rank, size = mesh.get_local_rank(), mesh.size()

    def made(mesh: Any) -> tuple[nn.Module, wh.ExactHead]:
        torch.manual_seed(5)
        encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
        head = wh.ExactHead(6, 37, wh.losses.SphericalSoftmax(), mesh=mesh, dtype=torch.float64)
        head.load_weight(torch.randn(37, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        return encoder, head

    (encoder, head), (other, whole) = made(mesh), made(None)
    if sharded:
        fully_shard(encoder, mesh=DeviceMesh.from_group(mesh.get_group(), "cpu", mesh_dim_names=("data",)))
    else:
        encoder = nn.parallel.DistributedDataParallel(encoder, process_group=mesh.get_group())
    pairs = [(encoder, head), (other, whole)]
    steppers = [wh.optim.Together(torch.optim.AdamW(a.parameters(), lr=0.02), wh.optim.Newton(b)) for a, b in pairs]
    for step in range(10):
        parts = batches(row_of("spherical softmax"), size, 3, 4, 37, step)
        head(encoder(parts[rank][0]), parts[rank][1]).backward()
        sum(whole(other(inputs), targets) for inputs, targets in parts).div(size).backward()
        for (a, b), stepper in zip(pairs, steppers, strict=True):
            if sharded:
                wh.optim.clip_grad_norm_(a.parameters(), b, 0.05)
            else:
                nn.utils.clip_grad_norm_([*a.parameters(), *b.parameters()], 0.05)
            stepper.step()
            stepper.zero_grad()
    mine = [p.full_tensor() if sharded else p for p in encoder.parameters()]
    off = [relative(a, b) for a, b in zip(mine, other.parameters(), strict=True)]
    return {"encoder": max(off), "weight": relative(head.weight(), whole.weight())}


def told_the_truth(mesh: Any) -> list[float]:
    """Q of rank 1 is off, as of a machine that rounds otherwise: before and after 64 steps, and what is told."""
    rank = mesh.get_local_rank()
    torch.manual_seed(5)
    head = wh.ExactHead(6, 37, wh.losses.SquaredError(), mesh=mesh, dtype=torch.float64)
    optimizer, small = wh.optim.SGD(head, lr=0.01), head.weights.small
    head.weights.small = small.with_sums(small.gram.double() * (1.0 + 1e-6 * rank), small.column_sum.double())
    seen = [head.audit().gram]
    for step in range(64):
        head(*batches(row_of("squared"), mesh.size(), 3, 6, 37, step)[rank]).backward()
        optimizer.step()
    return [*seen, head.audit().gram, head.weights.parted]
