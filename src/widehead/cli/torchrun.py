"""The program as one of several processes that torchrun started: who talks, and how all of them end alike."""

import os
import signal
import socket
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from widehead.errors import ProcessesError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_WAIT = timedelta(minutes=5)  # for others to start
# For what another says: the first one chooses alone by documents, some minutes for 200,000. Who has ended is noticed at
# once, as its connections are closed.
_PATIENCE = timedelta(hours=6)
_MARK = ".torchrun.tmp"  # in a run folder: who began the run


def size() -> int:
    """How many processes there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return size() == 1 or rank() == 0


def rank() -> int:
    """Of this process."""
    return int(os.environ["RANK"])


def joined() -> "DeviceMesh | None":
    """The processes, once all of them are here; None if this is the only one."""
    if size() == 1:
        return None
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    signal.signal(signal.SIGTERM, _interrupted)  # torchrun's, when one of them has ended
    try:
        distributed.init_process_group("gloo", store=_store(), rank=rank(), world_size=size(), timeout=_PATIENCE)
    except RuntimeError as error:
        raise ProcessesError(f"All {size()} processes should have met. Found: {error}") from error
    return init_device_mesh("cpu", (size(),))


def _interrupted(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


@cache
def _store() -> Any:
    """What all of them can read and write; torchrun keeps what was written before they were started again."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store = next(rendezvous("env://", timeout=_WAIT))[0]
    return PrefixStore(f"widehead/{_attempt()}", store)


def ended(code: int) -> tuple[bool, int]:
    """Say to the others that the program ends with ``code``: whether this is the first to end, and the code of that."""
    if size() == 1:
        return True, code
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which would change the code
    try:
        store = _store()
        if store.add("ended", 1) == 1:
            store.set("code", str(code))
            return True, code
        return False, int(store.get("code"))
    except (RuntimeError, ValueError):  # who keeps it is gone
        return True, code


def began(out: Path) -> None:
    """Note in a new run's folder that these processes began it, so that they may be started again."""
    if size() > 1 and is_first():
        (out / _MARK).write_text(_launcher(), encoding="utf-8")


def finished(out: Path) -> None:
    """Nobody needs that note any more."""
    if is_first():
        (out / _MARK).unlink(missing_ok=True)


def goes_on(out: Path) -> bool:
    """Whether torchrun started the processes again, and they began the run in ``out`` before, as rank 0 finds."""
    if size() == 1 or _attempt() == 0:
        return False
    from torch import distributed

    mark = out / _MARK
    told = [mark.exists() and mark.read_text(encoding="utf-8") == _launcher() and (out / "config.json").exists()]
    distributed.broadcast_object_list(told, 0)
    return bool(told[0])


def _attempt() -> int:
    """How often torchrun started them again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _launcher() -> str:
    """The process of torchrun on the machine of rank 0."""
    return f"{os.environ['TORCHELASTIC_RUN_ID']}: process {os.getppid()} on {socket.gethostname()}\n"


def again() -> str:
    """What stands before the arguments of a command that goes on."""
    if size() == 1:
        return "widehead"
    return f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} -m widehead"
