"""Who offers a service: asked of a registry, remembered for a while, and served stale while the registry is down.

What the registry says is corrected by what calls have shown meanwhile; see `ProviderWatch`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from actors.discovery.found import EVERYONE as EVERYONE
from actors.discovery.found import CachedOffers
from actors.discovery.found import Offers as Offers
from actors.discovery.messages import Discover
from actors.discovery.subscribers import ProviderSubscribers, SubscribeProviders, UnsubscribeProviders
from actors.errors.families import CallFailed, NoProvider, RegistryDown
from actors.market.listing import Listing
from actors.market.market import DiscoveryConfig, Market
from actors.providers.health import ProviderWatch, WatchConfig
from runtime import Actor, Backoff, Message, Terminated, handles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.providers.provider import Provider
    from runtime import Subscription, Timer

Registry: TypeAlias = Callable[[str], Awaitable[Sequence[Listing]]]
"""Whoever knows the providers of a service; any exception means that it is down."""

MAX_LOOK_UP = 30.0
"""Seconds that a registry has to answer; one that hangs is given up, and asked again."""
PAUSE = 1.0
"""Seconds to leave a registry alone that failed, while there is an older answer to serve; doubled each time."""
MAX_PAUSE = 60.0
LOOK_UP_AGAIN = Backoff(initial=PAUSE, cap=MAX_PAUSE, jitter=0.2)
JITTER = 0.1
"""The time to live of each answer is spread so far to both sides, so that not all are looked up at once."""


def registry_of(market: Market) -> Registry:
    """Return the registry that knows the providers of a market."""

    async def look_up(service: str) -> Sequence[Listing]:
        return [listing for listing in market.providers if service in listing.provider.services]

    return look_up


def checked(found: Sequence[Listing]) -> tuple[Listing, ...]:
    """Return what a registry answered; raise for what it cannot have meant."""
    names: set[str] = set()
    found = tuple(found)
    for one in found:
        if not isinstance(one, Listing):
            raise TypeError(f"a registry answers with Listings, got {one!r:.100}")
        if one.provider.name in names:
            raise ValueError(f"the registry lists {one.provider.name!r} twice; names must differ")
        names.add(one.provider.name)
    return found


class RefreshDue(Message, frozen=True):
    """Discovery reminds itself of a service that has subscribers."""

    service: str


class Discovery(Actor[Discover | SubscribeProviders | UnsubscribeProviders | RefreshDue | Terminated]):
    """Remembers for about `ttl` seconds who offers what, and refreshes with at most one look-up a service in flight.

    What is older is served once more while a refresh runs behind it; while the registry is down it is served on,
    marked stale, and the registry asked again after pauses that grow. Only a service that was never found makes its
    askers wait for the registry.

    It corrects what the registry says by the events of its system, from its start on; a restart begins anew.
    """

    def __init__(
        self,
        registry: Registry,
        config: DiscoveryConfig | None = None,
        *,
        watch: WatchConfig | None = None,
        jitter: float = JITTER,
    ) -> None:
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be from 0 to below 1, got {jitter}")
        self.registry = registry
        self.config = config or DiscoveryConfig()
        self.watch = ProviderWatch(watch)
        self.jitter = jitter
        self._known: dict[str, CachedOffers] = {}
        self._failures: dict[str, int] = {}
        """The look-ups of a service that failed in a row."""
        self._paused_until: dict[str, float] = {}
        self._refreshing: dict[str, asyncio.Task[tuple[Listing, ...]]] = {}
        self._subscribers = ProviderSubscribers()
        self._timers: dict[str, Timer] = {}
        self._subscriptions: tuple[Subscription, ...] = ()

    def started(self) -> None:
        # Last, for an instance that could not start is not stopped either.
        self._subscriptions = self.watch.listen(self.context.events, self.context.now)

    async def stopped(self) -> None:
        for subscription in self._subscriptions:
            subscription.cancel()
        for task in self._refreshing.values():
            task.cancel()
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    @handles(Discover)
    def discover(self, message: Discover) -> Offers | asyncio.Future[Offers]:
        """Answer from memory if possible."""
        service = message.service
        known, now = self._known.get(service), self.context.now()
        if known is None:
            return asyncio.create_task(self._find_out(message))
        if now >= known.stale_at and now >= self._paused_until.get(service, now):
            self._refresh(service)
        return self._found(message, known, now)

    @handles(SubscribeProviders)
    def subscribe(self, message: SubscribeProviders) -> None:
        """Tell a subscriber what is known, or find it out."""
        service = message.service
        self._subscribers.add(service, message.subscriber)
        self.context.watch(message.subscriber)
        known = self._known.get(service)
        if known is not None:
            self._tell(service, known.providers)
        self.refresh_if_due(RefreshDue(service))

    @handles(UnsubscribeProviders)
    def unsubscribe(self, message: UnsubscribeProviders) -> None:
        """Forget a subscriber of one service."""
        if self._subscribers.remove(message.subscriber, message.service):
            self.context.unwatch(message.subscriber)

    @handles(Terminated)
    def forget(self, message: Terminated) -> None:
        """Forget a subscriber that has ended."""
        self._subscribers.remove(message.ref)

    @handles(RefreshDue)
    def refresh_if_due(self, message: RefreshDue) -> None:
        """Look up a service that has subscribers when its time is up, or else wait for it."""
        service = message.service
        timer = self._timers.pop(service, None)
        if timer is not None:
            timer.cancel()
        if service not in self._subscribers or service in self._refreshing:
            return  # Nobody wants to know, or the end of the look-up leads back to here.
        now, known = self.context.now(), self._known.get(service)
        due = max(self._paused_until.get(service, now), now if known is None else known.stale_at)
        if due > now:
            self._timers[service] = self.context.timers.once(due - now, RefreshDue(service))
        else:
            self._refresh(service)

    async def _find_out(self, message: Discover) -> Offers:
        try:
            # Shielded, because an asker that gives up must not take the answer from the others.
            listings = await asyncio.shield(self._refresh(message.service))
        except Exception as error:
            wait = error.retry_after if isinstance(error, CallFailed) else None
            raise RegistryDown(message.service, f"{type(error).__name__}: {error}", retry_after=wait) from error
        now = self.context.now()
        return self._found(message, self._known.get(message.service) or CachedOffers(listings, stale_at=now), now)

    def _found(self, message: Discover, known: CachedOffers, now: float) -> Offers:
        """Answer from what is known; the same answer while nothing has changed."""
        if now >= known.good_until or known.changes != self.watch.changes:
            self._renew(known, now)
        where = message.where
        if not message.healthy_only and (where is EVERYONE or where == EVERYONE):
            found = known.everyone
        else:
            found = known.view(where, healthy_only=message.healthy_only)
        if not found.listings:
            raise NoProvider(message.service, offered=len(known.listings), dropped=found.dropped)
        return found

    def _renew(self, known: CachedOffers, now: float) -> None:
        assessment = self.watch.assess(known.providers, now)
        is_stale = now >= known.stale_at
        known.good_until = assessment.until if is_stale else min(assessment.until, known.stale_at)
        known.changes = self.watch.changes
        known.become(
            Offers(
                listings=known.listings,
                providers=assessment.providers,
                dropped={},
                observed=assessment.observed,
                unhealthy=assessment.unhealthy,
                panic=assessment.panic,
                stale=is_stale,
            )
        )

    def _refresh(self, service: str) -> asyncio.Task[tuple[Listing, ...]]:
        task = self._refreshing.get(service)
        if task is None:
            task = self._refreshing[service] = asyncio.create_task(self._look_up(service))
            task.add_done_callback(lambda done: self._refreshed(service, done))
        return task

    async def _look_up(self, service: str) -> tuple[Listing, ...]:
        async with asyncio.timeout(MAX_LOOK_UP):
            return checked(await self.registry(service))

    def _refreshed(self, service: str, task: asyncio.Task[tuple[Listing, ...]]) -> None:
        self._refreshing.pop(service, None)
        if task.cancelled():
            return
        error, now, random = task.exception(), self.context.now(), self.context.random.random()
        if error is None:
            self._failures.pop(service, None)
            until = now + self.config.ttl * (1 + self.jitter * (2 * random - 1))
            self._learn(service, task.result(), until)
        else:
            self.context.log.warning("the registry could not be asked who offers {!r}: {}", service, error)
            if service in self._known or service in self._subscribers:
                failures = self._failures[service] = self._failures.get(service, 0) + 1
                self._paused_until[service] = now + LOOK_UP_AGAIN.delay(failures, random=random)
        if service in self._subscribers:
            self.refresh_if_due(RefreshDue(service))

    def _learn(self, service: str, listings: tuple[Listing, ...], until: float) -> None:
        """Take on what the registry says."""
        self._paused_until.pop(service, None)
        known = CachedOffers(listings, stale_at=until)
        if listings:
            self._known[service] = known
        else:
            # That nobody offers it is not remembered, so that the first who does is found at once by whoever asks;
            # subscribers alone do not have it looked up any earlier than others.
            self._known.pop(service, None)
            if service in self._subscribers:
                self._paused_until[service] = until
        self.watch.keep(one.name for other in self._known.values() for one in other.providers)
        self._tell(service, known.providers)

    def _tell(self, service: str, providers: tuple[Provider, ...]) -> None:
        for ref in self._subscribers.tell(service, providers):
            self.context.log.warning("{} is too busy to be told who offers {!r} now", ref.path, service)

    def broken_invariants(self) -> Iterator[str]:
        for service in self._refreshing:
            yield f"the look-up of {service!r} never ended"

    def __repr__(self) -> str:
        return f"<Discovery {len(self._known)} services known, {len(self._refreshing)} being refreshed>"
