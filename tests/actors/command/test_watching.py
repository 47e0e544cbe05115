"""Files that are watched: a change is told once they are at rest, and one that is missing for a while is no news."""

from __future__ import annotations

import asyncio

from actors.command.watching import LOOK_EVERY, until_changed


async def test_a_change_is_told_once_the_files_are_at_rest(tmp_path):
    market, keys = tmp_path / "market.toml", tmp_path / "keys.jsonl"
    market.write_text("a")
    keys.write_text("a")
    told: list[float] = []
    clock = asyncio.get_running_loop().time

    def note() -> None:
        told.append(clock())

    async def watch() -> None:
        async for _ in until_changed([str(market), str(keys)]):
            note()

    task = asyncio.create_task(watch())
    await asyncio.sleep(10 * LOOK_EVERY + 0.5)
    assert told == []
    began = clock()
    for size in range(2, 6):  # It is being written still.
        market.write_text("b" * size)
        await asyncio.sleep(LOOK_EVERY)
    assert told == []
    await asyncio.sleep(3 * LOOK_EVERY)
    assert [LOOK_EVERY * 4 <= one - began <= LOOK_EVERY * 5 for one in told] == [True]
    market.unlink()
    await asyncio.sleep(5 * LOOK_EVERY)
    assert len(told) == 1
    keys.write_text("longer")
    market.write_text("c")
    await asyncio.sleep(3 * LOOK_EVERY)
    assert len(told) == 2
    task.cancel()
    await asyncio.wait({task})
