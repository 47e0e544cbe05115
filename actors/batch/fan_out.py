"""Do work for the items of a source of any length with a bounded number of workers, in memory that stays flat."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from actors.validation import check_count
from runtime import is_being_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")


class EndOfSource(Exception):
    """The source has no more items. A class of its own, because `work` may let any other exception escape."""


class Waiters:
    """Tasks that wait for the same thing, first come, first served. A task cancelled when woken wakes the next."""

    def __init__(self) -> None:
        self.queue: deque[asyncio.Future[None]] = deque()
        """Those that wait; read only."""
        self.is_waking = False
        """Whether a waiter has been woken that has not had a turn since."""

    async def wait(self) -> None:
        """Wait to be woken."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # The next waiter takes what this one was woken for.
                self.wake()
            raise
        self.is_waking = False

    def wake(self) -> None:
        """Wake the first waiter, if there is one."""
        self.is_waking = False
        while self.queue:
            waiter = self.queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self.is_waking = True
                return


class Source(Generic[T]):
    """The items of an iterable or async iterable, numbered from 0, for any number of workers."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self._async: AsyncIterator[T] | None = None
        self._sync: Iterator[T] | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        else:
            self._sync = iter(items)
        self._is_asked = False
        self._queue = Waiters()
        """Workers that wait for their turn to ask an async iterator."""
        self._count = 0
        self._is_used_up = False

    @property
    def is_sync(self) -> bool:
        """Whether `next_now` may be used."""
        return self._async is None

    def next_now(self) -> tuple[int, T]:
        """Return the next item of a source that never waits, as `next` does."""
        if self._is_used_up or self._sync is None:
            raise EndOfSource
        try:
            item = next(self._sync)
        except BaseException as error:
            self._is_used_up = True
            if isinstance(error, StopIteration):
                raise EndOfSource from None
            raise
        self._count += 1
        return self._count - 1, item

    async def next(self) -> tuple[int, T]:
        """Return the next item and its number. Raises `EndOfSource` at the end, and after an error of the source."""
        if self._async is None:
            return self.next_now()
        # An async iterator must not be asked for two items at the same time.
        while self._is_asked:
            await self._queue.wait()
        self._is_asked = True
        try:
            return self._numbered(await self._next_async(self._async))
        finally:
            self._is_asked = False
            self._queue.wake()

    async def aclose(self) -> None:
        """Close the source if it is a generator, so that its `finally` runs now."""
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(self._sync, Generator):
            self._sync.close()  # pyright: ignore[reportUnknownMemberType]

    async def _next_async(self, items: AsyncIterator[T]) -> T:
        if self._is_used_up:
            raise EndOfSource
        try:
            return await anext(items)
        except BaseException as error:
            self._is_used_up = True
            if isinstance(error, StopAsyncIteration):
                raise EndOfSource from None
            raise

    def _numbered(self, item: T) -> tuple[int, T]:
        self._count += 1
        return self._count - 1, item


class Outcomes(Generic[R]):
    """An async iterator of the outcomes as they finish, which ends when the source and all work have ended.

    At most `max_ahead` items are taken whose outcome is not consumed. A worker waits for such room before it takes an
    item, and never with an outcome in hand. A worker that finds room for more wakes the next one. So work that never
    waits is done by one worker, and work that waits by all.
    """

    def __init__(self, *, max_ahead: int, workers: int) -> None:
        self._ready: deque[R] = deque()
        self._room = max_ahead
        self._working = workers
        self._idle = Waiters()
        """Workers that wait for room."""
        self._consumers = Waiters()
        self.error: Exception | None = None
        self.is_closed = False

    async def wait_for_room(self) -> None:
        """Wait until one more item may be taken."""
        while self._room == 0:
            await self._idle.wait()

    def take_room(self) -> bool:
        """Take room for one more item, and tell whether there was any."""
        if not self._room:
            return False
        self._room -= 1
        if self._room and self._idle.queue:
            self._idle.wake()
        return True

    def put(self, outcome: R) -> None:
        """Add an outcome; room was taken for it before."""
        self._ready.append(outcome)
        if self._consumers.queue:
            self._consumers.wake()

    def fail(self, error: Exception) -> None:
        """End with `error`, unless there is an earlier one, after the outcomes of the work under way."""
        self.error = self.error or error

    def worker_ended(self) -> None:
        """Count one worker less; after the last one there are no more outcomes."""
        self._working -= 1
        while self._working == 0 and self._consumers.queue:
            self._consumers.wake()

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        while not self._ready:
            if self._working == 0:
                if self.error is not None:
                    raise self.error
                raise StopAsyncIteration
            await self._consumers.wait()
        self._room += 1
        if self._idle.queue and not self._idle.is_waking:
            self._idle.wake()
        return self._ready.popleft()


@asynccontextmanager
async def fan_out(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[int, T], Awaitable[R]], *, max_concurrency: int
) -> AsyncGenerator[AsyncIterator[R]]:
    """Run `work(number, item)` for each item, at most `max_concurrency` at the same time; yield the outcomes.

    At most twice that many items are taken from the source beyond those whose outcome was consumed. An exception of
    the source or of `work` ends the iteration and is raised from it, after the outcomes before it. Leaving the block
    early cancels the work under way, and closes the source.
    """
    check_count("max_concurrency", max_concurrency)
    source = Source(items)
    is_sync = source.is_sync
    outcomes = Outcomes[R](max_ahead=2 * max_concurrency, workers=max_concurrency)

    async def worker() -> None:
        try:
            while True:
                while not outcomes.take_room():
                    await outcomes.wait_for_room()
                if outcomes.is_closed or outcomes.error is not None:
                    return  # Another worker's error ends the work of all.
                number, item = source.next_now() if is_sync else await source.next()
                outcomes.put(await work(number, item))
        except EndOfSource:
            pass
        except (asyncio.CancelledError, StopAsyncIteration) as error:
            if is_being_cancelled():
                if not outcomes.is_closed:
                    # Its item has no outcome; without an error it would look as if there had been no such item.
                    outcomes.fail(RuntimeError("a task that worked on an item was cancelled from outside"))
                raise
            # To the consumer, it would mean that the consumer was cancelled, or that there are no more outcomes.
            stray = RuntimeError(f"the source or the work let a {type(error).__name__} escape")
            stray.__cause__ = error
            outcomes.fail(stray)
        except Exception as error:  # noqa: BLE001 - raised again to the consumer of the outcomes.
            outcomes.fail(error)
        finally:
            outcomes.worker_ended()

    workers = [asyncio.create_task(worker()) for _ in range(max_concurrency)]
    try:
        yield outcomes
    finally:
        outcomes.is_closed = True
        try:
            await cancel_and_wait(workers)
        finally:
            await source.aclose()


async def cancel_and_wait(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended; a cancellation of the caller meanwhile is raised afterwards."""
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
