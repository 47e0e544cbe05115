"""Simulated providers and a registry in virtual time, which fail by plan and keep books of their own."""

from actors.simulation.faults import (
    BrownOut,
    Bug,
    Flapping,
    Hanging,
    LostReplies,
    Outage,
    OutOfQuota,
    PriceChange,
    ProviderFault,
    RegistryOutage,
    SlowLoris,
    ThrottleStorm,
    WrongAnswers,
    random_provider_faults,
)
from actors.simulation.provider import SimulatedProvider, paid_more_than_once
from actors.simulation.registry import simulated_registry
from actors.simulation.struck import with_faults

__all__ = [
    "BrownOut",
    "Bug",
    "Flapping",
    "Hanging",
    "LostReplies",
    "OutOfQuota",
    "Outage",
    "PriceChange",
    "ProviderFault",
    "RegistryOutage",
    "SimulatedProvider",
    "SlowLoris",
    "ThrottleStorm",
    "WrongAnswers",
    "paid_more_than_once",
    "random_provider_faults",
    "simulated_registry",
    "with_faults",
]
