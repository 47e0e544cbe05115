"""A bounded number of workers over a source of any length; outcomes come as each finishes, and memory stays flat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")
END = object()


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

    async def next(self) -> tuple[int, T]:
        """Return the next item and its number; raises `StopAsyncIteration` at the end."""
        if self._async is None:
            return self._numbered(next_or_stop(self._sync))
        # An async iterator must not be asked twice at the same time.
        async with self._turn:
            return self._numbered(await anext(self._async))

    async def aclose(self) -> None:
        """Close a generator, so that its `finally` runs now and not some day."""
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(self._sync, Generator):
            self._sync.close()  # pyright: ignore[reportUnknownMemberType]

    def _numbered(self, item: T) -> tuple[int, T]:
        self._count += 1
        return self._count - 1, item


def next_or_stop(iterator: Iterator[T] | None) -> T:
    """Return the next item; a sync iterator's end becomes the end of an async one."""
    for item in iterator or ():
        return item
    raise StopAsyncIteration


class Outcomes(Generic[R]):
    """The outcomes as they come: an async iterator that ends when the source and all work have."""

    def __init__(self, *, room: int) -> None:
        self._ready: asyncio.Queue[R | object] = asyncio.Queue(maxsize=room)
        self.error: Exception | None = None
        self._ended = False

    async def put(self, outcome: R) -> None:
        """Add an outcome, when there is room."""
        await self._ready.put(outcome)

    async def end(self) -> None:
        """Say that no more come."""
        self._ended = True
        await self._ready.put(END)

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        if not (self._ended and self._ready.empty()):
            outcome = await self._ready.get()
            if outcome is not END:
                return cast("R", outcome)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration


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
    outcomes = Outcomes[R](room=max_concurrency)
    working = max_concurrency

    async def worker() -> None:
        nonlocal working
        try:
            # Another worker's error ends the source for all.
            while outcomes.error is None:
                number, item = await source.next()
                await outcomes.put(await work(number, item))
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - raised again where the outcomes are consumed.
            outcomes.error = outcomes.error or error
        working -= 1
        if working == 0:
            await outcomes.end()

    workers = [asyncio.create_task(worker()) for _ in range(max_concurrency)]
    try:
        yield outcomes
    finally:
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
