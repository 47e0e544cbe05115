"""The errors that end a simulated run; no program should catch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class SimulationError(Exception):
    """The base class of the errors that end a simulated run."""


class Deadlock(SimulationError):
    """Every task waits, and there is no timer that would wake one."""


class Livelock(SimulationError):
    """The run takes step after step without an end, or without time passing."""


USE_TRANSPORT = "give your code a transport, and in simulation one that answers by itself"
"""What to use instead of a socket."""


class NotSimulated(SimulationError):
    """A call reached out of the simulation: to the network, a thread, a process or a real wait."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} does not exist in virtual time; {instead}")


class InvariantBroken(SimulationError, AssertionError):
    """The scenario ended well, but something that must always hold does not; `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
