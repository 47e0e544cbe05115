"""A limit of time for what mostly is there at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.serve.within import within


async def steps(count: int, *, fails: bool = False) -> int:
    for _ in range(count):
        await asyncio.sleep(0.25)
    if fails:
        raise ValueError("it fails")
    return count


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_it_gives_what_is_awaited_however_many_steps_that_takes(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers, timeout = list[Any](), asyncio.timeout

    def counted(seconds: float) -> Any:
        timers.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", counted)
    assert await within(1.0, steps(count)) == count
    assert timers == ([1.0] if count else [])
    with pytest.raises(ValueError, match="it fails"):
        await within(1.0, steps(count, fails=True))


async def test_it_waits_for_futures_too_and_no_longer_than_it_may() -> None:
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_later(0.5, future.set_result, "there")
    assert await within(1.0, future) == "there"
    began = loop.time()
    with pytest.raises(TimeoutError):
        await within(0.6, steps(4))
    assert loop.time() == pytest.approx(began + 0.6)


async def test_a_cancellation_reaches_what_is_awaited() -> None:
    undone = list[str]()

    async def work() -> None:
        try:
            await asyncio.sleep(5.0)
        finally:
            undone.append("undone")

    task = asyncio.create_task(within(10.0, work()))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == ["undone"]
