"""A bounded number of workers over a source of any length; outcomes come as each finishes, and memory stays flat."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")


class EndOfSource(Exception):
    """There are no more items. An exception of its own, because `work` may let any other escape."""


class Source(Generic[T]):
    """The items to come, numbered from 0, for any number of workers; from an iterable or an async iterable."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self._async: AsyncIterator[T] | None = None
        self._sync: Iterator[T] | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        else:
            self._sync = iter(items)
        self._turn = asyncio.Lock()
        self._count = 0
        self._is_used_up = False

    async def next(self) -> tuple[int, T]:
        """Return the next item and its number; raises `EndOfSource` at the end, and after an error of the source."""
        if self._async is None:
            return self._numbered(self._next_sync())
        # An async iterator must not be asked twice at the same time.
        async with self._turn:
            return self._numbered(await self._next_async(self._async))

    async def aclose(self) -> None:
        """Close a generator, so that its `finally` runs now and not some day."""
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(self._sync, Generator):
            self._sync.close()  # pyright: ignore[reportUnknownMemberType]

    def _next_sync(self) -> T:
        if self._is_used_up or self._sync is None:
            raise EndOfSource
        try:
            return next(self._sync)
        except BaseException as error:
            self._is_used_up = True
            if isinstance(error, StopIteration):
                raise EndOfSource from None
            raise

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
    """The outcomes as they come: an async iterator that ends when the source and all work have."""

    def __init__(self, *, room: int, workers: int) -> None:
        self._ready: deque[R] = deque()
        self._room = room
        self._working = workers
        # Workers whose outcome finds no room, and consumers who find no outcome; never both.
        self._blocked: deque[tuple[R, asyncio.Future[None]]] = deque()
        self._consumers: deque[asyncio.Future[None]] = deque()
        self.error: Exception | None = None
        self.is_closed = False

    async def put(self, outcome: R) -> None:
        """Add an outcome, when there is room; once closed, drop it."""
        if len(self._ready) < self._room:
            self._ready.append(outcome)
            self._wake_consumer()
        elif not self.is_closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._blocked.append((outcome, waiter))
            await waiter

    def fail(self, error: Exception) -> None:
        """End with `error`, unless an earlier one is there, after the outcomes that are on their way."""
        self.error = self.error or error

    def worker_ended(self) -> None:
        """Count one worker less; after the last, no more outcomes come."""
        self._working -= 1
        while self._working == 0 and self._consumers:
            self._wake_consumer()

    @property
    def is_ending(self) -> bool:
        """True where no more work is to begin."""
        return self.is_closed or self.error is not None

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        while not self._ready:
            if self._working == 0:
                if self.error is not None:
                    raise self.error
                raise StopAsyncIteration
            await self._wait_for_outcome()
        outcome = self._ready.popleft()
        if self._blocked:
            late, waiter = self._blocked.popleft()
            self._ready.append(late)
            if not waiter.done():
                waiter.set_result(None)
        return outcome

    async def _wait_for_outcome(self) -> None:
        consumer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumers.append(consumer)
        try:
            await consumer
        except asyncio.CancelledError:
            if consumer.done() and not consumer.cancelled():
                # What woke it is for another now.
                self._wake_consumer()
            raise

    def _wake_consumer(self) -> None:
        while self._consumers:
            consumer = self._consumers.popleft()
            if not consumer.done():
                consumer.set_result(None)
                return


@asynccontextmanager
async def fan_out(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[int, T], Awaitable[R]], *, max_concurrency: int
) -> AsyncGenerator[AsyncIterator[R]]:
    """Run `work(number, item)` for each item, at most `max_concurrency` at the same time; yield the outcomes.

    At most twice that many items are taken from the source beyond those whose outcome was consumed. An exception of
    the source or of `work` ends the iteration with that exception, after the outcomes that were there before it.
    Leaving the block early cancels what is under way, and closes the source.
    """
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be >= 1, got {max_concurrency}")
    source = Source(items)
    outcomes = Outcomes[R](room=max_concurrency, workers=max_concurrency)

    async def worker() -> None:
        try:
            # Another worker's error ends the source for all.
            while not outcomes.is_ending:
                number, item = await source.next()
                await outcomes.put(await work(number, item))
        except EndOfSource:
            pass
        except (asyncio.CancelledError, StopAsyncIteration) as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # To the consumer it would mean that it was cancelled itself, or that there are no more outcomes.
            stray = RuntimeError(f"the source or the work let a {type(error).__name__} escape")
            stray.__cause__ = error
            outcomes.fail(stray)
        except Exception as error:  # noqa: BLE001 - raised again where the outcomes are consumed.
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
    """Cancel tasks and wait until they have ended, also if the caller is cancelled meanwhile, which is raised after."""
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
