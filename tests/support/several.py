"""Functions that run in several processes of torch.distributed; these start once and serve many tests."""

from __future__ import annotations

import datetime
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

MOST = 4
_TIMEOUT = datetime.timedelta(seconds=180)  # of an exchange: on a busy machine imports alone take a minute


class Several:
    """`MOST` processes, of which each call uses the first few."""

    def __init__(self) -> None:
        self._ends: list[Connection] = []
        self._processes: list[Any] = []

    def run(self, count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(mesh, *arguments)`` of a module gives in each of ``count`` processes, by rank.

        Raises:
            AssertionError: it failed in one of them: with the traceback of each that did.
        """
        if not self._processes:
            self._start()
        for end in self._ends:
            end.send((count, function, arguments))
        answers = [_received(end) for end in self._ends][:count]
        if failed := [f"rank {rank}:\n{text}" for rank, (text, _) in enumerate(answers) if text]:
            self.close()  # who waits in an exchange would take part in the next one
            raise AssertionError("\n".join(failed))
        return [found for _, found in answers]

    def _start(self) -> None:
        context, place = multiprocessing.get_context("spawn"), tempfile.mkdtemp()
        for rank in range(MOST):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, f"{place}/meet"), daemon=True)
            process.start()
            self._ends.append(mine)
            self._processes.append(process)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._ends, self._processes = [], []


def _received(end: Connection) -> tuple[str, Any]:
    try:
        return end.recv()
    except EOFError:
        return "The process has ended.", None


def _serve(end: Connection, rank: int, place: str) -> None:
    import torch
    from torch import distributed
    from torch.distributed.device_mesh import DeviceMesh

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=MOST, timeout=_TIMEOUT)
    groups = [distributed.new_group(list(range(count)), timeout=_TIMEOUT) for count in range(1, MOST + 1)]
    meshes: dict[int, Any] = {}
    while True:
        try:
            count, function, arguments = end.recv()
            if rank >= count:
                end.send(("", None))
                continue
            if count not in meshes:
                meshes[count] = DeviceMesh.from_group(groups[count - 1], "cpu")
            end.send(("", function(meshes[count], *arguments)))
        except EOFError:
            return
        except Exception:  # noqa: BLE001 - the test tells it
            end.send((traceback.format_exc(), None))
