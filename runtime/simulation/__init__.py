"""Actors in virtual time: a seed decides the order of events and the faults, and repeats any run exactly."""

from runtime.simulation.errors import Deadlock, InvariantBroken, Livelock, NotSimulated, SimulationError
from runtime.simulation.exploration import Exploration, ScenarioFailed, explore
from runtime.simulation.faults import (
    CancelTask,
    Crash,
    CutOff,
    DelayMail,
    DropMail,
    DuplicateMail,
    Hang,
    InjectedCrash,
    ReorderMail,
    SlowSystem,
    random_faults,
)
from runtime.simulation.files import FragileFile, WriteCut
from runtime.simulation.loop import VirtualTimeLoop
from runtime.simulation.replay import NoScenario, find_scenario, read_keep
from runtime.simulation.schedule import Deviation, read_deviations
from runtime.simulation.simulation import MAX_STEPS, Order, Run, Scenario, Simulation
from runtime.simulation.world import Fault, TimedFault, World

__all__ = [
    "MAX_STEPS",
    "CancelTask",
    "Crash",
    "CutOff",
    "Deadlock",
    "DelayMail",
    "Deviation",
    "DropMail",
    "DuplicateMail",
    "Exploration",
    "Fault",
    "FragileFile",
    "Hang",
    "InjectedCrash",
    "InvariantBroken",
    "Livelock",
    "NoScenario",
    "NotSimulated",
    "Order",
    "ReorderMail",
    "Run",
    "Scenario",
    "ScenarioFailed",
    "Simulation",
    "SimulationError",
    "SlowSystem",
    "TimedFault",
    "VirtualTimeLoop",
    "World",
    "WriteCut",
    "explore",
    "find_scenario",
    "random_faults",
    "read_deviations",
    "read_keep",
]
