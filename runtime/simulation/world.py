"""What a fault is, and what it sees of the simulated run it happens in.

The two belong together: a fault is applied to a world, and a world has faults. `Simulation` is the world there is;
nothing that happens in a run needs to know how it was made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from random import Random

    from runtime.deadline import Expiring
    from runtime.ref import ActorRef
    from runtime.simulation.loop import VirtualTimeLoop
    from runtime.simulation.trace import Trace

T = TypeVar("T")


class SimulatedSystem(Protocol):
    """One actor system of a run."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> Any:
        """The cell at the root of its tree; None before there is one."""
        ...

    @property
    def pending_deadlines(self) -> Sequence[Expiring]:
        """What still waited for a deadline when the system was left."""
        ...


class World(Protocol):
    """A simulated run, as the faults in it and the checks of it see it."""

    @property
    def random(self) -> Random:
        """The random numbers of the scenario."""
        ...

    @property
    def loop(self) -> VirtualTimeLoop:
        """The event loop of the run."""
        ...

    @property
    def trace(self) -> Trace:
        """The record of what happens."""
        ...

    @property
    def systems(self) -> Sequence[SimulatedSystem]:
        """Every actor system of the run, those that were left included, in the order of their making."""
        ...

    def now(self) -> float:
        """Return the seconds since the run began."""
        ...

    def note(self, text: str) -> None:
        """Put a line into the trace."""

    def problem(self, text: str) -> None:
        """Let the run fail, once it is over, with this line."""

    def actors(self, pattern: str) -> list[ActorRef[Any]]:
        """Return the living actors whose path matches."""
        ...

    def tasks(self, pattern: str = "*") -> list[asyncio.Task[Any]]:
        """Return the unfinished tasks whose name matches, that of the scenario left out."""
        ...

    def declare(self, kind: str, name: str) -> None:
        """Say that the run has something that faults can strike: its kind, such as "provider", and its name."""

    def active(self, kind: type[T]) -> list[T]:
        """Return the faults of a kind that last now."""
        ...

    def roll(self) -> float:
        """Return a number from [0, 1) for what faults leave to chance."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call something at a certain time, unless the scenario has ended by then."""

    def schedule(self, fault: Fault) -> None:
        """Apply a fault at its time, as a part of the fault that is being applied: it cannot be left out by itself."""

    def hold(self, ref: ActorRef[Any], until: float) -> None:
        """Let an actor have no turn before a certain time."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag=True, repr_omit_defaults=True):
    """Something that goes wrong `at` seconds after the run began.

    A fault that finds nothing to strike lets the run fail, because its name may be misspelt, unless it `may_miss`; so
    does one whose time does not come before the run ends.
    """

    at: float = 0.0
    may_miss: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.at < math.inf:
            raise ValueError(f"at must be >= 0 seconds and finite, got {self.at}")

    @property
    def target(self) -> tuple[str, str] | None:
        """What must be in the run: its kind, such as "provider", and its name or pattern. None if nothing need be."""
        return None

    def apply(self, world: World) -> None:
        """Do it. Here nothing: the fault is one of those that are looked up, see `World.active`."""


class TimedFault(Fault, frozen=True, kw_only=True):
    """Something that is wrong for a while: from `at` on for `lasts` seconds, by default to the end of the run."""

    lasts: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lasts > 0:
            raise ValueError(f"lasts must be > 0 seconds, got {self.lasts}")

    def is_active(self, now: float) -> bool:
        """Tell whether it lasts at `now`."""
        return self.at <= now < self.at + self.lasts

    def revert(self, world: World) -> None:
        """Undo what `apply` did; called when its time is over."""
