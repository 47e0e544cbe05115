"""An event loop whose time stands still while there is work, and jumps to the next timer when there is none."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from runtime.simulation.errors import Deadlock, Livelock, NotSimulated

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

T = TypeVar("T")

MAX_STEPS_AT_ONE_TIME = 1_000_000
LOOKED_AT = 1_000
"""The steps before a livelock is reported that tell who is to blame for it."""
TIDY_AT = 100
"""The cancelled timers that are worth a tidying of the heap."""


class NumberedTask(asyncio.Task[T]):
    """A task that hashes by the number of its birth, so that sets of tasks have the same order in every process."""

    def __init__(
        self, coroutine: Any, *, loop: VirtualTimeLoop, name: str | None, context: Context | None, number: int
    ) -> None:
        self.number = number  # First, because it is hashed as soon as it is made.
        super().__init__(coroutine, loop=loop, name=name or f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self.number


class NumberedFuture(asyncio.Future[T]):
    """A future that hashes by the number of its birth."""

    def __init__(self, *, loop: VirtualTimeLoop, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Runs hours of waiting in no time. Its time starts at 0 seconds; sockets, threads and processes are refused.

    With `dice`, the tasks that are ready at the same time go in an order that the dice decide; plain callbacks, and
    without dice the tasks too, go in the order in which they became ready, as in any asyncio loop.
    """

    # Of BaseEventLoop, which does not declare them.
    _ready: Any
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self, dice: random.Random | None = None) -> None:
        super().__init__()
        self.dice = dice
        self.now = 0.0
        self.steps = 0
        self.step_cost = 0.0
        """Seconds that each step of a task takes."""
        self.max_steps = 0
        """The steps of the whole run; 0 for no limit."""
        self.max_steps_at_one_time = MAX_STEPS_AT_ONE_TIME
        self.held: dict[asyncio.Task[Any], float] = {}
        """Tasks that do not get a turn before a certain time."""
        self._numbers = count(1)
        self._stands_since = 0  # The step with which the present time began.
        self._cancelled_timers = 0
        self._recent: Counter[str] | None = None

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(loop=self, number=next(self._numbers))

    def create_task(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        factory = self.get_task_factory()
        if factory is not None:
            return super().create_task(coro, name=name, context=context, **options)  # type: ignore[return-value, arg-type]
        self._check_closed()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        return NumberedTask(coro, loop=self, name=name, context=context, number=next(self._numbers))

    def took_a_step(self, who: Any) -> None:
        """Hear that a task, or None for a plain callback, has its turn; a simulation keeps a record of it."""

    def _run_once(self) -> None:
        """Let everything run that is ready now, and first, where there is nothing, let time pass."""
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0]._cancelled:  # noqa: SLF001
                heapq.heappop(scheduled)
            if scheduled:
                self._pass_time(scheduled[0]._when)  # noqa: SLF001
            elif not self._stopping:
                raise Deadlock(f"every task waits and no timer is set:\n{describe_tasks(self)}")
        while scheduled and scheduled[0]._when <= self.now:  # noqa: SLF001
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # noqa: SLF001
            if not handle._cancelled:  # noqa: SLF001
                ready.append(handle)
        batch = list(ready)
        ready.clear()
        if len(batch) > 1 and self.dice is not None:
            self._shuffle_steps(batch, self.dice)
        done = 0
        try:
            for handle in batch:
                done += 1
                if not handle._cancelled:  # noqa: SLF001
                    self._step(handle)
        finally:
            if done < len(batch):
                # KeyboardInterrupt and SystemExit go through the loop; what is ready stays ready.
                ready.extendleft(reversed(batch[done:]))

    def _pass_time(self, when: float) -> None:
        if when > self.now:
            self.now = when
            self._stands_since = self.steps

    def _step(self, handle: asyncio.Handle) -> None:
        task = task_of(handle)
        if self.held and task in self.held:
            if self.held[task] > self.now:
                self._push_back(handle, self.held[task])
                return
            del self.held[task]
        self.took_a_step(task)
        self.steps += 1
        if self.step_cost:
            self.now += self.step_cost
        elif self.steps - self._stands_since > self.max_steps_at_one_time - LOOKED_AT:
            self._suspect(task, self._stands_since + self.max_steps_at_one_time, "at one and the same time")
        if self.max_steps and self.steps > self.max_steps - LOOKED_AT:
            self._suspect(task, self.max_steps, "in the run")
        handle._run()  # noqa: SLF001

    def _suspect(self, task: asyncio.Task[Any] | None, limit: int, where: str) -> None:
        """Count who has the last steps before a limit, and raise at the limit."""
        if self._recent is None or self.steps + LOOKED_AT <= limit + 1:
            self._recent = Counter()
        self._recent[task.get_name() if task is not None else "a callback"] += 1
        if self.steps >= limit:
            busiest = ", ".join(f"{name} ({times} of the last steps)" for name, times in self._recent.most_common(3))
            self._stands_since, self.max_steps = self.steps, 0  # Cleaning up takes a few steps more.
            raise Livelock(f"{limit:,} steps {where} (now {self.now:g} s) are too many; busy are {busiest}")

    def _push_back(self, handle: asyncio.Handle, until: float) -> None:
        def again() -> None:
            self._ready.append(handle)

        self.call_at(until, again)

    def _shuffle_steps(self, batch: list[Any], dice: random.Random) -> None:
        """Permute the steps of tasks among their places; plain callbacks stay where they are."""
        places = [place for place, handle in enumerate(batch) if task_of(handle) is not None]
        if len(places) > 1:
            steps = [batch[place] for place in places]
            dice.shuffle(steps)
            for place, handle in zip(places, steps, strict=True):
                batch[place] = handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > TIDY_AT and 2 * self._cancelled_timers > len(self._scheduled):
            self._scheduled[:] = [timer for timer in self._scheduled if not timer._cancelled]  # noqa: SLF001
            heapq.heapify(self._scheduled)
            self._cancelled_timers = 0

    def pending_timers(self) -> list[str]:
        """Describe the timers that are still to fire."""
        return [describe_callback(timer) for timer in sorted(self._scheduled) if not timer._cancelled]  # noqa: SLF001

    def _write_to_self(self) -> None:
        """Do nothing: whoever calls from this thread needs not wake the loop, and other threads do not exist."""

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there are no sockets."""

    # What does not exist in virtual time.

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> NoReturn:
        del executor, args
        raise NotSimulated(
            f"a thread for {getattr(func, '__qualname__', func)}",
            "give your actor the function that does the blocking work, and in simulation one that does not block",
        )

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_connection")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_server")

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_datagram_endpoint")

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_unix_connection")

    async def create_unix_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("create_unix_server")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_sockets("getaddrinfo")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_processes("subprocess_exec")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_processes("subprocess_shell")

    def add_reader(self, *args: Any) -> NoReturn:
        self._refuse_sockets("add_reader")

    def add_writer(self, *args: Any) -> NoReturn:
        self._refuse_sockets("add_writer")

    def _refuse_sockets(self, call: str) -> NoReturn:
        raise NotSimulated(f"loop.{call}", "give your code a transport, and in simulation one that answers by itself")

    def _refuse_processes(self, call: str) -> NoReturn:
        raise NotSimulated(f"loop.{call}", "give your code a function that starts the process, and simulate that")


def task_of(handle: Any) -> asyncio.Task[Any] | None:
    """Return the task whose step a handle is; None for a plain callback."""
    owner = getattr(handle._callback, "__self__", None)  # noqa: SLF001 - a handle does not tell otherwise.
    return owner if isinstance(owner, asyncio.Task) else None  # pyright: ignore[reportUnknownVariableType]


def unfinished(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of a loop that are not done, the first born first."""
    return sorted(asyncio.all_tasks(loop), key=hash)


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Name each unfinished task, and the line it waits at."""
    return "\n".join(f"  {task.get_name()} waits at {where(task)}" for task in unfinished(loop))


def where(task: asyncio.Task[Any]) -> str:
    """Return where a task waits: the lines of its coroutines, the innermost first."""
    lines: list[str] = []
    waiting: Any = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)) is not None:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return ", called from ".join(reversed(lines)) or "no line"


def describe_callback(handle: Any) -> str:
    """Name the callback of a timer, and when it is due."""
    callback = handle._callback  # noqa: SLF001
    name = getattr(callback, "__qualname__", type(callback).__name__)
    return f"{name} at {handle.when():g} s"
