"""The timeout of one call; one event-loop timer watches the timeouts of many calls."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from runtime import DeadlineWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class CallTimedOut(TimeoutError):
    """A call was cancelled by the timeout of its policy, `after` seconds."""

    def __init__(self, after: float) -> None:
        super().__init__(f"no answer within {after:g} s")
        self.after = after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.after,)


class DeadlineTimer:
    """The deadline of one attempt: when it passes, the task that makes the attempt is cancelled.

    It does what `asyncio.timeout_at` does at a tenth of the cost, as one timer watches the deadlines of many calls.
    """

    __slots__ = ("_cancelling", "_expired", "_task", "_watch", "deadline", "tick")

    def __init__(self, watch: DeadlineWatch, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - asyncio runs the code of a call in a task.
        self.deadline = deadline
        self.tick = 0
        self._task = task
        self._watch = watch
        self._expired = False
        self._cancelling = task.cancelling()
        watch.add(self)

    def expire(self) -> None:
        """Cancel the task; called when the deadline has passed."""
        self._expired = True
        self._task.cancel()

    def postpone(self, deadline: float) -> None:
        """Watch for another deadline from now on, unless this one has passed."""
        if not self._expired:
            self._watch.discard(self)
            self.deadline = deadline
            self._watch.add(self)

    def end(self) -> bool:
        """Stop watching; return whether this timer alone cancelled the task, and no other caller did as well."""
        self._watch.discard(self)
        return self._expired and self._task.uncancel() <= self._cancelling


class DeadlineTimers:
    """Makes the deadline timers of many calls, all watched by one timer of their event loop."""

    def __init__(self) -> None:
        self._watch: DeadlineWatch | None = None

    def at(self, deadline: float, loop: asyncio.AbstractEventLoop) -> DeadlineTimer | None:
        """Cancel the running task at `deadline`, in the time of the running `loop`; None for an infinite deadline."""
        if deadline == math.inf:
            return None
        watch = self._watch
        if watch is None or watch.loop is not loop:
            watch = self._watch = DeadlineWatch(loop)
        return DeadlineTimer(watch, loop, deadline)

    def close(self) -> None:
        """Drop the shared timer, which otherwise fires once more after the last call; calls under way keep theirs."""
        watch, self._watch = self._watch, None
        if watch is not None and not len(watch):
            watch.close()

    def broken_invariants(self) -> Iterator[str]:
        """Name the invariants that are broken while no call is under way."""
        if self._watch is not None and len(self._watch):
            yield f"{len(self._watch)} timeouts are still watched"
