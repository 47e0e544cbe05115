"""The children of one actor, and what happens when one of them fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runtime.supervision import (
    Directive,
    Exit,
    ExitReason,
    Restart,
    Supervision,
    calls_for_restart,
    restart_set,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from runtime.engine import Engine
    from runtime.ref import ActorRef


class Child(Protocol):
    """What a parent needs of a child's cell."""

    ref: ActorRef[Any]
    attempt: int
    restarted_at: float

    @property
    def restart(self) -> Restart: ...
    @property
    def path(self) -> str: ...
    @property
    def is_waiting(self) -> bool: ...
    def request_stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def restart_after(self, delay: float, cause: Exception | None) -> None: ...
    def terminate(self, exit: Exit) -> None: ...  # noqa: A002 - the field's word for how a process ended.
    async def join(self) -> Exit: ...
    async def instance_gone(self) -> None: ...


class Parent(Protocol):
    """What the children need of their parent's cell."""

    engine: Engine

    @property
    def path(self) -> str: ...
    @property
    def is_alive(self) -> bool: ...
    @property
    def supervision(self) -> Supervision: ...
    def child_escalated(self, error: Exception) -> None: ...


class Children:
    """The children of one actor by name, in start order, and the restarts they have had."""

    __slots__ = ("_parent", "_regroup", "_restarts", "by_name", "named")

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._restarts: tuple[float, ...] = ()
        self._regroup: asyncio.Task[None] | None = None
        self.by_name: dict[str, Child] = {}
        self.named = 0

    def failed(self, child: Child, error: Exception | None) -> None:
        """Decide what follows the end of a child's instance: it crashed, or (`error` None) stopped itself."""
        end = Exit(ExitReason.CRASHED if error else ExitReason.STOPPED, error)
        if not self._parent.is_alive or not calls_for_restart(child.restart, crashed=error is not None):
            child.terminate(end)
            return
        if self._regroup is not None:
            return  # It is restarted when the group is.
        supervision = self._parent.supervision
        directive = supervision.decide(error) if error is not None else Directive.RESTART
        if directive is Directive.RESTART:
            now = self._parent.engine.loop.time()
            recent = supervision.intensity.after_restart(self._restarts, now=now)
            if recent is not None:
                self._restarts = recent
                self._restart(child, error, now)
                return
        child.terminate(end)
        if directive is not Directive.STOP:
            self._parent.child_escalated(error or RuntimeError(f"{child.path} stops itself again and again"))

    def _restart(self, failed: Child, error: Exception | None, now: float) -> None:
        supervision = self._parent.supervision
        if now - failed.restarted_at >= supervision.backoff.reset_after:
            failed.attempt = 0
        failed.restarted_at = now
        delay = supervision.backoff.delay(failed.attempt + 1, random=self._parent.engine.random.random())
        group = restart_set(supervision.strategy, list(self.by_name.values()), failed)
        if len(group) == 1:
            failed.restart_after(delay, error)
        else:
            work = self._restart_group(group, delay, error)
            self._regroup = self._parent.engine.create_task(work, name=f"{self._parent.path} regroups")

    async def _restart_group(self, group: Sequence[Child], delay: float, cause: Exception | None) -> None:
        try:
            for child in reversed(group):
                child.pause()
                await child.instance_gone()
        finally:
            self._regroup = None
        # One that was stopped meanwhile stays stopped; one outside of the group that failed meanwhile comes along.
        for child in tuple(self.by_name.values()):
            if child.is_waiting:
                child.restart_after(delay, cause)

    def kill_all(self) -> None:
        """Kill every child; their ends follow."""
        for child in reversed(tuple(self.by_name.values())):
            child.kill()

    async def stop_all(self) -> None:
        """Stop the children one by one, the last started first, each within its own limit."""
        if self._regroup is not None:
            self._regroup.cancel()
            self._regroup = None
        while self.by_name:
            child = self.by_name[next(reversed(self.by_name))]
            child.request_stop()
            await child.join()
