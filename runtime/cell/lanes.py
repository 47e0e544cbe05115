"""Handlers that may run several at a time: who runs, and who waits for a place."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from runtime.handlers import Handler


class Lane:
    """One concurrent handler of one actor: at most `handler.concurrent` tasks or errands, the rest waits in order."""

    __slots__ = ("handler", "running", "waiting")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.running: dict[asyncio.Future[None], Any] = {}
        self.waiting: deque[Any] = deque()

    @property
    def is_full(self) -> bool:
        """True where the next message has to wait."""
        return len(self.running) >= self.handler.concurrent
