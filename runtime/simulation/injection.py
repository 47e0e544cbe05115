"""How faults come about in one run: when they strike, whom, and what they keep until they are over."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runtime.simulation.faults import Fault, MailFault, TimedFault
from runtime.simulation.loop import unfinished

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from runtime.envelope import Ask
    from runtime.simulation.engine import SimulatedEngine
    from runtime.simulation.simulation import Simulation

T = TypeVar("T")
F = TypeVar("F", bound=Fault)


class Injection:
    """The faults of one run. With `keep`, all but those with these numbers are left out."""

    def __init__(self, simulation: Simulation, seed: int, keep: Sequence[int] | None) -> None:
        self.plan: list[Fault] = []
        """Every fault of the run, the left out ones included, in the order of their injection."""
        self.mail_faults: list[MailFault] = []
        self.lost: list[tuple[Ask, Any]] = []
        """Requests that a fault has taken from their way, and the inboxes they were for."""
        self._simulation = simulation
        self._keep = None if keep is None else frozenset(keep)
        self._luck = random.Random(f"{seed}/faults")
        self._active: list[Fault] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: dict[Any, float] = {}

    def inject(self, fault: Fault) -> None:
        """Let a fault strike, unless it is left out."""
        number = len(self.plan)
        self.plan.append(fault)
        if self._keep is None or number in self._keep:
            self.schedule(fault)

    def active(self, kind: type[F]) -> list[F]:
        """Return the faults of a kind that last now."""
        now = self._simulation.now()
        return [
            fault
            for fault in self._active
            if isinstance(fault, kind) and (not isinstance(fault, TimedFault) or fault.is_active(now))
        ]

    def roll(self) -> float:
        """Return a number from [0, 1) for what faults leave to chance."""
        return self._luck.random()

    def pick(self, found: Sequence[T]) -> T:
        """Return one of those that a fault may strike."""
        return found[int(self.roll() * len(found))]

    def schedule(self, fault: Fault) -> None:
        """Let a fault strike at its time, or now where that is over."""
        now = self._simulation.now()
        if fault.at <= now:
            self._apply(msgspec.structs.replace(fault, at=now))
        else:
            self.call_at(fault.at, partial(self._apply, fault))

    def _apply(self, fault: Fault) -> None:
        self._active.append(fault)
        fault.apply(self._simulation)
        if isinstance(fault, TimedFault):
            self.call_at(fault.at + fault.lasts, partial(self._revert, fault))

    def _revert(self, fault: TimedFault) -> None:
        self._active.remove(fault)
        fault.end(self._simulation)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Do something at a certain time, unless the scenario has ended by then."""

        def call() -> None:
            self._timers.discard(timer)
            callback()

        if when < inf:
            timer = self._simulation.loop.call_at(when, call)
            self._timers.add(timer)

    def actors(self, pattern: str) -> list[Any]:
        """Return the cells of living actors whose path matches."""
        found: list[Any] = []
        roots = [engine.root for engine in self._simulation.engines]
        below = [root for root in roots if root is not None and root.exit is None]
        while below:
            cell = below.pop(0)
            children = [ref.recipient.home for ref in cell.children.values()]
            found.extend(one for one in children if fnmatchcase(one.path, pattern) and one.is_alive)
            below.extend(children)
        return found

    @property
    def has_shortcuts(self) -> bool:
        """Tell whether requests may be answered without the mailbox: not while a fault strikes there."""
        return not self.mail_faults and not self._held

    def hold(self, cell: Any, until: float) -> None:
        """Let an actor have no turn before a certain time."""
        self._held[cell] = max(until, self._held.get(cell, until))
        loop = self._simulation.loop
        for task in unfinished(loop):
            if task is cell.task or task in cell.lane_tasks():
                loop.held[task] = max(until, loop.held.get(task, until))

    def is_held(self, runnable: Any, engine: SimulatedEngine) -> bool:
        """Tell whether an actor has to stand still, and if so let it come back later."""
        if not self._held:
            return False
        until = self._held.get(runnable, 0.0)
        if until <= self._simulation.now():
            self._held.pop(runnable, None)
            return False
        self.call_at(until, partial(engine.enqueue, runnable))
        return True

    def stop(self) -> None:
        """Let no fault outlast the scenario: what it has left behind is to be seen, and not what a fault holds up."""
        for timer in self._timers:
            timer.cancel()
        self.mail_faults.clear()
        self._held.clear()
        self._simulation.loop.step_cost = 0.0
        self._simulation.loop.release()

    def __repr__(self) -> str:
        return f"<Injection {len(self.plan)} faults, {len(self._active)} active>"
