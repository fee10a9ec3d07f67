"""``widehead serve RUN``: a run behind a port."""

import importlib.util
import os
import signal
import sys
from typing import Annotated, Any, Literal

import typer

from widehead.cli.console import say
from widehead.cli.errors import Interrupted
from widehead.cli.options import BestOption, DeviceOption, RunArgument, ThreadsOption, usable_device

_MS, _MIB = 1e-3, 1 << 20


def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is all of the machine's.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    index: Annotated[
        Literal["exact", "ivf", "hnsw"], typer.Option("--index", help="Look at all classes, or at some by FAISS.")
    ] = "exact",
    recall: Annotated[float, typer.Option("--recall", help="recall@10 that an index should reach.")] = 0.95,
    threads: ThreadsOption = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Inputs that are answered at a time.")] = 64,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Milliseconds that a batch waits for more inputs.")] = 0,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Requests that may wait; others get 503.")] = 256,
    body: Annotated[float, typer.Option("--body", min=0.001, help="MiB of a request's body; larger ones get 413.")] = 1,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds until an answer, or 504.")] = 10,
    best: BestOption = False,
    device: DeviceOption = "cpu",
) -> None:
    """Answer requests over HTTP: /predict (/recommend), /similar, /health; /docs describes them.

    SIGTERM and Ctrl-C stop it: requests that were taken are answered. Needs the extra `serve`:
    pip install "widehead[serve]".

    **Example**

        widehead serve runs/shop --port 8000 --index ivf
    """
    _leave_cores()
    _require()
    from widehead.serving.app import Limits, make_app
    from widehead.serving.server import Server

    device = usable_device(device)
    limits = Limits(batch=batch, wait=wait * _MS, queue=queue, body=int(body * _MIB), timeout=timeout)
    opened = _opened(run, best, device)
    server: Server
    app = make_app(
        opened.config.job,
        lambda: _service(opened, index, recall),
        limits,
        failed=lambda: setattr(server, "should_exit", True),
        ready=lambda service: say(f"Ready: {service}"),
    )
    listening = _listening(host, port)
    server = Server(app, listening, patience=2.0 * timeout + 1.0)
    address = listening.getsockname()
    say(f"Serving {run} at http://{host}:{address[1]} (process {os.getpid()}; the page /docs says how to ask).")
    server.run_to_end()
    if app.state.serving.failure is not None:
        raise app.state.serving.failure
    if server.stopped_by == signal.SIGINT:
        raise Interrupted("stopped; the requests that were taken are answered.")
    say("Stopped; the requests that were taken are answered.")


def _leave_cores() -> None:
    """Threads of OpenMP that have no work leave their cores to the one that receives and sends: they spin by default.

    What the user says of it counts. It is read when torch is loaded.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # the latter is LLVM's and Intel's


def _require() -> None:
    for name in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'The command serve needs {name}: pip install "widehead[serve]".')


def _opened(run: Any, best: bool, device: str) -> Any:
    from widehead.runs import Run

    return Run.open(run, best=best, device=device)


def _service(run: Any, index: str, recall: float) -> Any:
    from widehead.serving import Service

    return Service(run, index, recall)


def _listening(host: str, port: int) -> Any:
    from widehead.serving.server import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise typer.BadParameter(
            f"expected an address to listen at. Found {host}:{port}: {error.strerror or error}; take another one",
            param_hint="--host and --port",
        ) from error
