"""The calls of sync functions, each in a thread: one pool for each provider, and what becomes of calls that run on.

A thread cannot be cut. A call that is given up keeps its thread until the function returns, and its outcome can be
looked up by its key, then and for a while afterwards.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any

from actors.errors.families import BulkheadFull, CallFailed, Unclassified
from actors.transports.reconciliation import Answered, Finding, Lost, NeverRan, UnderWay
from actors.transports.transport import ProviderReply, UnreadableCost
from runtime import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transports.transport import ProviderCall

DEFAULT_SIZE = 10
"""The threads of a transport that is used without a listing; as `max_concurrency` of a listing by default."""
MAX_LATE = 256
"""Outcomes of given-up calls that are kept; of more, the oldest are forgotten, and their money stays held."""


class ThreadedCalls:
    """The threads of one provider, at most `size`. A call that finds none free is refused with `BulkheadFull`.

    `on_late_end` is called when a call that was given up has ended, and its place is free.
    """

    def __init__(self, size: int = DEFAULT_SIZE, *, on_late_end: Callable[[], object] | None = None) -> None:
        self._on_late_end = on_late_end
        self._size = size
        self._pool = ThreadPool(size)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._given_up: Counter[str] = Counter()
        """How many calls run on under a key."""
        self._late: dict[str, Finding | CallFailed] = {}
        """What became of those that have ended, by key."""
        self.given_up = 0
        """How many calls that were given up are still at work."""

    def resize(self, size: int) -> None:
        """Allow so many threads from now on; what runs in more goes on."""
        if size != self._size:
            self._size = size
            self._pool.resize(size)

    async def run(
        self,
        function: Callable[[ProviderCall], Any],
        call: ProviderCall,
        *,
        provider: str,
        read: Callable[[Exception], CallFailed],
    ) -> Any:
        """Return what `function` returns for `call`. If it is cancelled, the thread goes on.

        `read` classifies what the function raises after that.
        """
        if len(self._under_way) >= self._size:
            raise BulkheadFull(provider, max_concurrency=self._size, given_up=self.given_up)
        work = asyncio.create_task(self._pool.run(function, call))
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            key = call.idempotency_key
            self._given_up[key] += 1
            self.given_up += 1
            work.add_done_callback(lambda work: self._ended_late(key, work, read))
            raise
        return work.result()

    def _ended_late(self, key: str, work: asyncio.Task[Any], read: Callable[[Exception], CallFailed]) -> None:
        self._given_up[key] -= 1
        self.given_up -= 1
        if self._on_late_end is not None:
            self._on_late_end()
        if not self._given_up[key]:
            del self._given_up[key]
        if work.cancelled():
            return
        error = work.exception()
        finding: Finding | CallFailed | None = None
        if error is None:
            finding = _finding(work.result())
        elif isinstance(error, UnreadableCost):
            finding = Answered(error.reply)  # It was paid for, and is not lost because of its cost.
        elif isinstance(error, Exception):
            finding = read(error)
        if finding is None or (key in self._late and isinstance(finding, CallFailed | NeverRan)):
            return  # What another call under this key has found says more.
        self._late.pop(key, None)
        self._late[key] = finding
        while len(self._late) > MAX_LATE:
            del self._late[next(iter(self._late))]

    def find(self, call: ProviderCall, *, provider: str) -> Finding:
        """Return what became of a call that was given up; raises a `CallFailed` if that is not known."""
        key = call.idempotency_key
        found = self._late.get(key)
        if isinstance(found, Answered | Lost):
            return found
        if key in self._given_up:
            return UnderWay()
        if found is None:
            raise Unclassified(f"nothing is known of a call to {provider!r} under {key!r}", provider=provider)
        if isinstance(found, CallFailed):
            match found.charged:
                case "no":
                    return NeverRan()
                case "yes":
                    return Lost()
                case _:
                    raise found
        return found

    def __len__(self) -> int:
        return len(self._under_way)


def _finding(answer: object) -> Finding:
    if inspect.iscoroutine(answer):
        answer.close()  # The function only made it; it was never begun.
        return NeverRan()
    return Answered(answer if isinstance(answer, ProviderReply) else ProviderReply(output=answer))
