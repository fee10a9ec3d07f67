"""Actions of the walk besides steps: what becomes of a head that is copied, saved, converted, misused or read."""

from __future__ import annotations

import copy
import io
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import widehead as wh
from support.walk.batches import DOUBLE
from support.walk.bounds import UNIT
from support.walk.walker import Difference, Walker
from widehead.errors import NonFiniteError, StaleGraphError
from widehead.training.checkpoint import load_checkpoint, save_checkpoint

TRIPS = ["same", "new", "torch.save", "safetensors", "deepcopy", "pickle"]
WRONG = [math.nan, math.inf, -math.inf, 1e30, 1e38]


def consolidate(walker: Walker) -> None:
    walker.actions.note("consolidate")
    walker.head.consolidate()
    if walker.storage == "bfloat16":  # all rows are rounded anew
        walker.take_over()


def audit(walker: Walker) -> None:
    walker.actions.note("audit")
    walker.audit()


def switch(walker: Walker) -> None:
    walker.actions.note("another optimiser")
    walker.optimizer = walker.new_optimizer()


def load_weight(walker: Walker) -> None:
    walker.load_weight()


def nothing_pends(walker: Walker) -> None:
    walker.actions.note("nothing pends")
    walker.optimizer.zero_grad()
    walker.optimizer.step()


def state_trip(walker: Walker) -> None:
    """Head and optimiser go to a state, a file or a copy and come back, in the middle of a segment."""
    how = walker.choose(TRIPS)
    walker.actions.note("trip", how)
    walker.optimizer.zero_grad()
    state = {"head": walker.head.state_dict(), "optimizer": walker.optimizer.state_dict()}
    before = {name: tensor.clone() for name, tensor in state["head"].items()}
    if how in ("deepcopy", "pickle") and walker.storage == "file":
        _refuses_copies(walker)
        return
    if how not in ("deepcopy", "pickle") and walker.bounds.may_be_refused(walker.twin):
        return
    if how == "deepcopy":
        walker.head = copy.deepcopy(walker.head)
    elif how == "pickle":
        walker.head = pickle.loads(pickle.dumps(walker.head))  # noqa: S301  our own bytes
    else:
        state = _stored(walker, how, state)
    made = type(walker.optimizer)(walker.head, **_options(walker.optimizer))
    made.load_state_dict(state["optimizer"])
    walker.optimizer = made
    walker.right.options = made.param_groups[0]
    for name, tensor in walker.head.state_dict().items():
        if not torch.equal(tensor, before[name]):
            raise Difference(f"`{name}` is not what it was before a trip by {how}; {walker}")


def _stored(walker: Walker, how: str, state: dict[str, Any]) -> dict[str, Any]:
    """The state once it has been away, loaded into this head or a new one."""
    if how == "torch.save":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    elif how == "safetensors":
        path = Path(walker.folder.name) / "checkpoint.safetensors"
        save_checkpoint(path, state)
        state = load_checkpoint(path)
    else:
        state = copy.deepcopy(state)
    head = walker.head if how == "same" else walker.new_head()
    head.load_state_dict(state["head"])
    walker.head = head
    return state


def _refuses_copies(walker: Walker) -> None:
    for make in (copy.deepcopy, pickle.dumps):
        try:
            make(walker.head)
        except TypeError:
            continue
        raise Difference("A head whose rows are in a file was copied into memory.")


def _options(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    known = {"lr", "weight_decay", "max_grad_norm", "momentum", "nesterov", "decoupled"}
    known |= {"damping", "decay", "refresh_every", "ridge"}
    return {name: value for name, value in optimizer.defaults.items() if name in known}


def change_type(walker: Walker) -> None:
    if walker.storage != "memory":
        return
    walker.dtype = DOUBLE if walker.dtype == torch.float32 else torch.float32
    walker.actions.note("to", walker.dtype)
    walker.optimizer.zero_grad()
    before, rounding = walker.head.weights.dense(slice(None)).double(), walker.bounds.resting(walker.twin)
    walker.head.to(walker.dtype)
    after = walker.head.weights.dense(slice(None)).double()
    unit = UNIT[torch.float32]
    walker.see("W in another type", float((after - before).norm()), unit * float(before.norm()) + rounding)
    walker.take_over()
    walker.bounds.renew(walker.dtype, walker.twin)


def not_finite(walker: Walker) -> None:
    """NaN, infinity, or numbers that overflow: refused, and nothing changed, to the bit; or done, and finite."""
    batch, wrong = walker.batch(walker.choose([1, 3, 8])), walker.choose(WRONG)
    hidden = batch.given.clone()
    hidden[walker.source.random.randrange(batch.size), walker.source.random.randrange(walker.width)] = wrong
    walker.actions.note("not finite", wrong)
    walker.optimizer.zero_grad()
    walker.group["lr"] = walker.group["lr"] or 1e-3
    before = _everything(walker)
    try:
        hidden.requires_grad_()
        walker.somewhere(lambda: walker.head(hidden, batch.targets, reduction="sum")).backward()
        walker.somewhere(walker.optimizer.step)
    except NonFiniteError:
        walker.optimizer.zero_grad()
        for name, value in _everything(walker).items():
            if not (torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name]):
                raise Difference(f"`{name}` was changed by a step that was refused.") from None
        return
    if not math.isfinite(wrong):
        raise Difference(f"A step was made with {wrong} in the hidden layer; {walker}")
    if not bool(torch.isfinite(walker.head.weights.dense()).all()):
        raise Difference(f"{wrong} in the hidden layer made W infinite; {walker}")
    walker.load_weight()  # what is left of W are rounding errors of 1e30


def _everything(walker: Walker) -> dict[str, Any]:
    found = {name: tensor.clone() for name, tensor in walker.head.state_dict().items()}
    for state in copy.deepcopy(walker.optimizer.state_dict()["state"]).values():
        found |= state
    return found


def stale(walker: Walker) -> None:
    """A graph that is older than the last step is refused."""
    walker.actions.note("stale")
    walker.optimizer.zero_grad()
    batch, other = walker.batch(4), walker.batch(4)
    hidden = batch.given.clone().requires_grad_()
    old = walker.head(hidden, batch.targets, reduction="sum")
    walker.head(other.given.clone().requires_grad_(), other.targets, reduction="sum").backward()
    if walker.head.weights.order == 2:
        walker.optimizer.zero_grad()
        return
    wh.optim.SGD(walker.head, lr=0.0).step()
    try:
        old.backward()
    except StaleGraphError:
        return
    raise Difference("A graph that is older than a step went unnoticed.")


def scores(walker: Walker) -> None:
    """What is read of W: scores of all classes and of some, log-probabilities, the best classes."""
    walker.actions.note("scores")
    batch, head, twin = walker.batch(walker.choose([1, 3, 9])), walker.head, walker.twin
    outputs = batch.hidden @ twin.weight.T
    wrong = torch.linalg.vector_norm(batch.hidden, dim=1) * walker.bounds.resting(twin)
    with torch.no_grad(), walker.around():
        expected, bound = head.loss.score(outputs), _of_scores(walker, outputs, wrong[:, None])
        ids = torch.randint(walker.classes, (batch.size, 4), generator=walker.source.torch)
        _see(walker, "scores", head.scores(batch.given), expected, bound)
        _see(walker, "scores at ids", head.scores(batch.given, ids), expected.gather(1, ids), bound.gather(1, ids))
        k = min(7, walker.classes)
        best, places = head.top_k(batch.given, k)
        _see(walker, "top_k", best, expected.topk(k).values, bound.max(1, keepdim=True).values)
        if any(len(set(row)) < k for row in places.tolist()):
            raise Difference("top_k names a class twice.")
        if head.loss.has_probabilities:
            _log_prob(walker, batch, outputs, wrong, ids)


def _of_scores(walker: Walker, outputs: Tensor, wrong: Tensor) -> Tensor:
    """(m, D) what errors of the outputs make of the scores."""
    score = walker.head.loss.score
    exact = score(outputs)
    off = torch.maximum((score(outputs + wrong) - exact).abs(), (score(outputs - wrong) - exact).abs())
    return off + 8.0 * walker.bounds.unit * (exact.abs() + 1.0)


def _log_prob(walker: Walker, batch: Any, outputs: Tensor, wrong: Tensor, ids: Tensor) -> None:
    found = walker.head.log_prob(batch.given, ids)
    scores = walker.head.loss.score(outputs)
    expected = scores - scores.logsumexp(1, keepdim=True)
    q, s = (outputs**2).sum(1), outputs.sum(1)
    h = torch.linalg.vector_norm(batch.hidden, dim=1)
    rounding = 32.0 * walker.bounds.unit * walker.bounds.peak
    by_q = h**2 * rounding * walker.bounds.peak + 2.0 * walker.twin.spectral() * h * wrong
    by_s = walker.classes**0.5 * (h * rounding + wrong)
    exact = walker.head.loss.log_normalizer(q, s, walker.classes)
    moved = [
        walker.head.loss.log_normalizer((q + x * by_q).clamp_min(0.0), s + y * by_s, walker.classes)
        for x in (1, -1)
        for y in (1, -1)
    ]
    off = torch.stack([(x - exact).abs() for x in moved]).amax(0)[:, None]
    off = off + 8.0 * walker.bounds.unit * (exact.abs()[:, None] + 1.0)
    _see(
        walker,
        "log_prob",
        found,
        expected.gather(1, ids),
        off + _of_scores(walker, outputs, wrong[:, None]).gather(1, ids),
    )


def _see(walker: Walker, what: str, found: Tensor, expected: Tensor, bound: Tensor) -> None:
    """The entry that is furthest beyond its bound."""
    share = ((found.double() - expected).abs() / bound.clamp_min(1e-300)).max()
    walker.see(what, float(share), 1.0)


#: how often each comes among a thousand actions; steps are the rest
RARE = {
    switch: 20,
    state_trip: 20,
    change_type: 10,
    not_finite: 15,
    stale: 10,
    scores: 30,
    consolidate: 10,
    audit: 10,
    load_weight: 3,
    nothing_pends: 2,
}
