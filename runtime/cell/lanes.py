"""Concurrent handlers of one actor: which of its messages are being handled, and which wait for a place. Data alone."""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine
from typing import TYPE_CHECKING, Any

from runtime.envelope import Ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.handlers import Handler


class Lane:
    """One concurrent handler: at most `handler.concurrent` executions, tasks or inline; the rest waits in order."""

    __slots__ = ("handler", "running", "waiting")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.running: dict[asyncio.Future[None], Any] = {}
        """The items that are being handled, by their execution, in the order in which they began."""
        self.waiting: deque[Any] = deque()

    @property
    def is_full(self) -> bool:
        """True if the next message has to wait."""
        return len(self.running) >= self.handler.concurrent

    def take_back_unbegun(self) -> int:
        """Let items wait again whose task has not had its first turn, in their order; return how many."""
        unbegun = [task for task in self.running if has_not_begun(task)]
        for task in reversed(unbegun):
            item = self.running.pop(task)
            self.waiting.appendleft(item)
            if isinstance(item, Ask):
                item.put_back()
        return len(unbegun)


class Lanes:
    """The lanes of one instance of an actor, each made for the first message of its handler."""

    __slots__ = ("_by_handler",)

    def __init__(self) -> None:
        self._by_handler: dict[Handler, Lane] = {}

    def of(self, handler: Handler) -> Lane:
        """Return the lane of a handler."""
        lane = self._by_handler.get(handler)
        if lane is None:
            lane = self._by_handler[handler] = Lane(handler)
        return lane

    def may_begin_at_once(self, handler: Handler) -> bool:
        """Tell whether a request may begin before any other turn: it has a place, and all before it has begun."""
        for lane in self._by_handler.values():
            newest = next(reversed(lane.running), None)
            if lane.waiting or (lane.is_full and lane.handler is handler) or has_not_begun(newest):
                return False
        return True

    @property
    def running(self) -> dict[asyncio.Future[None], Any]:
        """The items that are being handled, by their execution."""
        return {task: item for lane in self for task, item in lane.running.items()}

    @property
    def waiting(self) -> int:
        """How many items wait for a place."""
        return sum(len(lane.waiting) for lane in self)

    @property
    def longest(self) -> Lane | None:
        """The lane in which most items wait, the first of several; None if no item waits."""
        lane = max(self, key=lambda one: len(one.waiting), default=None)
        return lane if lane is not None and lane.waiting else None

    def cancel(self) -> int:
        """Cancel every execution; return how many items had not begun, and wait again."""
        put_back = 0
        for lane in self:
            for task in lane.running:
                task.cancel()
            put_back += lane.take_back_unbegun()
        return put_back

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_handler.values())

    def __contains__(self, lane: Lane) -> bool:
        """Tell whether a lane is one of these, and not one of an instance before whose handlers would not end."""
        return self._by_handler.get(lane.handler) is lane


def has_not_begun(task: asyncio.Future[None] | None) -> bool:
    """Tell whether a task has not had its first turn, so that nothing of its work is done."""
    if not isinstance(task, asyncio.Task):
        return False
    work = task.get_coro()
    return iscoroutine(work) and getcoroutinestate(work) == CORO_CREATED
