"""ASGI middleware: a request's body has an end, in bytes and in time."""

import asyncio
from typing import Any

from starlette.responses import JSONResponse


class BodyLimit:
    """Answers 413 if a body has more bytes than ``most``, before all of it is read, and 408 if it takes ``seconds``."""

    def __init__(self, app: Any, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self.most:
            return await self._too_large()(scope, receive, send)
        try:
            body = await asyncio.wait_for(self._body(receive), self.seconds)
        except TimeoutError:
            return await _refusal(408, f"Expected a whole body within {self.seconds:g} seconds.")(scope, receive, send)
        if body is None:
            return None
        if len(body) > self.most:
            return await self._too_large()(scope, receive, send)
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(whole, None) or await receive()

        return await self.app(scope, again, send)

    async def _body(self, receive: Any) -> bytes | None:
        """All of a body, or a part that is too large; None if the client has gone."""
        body, more = bytearray(), True
        while more and len(body) <= self.most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> JSONResponse:
        return _refusal(
            413, f"Expected a body of at most {self.most:,} bytes. Found more; send fewer inputs at a time."
        )


def _refusal(code: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, code, headers={"Connection": "close"})
