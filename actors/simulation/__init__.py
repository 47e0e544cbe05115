"""Simulated providers and a registry in virtual time, which fail by plan and keep books of their own."""

from actors.simulation.faults import BrownOut as BrownOut
from actors.simulation.faults import Bug as Bug
from actors.simulation.faults import Flapping as Flapping
from actors.simulation.faults import Hanging as Hanging
from actors.simulation.faults import LostReplies as LostReplies
from actors.simulation.faults import Outage as Outage
from actors.simulation.faults import OutOfQuota as OutOfQuota
from actors.simulation.faults import PriceChange as PriceChange
from actors.simulation.faults import ProviderFault as ProviderFault
from actors.simulation.faults import RegistryOutage as RegistryOutage
from actors.simulation.faults import SlowLoris as SlowLoris
from actors.simulation.faults import ThrottleStorm as ThrottleStorm
from actors.simulation.faults import WrongAnswers as WrongAnswers
from actors.simulation.faults import random_provider_faults as random_provider_faults
from actors.simulation.provider import SimulatedProvider as SimulatedProvider
from actors.simulation.provider import SimulatedTransport as SimulatedTransport
from actors.simulation.provider import paid_more_than_once as paid_more_than_once
from actors.simulation.registry import simulated_registry as simulated_registry
