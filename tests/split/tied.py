"""An encoder that takes the rows of a split head as embeddings, in each process, beside one of all rows."""

from __future__ import annotations

from typing import Any

import torch
from split.heads import HEADS, optimizer_of, whole_losses
from support.properties import relative
from torch import Tensor, nn

import widehead as wh
from widehead.models import SequenceEncoder
from widehead.models.optimizer import average_gradients
from widehead.split import Peers

CLASSES, WIDTH = 37, 6


def sequences(size: int, step: int) -> list[tuple[wh.SparseTargets, wh.SparseTargets]]:
    """Ragged ones of each process, with what follows each place; now and then a process has none."""
    generator = torch.Generator().manual_seed(step)
    made = []
    for rank in range(size):
        lengths = torch.randint(0, 5, (3 + rank,), generator=generator).tolist()
        if step % 3 == 2 and rank == step % size:
            lengths = []
        ids = [torch.randint(0, CLASSES, (n + 1,), generator=generator).tolist() for n in lengths]
        given = [row[:-1] for row in ids]
        made.append(
            (wh.SparseTargets.from_lists(given), wh.SparseTargets.from_lists([[c] for r in ids for c in r[1:]]))
        )
    return made


def made(mesh: Any, head: str, kind: str) -> tuple[SequenceEncoder, Any]:
    torch.manual_seed(5)
    encoder = SequenceEncoder(CLASSES, WIDTH, kind=kind, context=8, norm=2.0 if kind == "bag" else None).double()
    found = HEADS[head](WIDTH, CLASSES, mesh=mesh, dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    found.load_weight(torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64))
    encoder.tie(found)
    return encoder, found


def trained(mesh: Any, head: str, kind: str, optimizer: str, steps: int) -> dict[str, float]:
    """How far loss, W, the encoder and hidden layers read afterwards are from those of one that has everything."""
    size, rank = mesh.size(), mesh.get_local_rank()
    (encoder, split), (other, whole) = made(mesh, head, kind), made(None, head, kind)
    by_torch = kind == "bag"  # torch refuses parameters that have no gradient, as a recurrent layer's of no sequence
    parallel = nn.parallel.DistributedDataParallel(encoder, process_group=mesh.get_group()) if by_torch else encoder
    steppers = [optimizer_of(one, optimizer) for one in (split, whole)]
    # Not Adam, which would make steps of the rounding errors of gradients that are 0, as of the keys' bias.
    steppers += [torch.optim.SGD(one.parameters(), lr=0.05) for one in (encoder, other)]
    off = 0.0
    for step in range(steps):
        parts = sequences(size, step)
        for stepper in steppers:
            stepper.zero_grad()
        torch.manual_seed(step + 1000 * rank)
        loss = split(parallel(parts[rank][0]), parts[rank][1])
        loss.backward()
        if not by_torch:
            average_gradients(list(encoder.parameters()), Peers(mesh))
        hidden = [other(ids) for ids, _ in parts]
        expected = whole_losses(whole, hidden, [targets for _, targets in parts], step)
        (sum(expected) / size).backward()
        if step % 2:
            for a, b in ((encoder, split), (other, whole)):
                wh.optim.clip_grad_norm_([*a.parameters(), *b.parameters()], [], 0.5)
        for stepper in steppers:
            stepper.step()
        off = max(off, relative(loss.detach(), expected[rank].detach()))
    pairs: list[tuple[Tensor, Tensor]] = [*zip(encoder.parameters(), other.parameters(), strict=True)]
    with torch.no_grad():
        pairs += [(split.weight(), whole.weight()), (encoder(parts[rank][0]), other(parts[rank][0]))]
    return {"loss": off, **{str(i): relative(a, b) for i, (a, b) in enumerate(pairs)}}
