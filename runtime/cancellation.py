"""Whose a cancellation is: a `CancelledError` may also escape from something a task awaited, and not be its own."""

from __future__ import annotations

import asyncio


def is_being_cancelled() -> bool:
    """Tell whether whoever runs here is to end; False where only something that it awaited was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
