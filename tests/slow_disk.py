"""A disk that is slow in virtual time: what a journal has written in a thread ends after so many seconds."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from runtime.persistence import group_commit
from runtime.simulation import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class SlowThread:
    """Stands for the one thread of a journal, in which each thing takes as many seconds as `seconds()` says."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._free_at = 0.0

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        done, loop = Future[Any](), asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + self._seconds()

        def run() -> None:
            try:
                result = work(*args)
            except Exception as error:  # noqa: BLE001 - it is raised at the asker.
                done.set_exception(error)
            else:
                done.set_result(result)

        loop.call_at(self._free_at, run)
        return done

    def shutdown(self, *, wait: bool) -> None:
        del wait


def slow_disk(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[], float]) -> None:
    """Let loops in virtual time have a thread for their journals, each of whose steps takes so many seconds."""
    monkeypatch.setattr(group_commit, "ThreadPoolExecutor", lambda *_, **__: SlowThread(seconds))
    monkeypatch.setattr(group_commit, "has_threads", lambda _: True)
    monkeypatch.setattr(VirtualTimeLoop, "call_soon_threadsafe", VirtualTimeLoop.call_soon)
