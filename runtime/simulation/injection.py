"""Apply the faults of one run at their times, revert them, and remember what they hold until then."""

from __future__ import annotations

import random
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runtime.simulation.mail import MailFault
from runtime.simulation.world import TimedFault

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from runtime.engine import Engine
    from runtime.ref import ActorRef
    from runtime.simulation.mail import Mail
    from runtime.simulation.world import Fault, World

T = TypeVar("T")

SHOWN = 5
"""So many names are given of what a fault could have struck."""


def miss(fault: Fault, kind: str, pattern: str, there: Sequence[str], *, now: float | None = None) -> str:
    """Return the line that says that a fault finds nothing to strike, and what there was instead.

    `now` is the second of the run at which a fault is applied that strikes what there is at that moment alone.

    >>> from runtime.simulation import Crash
    >>> miss(Crash(actor="x/til"), "actor", "x/til", ["x/till"])
    "Crash(actor='x/til') strikes nothing: no actor 'x/til'; did you mean 'x/till'? If it may, say may_miss=True"
    """
    close = get_close_matches(pattern, there, n=1)
    names = ", ".join(map(repr, there[:SHOWN])) + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
    if close:
        hint = f"did you mean {close[0]!r}?"
    elif there:
        hint = f"there is {names}."
    elif now is None:
        hint = f"there is no {kind} at all."
    else:
        hint = f"there is no {kind} at all then. Give it a time at which it is there, or inject it when it is."
    when = "" if now is None else f" at {now:g} s"
    return f"{fault!r} strikes nothing{when}: no {kind} {pattern!r}; {hint} If it may, say may_miss=True"


class Injection:
    """The faults of one run. With `keep`, all faults are left out but those with these numbers."""

    def __init__(self, world: World, mail: Mail, seed: int, keep: Sequence[int] | None) -> None:
        self.plan: list[Fault] = []
        """Every fault of the run in the order of injection, those that are left out included."""
        self.declared: dict[str, dict[str, None]] = {}
        """The names of what can be struck, by kind, in the order of their making."""
        self._world = world
        self._mail = mail
        self._keep = None if keep is None else frozenset(keep)
        self._rng = random.Random(f"{seed}/faults")
        self._active: list[Fault] = []
        self._waiting: dict[int, Fault] = {}
        """The faults whose time has not come, by their numbers."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: dict[Any, float] = {}

    def inject(self, fault: Fault) -> None:
        """Add a fault to the run, and apply it at its time unless it is left out."""
        number = len(self.plan)
        self.plan.append(fault)
        if self._keep is None or number in self._keep:
            self._waiting[number] = fault
            self.schedule(fault, number)

    def active(self, kind: type[T]) -> list[T]:
        """Return the faults of a kind that last now."""
        now = self._world.now()
        return [
            fault
            for fault in self._active
            if isinstance(fault, kind) and (not isinstance(fault, TimedFault) or fault.is_active(now))
        ]

    def roll(self) -> float:
        """Return a number from [0, 1) for what faults leave to chance."""
        return self._rng.random()

    def schedule(self, fault: Fault, number: int | None = None) -> None:
        """Apply a fault at its time, or now if that is past; its number says that it is one of the plan."""
        now = self._world.now()
        if fault.at <= now:
            self._apply(msgspec.structs.replace(fault, at=now), number)
        else:
            self.call_at(fault.at, partial(self._apply, fault, number))

    def _apply(self, fault: Fault, number: int | None) -> None:
        if number is not None:
            self._waiting.pop(number, None)
        self._active.append(fault)
        if isinstance(fault, MailFault):
            self._mail.faults.append(fault)
        fault.apply(self._world)
        if isinstance(fault, TimedFault):
            self.call_at(fault.at + fault.lasts, partial(self._revert, fault))

    def _revert(self, fault: TimedFault) -> None:
        self._active.remove(fault)
        if isinstance(fault, MailFault):
            self._mail.faults.remove(fault)
        fault.revert(self._world)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` at a certain time, unless the scenario has ended by then."""

        def call() -> None:
            self._timers.discard(timer)
            callback()

        if when < inf:
            timer = self._world.loop.call_at(when, call)
            self._timers.add(timer)

    @property
    def has_shortcuts(self) -> bool:
        """Tell whether requests may be answered without the mailbox: not while a fault acts on mail or on turns."""
        return not self._mail.faults and not self._held

    def hold(self, ref: ActorRef[Any], until: float) -> None:
        """Give an actor no turn before a certain time."""
        cell: Any = ref.recipient.home
        self._held[cell] = max(until, self._held.get(cell, until))
        loop = self._world.loop
        for task in self._world.tasks():
            if task is cell.task or task in cell.lane_tasks():
                loop.held[task] = max(until, loop.held.get(task, until))

    def is_held(self, runnable: Any, engine: Engine) -> bool:
        """Tell whether an actor is held; if so, enqueue it again for the time it is released."""
        if not self._held:
            return False
        until = self._held.get(runnable, 0.0)
        if until <= self._world.now():
            self._held.pop(runnable, None)
            return False
        self.call_at(until, partial(engine.enqueue, runnable))
        return True

    def missed(self) -> list[str]:
        """Return a line for each fault that must not miss and was not left out, but had no target or did not begin."""
        lines: list[str] = []
        for number, fault in enumerate(self.plan):
            if fault.may_miss or not (self._keep is None or number in self._keep):
                continue
            if number in self._waiting:
                lines.append(f"{fault!r} strikes nothing: the run ended before it began. If it may, say may_miss=True")
            elif fault.target is not None:
                kind, pattern = fault.target
                there = list(self.declared.get(kind, ()))
                if not any(fnmatchcase(name, pattern) for name in there):
                    lines.append(miss(fault, kind, pattern, there))
        return lines

    def stop(self) -> None:
        """End all faults with the scenario, so that the checks find what it left, and not what a fault holds back."""
        for timer in self._timers:
            timer.cancel()
        self._mail.faults.clear()
        self._held.clear()
        self._world.loop.step_cost = 0.0
        self._world.loop.release()

    def __repr__(self) -> str:
        return f"<Injection {len(self.plan)} faults, {len(self._active)} active>"
