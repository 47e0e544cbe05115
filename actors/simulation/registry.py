"""A simulated registry, which lists simulated providers at their present prices after a latency, and fails by plan."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from actors.simulation.faults import RegistryOutage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.discovery.discovery import Registry
    from actors.market.listing import Listing
    from actors.simulation.provider import SimulatedProvider
    from runtime.simulation import Simulation


def simulated_registry(
    simulation: Simulation, providers: Sequence[SimulatedProvider], *, latency: float = 0.05
) -> Registry:
    """Return a registry that lists these providers, in their order, after `latency` seconds.

    During a `RegistryOutage` it raises ConnectionError after the same time; if the outage `hangs`, it never answers.
    """
    if not 0 <= latency < math.inf:
        raise ValueError(f"latency must be >= 0 seconds and finite, got {latency}")

    simulation.declare("registry", "registry")

    async def look_up(service: str) -> list[Listing]:
        outages = simulation.active(RegistryOutage)
        if any(outage.hangs for outage in outages):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(latency)
        if outages:
            raise ConnectionError("the registry is down, as the fault plan says")
        return [provider.listing() for provider in providers if service in provider.services]

    return look_up
