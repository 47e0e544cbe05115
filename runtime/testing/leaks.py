"""The proof that a block of code leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

DESCRIPTORS = Path("/proc/self/fd")
TURNS_TO_END = 10


@asynccontextmanager
async def assert_no_leaks() -> AsyncGenerator[None]:
    """Raise `AssertionError` where the block leaves tasks, threads or (on Linux) open files behind.

    What was there before the block does not count, nor do the idle worker threads of asyncio and anyio. A block that
    raises is not looked at.
    """
    tasks = asyncio.all_tasks()
    threads = {thread.ident for thread in threading.enumerate()}
    descriptors = open_descriptors()
    yield
    # A task that has been cancelled, or has said its last word, is done a few turns later.
    for _ in range(TURNS_TO_END):
        await asyncio.sleep(0)
    # The block may be left in another task than it was entered in, as a fixture is.
    left = [repr(task) for task in asyncio.all_tasks() - tasks - {asyncio.current_task()}]
    left += [repr(one) for one in threading.enumerate() if one.ident not in threads and not is_pooled(one)]
    left += [f"open file {name}" for name in sorted(open_descriptors() - descriptors)]
    if left:
        raise AssertionError("left behind:\n  " + "\n  ".join(left))


def is_pooled(thread: threading.Thread) -> bool:
    """Tell whether a thread is one that a pool keeps for later."""
    return thread.name.startswith(("asyncio_", "AnyIO worker thread"))


def open_descriptors() -> set[str]:
    """Return the open files of this process, each with its number; empty where the machine does not tell."""
    if not DESCRIPTORS.is_dir():
        return set()
    found: set[str] = set()
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - Path.iterdir would stat what may be closed by now.
        try:
            found.add(f"{name} -> {os.readlink(DESCRIPTORS / name)}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # The descriptor of this very listing.
    return found
