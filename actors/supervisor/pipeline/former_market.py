"""A market that another one has replaced, for the requests that began under it and have not found a provider yet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.discovery.offers import Filtering, Offers
from actors.errors.families import NoProvider
from actors.providers.service_health import SLICE
from actors.supervisor.targets.candidates import Candidates, fitting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.discovery.discovery import Registry
    from actors.providers.requirement import Requirement
    from actors.supervisor.messages import SmartRequest
    from actors.supervisor.targets.target import Target


class FormerMarket:
    """What a market offered when it was replaced, and its targets. Of the health of its providers nothing is said.

    Discovery may know another market by now, and the targets of the market in force must not take on old listings.
    """

    def __init__(self, registry: Registry, targets: Mapping[str, Target]) -> None:
        self._registry = registry
        self._targets = targets

    async def find(self, message: SmartRequest) -> Offers:
        """Return its providers that offer the service and pass the filter; raise `NoProvider` if none does."""
        listings = tuple(await self._registry(message.service))
        providers = tuple(one.provider for one in listings)
        offers = Offers(listings=listings, providers=providers, dropped={}, observed={}, unhealthy={})
        filtering = Filtering(offers, message.where, healthy_only=False)
        is_left = filtering.look_at(SLICE)
        while is_left:
            await asyncio.sleep(0)
            is_left = filtering.look_at(SLICE)
        found = filtering.result()
        if not found.listings:
            raise NoProvider(message.service, offered=len(listings), dropped=found.dropped)
        return found

    def candidates(self, offers: Offers, requirement: Requirement, *, service: str) -> Candidates:
        """Return its targets that may serve a request; raise `NoProvider` if none of them can take its input."""
        return Candidates(offers, fitting(offers, requirement, service), self._targets)

    def __repr__(self) -> str:
        return f"<FormerMarket of {len(self._targets)} providers>"
