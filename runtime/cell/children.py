"""The children of one actor, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from runtime.supervision import (
    Directive,
    Exit,
    Restart,
    Strategy,
    Supervision,
    calls_for_restart,
    ended_by,
    restart_set,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runtime.engine import Engine
    from runtime.ref import ActorRef
    from runtime.snapshot import ActorSnapshot


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
    def join(self) -> Coroutine[Any, Any, Exit]: ...
    def instance_ended(self) -> Coroutine[Any, Any, None]: ...
    def snapshot(self) -> ActorSnapshot: ...


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


async def _pause(child: Child) -> None:
    """End the instance of a child that is restarted with its group; one that is not restarted ends for good."""
    if child.restart is Restart.TEMPORARY:
        child.request_stop()
    else:
        child.pause()
    await child.instance_ended()


class Children:
    """The children of one actor by name, in start order, and the restarts they have had."""

    __slots__ = ("_named", "_parent", "_regroup", "_restarts", "_spared", "_to_pause", "by_name")

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._restarts: deque[float] | None = None
        self._regroup: asyncio.Task[None] | None = None
        self._to_pause: list[Child] | None = None
        """What a restart of the group has still to pause, in start order; None while none is under way."""
        self._spared: frozenset[Child] = frozenset()
        """The temporary children that were started while the group restarts, such as in place of those it has ended."""
        self._named = 0
        self.by_name: dict[str, Child] = {}

    def failed(self, name: str, error: Exception | None) -> None:
        """Decide what follows the end of a child's instance: it crashed, or (`error` None) stopped itself."""
        child = self.by_name[name]
        if not self._parent.is_alive or not calls_for_restart(child.restart, crashed=error is not None):
            child.terminate(ended_by(error))
            return
        if self._regroup is not None:
            return  # It is restarted when the group is.
        directive, escalating = self._directive(error)
        if directive is Directive.RESTART:
            supervision = self._parent.supervision
            now = self._parent.engine.loop.time()
            if self._restarts is None:
                # Not before: an empty deque costs 760 bytes, and most parents never see a child crash.
                self._restarts = deque()
            if supervision.intensity.tolerates(self._restarts, now=now):
                self._restart(child, error, now, supervision)
                return
        child.terminate(ended_by(error))
        if directive is not Directive.STOP:
            if escalating is None:  # Not `or`: an error may have a truth value of its own.
                escalating = RuntimeError(f"{child.path} stops itself again and again")
            self._parent.child_escalated(escalating)

    def _directive(self, error: Exception | None) -> tuple[Directive, Exception | None]:
        """Return what to do about a crash, and what to escalate; a self-stop that calls for a restart gets one."""
        if error is None:
            return Directive.RESTART, None
        try:
            return self._parent.supervision.decide(error), error
        except Exception as broken:  # noqa: BLE001 - a supervisor that cannot decide has failed itself.
            return Directive.ESCALATE, broken

    def _restart(self, failed: Child, error: Exception | None, now: float, supervision: Supervision) -> None:
        if now - failed.restarted_at >= supervision.backoff.reset_after:
            failed.attempt = 0
        delay = 0.0
        if supervision.backoff.cap > 0:
            delay = supervision.backoff.delay(failed.attempt + 1, random=self._parent.engine.random.random())
        failed.restarted_at = now + delay
        if self._restarts_alone(failed, supervision.strategy):
            failed.restart_after(delay, error)
        else:
            work = self._restart_group(delay, error)
            self._regroup = self._parent.engine.create_task(work, name=f"{self._parent.path} regroups")

    def _restarts_alone(self, child: Child, strategy: Strategy) -> bool:
        """Tell whether no other child is restarted together with this one."""
        match strategy:
            case Strategy.ONE_FOR_ONE:
                return True
            case Strategy.ONE_FOR_ALL:
                return len(self.by_name) == 1
            case Strategy.REST_FOR_ONE:
                return next(reversed(self.by_name.values())) is child

    async def _restart_group(self, delay: float, cause: Exception | None) -> None:
        try:
            await self._pause_dependents()
            if delay > 0:
                # One wait for all of them: timers that are due together would fire in any order.
                await asyncio.sleep(delay)
                await self._pause_dependents()
        finally:
            self._regroup = None
            self._spared = frozenset()
        # One that was stopped meanwhile stays stopped.
        for child in tuple(self.by_name.values()):
            if child.is_waiting:
                child.restart_after(0.0, cause)

    async def _pause_dependents(self) -> None:
        """Pause all that restart together with one that failed, or fails meanwhile; the last started first."""
        strategy = self._parent.supervision.strategy
        try:
            while True:
                children = list(self.by_name.values())
                first = next((child for child in children if child.is_waiting), None)
                if first is None:
                    return
                group = restart_set(strategy, children, first)
                running = self._to_pause = [
                    child for child in group if not child.is_waiting and child not in self._spared
                ]
                if not running:
                    return
                # An earlier one that fails meanwhile adds only what was started before these, and so comes after
                # them. If the first one is stopped meanwhile, the group may be smaller.
                while running and first.is_waiting:
                    await _pause(running.pop())
        finally:
            self._to_pause = None

    def add(self, name: str, child: Child) -> None:
        """Add a child that has been started; if its group is being paused, it is the next to be.

        One that would be ended for good is left alone: its parent might start another one in its place for ever.
        """
        self.by_name[name] = child
        if self._regroup is not None and child.restart is Restart.TEMPORARY:
            self._spared |= {child}
        elif self._to_pause is not None:
            self._to_pause.append(child)

    def kill_all(self) -> None:
        """Kill every child; their ends follow."""
        for child in reversed(tuple(self.by_name.values())):
            child.kill()

    def new_name(self, kind: str) -> str:
        """Return a name that no living child has."""
        self._named += 1
        while (name := f"{kind}-{self._named}") in self.by_name:
            self._named += 1
        return name

    def forget(self, name: str, ref: ActorRef[Any]) -> None:
        """Forget a child that has ended; one of an earlier instance may end after another has taken its name."""
        child = self.by_name.get(name)
        if child is not None and child.ref is ref:
            del self.by_name[name]
            self._spared -= {child}

    def forget_group(self) -> None:
        """Restart no group of children any more."""
        if self._regroup is not None:
            self._regroup.cancel()
            self._regroup = None
            self._spared = frozenset()

    async def stop_all(self) -> None:
        """Stop the children one by one, the last started first, each within its own limit."""
        self.forget_group()
        # None is added any more: an actor that is ending spawns no children.
        for child in reversed(tuple(self.by_name.values())):
            child.request_stop()
            await child.join()
