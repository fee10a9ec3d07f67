"""A run behind a port: batches of waiting requests, what they are answered, and the server."""

from widehead.serving.batcher import Batcher, Busy, Closed
from widehead.serving.service import Ranked, Request, Row, Service

__all__ = ["Batcher", "Busy", "Closed", "Ranked", "Request", "Row", "Service"]
