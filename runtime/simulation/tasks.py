"""Tasks, futures and timers that know the number of their birth, and what can be said of them to people.

Sets of them are in the same order in every process: what is hashed by its address in memory is not.
"""

from __future__ import annotations

import asyncio
import gc
from inspect import isasyncgen, iscoroutine
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from contextvars import Context

T = TypeVar("T")

GO_BETWEENS = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")
"""What stands between one who awaits and the one who is awaited, and does not say who that is."""


class NumberedTask(asyncio.Task[T]):
    """A task that hashes by the number of its birth, so that sets of tasks have the same order in every process."""

    def __init__(
        self, coroutine: Any, *, loop: asyncio.AbstractEventLoop, name: str | None, context: Context | None, number: int
    ) -> None:
        self.number = number  # First, because it is hashed as soon as it is made.
        super().__init__(coroutine, loop=loop, name=name or f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self.number


class NumberedFuture(asyncio.Future[T]):
    """A future that hashes by the number of its birth."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class Step(asyncio.Handle):
    """What is ready to have its turn: the step of a `task`, or a plain callback.

    It is made many times for each thing that happens, and does without the calls that asyncio makes it by.
    """

    __slots__ = ("task",)

    def __init__(
        self, callback: Any, args: tuple[Any, ...], loop: asyncio.AbstractEventLoop, context: Context | None
    ) -> None:
        if context is None or loop.get_debug():
            super().__init__(callback, args, loop, context)
        else:
            self._context = context
            self._loop = loop
            self._callback = callback
            self._args = args
            self._cancelled = False
            self._repr = self._source_traceback = None
        self.task = task_behind(callback)


class NumberedTimer(asyncio.TimerHandle):
    """A timer of many that are due at the same time, as they often are in virtual time: the first made fires first.

    In the heap it stands as a tuple of its time, its number and itself, which compares without calling anybody.
    """

    __slots__ = ("task",)

    def __init__(
        self,
        when: float,
        callback: Any,
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.task = task_behind(callback)


class Generators(WeakKeyDictionary[Any, None]):
    """The unfinished async generators of a loop, in the order in which they began; asyncio keeps them in a set."""

    def add(self, generator: Any) -> None:
        self[generator] = None

    def discard(self, generator: Any) -> None:
        self.pop(generator, None)


def task_behind(callback: Any) -> asyncio.Task[Any] | None:
    """Return the task whose step a callback is; None for a plain one."""
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None  # pyright: ignore[reportUnknownVariableType]


def where(task: asyncio.Task[Any]) -> str:
    """Return where a task waits: the lines of its coroutines, the innermost first."""
    lines: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        if type(waiting).__name__ in GO_BETWEENS:
            waiting = next((one for one in gc.get_referents(waiting) if isasyncgen(one) or iscoroutine(one)), None)
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), None)
        frame = getattr(waiting, f"{kind}_frame", None)
        if frame is None:
            break
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return ", called from ".join(reversed(lines)) or "no line"


def describe_callback(handle: Any) -> str:
    """Name the callback of a timer, and when it is due."""
    callback = handle._callback  # noqa: SLF001
    name = getattr(callback, "__qualname__", type(callback).__name__)
    return f"{name} at {handle.when():g} s"
