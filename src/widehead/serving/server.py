"""The process: a port, signals, an orderly end."""

from __future__ import annotations

import math
import signal
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT: takes no more requests, answers those it took, returns; at once on a second SIGINT.

    Attributes:
        stopped_by: the signal that it stopped for.
    """

    stopped_by: int | None = None

    def __init__(self, app: FastAPI, listening: socket.socket, patience: float) -> None:
        """``patience``: seconds that clients may take to end what they began, once the server stops."""
        whole = math.ceil(patience)
        super().__init__(
            uvicorn.Config(app, log_level="warning", timeout_keep_alive=60, timeout_graceful_shutdown=whole)
        )
        self._listening = listening

    def run_to_end(self) -> None:
        """Serve until a signal, or ``should_exit``, stops it."""
        self.run(sockets=[self._listening])

    def handle_exit(self, sig: int, frame: Any) -> None:
        """As uvicorn's, but for that the signal is not raised anew at the end: to stop for it is no failure."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self.stopped_by = self.stopped_by or sig


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; OSError if that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
