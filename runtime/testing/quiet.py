"""Wait until no actor of a system has anything left to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.system import ActorSystem

STEP = 0.001


async def until_idle(system: ActorSystem, *, within: float = 1.0) -> None:
    """Return when no actor of the system has mail or work under way. Raises AssertionError after `within` seconds.

    Pending timers do not count as work, nor does code outside of the system that will send messages to it.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + within
    while busy := [actor.path for actor in system.snapshot().walk() if not actor.idle]:
        if loop.time() >= ends:
            raise AssertionError(f"still busy after {within:g} s: {', '.join(busy)}")
        await asyncio.sleep(STEP)
