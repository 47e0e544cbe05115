"""Who offers a service: asked of a registry, remembered for a while, and served stale while the registry is down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.errors import NoProvider, RegistryDown
from actors.market import DiscoveryConfig, Listing, Market
from actors.provider import ProviderFilter
from runtime import Actor, Request, handles

if TYPE_CHECKING:
    from collections.abc import Iterator

Registry: TypeAlias = Callable[[str], Awaitable[Sequence[Listing]]]
"""Whoever knows the providers of a service; any exception means that it is down."""

EVERYONE = ProviderFilter()
MAX_LOOK_UP = 30.0
"""Seconds that a registry has to answer; one that hangs is given up, and asked again."""
PAUSE = 1.0
"""Seconds to leave a registry alone that failed, while there is an older answer to serve."""


def registry_of(market: Market) -> Registry:
    """Return the registry that knows the providers of a market."""

    async def look_up(service: str) -> Sequence[Listing]:
        return [listing for listing in market.providers if service in listing.provider.services]

    return look_up


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Who offers a service and passes the filter, in the registry's order.

    `dropped` counts the others by reason; `stale` is True where the registry could not be asked again in time.
    """

    listings: tuple[Listing, ...]
    dropped: dict[str, int]
    stale: bool = False


class Discover(Request[Found], frozen=True, kw_only=True):
    """Ask who offers a service; refused with `NoProvider` where nobody who passes the filter does."""

    service: str
    where: ProviderFilter = EVERYONE


class Known(msgspec.Struct, frozen=True):
    """What the registry said about a service, and when in loop time."""

    listings: tuple[Listing, ...]
    at: float


class Discovery(Actor[Discover]):
    """Remembers for `ttl` seconds who offers what, and refreshes with at most one look-up a service in flight.

    What is older is served once more while a refresh runs behind it; while the registry is down it is served on,
    marked stale. Only a service that was never found makes its askers wait for the registry.
    """

    def __init__(self, registry: Registry, config: DiscoveryConfig | None = None) -> None:
        self.registry = registry
        self.config = config or DiscoveryConfig()
        self._known: dict[str, Known] = {}
        self._paused_until: dict[str, float] = {}
        self._refreshing: dict[str, asyncio.Task[Known]] = {}

    async def stopped(self) -> None:
        for task in self._refreshing.values():
            task.cancel()
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    @handles(Discover)
    def discover(self, message: Discover) -> Found | asyncio.Future[Found]:
        """Answer from memory if possible."""
        known, now = self._known.get(message.service), self.context.now()
        if known is None:
            return asyncio.create_task(self._find_out(message))
        is_stale = now - known.at >= self.config.ttl
        if is_stale and now >= self._paused_until.get(message.service, now):
            self._refresh(message.service)
        return self._found(message, known, is_stale=is_stale)

    async def _find_out(self, message: Discover) -> Found:
        try:
            # Shielded, because an asker that gives up must not take the answer from the others.
            known = await asyncio.shield(self._refresh(message.service))
        except Exception as error:
            raise RegistryDown(message.service, f"{type(error).__name__}: {error}") from error
        return self._found(message, known, is_stale=False)

    def _found(self, message: Discover, known: Known, *, is_stale: bool) -> Found:
        kept, dropped = message.where.select([listing.provider for listing in known.listings])
        if not kept:
            raise NoProvider(message.service, offered=len(known.listings), dropped=dropped)
        if not dropped:
            return Found(listings=known.listings, dropped=dropped, stale=is_stale)
        names = {provider.name for provider in kept}
        listings = tuple(listing for listing in known.listings if listing.provider.name in names)
        return Found(listings=listings, dropped=dropped, stale=is_stale)

    def _refresh(self, service: str) -> asyncio.Task[Known]:
        task = self._refreshing.get(service)
        if task is None:
            task = self._refreshing[service] = asyncio.create_task(self._look_up(service))
            task.add_done_callback(lambda done: self._refreshed(service, done))
        return task

    async def _look_up(self, service: str) -> Known:
        async with asyncio.timeout(MAX_LOOK_UP):
            return Known(tuple(await self.registry(service)), self.context.now())

    def _refreshed(self, service: str, task: asyncio.Task[Known]) -> None:
        self._refreshing.pop(service, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._known.pop(service, None)
            self._paused_until.pop(service, None)
            if task.result().listings:
                # That nobody offers it is not remembered, so that the first who does is found at once.
                self._known[service] = task.result()
        else:
            self._paused_until[service] = self.context.now() + PAUSE
            self.context.log.warning("the registry could not be asked who offers {!r}: {}", service, error)

    def broken_invariants(self) -> Iterator[str]:
        for service in self._refreshing:
            yield f"the look-up of {service!r} never ended"

    def __repr__(self) -> str:
        return f"<Discovery {len(self._known)} services known, {len(self._refreshing)} being refreshed>"
