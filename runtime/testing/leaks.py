"""Check that a block of code leaves no task, thread or open file behind."""

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
    """Raise AssertionError if the block leaves tasks, threads or (on Linux) open files behind.

    Those that were there before the block do not count, nor do the idle worker threads of asyncio and anyio. A block
    that raises is not checked.
    """
    tasks = asyncio.all_tasks()
    threads = {thread.ident for thread in threading.enumerate()}
    descriptors = open_descriptors()
    yield
    # A task that has been cancelled, or is about to return, is done a few turns later.
    for _ in range(TURNS_TO_END):
        await asyncio.sleep(0)
    # The block may be left by another task than the one that entered it, as a fixture is.
    left = [repr(task) for task in asyncio.all_tasks() - tasks - {asyncio.current_task()}]
    left += [repr(one) for one in threading.enumerate() if one.ident not in threads and not is_pooled(one)]
    left += [f"open file {name}" for name in sorted(open_descriptors() - descriptors)]
    if left:
        raise AssertionError("left behind:\n  " + "\n  ".join(left))


def is_pooled(thread: threading.Thread) -> bool:
    """Tell whether a thread belongs to a pool, which keeps it for later."""
    return thread.name.startswith(("asyncio_", "AnyIO worker thread"))


def open_descriptors() -> set[str]:
    """Return the open files of this process, each with its number; nothing if the machine does not list them."""
    if not DESCRIPTORS.is_dir():
        return set()
    found: set[str] = set()
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - Path.iterdir would stat files that may be closed by now.
        try:
            found.add(f"{name} -> {os.readlink(DESCRIPTORS / name)}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # The descriptor of the listing itself.
    return found
