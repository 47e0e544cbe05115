"""An event loop whose time stands still while there is work, and jumps to the next timer when there is none."""

from __future__ import annotations

import asyncio
import selectors


class Deadlock(Exception):
    """Every task waits, and no timer will ever wake one."""


class JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for a socket, lets the loop's time pass; no socket is ever ready."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock(describe_tasks())
        self.now += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs hours of waiting in no time. Starts at 0 seconds; real sockets, processes and threads do not work in it."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def describe_tasks() -> str:
    """Name each unfinished task of the running loop, and the line it waits at."""
    lines = ["every task waits and no timer is set:"]
    for task in sorted(asyncio.all_tasks(), key=lambda one: one.get_name()):
        stack = task.get_stack(limit=1)
        where = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "no line"
        lines.append(f"  {task.get_name()} waits at {where}")
    return "\n".join(lines)
