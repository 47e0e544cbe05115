"""An event loop whose time stands still while there is work, and jumps to the next timer when there is none."""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from runtime.simulation.closed_loop import ClosedLoop
from runtime.simulation.errors import Deadlock, Livelock
from runtime.simulation.tasks import (
    Generators,
    NumberedFuture,
    NumberedTask,
    NumberedTimer,
    Step,
    describe_callback,
    where,
)

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

T = TypeVar("T")

MAX_STEPS_AT_ONE_TIME = 1_000_000
LOOKED_AT = 1_000
"""The steps before a livelock is reported that tell who is to blame for it."""
TIDY_AT = 100
"""The cancelled timers that are worth a tidying of the heap."""


class VirtualTimeLoop(ClosedLoop):
    """Runs hours of waiting in no time. Its time starts at 0 seconds; sockets, threads and processes are refused.

    With `rng`, the tasks that are ready at the same time go in an order drawn from it; plain callbacks, and
    without `rng` the tasks too, go in the order in which they became ready, as in any asyncio loop.
    """

    # Of BaseEventLoop, which does not declare them.
    _ready: Any
    _scheduled: list[tuple[float, int, Any]]
    _closed: bool
    _stopping: bool

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__()
        self.rng = rng
        self.now = 0.0
        self.steps = 0
        self.step_cost = 0.0
        """Seconds that each step of a task takes."""
        self.max_steps = 0
        """The steps of the whole run; 0 for no limit."""
        self.max_steps_at_one_time = MAX_STEPS_AT_ONE_TIME
        self.took_a_step: Callable[[float], object] = float
        """Hears who has its turn, a task by its number or a plain callback, 0.0: a simulation keeps a record of it."""
        self.pause_at = sys.maxsize
        self.held: dict[asyncio.Task[Any], float] = {}
        """Tasks that do not get a turn before a certain time."""
        self.unbegun: set[asyncio.Task[Any]] = set()
        """Tasks that are promised to begin in the order of their birth, and have not begun."""
        self.tasks: WeakValueDictionary[int, asyncio.Task[Any]] = WeakValueDictionary()
        """Every task that somebody still has, in the order of birth."""
        self._numbers = count(1)
        self._asyncgens = Generators()
        self._pushed_back: dict[asyncio.TimerHandle, asyncio.Handle] = {}
        self._stands_since = 0  # The step with which the present time began.
        self._cancelled_timers = 0
        self._recent: Counter[str] | None = None

    def time(self) -> float:
        return self.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_closed()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        timer = NumberedTimer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, (when, next(self._numbers), timer))
        setattr(timer, "_scheduled", True)  # noqa: B010 - of a class that does not declare it.
        return timer

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self._closed:
            self._check_closed()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        return self._call_soon(callback, args, context)

    def _call_soon(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> Step:
        step = Step(callback, args, self, context)
        self._ready.append(step)
        return step

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
        if factory is None:
            return self.make_task(coro, name=name, context=context)
        task: Any = super().create_task(coro, name=name, context=context, **options)  # type: ignore[arg-type]
        self.tasks[next(self._numbers)] = task
        return task

    def make_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        """Make a task, whatever the program's task factory."""
        self._check_closed()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        number = next(self._numbers)
        task = self.tasks[number] = NumberedTask(coro, loop=self, name=name, context=context, number=number)
        return task

    @property
    def is_busy(self) -> bool:
        """Tell whether anything has become ready in this turn."""
        return bool(self._ready)

    def pause(self) -> None:
        """Do what is to be done once in many steps; called when `pause_at` steps have been taken."""

    def _run_once(self) -> None:
        """Let everything run that is ready now, and first, where there is nothing, let time pass."""
        ready = self._ready
        if not ready:
            self._await_next_timer()
        if self._scheduled and self._scheduled[0][0] <= self.now:
            self._collect_due_timers()
        if len(ready) == 1:
            # As in most turns.
            self.unbegun.clear()
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001
                self._step(handle)
            return
        batch = list(ready)
        ready.clear()
        if len(batch) > 1 and self.rng is not None:
            self._shuffle_steps(batch, self.rng)
        if self.unbegun:
            self.unbegun.clear()  # Whatever was born has a place in this batch.
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

    def _await_next_timer(self) -> None:
        """Let time pass until the next timer is due, in no time."""
        scheduled = self._scheduled
        while scheduled and scheduled[0][2]._cancelled:  # noqa: SLF001
            heapq.heappop(scheduled)
        if scheduled and scheduled[0][0] < inf:
            if scheduled[0][0] > self.now:
                self.now = scheduled[0][0]
                self._stands_since = self.steps
        elif not self._stopping:
            raise Deadlock(f"every task waits and no timer is set:\n{describe_tasks(self)}")

    def _collect_due_timers(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0][0] <= self.now:
            _, _, handle = heapq.heappop(scheduled)
            handle._scheduled = False  # noqa: SLF001
            if not handle._cancelled:  # noqa: SLF001
                ready.append(handle)

    def _step(self, handle: Step | NumberedTimer) -> None:
        task = handle.task
        if self.held and task in self.held:
            if self.held[task] > self.now:
                self._push_back(handle, self.held[task])
                return
            del self.held[task]
        self.took_a_step(0.0 if task is None else getattr(task, "number", -1.0))
        self.steps += 1
        if self.step_cost:
            self.now += self.step_cost
            self._stands_since = self.steps
        handle._run()  # noqa: SLF001
        # Afterwards, so that no step is lost to those who clean up.
        steps = self.steps
        if steps >= self.pause_at:
            self.pause()
        if steps - self._stands_since > self.max_steps_at_one_time - LOOKED_AT:
            self._suspect(task, steps - self._stands_since, self.max_steps_at_one_time, "at one and the same time")
        if steps > self.max_steps - LOOKED_AT and self.max_steps:
            self._suspect(task, steps, self.max_steps, "in the run")

    def _suspect(self, task: asyncio.Task[Any] | None, steps: int, limit: int, where: str) -> None:
        """Count who has the last steps before a limit, and raise at the limit."""
        if self._recent is None or steps + LOOKED_AT <= limit + 1:
            self._recent = Counter()
        self._recent[task.get_name() if task is not None else "a callback"] += 1
        if steps >= limit:
            busiest = ", ".join(f"{name} ({times} of the last steps)" for name, times in self._recent.most_common(3))
            self._stands_since, self.max_steps = self.steps, 0  # Cleaning up takes a few steps more.
            raise Livelock(f"{limit:,} steps {where} (now {self.now:g} s) are too many; busy are {busiest}")

    def _push_back(self, handle: asyncio.Handle, until: float) -> None:
        def again() -> None:
            del self._pushed_back[timer]
            self._ready.append(handle)

        timer = self.call_at(until, again)
        self._pushed_back[timer] = handle

    def release(self) -> None:
        """Let every task that is held have its turns again."""
        self.held.clear()
        for timer, handle in self._pushed_back.items():
            timer.cancel()
            self._ready.append(handle)
        self._pushed_back.clear()

    def _shuffle_steps(self, batch: list[Any], rng: random.Random) -> None:
        """Permute the steps of tasks among their places; plain callbacks stay where they are."""
        places = [place for place, handle in enumerate(batch) if handle.task is not None]
        if len(places) > 1:
            steps = [batch[place] for place in places]
            rng.shuffle(steps)
            for place, handle in zip(places, steps, strict=True):
                batch[place] = handle
            if self.unbegun:
                places = [place for place in places if batch[place].task in self.unbegun]
                births = sorted((batch[place] for place in places), key=lambda handle: hash(handle.task))
                for place, handle in zip(places, births, strict=True):
                    batch[place] = handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > TIDY_AT and 2 * self._cancelled_timers > len(self._scheduled):
            self._scheduled[:] = [entry for entry in self._scheduled if not entry[2]._cancelled]  # noqa: SLF001
            heapq.heapify(self._scheduled)
            self._cancelled_timers = 0

    def pending_timers(self) -> list[str]:
        """Describe the timers that are still to fire."""
        return [describe_callback(timer) for _, _, timer in sorted(self._scheduled) if not timer._cancelled]  # noqa: SLF001

    def _write_to_self(self) -> None:
        """Do nothing: whoever calls from this thread needs not wake the loop, and other threads do not exist."""

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there are no sockets."""


def unfinished(loop: VirtualTimeLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of a loop that are not done, the first born first."""
    return [task for task in loop.tasks.values() if not task.done()]


def describe_tasks(loop: VirtualTimeLoop) -> str:
    """Name each unfinished task, and the line it waits at."""
    return "\n".join(f"  {task.get_name()} waits at {where(task)}" for task in unfinished(loop))
