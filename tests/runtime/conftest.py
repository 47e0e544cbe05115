"""What the tests of the engine look at besides answers: its events, and what a system leaves behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runtime import DeadLetter, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime import ActorSystem


@pytest.fixture
def recorded() -> Callable[..., list[Any]]:
    """Return a function that lists every event of one type from now on."""

    def record(system: ActorSystem, event_type: type[Event] = DeadLetter) -> list[Any]:
        events: list[Any] = []
        system.events.subscribe(event_type, events.append)
        return events

    return record


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """Return a function that names the tasks, other than the test's own, and the timers the loop still has."""

    def find() -> list[str]:
        loop: Any = asyncio.get_running_loop()
        tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return tasks + [repr(timer) for _, _, timer in loop._scheduled if not timer.cancelled()]

    return find
