"""Measurements in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import torch

from widehead.errors import ProcessesError
from widehead.split import Member

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_processes(
    count: int, work: Callable[Concatenate[DeviceMesh | None, _P], _R], *arguments: _P.args, **more: _P.kwargs
) -> _R:
    """What ``work(mesh, …)`` gives in the first of so many processes; in this one, without a mesh, if it is one.

    Raises:
        ProcessesError: one of them has failed, and said why on standard error. Errors of the first are its own.
    """
    if count == 1:
        return work(None, *arguments, **more)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as place:
        members = [Member(rank, count, place) for rank in range(count)]
        given = torch.get_num_threads(), work, arguments, more
        group = [context.Process(target=_serve, args=(theirs, member, *given), daemon=True) for member in members]
        for process in group:
            process.start()
        theirs.close()
        try:
            found = ours.recv()
        except EOFError as error:
            raise ProcessesError(
                f"All of {count} processes should have worked to the end. Found that the first has died."
            ) from error
        finally:
            for process in group:
                process.join(_PATIENCE)
                process.terminate()
                process.join()
    if isinstance(found, Exception):
        raise found
    return found


_PATIENCE = 5.0  # seconds in which a process should end once the first has told its result


def _serve(
    parent: Connection,
    member: Member,
    threads: int,
    work: Callable[..., object],
    arguments: tuple[object, ...],
    more: dict[str, object],
) -> None:
    if member.rank > 0:
        parent.close()
    torch.set_num_threads(threads)
    try:
        found = work(member.joined(), *arguments, **more)
    except Exception as error:
        if member.rank > 0:
            raise
        found = error
    if member.rank == 0:
        parent.send(found)
