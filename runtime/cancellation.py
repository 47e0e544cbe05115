"""Tell a cancellation of the running task from a `CancelledError` that escaped from something it awaited."""

from __future__ import annotations

import asyncio


def is_being_cancelled() -> bool:
    """Tell whether the running task is to end; False if only something that it awaited was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
