"""The exact head with its weights in a file or in bfloat16: everything that it can do in memory, it does there."""

from __future__ import annotations

import copy
import io
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import widehead as wh
from widehead.arithmetic import TORCH, using
from widehead.errors import StaleGraphError
from widehead.mapped import PAGE
from widehead.training.checkpoint import load_checkpoint, save_checkpoint

D, WIDTH, BATCH = 3000, 8, 16
HALF = torch.bfloat16


def make(storage: Path | None = None, seed: int = 0, **options: Any) -> wh.ExactHead:
    torch.manual_seed(seed)
    return wh.ExactHead(WIDTH, D, wh.losses.WeightedSquaredError(0.1), bias=True, storage=storage, **options)


def train(head: wh.ExactHead, optimizer: torch.optim.Optimizer, steps: int, seed: int = 1) -> list[float]:
    """One dominant direction, so that segments are closed and rows are swept."""
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        hidden = torch.randn(BATCH, WIDTH, generator=generator) + 3.0
        loss = head(hidden, torch.randint(0, D, (BATCH, 3), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def assert_equal(a: wh.ExactHead, b: wh.ExactHead) -> None:
    state = b.state_dict()
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("storage_dtype", [None, HALF])
def test_a_head_in_a_file_does_what_one_in_memory_does(
    tmp_path: Path, momentum: float, storage_dtype: torch.dtype | None
) -> None:
    heads = [make(path, storage_dtype=storage_dtype) for path in (None, tmp_path / "rows")]
    found = []
    for head in heads:
        optimizer = wh.optim.SGD(head, lr=0.02, momentum=momentum)
        torch.manual_seed(2)  # of the rounding
        losses = train(head, optimizer, 80)
        head.consolidate()
        scores, ids = head.top_k(torch.ones(2, WIDTH), 5)
        found.append((losses, head.audit(), scores.tolist(), ids.tolist()))
    assert found[0] == found[1]
    assert found[0][1].closes > 1
    assert found[0][1].moved_rows > 0
    assert_equal(*heads)
    assert repr(tmp_path / "rows").split("'")[1] in repr(heads[1])
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]
    number = 4 if storage_dtype is None else 2
    assert (tmp_path / "rows").stat().st_size == PAGE + D * (WIDTH + 1) * (2 if momentum else 1) * number


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["SGD", "Newton"])
def test_in_bfloat16_the_loss_is_that_of_the_stored_weights(kind: str, momentum: float) -> None:
    """Without `absorb_rounding` the drift is a thousand times what it is."""
    if kind == "Newton" and momentum:
        pytest.skip("Newton has no momentum")
    head = make(storage_dtype=HALF)
    options = {"momentum": momentum} if kind == "SGD" else {}
    optimizer = getattr(wh.optim, kind)(head, lr=0.02, **options)
    train(head, optimizer, 120)
    audit = head.audit()
    assert audit.gram < 5e-6
    assert audit.column_sum < 2e-6
    hidden = torch.randn(4, WIDTH)
    q, s, _ = head.statistics(hidden, [[1], [2], [], [3]])
    linear = head.to_linear()
    assert linear.weight.dtype == head.dtype == torch.float32
    outputs = linear(hidden)
    assert torch.allclose(q, outputs.square().sum(1), rtol=1e-5)
    assert torch.allclose(s, outputs.sum(1), rtol=1e-4, atol=1e-4)
    assert head.weights.values.dtype == HALF
    ranked = outputs.topk(6)
    assert torch.allclose(head.top_k(hidden, 6)[0], ranked.values, atol=1e-5)
    head.consolidate()
    assert head.audit().gram < 5e-6
    assert torch.allclose(head.weight(), linear.weight, rtol=2.0**-6, atol=1e-6)


def test_bfloat16_stays_close_to_float32() -> None:
    half, single = make(storage_dtype=HALF), make()
    losses = [train(head, wh.optim.SGD(head, lr=0.02), 120) for head in (half, single)]
    assert sum(losses[0][-50:]) == pytest.approx(sum(losses[1][-50:]), rel=0.01)
    assert float((half.weight() - single.weight()).norm() / single.weight().norm()) < 0.1


def test_consolidating_in_bfloat16_changes_weights_and_says_so() -> None:
    head = make(storage_dtype=HALF)
    train(head, wh.optim.SGD(head, lr=0.02), 30)
    loss = head(torch.ones(2, WIDTH), [[1], [2]])
    head.consolidate()
    with pytest.raises(StaleGraphError):
        loss.backward()


@pytest.mark.parametrize("before", [0.0, 0.9])
@pytest.mark.parametrize("storage_dtype", [None, HALF])
def test_an_optimiser_made_before_the_step_has_the_gradient_of_this_w_or_none(
    before: float, storage_dtype: torch.dtype | None
) -> None:
    """Momentum that comes or goes writes all rows anew, which in bfloat16 makes another W of them."""
    head, hidden = make(storage_dtype=storage_dtype), torch.randn(4, WIDTH)
    train(head, wh.optim.SGD(head, lr=0.02, momentum=before), 30)
    head(hidden, [[1], [2], [], [3]]).backward()
    norm, weight = float(head.grad_norm()), head.weight()
    optimizer = wh.optim.SGD(head, lr=0.02, momentum=0.9 - before)
    assert torch.allclose(head.weight(), weight, rtol=2.0**-7 if storage_dtype else 1e-6, atol=1e-7)
    if storage_dtype is None:
        assert float(head.grad_norm()) == pytest.approx(norm, rel=1e-5)
        return
    assert not torch.equal(head.weight(), weight)
    for read in (head.grad_norm, optimizer.step):
        with pytest.raises(StaleGraphError, match="zero_grad"):
            read()
    optimizer.zero_grad()
    train(head, optimizer, 3)


@pytest.mark.parametrize("storage_dtype", [None, HALF])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_checkpoints_go_on_bit_equal(tmp_path: Path, momentum: float, storage_dtype: torch.dtype | None) -> None:
    head = make(tmp_path / "rows", storage_dtype=storage_dtype)
    optimizer = wh.optim.SGD(head, lr=0.02, momentum=momentum)
    train(head, optimizer, 60)
    save_checkpoint(tmp_path / "c", {"head": head.state_dict(), "optimizer": optimizer.state_dict()})
    other = make(tmp_path / "others", seed=5, storage_dtype=storage_dtype)
    tree = load_checkpoint(tmp_path / "c")
    assert tree["head"]["values"].dtype == head.weights.values.dtype
    other.load_state_dict(tree["head"])
    other_optimizer = wh.optim.SGD(other, lr=0.02, momentum=momentum)
    other_optimizer.load_state_dict(tree["optimizer"])
    for each, its_optimizer in ((head, optimizer), (other, other_optimizer)):
        torch.manual_seed(3)
        train(each, its_optimizer, 40, seed=2)
    assert_equal(head, other)


def test_states_go_between_types_of_storage(tmp_path: Path) -> None:
    single = make()
    train(single, wh.optim.SGD(single, lr=0.02), 60)
    half = make(storage_dtype=HALF)
    half.load_state_dict(copy.deepcopy(single.state_dict()))
    assert torch.allclose(half.weight(), single.weight(), rtol=2.0**-6, atol=1e-2)
    assert half.audit().gram < 5e-6
    back = make(tmp_path / "rows")
    back.load_state_dict(half.state_dict())
    with using(TORCH):  # they round in another order, and half precision has none
        assert torch.equal(back.weight(), half.weight())
    assert torch.equal(back.weights.small.master, half.weights.small.master)


@pytest.mark.parametrize("storage_dtype", [None, HALF])
def test_loading_writes_over_the_rows_where_they_are(storage_dtype: torch.dtype | None) -> None:
    head, other = make(storage_dtype=storage_dtype), make(storage_dtype=storage_dtype, seed=1)
    at = head.weights.values.data_ptr()
    head.load_state_dict(other.state_dict())
    weight, bias = torch.randn(D, WIDTH, dtype=torch.float64), torch.randn(D)
    assert_equal(head, other)
    head.load_weight(weight, bias)
    assert head.weights.values.data_ptr() == at
    assert torch.allclose(head.weight(), weight.float(), rtol=0.0 if storage_dtype is None else 2.0**-8)
    assert head.audit().gram < 1e-6
    assert other.weights.values.data_ptr() != at


@pytest.mark.parametrize(
    "bad",
    [
        {"values": torch.zeros(D, WIDTH)},
        {"values": torch.zeros(D, WIDTH + 1, dtype=torch.int32)},
        {"versions": torch.full((D,), 7, dtype=torch.uint8)},
        {"_extra_state": torch.zeros(3, 3)},
        {"_extra_state": torch.zeros(80, dtype=torch.uint8)},
    ],
)
def test_a_bad_state_changes_nothing(bad: dict[str, torch.Tensor]) -> None:
    head, other = make(), make(seed=1)
    before = copy.deepcopy(head.state_dict())
    with pytest.raises(RuntimeError, match="exact head"):
        head.load_state_dict({**other.state_dict(), **bad})
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_bad_weight_changes_nothing() -> None:
    head = make()
    before, weight = copy.deepcopy(head.state_dict()), torch.randn(D, WIDTH)
    weight[-1, -1] = torch.inf
    with pytest.raises(ValueError, match="finite"):
        head.load_weight(weight)
    with pytest.raises(ValueError, match="finite"):
        head.load_weight(weight.nan_to_num(posinf=0.0).double() * 1e300)  # not in float32
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_state_that_shares_memory_is_refused_once_the_rows_are_others() -> None:
    """The second load would put U and Q of then beside rows of now."""
    head, other = make(), make(seed=1)
    state = head.state_dict()
    head.load_state_dict(state)
    head.load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match="shares memory"):
        head.load_state_dict(state)


def test_a_head_in_a_file_is_not_copied_pickled_or_moved(tmp_path: Path) -> None:
    head = make(tmp_path / "rows")
    with pytest.raises(TypeError, match="load the state_dict"):
        copy.deepcopy(head)
    with pytest.raises(TypeError, match="load the state_dict"):
        pickle.dumps(head)
    with pytest.raises(TypeError, match="load the state_dict"):
        torch.save(head, io.BytesIO())
    before = head.weight()
    with pytest.raises(ValueError, match="make another head"):
        head.double()
    assert head.to("cpu", torch.float32) is head
    assert torch.equal(head.weight(), before)
    copied = copy.deepcopy(head.state_dict())  # its tensors are ordinary ones
    train(head, wh.optim.SGD(head, lr=0.1), 3)
    head.load_state_dict(copied)
    assert torch.equal(head.weight(), before)


def test_a_head_in_bfloat16_is_copied_and_moved() -> None:
    head = make(storage_dtype=HALF)
    train(head, wh.optim.SGD(head, lr=0.02), 60)
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):  # noqa: S301
        assert_equal(head, twin)
    weight = head.weight()
    head.double()
    assert head.dtype == torch.float64
    assert head.weights.values.dtype == HALF
    assert torch.allclose(head.weight(), weight.double(), rtol=2.0**-7, atol=1e-3)
    assert head.audit().gram < 1e-12
    train(head, wh.optim.SGD(head, lr=0.02), 30)
    assert head.audit().gram < 1e-12


def test_wrong_parameters_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on the CPU"):
        make(tmp_path / "rows", device="meta")
    for dtype in (torch.float16, torch.int8):
        with pytest.raises(TypeError, match="storage_dtype"):
            make(tmp_path / "rows", storage_dtype=dtype)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make(tmp_path / "nowhere" / "rows")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_construction_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("widehead.versions.rows.Rows.draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from heads.test_exact_storage import make, train
    import widehead as wh
    from widehead.training.checkpoint import save_checkpoint
    head = make(Path("rows"))
    optimizer = wh.optim.SGD(head, lr=0.02)
    train(head, optimizer, 50)
    save_checkpoint(Path("c"), {{"head": head.state_dict(), "optimizer": optimizer.state_dict()}})
    train(head, optimizer, 7, seed=9)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_after_a_kill_the_last_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    code = textwrap.dedent(_KILLED.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    unbroken = make()
    optimizer = wh.optim.SGD(unbroken, lr=0.02)
    train(unbroken, optimizer, 50)
    (tmp_path / "rows").unlink()
    head = make(tmp_path / "rows", seed=4)
    again = wh.optim.SGD(head, lr=0.02)
    tree = load_checkpoint(tmp_path / "c")
    head.load_state_dict(tree["head"])
    again.load_state_dict(tree["optimizer"])
    assert_equal(head, unbroken)
    assert train(head, again, 50, seed=2) == train(unbroken, optimizer, 50, seed=2)
    assert_equal(head, unbroken)
