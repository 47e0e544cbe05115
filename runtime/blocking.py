"""Run a function that would block the event loop in a worker thread or a worker process."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio
import anyio.to_process
import anyio.to_thread
from typing_extensions import TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def run_in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a worker thread and return its result; at most 40 run at the same time.

    A thread cannot be cancelled. A caller that is cancelled waits until the function has returned, so that nothing the
    function holds is left behind; its result is dropped. If the function has not begun, it never does. It has the
    caller's context variables. It may send messages to actors through `ActorSystem.from_thread`, under the deadline of
    the request being handled.
    """
    return await _run_in_thread(None, function, *args, **kwargs)


class ThreadPool:
    """Threads for one purpose: at most `size` functions run in them at the same time, and further ones wait.

    What stalls them takes no thread from others. Threads that are idle are shared with `run_in_thread`.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in one of the threads, as `run_in_thread` does."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._size)  # It belongs to the loop that it is made in.
        return await _run_in_thread(self._limiter, function, *args, **kwargs)

    def resize(self, size: int) -> None:
        """Let so many functions run at the same time from now on."""
        self._size = size
        if self._limiter is not None:
            self._limiter.total_tokens = size


async def _run_in_thread(
    limiter: anyio.CapacityLimiter | None, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    begun: Future[None] = Future()

    def run() -> T:
        if not begun.set_running_or_notify_cancel():
            raise asyncio.CancelledError
        return function(*args, **kwargs)

    work = asyncio.ensure_future(anyio.to_thread.run_sync(run, limiter=limiter))
    cancelled = False
    # The scope keeps anyio from cancelling again at each turn; the loop waits on after a cancellation by asyncio.
    with anyio.CancelScope(shield=True):
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                cancelled = True
                if begun.cancel():
                    work.cancel()
    if cancelled:
        if not work.cancelled():
            work.exception()  # Retrieved, so that asyncio does not report it.
        raise asyncio.CancelledError
    return work.result()


async def run_in_process(function: Callable[[*Arguments], T], /, *args: *Arguments) -> T:
    """Run a function in a worker process and return its result; a caller that is cancelled kills the process.

    The function, its arguments and its result are pickled, so the function has to be importable by name. As many run at
    the same time as there are processors. A process is kept for the next call until the event loop ends, or for five
    minutes.
    """
    return await anyio.to_process.run_sync(function, *args, cancellable=True)
