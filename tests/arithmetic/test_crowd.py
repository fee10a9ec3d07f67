"""Fewer threads where others use the cores: when, for how long, and that all of them come back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

import widehead as wh
from widehead.arithmetic import crowd, find_compiled, sharing
from widehead.arithmetic.crowd import Crew, Sharing

needs_kernels = pytest.mark.skipif(find_compiled() is None, reason="needs a C compiler, and Linux")
CROWDED, CALM = 0.5, 0.01


def looked(crew: Crew, begin: float, end: float, share: float) -> list[int]:
    """Threads after looks every eighth of a second, which adds up without rounding."""
    threads = []
    for eighth in range(round(8 * begin), round(8 * end)):
        crew.look(eighth / 8, share)
        threads.append(crew.threads)
    return threads


def test_a_moment_is_no_crowd() -> None:
    crew = Crew(8)
    for eighth in range(100):
        crew.look(eighth / 8, CROWDED if eighth % 2 else CALM)
    assert crew.threads == 8


def test_half_of_the_threads_in_a_crowd_down_to_one() -> None:
    assert looked(Crew(8), 0, 1, CROWDED) == [8, 4, 4, 2, 2, 1, 1, 1]
    assert looked(Crew(3), 0, 0.5, CROWDED) == [3, 1, 1, 1]


def test_all_of_them_come_back_when_it_is_over() -> None:
    crew = Crew(8)
    looked(crew, 0, 1, CROWDED)
    assert crew.threads == 1
    threads = looked(crew, 1, 4, CALM)
    assert [threads.count(n) for n in (1, 2, 4)] == [4, 4, 4]
    assert threads[-1] == 8


def test_tries_that_fail_become_rarer() -> None:
    """One other program: one thread is calm, and two are not."""
    crew, tries = Crew(2), []
    looked(crew, 0, 0.25, CROWDED)
    for eighth in range(2, 2400):
        before = crew.threads
        crew.look(eighth / 8, CALM if before == 1 else CROWDED)
        if crew.threads > before:
            tries.append(eighth / 8)
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert waits[:3] == [1.25, 2.25, 4.25]
    assert max(waits) == 30.25
    assert crew.threads == 1


def test_after_a_try_that_was_right_the_next_crowd_is_met_as_the_first() -> None:
    crew = Crew(2)
    for begin in (0, 10):
        assert looked(crew, begin, begin + 0.25, CROWDED) == [2, 1]
        assert looked(crew, begin + 0.25, begin + 5, CALM).count(1) == 4


def test_a_try_that_was_right_makes_the_next_one_early_again() -> None:
    crew = Crew(2)
    looked(crew, 0, 0.25, CROWDED)
    assert looked(crew, 0.25, 0.875, CALM)[-1] == 2
    assert looked(crew, 0.875, 1, CROWDED) == [1], "it was too early"
    assert looked(crew, 1, 5, CALM).count(1) == 8, "so the next is twice as late"
    assert looked(crew, 5, 5.25, CROWDED) == [2, 1]
    assert looked(crew, 5.25, 10, CALM).count(1) == 4


@pytest.fixture
def two() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, and how long each thread waited, which rises with it times the share."""
    told = [0.0, 0.0, 0.0]  # now, waited, share

    def now() -> float:
        told[0] += 0.2
        told[1] += 0.2 * told[2]
        return told[0]

    monkeypatch.setattr(crowd, "perf_counter", now)
    monkeypatch.setattr(crowd, "_waits", lambda team: [told[1]] * len(team))
    return told


def inside(context: Sharing) -> int:
    with context:
        return torch.get_num_threads()


@needs_kernels
def test_torch_has_fewer_threads_inside_and_all_outside(two: int, clock: list[float]) -> None:
    context = Sharing()
    assert [inside(context) for _ in range(5)] == [2] * 5
    clock[2] = CROWDED
    assert [inside(context) for _ in range(4)] == [2, 1, 1, 1]
    assert torch.get_num_threads() == 2
    others: list[int] = []
    with context:
        with context:
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1, "it was entered twice"
        other = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert others == [2], "others have what torch was told"
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyboardInterrupt), context:
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2
    clock[2] = CALM
    assert [inside(context) for _ in range(12)][-1] == 2


@needs_kernels
def test_what_torch_is_told_inside_stays(two: int, clock: list[float]) -> None:
    context = Sharing()
    clock[2] = CROWDED
    assert [inside(context) for _ in range(9)][-1] == 1
    with context:
        torch.set_num_threads(3)
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 3
    assert inside(context) == 3, "they are looked at anew"
    assert torch.get_num_threads() == 3


@needs_kernels
def test_what_fails_or_is_stopped_on_the_way_in_leaves_all_threads(
    two: int, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Sharing()
    clock[2] = CROWDED
    assert [inside(context) for _ in range(9)][-1] == 1
    with monkeypatch.context() as patch:
        patch.setattr(crowd, "_waits", lambda team: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            inside(context)
    assert torch.get_num_threads() == 2
    assert inside(context) == 1, "as if it had not been entered"


@needs_kernels
def test_threads_of_python_have_crews_of_their_own(two: int, clock: list[float]) -> None:
    """One is inside with fewer while another enters and leaves."""
    context, found = Sharing(), list[int]()
    clock[2] = CROWDED
    assert [inside(context) for _ in range(9)][-1] == 1

    def other() -> None:
        found.extend(inside(context) for _ in range(9))
        found.append(torch.get_num_threads())

    with context:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    assert found[:2] == [2, 2]
    assert found[-2:] == [1, 2]


def told_to_the_blas() -> int:
    """How many threads it takes if the calling thread asks, 0 for all there are."""
    kernels, threads = crowd.library(), torch.get_num_threads()
    assert kernels is not None
    local: int = kernels.widehead_limit(threads, 0)
    kernels.widehead_limit(threads, local)
    return local


@needs_kernels
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="other libraries ask OpenMP")
def test_the_blas_has_fewer_threads_inside_and_those_of_before_outside(two: int, clock: list[float]) -> None:
    context, before = Sharing(), told_to_the_blas()
    clock[2] = CROWDED
    assert [inside(context) for _ in range(9)][-1] == 1
    with context:
        assert told_to_the_blas() == 1
    assert told_to_the_blas() == before != 1


@pytest.fixture
def crowded(two: int, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All heads work with one thread."""
    monkeypatch.setattr(sharing, "_at", 0.0)
    clock[2] = CROWDED
    assert [inside(sharing) for _ in range(9)][-1] == 1
    yield
    sharing._crew, sharing._team = Crew(1), []


@needs_kernels
def test_passes_and_steps_of_exact_heads_have_fewer_threads(crowded: None) -> None:
    seen: list[int] = []
    loss = wh.losses.SphericalLoss(lambda q, s, a, targets: (seen.append(torch.get_num_threads()), q)[1])
    head, other = wh.ExactHead(8, 50, loss), wh.ExactHead(8, 50, wh.losses.SquaredError())
    hidden, ids = torch.randn(4, 8), torch.arange(4)
    seen.clear()
    head(hidden, ids)
    head.loss_and_gradient(hidden, ids)
    assert set(seen) == {1}
    with other.at_work():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@needs_kernels
def test_deterministic_algorithms_have_all_threads(two: int, clock: list[float]) -> None:
    context = Sharing()
    clock[2] = CROWDED
    before = [inside(context) for _ in range(9)]
    torch.use_deterministic_algorithms(True)
    try:
        assert (before[-1], inside(context)) == (1, 2)
    finally:
        torch.use_deterministic_algorithms(False)
    assert inside(context) == 1


@needs_kernels
@pytest.mark.parametrize("told", [None, b"", b"1 2", b"no numbers here"])
def test_a_system_that_does_not_tell_is_never_crowded(
    two: int, told: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: crowd.Path) -> bytes:
        if told is None:
            raise FileNotFoundError(path)
        return told

    monkeypatch.setattr(crowd, "_PERIOD", 0.0)
    monkeypatch.setattr(crowd.Path, "read_bytes", read)
    context = Sharing()
    assert [inside(context) for _ in range(9)] == [2] * 9


@needs_kernels
def test_the_system_tells_how_long_the_threads_of_a_step_waited(two: int) -> None:
    kernels = crowd.library()
    assert kernels is not None
    team = crowd._team(kernels, 2)
    assert team[0] == threading.get_native_id()
    assert len(set(team)) == 2
    assert crowd._waits([2**22 + 1]) is None, "no such thread"
    waited = crowd._waits(team)
    if waited is None:
        pytest.skip("this system does not tell")
    assert len(waited) == 2
    assert all(0.0 <= one < 1e6 for one in waited)


@needs_kernels
def test_steps_in_a_crowd_are_those_of_one_thread(
    two: int, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, and steps with all threads differ from them in rounding alone."""
    found = []
    for share, threads in ((CROWDED, 2), (CALM, 1), (CALM, 2)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(sharing, "_at", 0.0)
        clock[2] = share
        torch.manual_seed(0)
        if share == CROWDED:
            assert [inside(sharing) for _ in range(9)][-1] == 1
        else:
            sharing._crew, sharing._team = Crew(1), []
        head = wh.ExactHead(64, 500, wh.losses.SquaredError())
        optimizer = wh.optim.SGD(head, lr=1e-3)
        hidden, ids = torch.randn(5, 96, 64), torch.randint(0, 500, (5, 96))
        for x, targets in zip(hidden, ids, strict=True):
            head(x.requires_grad_(), targets).backward()
            optimizer.step()
        found.append(head.weight())
    sharing._crew, sharing._team = Crew(1), []
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], found[2], atol=1e-6)
