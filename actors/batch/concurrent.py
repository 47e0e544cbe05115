"""Process many items at once without actors: `concurrent` for each item, `batch_process` for chunks of items.

Every item that was taken from the source is accounted for: it is done, it failed, or it was interrupted.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from actors.batch.chunks import Chunks
from actors.batch.fan_out import fan_out
from actors.batch.outcomes import ItemDone as ItemDone
from actors.batch.outcomes import ItemFailed as ItemFailed
from actors.batch.outcomes import ItemInterrupted as ItemInterrupted
from actors.batch.outcomes import ItemOutcome as ItemOutcome
from actors.batch.outcomes import SourceFailed as SourceFailed
from actors.batch.outcomes import WrongResultCount as WrongResultCount
from actors.batch.progress import Progress, TellsProgress, failure_of
from actors.policies.limiter import Limiter
from actors.validation import check_count, says_option_names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from actors.batch.progress import OnProgress

T = TypeVar("T")
R = TypeVar("R")


class Concurrent(TellsProgress, Generic[T, R]):
    """Work over many items, to be awaited or entered, once.

    `await` it for the outcomes of all items, in the order of the items, or `await` its `results()` for the bare
    results or the first failure. `async with` it for an async iterator of the outcomes, each as it finishes, in memory
    that stays flat.

    Once it has ended, `undelivered` holds the outcomes that the consumer did not get, because it left the block early,
    was cancelled, or got an error. `interrupted` holds the items that were taken from the source and have no outcome.
    An error of `on_progress` stops nothing: the first one is `progress_error`, and is reported to the event loop's
    exception handler; `progress_failures` counts them.
    """

    _is_used = True  # An instance whose constructor failed must not warn that it was never used.

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T],
        work: Callable[[Any], Awaitable[Any]],
        *,
        batch_size: int | None,
        max_concurrency: int,
        rate_limit: float | None,
        on_progress: OnProgress | None,
    ) -> None:
        check_count("max_concurrency", max_concurrency)
        self.undelivered: list[ItemOutcome[T, R]] = []
        self.interrupted: list[ItemInterrupted[T]] = []
        self._progress = Progress(on_progress, items)
        self._items = items
        self._chunks = None if batch_size is None else Chunks(items, batch_size)
        self._work = work
        self._limiter: Limiter | None = None
        if rate_limit is not None:
            self._limiter = Limiter("concurrent", rate=rate_limit, max_waiting=max_concurrency)
        self._max_concurrency = max_concurrency
        self._fan: AbstractAsyncContextManager[AsyncIterator[Sequence[ItemOutcome[T, R]]]] | None = None
        self._outcomes: AsyncIterator[Sequence[ItemOutcome[T, R]]] | None = None
        self._ready: deque[ItemOutcome[T, R]] = deque()
        self._not_delivered: dict[int, ItemOutcome[T, R]] = {}
        self._is_used = False

    @property
    def finished(self) -> int:
        """The items that have an outcome."""
        return self._progress.finished

    def __await__(self) -> Generator[Any, None, list[ItemOutcome[T, R]]]:
        return self._all().__await__()

    async def results(self) -> list[R]:
        """Return the bare results of all items, in the order of the items; raise the first failure as soon as it comes.

        Then the work under way is cancelled. `undelivered` holds all outcomes there were, that of the failed item too,
        and `interrupted` the items without one. Raises `SourceFailed` if `items` raises.
        """
        outcomes = await self._all(until_failure=True)
        for outcome in outcomes:
            if isinstance(outcome, ItemFailed):
                raise outcome.error
        return [outcome.result for outcome in outcomes if isinstance(outcome, ItemDone)]

    async def __aenter__(self) -> Concurrent[T, R]:
        self._refuse_second_use()
        self._is_used = True
        if self._chunks is None:
            self._fan = fan_out(self._items, self._serve_one, max_concurrency=self._max_concurrency)
        else:
            self._fan = fan_out(self._chunks, self._serve_batch, max_concurrency=self._max_concurrency)
        self._outcomes = await self._fan.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._fan is not None:
                await self._fan.__aexit__(kind, error, traceback)
        finally:
            self._fan = self._outcomes = None
            self.undelivered = [self._not_delivered[index] for index in sorted(self._not_delivered)]
            if self._chunks is not None:
                partial = self._chunks.partial()
                self.interrupted += [ItemInterrupted(index, item, begun=False) for index, item in partial]
            self.interrupted.sort(key=lambda one: one.index)
            if self._chunks is not None:
                await self._chunks.aclose()

    def __aiter__(self) -> AsyncIterator[ItemOutcome[T, R]]:
        return self

    async def __anext__(self) -> ItemOutcome[T, R]:
        while not self._ready:
            if self._outcomes is None:
                raise StopAsyncIteration
            self._ready.extend(await anext(self._outcomes))
        if self._outcomes is None:
            # The rest is in `undelivered` since the block was left.
            raise StopAsyncIteration
        outcome = self._ready.popleft()
        del self._not_delivered[outcome.index]
        return outcome

    async def _all(self, *, until_failure: bool = False) -> list[ItemOutcome[T, R]]:
        self._refuse_second_use()
        finished: list[ItemOutcome[T, R]] = []
        try:
            async with self:
                async for outcome in self:
                    finished.append(outcome)
                    if until_failure and isinstance(outcome, ItemFailed):
                        break
        except BaseException as error:
            self.undelivered = sorted([*finished, *self.undelivered], key=lambda outcome: outcome.index)
            if isinstance(error, Exception):
                # An error of the work is an outcome, so this one is of the source, from its items or from closing it.
                raise SourceFailed(error, self.undelivered) from error
            raise
        finished.sort(key=lambda outcome: outcome.index)
        if until_failure and any(isinstance(outcome, ItemFailed) for outcome in finished):
            self.undelivered = sorted([*finished, *self.undelivered], key=lambda outcome: outcome.index)
        return finished

    async def _serve_one(self, index: int, item: T) -> Sequence[ItemOutcome[T, R]]:
        async def work() -> Sequence[R]:
            return (await self._work(item),)

        return await self._serve(index, (item,), work)

    async def _serve_batch(self, _: int, batch: tuple[int, Sequence[T]]) -> Sequence[ItemOutcome[T, R]]:
        start, items = batch

        async def work() -> Collection[R]:
            results = await self._work(items)
            if results is None:
                # It was done for its effect.
                return cast("list[R]", [None] * len(items))
            if not _has_length(results, len(items)):
                raise WrongResultCount(results, expected=len(items))
            return results

        return await self._serve(start, items, work)

    async def _serve(
        self, start: int, items: Sequence[T], work: Callable[[], Awaitable[Collection[R]]]
    ) -> Sequence[ItemOutcome[T, R]]:
        """Do the work for items when the limiter permits it, and keep their outcomes until they are delivered."""
        begun = False
        try:
            if self._limiter is not None:
                await self._limiter.acquire()
            begun = True
            results = await work()
            outcomes: Sequence[ItemOutcome[T, R]] = [
                ItemDone(index, item, result)
                for index, (item, result) in enumerate(zip(items, results, strict=True), start)
            ]
        except BaseException as error:
            failed = self._without_result(error, start, items, begun=begun)
            if failed is None:
                raise
            outcomes = failed
        return await self._kept(outcomes)

    def _without_result(
        self, error: BaseException, start: int, items: Sequence[T], *, begun: bool
    ) -> Sequence[ItemOutcome[T, R]] | None:
        """Return the failures of items; None if they were interrupted and the worker has to end."""
        failure = failure_of(error, "the work")
        if failure is None:
            self.interrupted += [ItemInterrupted(index, item, begun) for index, item in enumerate(items, start)]
            return None
        return [ItemFailed(index, item, failure) for index, item in enumerate(items, start)]

    async def _kept(self, outcomes: Sequence[ItemOutcome[T, R]]) -> Sequence[ItemOutcome[T, R]]:
        for outcome in outcomes:
            self._not_delivered[outcome.index] = outcome
        self._progress.count(len(outcomes))
        await self._progress.tell()
        return outcomes

    def _refuse_second_use(self) -> None:
        if self._is_used:
            raise RuntimeError("this was awaited or entered before; make another one for another run")

    def __del__(self) -> None:
        if not self._is_used:
            warnings.warn(f"{self!r} was never awaited or entered, so nothing was done", RuntimeWarning, stacklevel=2)

    def __repr__(self) -> str:
        total = "?" if self._progress.total is None else self._progress.total
        return f"<Concurrent {self.finished} of {total} items finished, {len(self._not_delivered)} undelivered>"


@says_option_names
def concurrent(
    items: Iterable[T] | AsyncIterable[T],
    work: Callable[[T], Awaitable[R]],
    *,
    max_concurrency: int = 5,
    rate_limit: float | None = None,
    on_progress: OnProgress | None = None,
) -> Concurrent[T, R]:
    """Do `work(item)` for every item, at most `max_concurrency` at a time and `rate_limit` begun per second, evenly.

    `results = await concurrent(...)` returns an `ItemDone` or `ItemFailed` for each item, in the order of the items,
    and raises `SourceFailed` if `items` raises. `await concurrent(...).results()` returns the bare results, or raises
    the first failure and cancels the rest. `async with concurrent(...) as outcomes` yields each outcome as it
    finishes; an error of `items` is raised after the outcomes before it. There, `items` may have no end, because at
    most twice `max_concurrency` items are taken ahead of the consumer. An item that fails stops no other. Leaving the
    block early cancels the work under way; `Concurrent` says what becomes of its items. `on_progress(finished, total)`
    is called after each item, and awaited if it is async; the total is None for a source without a length. An error of
    it is reported to the event loop's exception handler, and stops nothing. Raises ValueError for limits below 1 item
    or 0 per second.
    """
    return Concurrent(
        items,
        work,
        batch_size=None,
        max_concurrency=max_concurrency,
        rate_limit=rate_limit,
        on_progress=on_progress,
    )


@overload
def batch_process(
    items: Iterable[T] | AsyncIterable[T],
    process_batch: Callable[[Sequence[T]], Awaitable[None]],
    batch_size: int = ...,
    *,
    max_concurrency: int = ...,
    rate_limit: float | None = ...,
    on_progress: OnProgress | None = ...,
) -> Concurrent[T, None]: ...


@overload
def batch_process(
    items: Iterable[T] | AsyncIterable[T],
    process_batch: Callable[[Sequence[T]], Awaitable[Collection[R]]],
    batch_size: int = ...,
    *,
    max_concurrency: int = ...,
    rate_limit: float | None = ...,
    on_progress: OnProgress | None = ...,
) -> Concurrent[T, R]: ...


@says_option_names
def batch_process(
    items: Iterable[T] | AsyncIterable[T],
    process_batch: Callable[[Sequence[T]], Awaitable[Collection[Any] | None]],
    batch_size: int = 100,
    *,
    max_concurrency: int = 1,
    rate_limit: float | None = None,
    on_progress: OnProgress | None = None,
) -> Concurrent[T, Any]:
    """Do `process_batch(items)` for every `batch_size` items, the last batch with what is left.

    It returns one result for each item, in their order; or None, and each item is done, with None for its result. All
    else is as in `concurrent`: the outcomes are those of items, but `max_concurrency` and `rate_limit` count batches.
    If a batch raises, each of its items fails with that error. If it returns too few results or too many, each fails
    with `WrongResultCount`, which carries them.
    """
    return Concurrent(
        items,
        process_batch,
        batch_size=batch_size,
        max_concurrency=max_concurrency,
        rate_limit=rate_limit,
        on_progress=on_progress,
    )


def _has_length(results: object, length: int) -> bool:
    return isinstance(results, Collection) and len(cast("Collection[Any]", results)) == length
