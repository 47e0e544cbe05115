"""Tasks, futures and timers that are numbered as they are made, and how they are described in messages.

They hash by their number and not by their address in memory, so that sets of them have the same order in every process.
"""

from __future__ import annotations

import asyncio
import gc
from contextvars import copy_context
from inspect import isasyncgen, iscoroutine
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from contextvars import Context

T = TypeVar("T")

WRAPPERS = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")
"""Types of awaitables that wrap another one and have no attribute that names it."""


class NumberedTask(asyncio.Task[T]):
    """A task that hashes by its number."""

    def __init__(
        self, coroutine: Any, *, loop: asyncio.AbstractEventLoop, name: str | None, context: Context | None, number: int
    ) -> None:
        self.number = number  # First, because the constructor hashes the task.
        super().__init__(coroutine, loop=loop, name=name or f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self.number


class NumberedFuture(asyncio.Future[T]):
    """A future that hashes by its number."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class Step(asyncio.Handle):
    """A callback that is ready to run: the next step of `task`, or a plain callback if that is None."""

    __slots__ = ("task",)

    def __init__(self, callback: Any, args: tuple[Any, ...], loop: Any, context: Context | None) -> None:
        set_up(self, callback, args, loop, context)


class NumberedTimer(asyncio.TimerHandle):
    """A timer that fires after those made before it for the same time, as many are in virtual time.

    The heap holds it as a tuple of its time, its number and itself, which compares without a call in Python.
    """

    __slots__ = ("task",)

    def __init__(self, when: float, callback: Any, args: tuple[Any, ...], loop: Any, context: Context | None) -> None:
        set_up(self, callback, args, loop, context)
        self._when = when
        self._scheduled = False


def set_up(handle: Any, callback: Any, args: tuple[Any, ...], loop: Any, context: Context | None) -> None:
    """Set up a handle as asyncio's own constructors do, without their calls, because very many are made."""
    if loop._debug:  # noqa: SLF001
        asyncio.Handle.__init__(handle, callback, args, loop, context)
    else:
        handle._context = copy_context() if context is None else context  # noqa: SLF001
        handle._loop = loop  # noqa: SLF001
        handle._callback = callback  # noqa: SLF001
        handle._args = args  # noqa: SLF001
        handle._cancelled = False  # noqa: SLF001
        handle._repr = handle._source_traceback = None  # noqa: SLF001
    owner = getattr(callback, "__self__", None)
    handle.task = owner if isinstance(owner, asyncio.Task) else None


class Generators(WeakKeyDictionary[Any, None]):
    """The unfinished async generators of a loop in the order in which they began; asyncio keeps them in a set."""

    def add(self, generator: Any) -> None:
        self[generator] = None

    def discard(self, generator: Any) -> None:
        self.pop(generator, None)


def place_of(task: asyncio.Task[Any]) -> str:
    """Return the place where a task waits: the lines of its coroutines, the innermost first."""
    lines: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        if type(waiting).__name__ in WRAPPERS:
            waiting = next((one for one in gc.get_referents(waiting) if isasyncgen(one) or iscoroutine(one)), None)
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), None)
        frame = getattr(waiting, f"{kind}_frame", None)
        if frame is None:
            break
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return ", called from ".join(reversed(lines)) or "no line"


def describe_callback(handle: Any) -> str:
    """Return the name of a timer's callback and the time it is due."""
    callback = handle._callback  # noqa: SLF001
    name = getattr(callback, "__qualname__", type(callback).__name__)
    return f"{name} at {handle.when():g} s"
