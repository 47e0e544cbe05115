"""A thread beside the event loop that notices if the loop does not turn, and says which handler holds it.

The thread asks the loop for a sign of life a few times within the stated time. If none comes, it looks at what the
thread of the loop does. So handlers cost nothing more than without it; asyncio's debug mode, which times each callback,
costs every one of them.
"""

from __future__ import annotations

import threading
import time
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Self

import msgspec

from runtime.log import logger_for
from runtime.observability.clocks import Clocks, changes
from runtime.observability.events import LoopStalled, Suspended
from runtime.observability.growth import Growth
from runtime.observability.stack import Sighting, sighting_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import TracebackType

    from runtime.event_stream import EventStream
    from runtime.events import Event
    from runtime.system import ActorSystem

LOOKS_WITHIN = 4
"""How often the loop is asked for a sign of life within `slow_after`."""
BUSY = 0.2
"""A thread that woke late is blamed on the program if this used so much of the time; else the process was stopped."""


class WatchdogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a watchdog reports; durations are in seconds.

    A handler is slow if it stops the loop for `slow_after`; one that takes 1.5 times as long is always noticed.
    Mailboxes and clocks are looked at every `look_every`.
    """

    slow_after: float = 0.25
    look_every: float = 1.0

    def __post_init__(self) -> None:
        if not 0.01 <= self.slow_after <= 3600:
            raise ValueError(f"slow_after must be from 0.01 to 3600 seconds, got {self.slow_after}")
        if not 0.01 <= self.look_every <= 3600:
            raise ValueError(f"look_every must be from 0.01 to 3600 seconds, got {self.look_every}")


class Watchdog:
    """Watches a system within `async with Watchdog(system):`, and publishes what it notices as events of the system.

    These are `LoopStalled`, `MailboxGrows`, `Suspended` and `ClockJumped`, each with a log line if the system has log
    lines. The line of a handler that holds the loop is written while it does, and again after twice the time, four
    times and so on, for it may never let go; its event comes once it has let go. A simulation has no threads: there it
    does nothing.
    """

    def __init__(self, system: ActorSystem, config: WatchdogConfig | None = None) -> None:
        self._system = system
        self._config = WatchdogConfig() if config is None else config
        self._interval = self._config.slow_after / LOOKS_WITHIN
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._has_answered = True
        self._first: Sighting | None = None
        """What held the loop when it was first late, until it turns again."""
        self._seen: Sighting | None = None
        """What is reported of the present stall, once it is one."""
        self._growth = Growth()

    async def __aenter__(self) -> Self:
        self._loop: asyncio.AbstractEventLoop = get_running_loop()
        self._events: EventStream = self._system.events
        self._watched = threading.get_ident()
        self._clocks, self._look_at = Clocks.now(), time.monotonic()
        if not hasattr(self._loop, "actor_engine"):  # The loop of a simulation has it.
            self._thread = threading.Thread(target=self._run, name="understudy-watchdog", daemon=True)
            self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    # In the thread.

    def _run(self) -> None:
        before, cpu_before, told_after = time.monotonic(), time.process_time(), self._config.slow_after
        while not self._stopping.wait(self._interval):
            now, cpu = time.monotonic(), time.process_time()
            late, used = now - before - self._interval, cpu - cpu_before
            before, cpu_before = now, cpu
            if late > self._config.slow_after and used < BUSY * late:
                # This thread did not run either: what the loop does now says nothing of that time.
                self._asked_at += late
                self._call(self._stopped_for, late)
                continue
            if self._has_answered:
                told_after = self._config.slow_after
                self._has_answered, self._asked_at, self._first = False, now, None
                self._call(self._answer)
                continue
            told_after = self._judge(now - self._asked_at, told_after)

    def _judge(self, blocked: float, told_after: float) -> float:
        """Look at what holds the loop, tell of it if that has lasted, and return after how long it is told again."""
        sighting = sighting_of(self._watched)
        if self._first is None:
            self._first = sighting
        if blocked < told_after or sighting is None:
            return told_after
        is_one = self._first is not None and self._first.frame == sighting.frame
        with self._lock:
            if self._has_answered:
                return told_after
            self._seen = sighting if is_one else sighting._replace(cell=None, message=None)
            seen = self._seen
        if self._system.logs:
            held = f"{seen.cell.path}, handling {seen.message}," if seen.cell is not None else "the program"
            logger_for(seen.cell.path if seen.cell is not None else self._system.name).warning(
                "the event loop has not turned for {:.2f} s: {} is at {}", blocked, held, seen.place
            )
        return 2 * told_after

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self._stopping.set()  # The loop is closed.

    # In the loop.

    def _answer(self) -> None:
        now = time.monotonic()
        with self._lock:
            seen, self._seen = self._seen, None
            asked_at = self._asked_at
            self._has_answered = True
        if self._stopping.is_set():
            return
        if seen is not None:
            actor = seen.cell.path if seen.cell is not None else None
            self._events.publish(
                LoopStalled(seconds=now - asked_at, actor=actor, message=seen.message, place=seen.place)
            )
        if now >= self._look_at:
            self._look_at = now + self._config.look_every
            self._look()

    def _look(self) -> None:
        before, self._clocks = self._clocks, Clocks.now()
        for change in changes(before, self._clocks):
            what = "the machine slept for" if isinstance(change, Suspended) else "the wall clock jumped by"
            self._tell(change, f"{what} {change.seconds:.1f} s")
        for grown in self._growth.look(self._system.children.values()):
            self._tell(grown, f"the mailbox of {grown.actor} grows: {grown.waiting} of {grown.capacity} messages wait")

    def _stopped_for(self, seconds: float) -> None:
        if not self._stopping.is_set():
            self._tell(Suspended(seconds=seconds), f"the process was stopped for {seconds:.1f} s")

    def _tell(self, event: Event, line: str) -> None:
        if self._system.logs:
            logger_for(self._system.name).warning("{}", line)
        self._events.publish(event)

    def __repr__(self) -> str:
        return f"<Watchdog of {self._system.name}, slow after {self._config.slow_after:g} s>"
