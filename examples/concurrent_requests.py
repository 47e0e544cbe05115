"""Many requests at once: with a limit, at a rate, in batches, with progress, and with no failure lost.

The waits are virtual: the program runs in a simulation, so minutes pass in a moment.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from actors import batch_process, concurrent
from actors.batch import ItemDone, ItemFailed
from runtime.simulation import Simulation

under_way = most = 0


def now() -> float:
    return asyncio.get_running_loop().time()


async def translate(text: str) -> str:
    global under_way, most  # noqa: PLW0603 - to measure what the limit promises.
    under_way += 1
    most = max(most, under_way)
    try:
        await asyncio.sleep(1.0)
        if "7" in text:
            raise ValueError(f"{text} cannot be translated")
        return text.upper()
    finally:
        under_way -= 1


async def double_all(numbers: Sequence[int]) -> list[int]:
    await asyncio.sleep(2.0)
    return [2 * number for number in numbers]


async def articles() -> AsyncIterator[str]:
    for number in itertools.count():
        yield f"article {number}"


async def main() -> None:
    texts = [f"text {number}" for number in range(20)]

    began = now()
    outcomes = await concurrent(texts, translate, max_concurrency=5)
    done = [outcome.result for outcome in outcomes if isinstance(outcome, ItemDone)]
    failed = [outcome.item for outcome in outcomes if isinstance(outcome, ItemFailed)]
    print(f"limit 5: {len(done)} done, {failed} failed, in {now() - began:.0f} s, {most} at once")

    starts: list[float] = []

    async def note(text: str) -> str:
        starts.append(now())
        return await translate(text)

    await concurrent(texts, note, max_concurrency=10, rate_limit=5)
    shortest = min(later - earlier for earlier, later in itertools.pairwise(starts))
    print(f"5 per second: one every {shortest:.1f} s, never a burst")

    def progress(finished: int, total: int | None) -> None:
        print(f"  {finished} of {total}")

    began = now()
    outcomes = await batch_process(range(250), double_all, 100, on_progress=progress)
    print(f"batches of 100: {sum(isinstance(one, ItemDone) for one in outcomes)} items in {now() - began:.0f} s")

    async with concurrent(articles(), translate, max_concurrency=3) as stream:
        async for outcome in stream:
            if outcome.index >= 10:
                break
    left = len(stream.undelivered), len(stream.interrupted)
    print(f"an endless source, left early: {left[0]} finished results given back, {left[1]} interrupted items named")


Simulation(seed=1, logs=False).run(main)
