"""Tells when files have changed, by looking at them every second: so it works on any disk, and for any editor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

LOOK_EVERY = 1.0
"""Seconds between two looks; a change is told when a second look finds the files as the first did."""

State: TypeAlias = tuple[tuple[int, int, int] | None, ...]


async def until_changed(paths: Sequence[str]) -> AsyncIterator[None]:
    """Yield each time that files have changed and are at rest again; one that is missing for a while is no news."""
    told = seen = state_of(paths)
    while True:
        await asyncio.sleep(LOOK_EVERY)
        now = state_of(paths)
        if now == seen != told and None not in now:
            told = now
            yield
        seen = now


def state_of(paths: Sequence[str]) -> State:
    """Return what tells whether files have changed; None for each that is not there."""
    return tuple(_state_of(path) for path in paths)


def _state_of(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
