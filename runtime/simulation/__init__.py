"""The third world: the same actors in virtual time."""

from runtime.simulation.loop import Deadlock as Deadlock
from runtime.simulation.loop import VirtualTimeLoop as VirtualTimeLoop
