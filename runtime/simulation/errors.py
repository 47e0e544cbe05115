"""What a simulation finds: none of these is for a program to catch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class SimulationError(Exception):
    """The family of errors that end a simulated run."""


class Deadlock(SimulationError):
    """Every task waits, and no timer will ever wake one."""


class Livelock(SimulationError):
    """There is always something to do, and it leads nowhere."""


USE_TRANSPORT = "give your code a transport, and in simulation one that answers by itself"
"""What to use instead of a socket."""


class NotSimulated(SimulationError):
    """Something was called that reaches out of the simulation: the network, a thread, a process, a real wait."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} does not exist in virtual time; {instead}")


class InvariantBroken(SimulationError, AssertionError):
    """The scenario ended, but something that must always hold does not; `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
