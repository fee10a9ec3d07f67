"""The web application: requests in, checked; answers out. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from widehead.jobs.base import job_named
from widehead.serving.batcher import Batcher, Busy, Closed
from widehead.serving.limits import BodyLimit
from widehead.serving.models import Answer, Answers, Health, Predict, Problem, RowModel, Similar
from widehead.serving.page import page_of
from widehead.serving.service import Ranked, Request, Row, Service
from widehead.version import __version__


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        batch: inputs that are answered at a time. wait: seconds that a batch which is not full waits for more.
        queue: requests that may wait; others get 503.
        body: bytes of a request; others get 413.
        timeout: seconds until a request is whole, or 408, and from then on until its answer, or 504.
    """

    batch: int = 64
    wait: float = 0.0
    queue: int = 256
    body: int = 1 << 20
    timeout: float = 10.0


class State:
    """A service that is being loaded in a thread, or is there with its batcher."""

    def __init__(self, load: Callable[[], Service], limits: Limits) -> None:
        self.load, self.limits = load, limits
        self.service: Service | None = None
        self.batcher: Batcher[Request, list[Ranked]] | None = None
        self.failure: BaseException | None = None

    def start(self, failed: Callable[[], None], ready: Callable[[Service], None]) -> None:
        """Load; called in a thread."""
        try:
            service = self.load()
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self.failure = error
            failed()
            return
        limits = self.limits
        self.batcher = Batcher(
            service.answer,
            largest=limits.batch,
            waiting=limits.queue,
            patience=limits.wait,
            size=lambda request: len(request.inputs),
        )
        self.service = service
        ready(service)

    async def answers(self, request: Request) -> Answers:
        """What the batcher answers, or the error of HTTP that says why there is no answer."""
        if self.batcher is None:
            raise HTTPException(503, "The run is being loaded; come again later.", {"Retry-After": "1"})
        try:
            future = asyncio.wrap_future(self.batcher.submit(request))
            found = await asyncio.wait_for(future, self.limits.timeout)
        except Busy as error:
            raise HTTPException(503, str(error), {"Retry-After": str(error.retry_after)}) from error
        except Closed as error:
            raise HTTPException(503, str(error), {"Retry-After": "5", "Connection": "close"}) from error
        except TimeoutError as error:
            said = (
                f"Expected an answer within {self.limits.timeout:g} seconds. Found none; send fewer inputs at a time."
            )
            raise HTTPException(504, said) from error
        except ValueError as error:
            raise HTTPException(404 if request.kind == "similar" else 422, str(error)) from error
        if not any(one.classes for one in found):
            raise HTTPException(422, _nothing(found))
        return Answers(answers=[Answer(**vars(one)) for one in found])


def make_app(
    job: str,
    load: Callable[[], Service],
    limits: Limits | None = None,
    *,
    failed: Callable[[], None] = lambda: None,
    ready: Callable[[Service], None] = lambda service: None,
) -> FastAPI:
    """The application of a run.

    Args:
        job: of the run.
        load: reads the run, in a thread: /health says when it is done.
        limits: what is taken.
        failed, ready: called in that thread when loading has ended. The error is ``app.state.serving.failure``.
    """
    limits = limits or Limits()
    state = State(load, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=state.start, args=(failed, ready), name="widehead-load", daemon=True).start()
        yield
        if state.batcher is not None:
            await asyncio.to_thread(state.batcher.close)

    app = FastAPI(title=f"widehead: {job}", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.serving = state
    app.add_middleware(BodyLimit, most=limits.body, seconds=limits.timeout)
    app.add_exception_handler(RequestValidationError, _malformed)
    _add_routes(app, state, job)
    return app


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in {
        400: "the body is no JSON",
        408: "the body did not come in time",
        413: "the body is too large",
        422: "a field is not what it should be, or nothing that the inputs hold is known",
        503: "the run is being loaded, too many requests wait (see Retry-After), or the server stops",
        504: "the time is up",
    }.items()
}


def _add_routes(app: FastAPI, state: State, job: str) -> None:
    async def predict(body: Predict) -> Answers:
        """The best classes for each input, as `Run.predict` gives them.

        A recommender leaves out the items that an input names.
        """
        return await state.answers(_asked(body))

    for path in ("/predict", "/recommend") if job_named(job).exclude_inputs else ("/predict",):
        app.post(path, responses=_PROBLEMS, summary=path[1:].capitalize())(predict)

    @app.post("/similar", responses={**_PROBLEMS, 404: {"model": Problem, "description": "no class has that name"}})
    async def similar(body: Similar) -> Answers:
        """The classes nearest to each of some, with their cosines, as `Run.similar` gives them."""
        return await state.answers(Request("similar", body.names, body.k))

    @app.get("/health", responses={503: {"model": Health, "description": "not ready"}})
    async def health() -> JSONResponse:
        """200 if requests are answered, 503 while the run is being loaded."""
        found = _health(state, job)
        return JSONResponse(found.model_dump(), 200 if found.status == "ready" else 503)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page_of(app.openapi()))


def _asked(body: Predict) -> Request:
    rows = [one for one in body.inputs if isinstance(one, RowModel)]
    if not rows:
        return Request("names", body.inputs, body.k)
    if len(rows) < len(body.inputs):
        raise HTTPException(422, "Expected inputs of one kind. Found rows of ids beside names or texts.")
    try:
        return Request("rows", [Row(row.ids, row.values) for row in rows], body.k)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def _health(state: State, job: str) -> Health:
    service, batcher = state.service, state.batcher
    if service is None or batcher is None:
        return Health(status="loading", job=job, classes=None, step=None, index=None, waiting=0)
    return Health(
        status="ready",
        job=job,
        classes=service.num_classes,
        step=service.run.step,
        index=service.figures,
        waiting=batcher.count,
    )


def _nothing(found: list[Ranked]) -> str:
    names = [name for one in found for name in one.unknown]
    said = f" Found unknown names: {', '.join(map(repr, names[:5]))}." if names else ""
    return f"Expected inputs of which the run knows something, and classes left to name.{said}"


async def _malformed(request: HttpRequest, error: Any) -> JSONResponse:
    """One sentence: which field, what it should be, what was found."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse({"detail": f"Expected a JSON object. Found: {first['ctx']['error']}."}, 400)
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    found = repr(first.get("input"))
    shown = found if len(found) <= 80 else f"{found[:77]}…"
    return JSONResponse({"detail": f"{field}: {first['msg']}. Found {shown}."}, 422)
