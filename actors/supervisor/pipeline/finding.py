"""Which providers offer what requests ask for: discovery is asked, and not again while its answer holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.discovery.messages import Discover
from actors.errors.families import CallFailed, RegistryDown
from runtime import RuntimeFault

if TYPE_CHECKING:
    from actors.discovery.offers import Offers
    from actors.providers.provider import ProviderFilter
    from actors.supervisor.messages import SmartRequest
    from actors.supervisor.pipeline.former_market import FormerMarket
    from actors.supervisor.services import Service

MAX_REMEMBERED = 100
"""The answers that are remembered: one for each service and filter that requests ask by."""


class Finder:
    """One supervisor's questions to discovery, with the answers that still hold."""

    def __init__(self, discovery: Service) -> None:
        self._discovery = discovery
        self._asked = discovery.ref
        self._known: dict[tuple[str, ProviderFilter], Offers] = {}
        self.former: FormerMarket | None = None
        """What its requests find, once another market is in force than the one that they began under."""

    def known(self, message: SmartRequest, now: float) -> Offers | None:
        """Return the offers that a request would be answered at `now`; None if discovery has to be asked."""
        if message.where.predicate is not None or self.former is not None:
            return None  # A function may answer otherwise each time; and discovery may know another market.
        if self._discovery.ref is not self._asked:
            # Another one has taken its place, which knows nothing of these answers.
            self._asked = self._discovery.ref
            self._known.clear()
        offers = self._known.get((message.service, message.where))
        if offers is None or offers.lease is None or not offers.lease.take(now):
            return None
        return offers

    async def find(self, message: SmartRequest, now: float) -> Offers:
        """Find out which providers offer the service; raises `NoProvider`, or `RegistryDown`."""
        question = Discover(service=message.service, where=message.where)
        while (former := self.former) is None:
            try:
                offers = await self.ask(question, timeout=message.timeout)
            except CallFailed:
                if self.former is None:
                    raise
            else:
                if self.former is None:
                    if offers.lease is not None and message.where.predicate is None:
                        self._remember((message.service, message.where), offers, now)
                    return offers
        return await former.find(message)

    async def ask(self, question: Discover, *, timeout: float) -> Offers:  # noqa: ASYNC109 - see `ActorRef.ask`.
        """Ask discovery; raises as `find` does."""
        try:
            return await self._discovery.ask(question, timeout=timeout)
        except RuntimeFault as error:
            raise RegistryDown(question.service, str(error)) from error

    def _remember(self, key: tuple[str, ProviderFilter], offers: Offers, now: float) -> None:
        """Remember an answer, and no more than are in use."""
        if len(self._known) >= MAX_REMEMBERED and key not in self._known:
            self._known = {one: found for one, found in self._known.items() if found.lease and found.lease.holds(now)}
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
        self._known[key] = offers

    def __repr__(self) -> str:
        return f"<Finder of {self._discovery}, {len(self._known)} answers remembered>"
