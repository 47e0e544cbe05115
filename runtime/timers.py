"""Timers by which an actor sends messages to itself, once or repeatedly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.envelope import Told, told

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextvars import Context


class Timer:
    """One pending or periodic message; `cancel` ends it."""

    __slots__ = ("_due", "_handle", "_tick", "_timers", "coalesce", "interval", "message")

    def __init__(
        self, timers: Timers, message: Any, *, delay: float, interval: float | None, coalesce: bool = False
    ) -> None:
        self._timers = timers
        self.message = message
        self.interval = interval
        self.coalesce = coalesce
        self._tick: Told | None = None
        """The last message sent, if it is to be recognised in the mailbox."""
        self._due = timers.loop.time() + delay
        self._handle = timers.loop.call_at(self._due, self._fire, context=timers.context)

    def cancel(self) -> None:
        """Send no more messages; one that is already in the mailbox stays. A second call does nothing."""
        self._handle.cancel()
        self._timers.forget(self)

    def _fire(self) -> None:
        if self.interval is None:
            self._timers.forget(self)
        else:
            # The schedule does not drift, and ticks missed while the loop was busy are skipped.
            missed = max(0.0, (self._timers.loop.time() - self._due) // self.interval)
            self._due += (missed + 1) * self.interval
            self._handle = self._timers.loop.call_at(self._due, self._fire, context=self._timers.context)
        if not self.coalesce:
            self._timers.deliver(self.message)
        elif self._tick is None or not self._timers.is_waiting(self._tick):
            self._tick = Told(self.message)
            self._timers.deliver(self._tick)

    def __repr__(self) -> str:
        again = f", every {self.interval:g} s" if self.interval is not None else ""
        return f"<Timer {told(self.message)!r} due {self._due:.3f}{again}>"


class Timers:
    """The timers of one actor instance. A message that finds the mailbox full becomes a dead letter."""

    __slots__ = ("_active", "context", "deliver", "is_waiting", "loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        deliver: Callable[[Any], object],
        is_waiting: Callable[[Any], bool],
    ) -> None:
        self.loop = loop
        self.context = context
        self.deliver = deliver
        self.is_waiting = is_waiting
        self._active: dict[Timer, None] = {}

    def once(self, delay: float, message: Any, *, deadline: float | None = None) -> Timer:
        """Send `message` to this actor after `delay` seconds (>= 0).

        A `deadline` in loop time, such as `self.context.deadline`, travels with the message: requests made while it is
        handled end by then, and if it is not handled before, it is a dead letter ("expired"). By default there is none.
        """
        if not delay >= 0:
            raise ValueError(f"delay must be >= 0 seconds, got {delay}")
        item = message if deadline is None else Told(message, deadline=deadline)
        return self._start(item, delay=delay, interval=None)

    def every(self, interval: float, message: Any, *, coalesce: bool = True) -> Timer:
        """Send `message` to this actor every `interval` seconds (> 0), first after one interval.

        A message that would find the one before it still waiting is left out, so that a slow handler has at most one to
        come back to. With `coalesce` False they pile up, for an actor that counts them.
        """
        if not interval > 0:
            raise ValueError(f"interval must be > 0 seconds, got {interval}")
        return self._start(message, delay=interval, interval=interval, coalesce=coalesce)

    def cancel_all(self) -> None:
        """Cancel every timer of this actor."""
        for timer in tuple(self._active):
            timer.cancel()

    def forget(self, timer: Timer) -> None:
        """Drop a timer that will not fire again."""
        self._active.pop(timer, None)

    def _start(self, message: Any, *, delay: float, interval: float | None, coalesce: bool = False) -> Timer:
        timer = Timer(self, message, delay=delay, interval=interval, coalesce=coalesce)
        self._active[timer] = None
        return timer

    def __len__(self) -> int:
        return len(self._active)

    def __repr__(self) -> str:
        return f"<Timers {len(self)} active>"
