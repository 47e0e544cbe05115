"""An event loop in real time that a test can put forward: what is to happen after a wait need not be waited for."""

from __future__ import annotations

import asyncio

FAR = 3600.0
"""Seconds that nothing takes while things are well, however busy the machine is."""
GUARD = 300.0
"""Seconds for which a thread waits for a fact, so that it ends at last when the test beside it has failed."""


class RealTimeLoop(asyncio.SelectorEventLoop):
    """Goes by the clock of the machine, ahead of it by what has been skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


async def skip(seconds: float) -> None:
    """Let so many seconds be over at once, and give what was to happen within them its turns."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, RealTimeLoop)
    loop.skipped += seconds
    for _ in range(5):
        await asyncio.sleep(0)
