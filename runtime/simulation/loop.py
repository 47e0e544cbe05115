"""An event loop in virtual time: time stands still while a task is ready, and then jumps to the next timer."""

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
from runtime.simulation.schedule import SeededSchedule
from runtime.simulation.tasks import (
    Generators,
    NumberedFuture,
    NumberedTask,
    NumberedTimer,
    Step,
    describe_callback,
    place_of,
)

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from runtime.simulation.schedule import Schedule

T = TypeVar("T")

MAX_STEPS_AT_ONE_TIME = 1_000_000
BLAMED_STEPS = 1_000
"""The last steps before a livelock, by which its busiest tasks are found."""
TIDY_AT = 100
"""So many cancelled timers are worth removing from the heap."""


class VirtualTimeLoop(ClosedLoop):
    """Runs hours of waiting in a moment. Time starts at 0 seconds; sockets, threads and processes are refused.

    With `rng`, tasks that are ready at the same time run in an order drawn from it. Plain callbacks run in the order
    in which they became ready, as in any asyncio loop; without `rng`, tasks do so too.
    """

    has_threads = False
    """What would be done in a thread is done at once."""

    # Attributes of BaseEventLoop, which does not declare them.
    _ready: Any
    _scheduled: list[tuple[float, int, Any]]
    _closed: bool
    _stopping: bool

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__()
        self.schedule: Schedule | None = None if rng is None else SeededSchedule(rng)
        """Decides the order of tasks that are ready at the same time; None for that of any asyncio loop."""
        self.now = 0.0
        self.steps = 0
        self.step_cost = 0.0
        """The virtual seconds that each step takes."""
        self.max_steps = 0
        """The steps of the whole run; 0 for no limit."""
        self.max_steps_at_one_time = MAX_STEPS_AT_ONE_TIME
        self.record_step: Callable[[float], object] = float
        """Called with each step: the number of its task, or 0.0 for a plain callback. A simulation records them."""
        self.pause_at = sys.maxsize
        self.held: dict[asyncio.Task[Any], float] = {}
        """Tasks that get no turn before a certain time."""
        self.unstarted: set[asyncio.Task[Any]] = set()
        """Tasks that must begin in the order they were made in, and have not begun."""
        self.tasks: WeakValueDictionary[int, asyncio.Task[Any]] = WeakValueDictionary()
        """Every task that is still referenced, in the order they were made in."""
        self._numbers = count(1)
        self._asyncgens = Generators()
        self._pushed_back: dict[asyncio.TimerHandle, asyncio.Handle] = {}
        self._step_at_now = 0  # The step with which the present time began.
        self._cancelled_timers = 0
        self._recent: Counter[str] | None = None

    def time(self) -> float:
        return self.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if self._closed:
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
        step = Step(callback, args, self, context)
        self._ready.append(step)
        return step

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
        """Make a task without the program's task factory."""
        self._check_closed()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        number = next(self._numbers)
        task = self.tasks[number] = NumberedTask(coro, loop=self, name=name, context=context, number=number)
        return task

    @property
    def is_busy(self) -> bool:
        """Tell whether anything is ready to run."""
        return bool(self._ready)

    def pause(self) -> None:
        """Called when `pause_at` steps have been taken; a subclass does here what is due once in many steps."""

    def _run_once(self) -> None:
        """Run everything that is ready; if nothing is, let time pass to the next timer first."""
        ready = self._ready
        if not ready:
            self._await_next_timer()
        if self._scheduled and self._scheduled[0][0] <= self.now:
            self._collect_due_timers()
        if len(ready) == 1:
            # The case of most turns.
            self.unstarted.clear()
            handle = ready.popleft()
            if not handle._cancelled:  # noqa: SLF001
                self._step(handle)
            return
        batch = list(ready)
        ready.clear()
        if len(batch) > 1 and self.schedule is not None:
            self._arrange_steps(batch, self.schedule)
        if self.unstarted:
            self.unstarted.clear()  # All of them are in this batch.
        done = 0
        try:
            for handle in batch:
                done += 1
                if not handle._cancelled:  # noqa: SLF001
                    self._step(handle)
        finally:
            if done < len(batch):
                # KeyboardInterrupt and SystemExit pass through the loop; the rest of the batch stays ready.
                ready.extendleft(reversed(batch[done:]))

    def _await_next_timer(self) -> None:
        """Set the time to that of the next timer. Raises `Deadlock` if there is none."""
        scheduled = self._scheduled
        while scheduled and scheduled[0][2]._cancelled:  # noqa: SLF001
            heapq.heappop(scheduled)
        if scheduled and scheduled[0][0] < inf:
            if scheduled[0][0] > self.now:
                self.now = scheduled[0][0]
                self._step_at_now = self.steps
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
        self.record_step(0.0 if task is None else getattr(task, "number", -1.0))
        self.steps += 1
        if self.step_cost:
            self.now += self.step_cost
            self._step_at_now = self.steps
        handle._run()  # noqa: SLF001
        # After the step, so that none is lost when the run is cleaned up.
        steps = self.steps
        if steps >= self.pause_at:
            self.pause()
        if steps - self._step_at_now > self.max_steps_at_one_time - BLAMED_STEPS:
            self._suspect(task, steps - self._step_at_now, self.max_steps_at_one_time, "at one and the same time")
        if steps > self.max_steps - BLAMED_STEPS and self.max_steps:
            self._suspect(task, steps, self.max_steps, "in the run")

    def _suspect(self, task: asyncio.Task[Any] | None, steps: int, limit: int, span: str) -> None:
        """Count which tasks take the last steps before a limit, and raise `Livelock` at the limit."""
        if self._recent is None or steps + BLAMED_STEPS <= limit + 1:
            self._recent = Counter()
        self._recent[task.get_name() if task is not None else "a callback"] += 1
        if steps >= limit:
            busiest = ", ".join(f"{name} ({times} of the last steps)" for name, times in self._recent.most_common(3))
            self._step_at_now, self.max_steps = self.steps, 0  # The cleanup takes a few steps more.
            raise Livelock(f"{limit:,} steps {span} (now {self.now:g} s) are too many; busy are {busiest}")

    def _push_back(self, handle: asyncio.Handle, until: float) -> None:
        def again() -> None:
            del self._pushed_back[timer]
            self._ready.append(handle)

        timer = self.call_at(until, again)
        self._pushed_back[timer] = handle

    def release(self) -> None:
        """Let every held task run again."""
        self.held.clear()
        for timer, handle in self._pushed_back.items():
            timer.cancel()
            self._ready.append(handle)
        self._pushed_back.clear()

    def _arrange_steps(self, batch: list[Any], schedule: Schedule) -> None:
        """Permute the steps of tasks among their places in the batch; plain callbacks keep theirs."""
        places = [place for place, handle in enumerate(batch) if handle.task is not None]
        if len(places) > 1:
            steps = schedule.arrange([batch[place] for place in places], self.unstarted)
            for place, handle in zip(places, steps, strict=True):
                batch[place] = handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > TIDY_AT and 2 * self._cancelled_timers > len(self._scheduled):
            self._scheduled[:] = [entry for entry in self._scheduled if not entry[2]._cancelled]  # noqa: SLF001
            heapq.heapify(self._scheduled)
            self._cancelled_timers = 0

    def pending_timers(self) -> list[str]:
        """Describe the timers that have not fired."""
        return [describe_callback(timer) for _, _, timer in sorted(self._scheduled) if not timer._cancelled]  # noqa: SLF001

    def _write_to_self(self) -> None:
        """Do nothing: a call from this thread need not wake the loop, and there are no other threads."""

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there are no sockets."""


def unfinished(loop: VirtualTimeLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of a loop that are not done, in the order they were made in."""
    return [task for task in loop.tasks.values() if not task.done()]


def describe_tasks(loop: VirtualTimeLoop) -> str:
    """Name each unfinished task and the line it waits at, one in each line."""
    return "\n".join(f"  {task.get_name()} waits at {place_of(task)}" for task in unfinished(loop))
