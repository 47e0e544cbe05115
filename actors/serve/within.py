"""Waits for what mostly is there at once, within a limit of time that costs nothing in that case."""

from __future__ import annotations

import asyncio
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return what is awaited; raises TimeoutError if it takes longer than that.

    A timer is set only if it does not end in its first step: a small body has come by the time that it is read, and an
    answer that fits the buffers is taken at once.
    """
    steps = work.__await__()
    try:
        waits_for = next(steps)
    except StopIteration as done:
        return done.value
    async with asyncio.timeout(seconds):
        return await _rest(steps, waits_for)


@coroutine
def _rest(steps: Generator[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with what has begun, and waits for this."""
    try:
        while True:
            try:
                given = yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is raised in what is awaited.
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(given)
    except StopIteration as done:
        return done.value
