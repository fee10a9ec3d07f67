"""What runs in each process: mistakes of one of them with a head that has parameters, which all have to hear of."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from split.cases import batches, row_of
from split.failures import heard
from split.heads import HEADS, WIDTH
from torch import nn

import widehead as wh
from widehead.errors import ProcessesError

D = 36


def made(mesh: Any, head: str) -> Any:
    torch.manual_seed(1)
    if head == "exact":
        return wh.ExactHead(WIDTH, D, wh.losses.SquaredError(), mesh=mesh)
    return HEADS[head](WIDTH, D, mesh=mesh)


def goes_on(mesh: Any, head: Any) -> None:
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, WIDTH, D, 0)[mesh.get_local_rank()]
    head.train()(hidden.float().requires_grad_(), targets).backward()


def wrong_argument(mesh: Any, name: str, call: str) -> str:
    """Of rank 1 alone; then all go on, with the weights that they had."""
    is_wrong, head = mesh.get_local_rank() == 1, made(mesh, name)
    hidden, weight = torch.ones(2, WIDTH), torch.zeros(D, WIDTH)
    ids = torch.tensor([1, 99 if is_wrong else 2])
    if is_wrong:
        weight[12] = torch.nan  # the first of its rows
    wide = hidden[:, :5] if is_wrong else hidden
    before = head.weight()
    calls = {
        "forward": lambda: head(hidden, ids),
        "reduction": lambda: head(hidden, ids % D, reduction="summ" if is_wrong else "sum").backward(),
        "without autograd": lambda: head.loss_and_gradient(hidden, ids),
        "weights of examples": lambda: head.loss_and_gradient(hidden, ids % D, weight=torch.ones(2 + is_wrong)),
        "outputs": lambda: head.eval()(wide),
        "scores": lambda: head.scores(wide),
        "log_prob": lambda: head.log_prob(hidden, ids),
        "top_k": lambda: head.top_k(hidden, 40 if is_wrong else 3),
        "weights": lambda: head.load_weight(weight),
        "shape": lambda: head.load_weight(weight[:35] if is_wrong else weight),
    }
    message = heard(calls[call], (ValueError, ProcessesError) if is_wrong else ProcessesError)
    assert torch.equal(head.weight(), before)
    goes_on(mesh, head)
    return message


def another_call(mesh: Any, name: str, call: str) -> str:
    """Rank 1 does something else than the others."""
    is_other, head = mesh.get_local_rank() == 1, made(mesh, name)
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, WIDTH, D, 0)[mesh.get_local_rank()]
    hidden = hidden.float().requires_grad_()
    if call == "frozen":
        head.requires_grad_(not is_other)
        return heard(lambda: head(hidden.detach(), targets), ProcessesError)
    if call == "eval":
        head.train(not is_other)
        return heard(lambda: head(hidden, targets), ProcessesError)
    loss = head(hidden, targets)
    return heard(head.weight if is_other else loss.backward, ProcessesError)


def another_head(mesh: Any, option: str) -> str:
    """Made with another option by rank 1."""
    is_other = mesh.get_local_rank() == 1
    makers = {
        "classes": lambda: wh.FullSoftmaxHead(WIDTH, D + is_other, mesh=mesh),
        "bias": lambda: wh.FullSoftmaxHead(WIDTH, D, bias=is_other, mesh=mesh),
        "type": lambda: wh.FullSoftmaxHead(WIDTH, D, dtype=torch.float64 if is_other else torch.float32, mesh=mesh),
        "kind": lambda: (wh.BlackOutHead if is_other else wh.NegativeSamplingHead)(WIDTH, D, mesh=mesh),
        "negatives": lambda: wh.SampledSoftmaxHead(WIDTH, D, negatives=7 + is_other, mesh=mesh),
        "frequencies": lambda: wh.BlackOutHead(WIDTH, D, frequencies=torch.arange(D) + is_other, mesh=mesh),
        "log Z": lambda: wh.NoiseContrastiveHead(WIDTH, D, log_normalizer=float(is_other), mesh=mesh),
        "in-batch": lambda: wh.SampledSoftmaxHead(
            WIDTH, D, sampler="in-batch" if is_other else "unigram", alpha=1.0, frequencies=torch.ones(D), mesh=mesh
        ),
    }
    return heard(makers[option], ProcessesError)


def in_data_parallel(mesh: Any) -> str:
    """torch itself refuses to give others the rows of rank 0."""
    model = nn.ModuleList([nn.Linear(1, 1), made(mesh, "full")])
    return heard(lambda: nn.parallel.DistributedDataParallel(model, process_group=mesh.get_group()), RuntimeError)


def not_there(mesh: Any) -> list[str]:
    """What a split head refuses in all processes."""
    full, sampled = made(mesh, "full"), made(mesh, "sampled")
    hidden, ids = torch.ones(2, WIDTH, requires_grad=True), torch.tensor([1, 2])
    sampled(hidden, ids).backward()
    losses = [(one(hidden, ids), one.table) for one in (full, sampled)]
    twice = [partial(torch.autograd.grad, *pair, create_graph=True) for pair in losses]
    return [
        heard(full.scores(hidden).sum().backward, RuntimeError),
        *(heard(call, RuntimeError) for call in twice),
        heard(lambda: wh.SampledSoftmaxHead(WIDTH, D, sampler="quadratic", mesh=mesh), ValueError),
        heard(lambda: wh.RetrievedSoftmaxHead(WIDTH, D, tail_kind="cells", mesh=mesh), ValueError),
        heard(lambda: wh.FullSoftmaxHead(WIDTH, D, mesh=mesh, device="meta"), ValueError),
        heard(lambda: made(mesh, "retrieved").sample(hidden), ValueError),
        heard(torch.optim.Adagrad(sampled.parameters()).step, TypeError),
    ]


def bad_state(mesh: Any) -> str:
    """Of another shape, which rank 1 alone has."""
    is_wrong, head = mesh.get_local_rank() == 1, made(mesh, "full")
    before = head.weight()
    state = {"table": torch.zeros(D - is_wrong, WIDTH)}
    if is_wrong:
        message = heard(lambda: head.load_state_dict(state), RuntimeError)
    else:
        message = heard(head.weight, ProcessesError)
    assert torch.equal(head.weight(), before)
    return message
