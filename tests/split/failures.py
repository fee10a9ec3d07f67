"""What runs in each process: mistakes of one of them, which all have to hear of."""

from __future__ import annotations

from typing import Any

import torch
from split.cases import batches, row_of
from torch import nn

import widehead as wh
from widehead.errors import NonFiniteError, ProcessesError


def _head(mesh: Any, **options: Any) -> wh.ExactHead:
    torch.manual_seed(1)
    return wh.ExactHead(options.pop("d", 6), options.pop("classes", 37), wh.losses.SquaredError(), mesh=mesh, **options)


def heard(call: Any, kind: type[Exception] | tuple[type[Exception], ...]) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    return "nothing"


def not_finite(mesh: Any, optimizer: str) -> str:
    """A NaN in the hidden layer of rank 1; nothing changes anywhere, and training goes on."""
    rank = mesh.get_local_rank()
    head = _head(mesh)
    steps = {"sgd": lambda: wh.optim.SGD(head, lr=0.05), "newton": lambda: wh.optim.Newton(head)}[optimizer]()
    before = None
    for step in range(6):
        hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, step)[rank]
        hidden = hidden.float()
        if step == 3 and rank == 1:
            hidden[0, 0] = float("nan")
        before = head.weight()
        head(hidden, targets).backward()
        if step != 3:
            steps.step()
            continue
        message = heard(steps.step, NonFiniteError)
        assert torch.equal(head.weight(), before)
        steps.zero_grad()
    assert not torch.equal(head.weight(), before)
    assert head.audit().gram < 5e-6
    return message


def another_order(mesh: Any) -> str:
    head = _head(mesh)
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, 0)[mesh.get_local_rank()]
    loss = head(hidden.float().requires_grad_(), targets)
    return heard(head.audit if mesh.get_local_rank() == 1 else loss.backward, ProcessesError)


def one_does_not_train(mesh: Any, method: str) -> str:
    head = _head(mesh).train(mesh.get_local_rank() != 1)
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, 0)[mesh.get_local_rank()]
    return heard(lambda: getattr(head, method)(hidden.float(), targets), ProcessesError)


def another_head(mesh: Any, option: str) -> str:
    options = {"classes": {"classes": 38}, "width": {"d": 7}, "dtype": {"dtype": torch.float64}}[option]
    return heard(lambda: _head(mesh, **(options if mesh.get_local_rank() == 1 else {})), ProcessesError)


def wrong_weight(mesh: Any) -> str:
    """NaN in the rows of rank 1 alone; W stays as it was."""
    head = _head(mesh)
    before, weight = head.weight(), torch.zeros(37, 6)
    weight[-1] = float("nan")
    message = heard(lambda: head.load_weight(weight), ProcessesError)
    assert torch.equal(head.weight(), before)
    return message


def in_data_parallel(mesh: Any, others: int) -> str:
    """Rank 1 has made so many more heads before, so that its seal is another and data-parallel writes into it."""
    for _ in range(others * mesh.get_local_rank()):
        wh.ExactHead(2, 3, wh.losses.SquaredError())
    head = _head(mesh)
    wrapped = nn.parallel.DistributedDataParallel(head, process_group=mesh.get_group())
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, 0)[mesh.get_local_rank()]
    return heard(lambda: wrapped(hidden.float(), targets), RuntimeError)


def averaged(mesh: Any, call: str) -> str:
    """An average is written into the head of rank 1 alone."""
    head = _head(mesh)
    if mesh.get_local_rank() == 1:
        head.get_buffer("seal").mul_(0.5)
    hidden, targets = torch.ones(2, 6), torch.tensor([1, 2])
    calls = {"forward": lambda: head(hidden, targets), "state": head.state_dict, "weight": head.to_linear}
    return heard(calls[call], RuntimeError)


def moved_after_an_average(mesh: Any) -> tuple[str, int]:
    """Rank 1 alone moves its head, which was written into; what it heard, and bytes that it told the others."""
    head = _head(mesh)
    if mesh.get_local_rank() == 0:
        return "nothing", 0
    split = head.weights.split
    head.get_buffer("seal").mul_(0.5)
    before = split.sent.total()
    return heard(head.double, RuntimeError), split.sent.total() - before


def wrong_argument(mesh: Any, call: str) -> str:
    """Of rank 1 alone; then all go on."""
    rank, head = mesh.get_local_rank(), _head(mesh)
    optimizer = wh.optim.SGD(head, lr=0.05)
    hidden = torch.ones(2, 6)
    ids = torch.tensor([1, 99 if rank == 1 else 2])
    calls = {
        "forward": lambda: head(hidden, ids),
        "statistics": lambda: head.statistics(hidden, ids),
        "scores": lambda: head.scores(hidden[:, :5] if rank == 1 else hidden),
        "top_k": lambda: head.top_k(hidden, 40 if rank == 1 else 3),
    }
    message = heard(calls[call], ValueError if rank == 1 else ProcessesError)
    head(hidden, torch.tensor([1, 2])).backward()
    optimizer.step()
    return message


def another_step(mesh: Any, what: str) -> str:
    """Optimisers with other options; W and Q stay as they were."""
    rank, head = mesh.get_local_rank(), _head(mesh)
    made = {
        "lr": lambda: wh.optim.SGD(head, lr=0.05 * (1 + rank)),
        "decay": lambda: wh.optim.SGD(head, lr=0.05, weight_decay=5.0 * rank),
        "momentum": lambda: wh.optim.SGD(head, lr=0.05, momentum=0.5 + 0.1 * rank),
        "damping": lambda: wh.optim.Newton(head, damping=0.1 + rank),
    }
    optimizer, before = made[what](), head.weight()
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, 0)[rank]
    head(hidden.float(), targets).backward()
    message = heard(optimizer.step, ProcessesError)
    assert torch.equal(head.weight(), before)
    return message


def lr_of_no_size(mesh: Any) -> str:
    """A schedule of rank 1 alone gives NaN; W stays as it was, and training goes on."""
    rank, head = mesh.get_local_rank(), _head(mesh)
    optimizer, before = wh.optim.SGD(head, lr=0.05), head.weight()
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, 0)[rank]
    head(hidden.float(), targets).backward()
    if rank == 1:
        optimizer.param_groups[0]["lr"] = float("nan")
    message = heard(optimizer.step, NonFiniteError)
    assert torch.equal(head.weight(), before)
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.step()
    assert not torch.equal(head.weight(), before)
    return message


def drawn_anew(mesh: Any) -> torch.Tensor:
    torch.manual_seed(mesh.get_local_rank())
    head = _head(mesh, classes=9001)
    head.reset_parameters()
    return head.weight()


def bad_state(mesh: Any) -> str:
    """NaN in a state that rank 1 alone has."""
    head = _head(mesh)
    parts: dict[str, Any] = head.state_dict()
    state = {name: part.full_tensor() if hasattr(part, "full_tensor") else part for name, part in parts.items()}
    before = head.weight()
    if mesh.get_local_rank() == 1:
        state["values"][-1] = float("nan")
    kind = RuntimeError if mesh.get_local_rank() == 1 else ProcessesError
    message = heard(lambda: head.load_state_dict(state), kind)
    assert torch.equal(head.weight(), before)
    return message
