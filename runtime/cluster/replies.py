"""What becomes of the requests of another node: each is settled here, and its answer may travel with the next reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.cluster.frames import TAKEN, Reply, encode
from runtime.envelope import Ask

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from runtime.engine import Engine

HOLD_REPLY = 0.02
"""Seconds for which the reply to a batch waits for the answers to its requests; later ones travel by themselves."""


class RemoteAsk(Ask):
    """A request of another node: what becomes of it travels back."""

    __slots__ = ("settled",)

    def __init__(self, message: Any, deadline: float, settled: Callable[[RemoteAsk], None]) -> None:
        super().__init__(message, deadline)
        self.settled = settled

    def expire(self) -> None:
        super().expire()
        self.settled(self)

    def cancel(self) -> bool:
        is_open = super().cancel()
        self.settled(self)
        return is_open

    def _wake(self) -> None:
        super()._wake()
        self.settled(self)


class HeldReply:
    """The reply to a batch, which waits a moment for the answers to the requests in it."""

    def __init__(self, reply: asyncio.Future[bytes], *, holds: bool) -> None:
        self._reply = reply
        self._holds = holds
        self._frames: list[bytes] = []
        self._open: set[int] = set()
        self._sealed = False
        self._timer: asyncio.TimerHandle | None = None

    def waits_for(self, number: int) -> None:
        """Take note of a request whose answer may travel with the reply."""
        if self._holds:
            self._open.add(number)

    def seal(self, engine: Engine) -> None:
        """Take no more requests: reply as soon as those that there are have their answers, or after a moment."""
        self._sealed = True
        if self._open:
            self._timer = engine.loop.call_later(HOLD_REPLY, self._leave)
        else:
            self._leave()

    def take(self, number: int, frame: bytes) -> bool:
        """Let an answer travel with the reply; False if that has left, or does not wait for it."""
        if number not in self._open:
            return False
        self._open.discard(number)
        self._frames.append(frame)
        if self._sealed and not self._open:
            self._leave()
        return True

    def _leave(self) -> None:
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._reply.done():
            self._reply.set_result(encode(Reply(TAKEN, self._frames)))
