"""Finds the providers of a service: asks a registry, caches its answers, and serves old ones while it is down.

The answers of the registry are corrected by what calls have shown in the meantime; see `ProviderWatch`.
"""

from __future__ import annotations

import asyncio
import math
from operator import is_
from typing import TYPE_CHECKING

from actors.discovery.messages import ChangeRegistry, Discover
from actors.discovery.messages import Registry as Registry
from actors.discovery.offers import ANY_PROVIDER as ANY_PROVIDER
from actors.discovery.offers import CachedOffers, Filtering
from actors.discovery.offers import Offers as Offers
from actors.discovery.subscribers import ProviderSubscribers, SubscribeProviders, UnsubscribeProviders
from actors.errors.families import CallFailed, NoProvider, RegistryDown
from actors.market.listing import Listing
from actors.market.market import DiscoveryConfig, Market
from actors.providers.health import ProviderWatch, WatchConfig
from actors.providers.service_health import SLICE, ServiceHealth
from actors.validation import check_config
from runtime import Actor, Backoff, Message, Terminated, handles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runtime import Subscription, Timer

LOOKUP_TIMEOUT = 30.0
"""Seconds that a registry has to answer; after them the look-up is given up, and repeated later."""
MIN_PAUSE = 1.0
"""Seconds after a failed look-up for which the older answer is served; doubled with each failure in a row."""
MAX_PAUSE = 60.0
LOOKUP_BACKOFF = Backoff(initial=MIN_PAUSE, cap=MAX_PAUSE, jitter=0.2)
FORGET_AFTER = 3600.0
"""Seconds after which a service is forgotten that was not asked for, and how often such services are looked for."""
MAX_SERVICES = 1_000
"""The services remembered beside those with subscribers; of more, those asked for longest ago are forgotten."""
JITTER = 0.1
"""The time to live of each answer varies by this part to both sides, so that not all are looked up at once."""


def registry_of(market: Market) -> Registry:
    """Return the registry that knows the providers of a market."""
    by_service: dict[str, list[Listing]] = {}
    for listing in market.providers:
        for service in listing.provider.services:
            by_service.setdefault(service, []).append(listing)

    async def look_up(service: str) -> Sequence[Listing]:
        return by_service.get(service, ())

    return look_up


def check_listings(listings: Iterable[Listing], names: set[str]) -> None:
    """Add the names of some listings to those before; raises TypeError or ValueError if they are not valid."""
    for one in listings:
        if not isinstance(one, Listing):
            raise TypeError(f"a registry must return Listings, got {one!r:.100}")
        if one.provider.name in names:
            raise ValueError(f"the registry lists {one.provider.name!r} twice; list each provider once")
        names.add(one.provider.name)


class RefreshDue(Message, frozen=True):
    """Sent by discovery to itself when the answer for a service with subscribers has to be refreshed."""

    service: str


class Discovery(Actor[Discover | ChangeRegistry | SubscribeProviders | UnsubscribeProviders | RefreshDue | Terminated]):
    """Caches the offers of each service for about `ttl` seconds; at most one look-up of a service runs at a time.

    An older answer is served once more while it is refreshed in the background. While the registry is down, old answers
    are served, marked stale, and the registry is asked again after pauses that grow. Only for a service that is not
    cached does an asker wait for the registry. A service without subscribers that was not asked for in an hour is
    forgotten, and so is the one asked for longest ago if there are more than 1,000 of them.

    The answers of the registry are corrected by the events of the system since this actor started; a restart begins
    anew.
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
        self.config = DiscoveryConfig() if config is None else config
        check_config("config", self.config, DiscoveryConfig)
        self.watch = ProviderWatch(watch)
        self.jitter = jitter
        self._cache: dict[str, CachedOffers] = {}
        self._failures: dict[str, int] = {}
        """The failed look-ups in a row, by service."""
        self._paused_until: dict[str, float] = {}
        self._refreshing: dict[str, asyncio.Task[CachedOffers]] = {}
        self._superseded: set[asyncio.Task[CachedOffers]] = set()
        """Look-ups in a registry before, whose answers count only for those that wait for them."""
        self._before: dict[str, CachedOffers] = {}
        """What a registry before has answered: until there is another answer, that keeps what was observed."""
        self._subscribers = ProviderSubscribers()
        self._timers: dict[str, Timer] = {}
        self._forget_at = -math.inf
        self._subscriptions: tuple[Subscription, ...] = ()

    def started(self) -> None:
        # This comes last: an instance that could not start is not stopped either.
        self._subscriptions = self.watch.listen(self.context.events, self.context.now)

    async def stopped(self) -> None:
        for subscription in self._subscriptions:
            subscription.cancel()
        for cached in self._cache.values():
            cached.end_lease()
        tasks = (*self._refreshing.values(), *self._superseded)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @handles(Discover)
    def discover(self, message: Discover) -> Offers | asyncio.Future[Offers]:
        """Answer from the cache if possible."""
        service = message.service
        cached, now = self._cache.get(service), self.context.now()
        if cached is not None:
            cached.used_at = now
        if now >= self._forget_at:
            self._forget_unused(now)
        if cached is None:
            return asyncio.create_task(self._first_lookup(message))
        if now >= cached.stale_at and now >= self._paused_until.get(service, now):
            self._refresh(service)
        return self._answer(message, cached, now)

    @handles(ChangeRegistry)
    def change_registry(self, message: ChangeRegistry) -> None:
        """Ask another registry from now on; what was observed is kept."""
        self.config, self.watch.config = message.config, message.watch
        self.watch.forget(message.forgotten)
        if message.registry is self.registry:
            return
        self.registry = message.registry
        self._superseded.update(self._refreshing.values())
        self._before.update(self._cache)
        for service in {*self._cache, *self._refreshing, *self._paused_until}:
            self._forget(service)
        self._refreshing.clear()
        for service in self._subscribers.services():
            self.refresh_if_due(RefreshDue(service))

    @handles(SubscribeProviders)
    def subscribe(self, message: SubscribeProviders) -> None:
        """Send a subscriber the cached providers, or look them up."""
        service = message.service
        self._subscribers.add(service, message.subscriber)
        self.context.watch(message.subscriber)
        cached = self._cache.get(service)
        if cached is not None:
            self._notify(service, cached)
        self.refresh_if_due(RefreshDue(service))

    @handles(UnsubscribeProviders)
    def unsubscribe(self, message: UnsubscribeProviders) -> None:
        """Remove a subscriber of one service."""
        if self._subscribers.remove(message.subscriber, message.service):
            self.context.unwatch(message.subscriber)

    @handles(Terminated)
    def forget(self, message: Terminated) -> None:
        """Remove a subscriber that has terminated."""
        self._subscribers.remove(message.ref)

    @handles(RefreshDue)
    def refresh_if_due(self, message: RefreshDue) -> None:
        """Look up a service with subscribers if its answer is old; otherwise set a timer for that."""
        service = message.service
        timer = self._timers.pop(service, None)
        if timer is not None:
            timer.cancel()
        if service not in self._subscribers or service in self._refreshing:
            return  # It has no subscribers; or a look-up runs, whose end calls this again.
        now, cached = self.context.now(), self._cache.get(service)
        due = max(self._paused_until.get(service, now), now if cached is None else cached.stale_at)
        if due > now:
            self._timers[service] = self.context.timers.once(due - now, RefreshDue(service))
        else:
            self._refresh(service)

    async def _first_lookup(self, message: Discover) -> Offers:
        try:
            # Shielded, because an asker that gives up must not cancel the look-up of the others.
            found = await asyncio.shield(self._refresh(message.service))
        except Exception as error:
            wait = error.retry_after if isinstance(error, CallFailed) else None
            raise RegistryDown(message.service, f"{type(error).__name__}: {error}", retry_after=wait) from error
        answer = self._answer(message, found, self.context.now())
        return answer if isinstance(answer, Offers) else await answer

    def _answer(self, message: Discover, cached: CachedOffers, now: float) -> Offers | asyncio.Future[Offers]:
        """Answer from the cache; with the same object while nothing has changed."""
        if cached.is_due(now):
            cached.renew(now)
        where, healthy_only = message.where, message.healthy_only
        if not healthy_only and (where is ANY_PROVIDER or where == ANY_PROVIDER):
            return self._found(message, cached, cached.unfiltered)
        found = cached.view(where, healthy_only=healthy_only)
        if found is None:
            filtering = Filtering(cached.offers, where, healthy_only=healthy_only)
            if filtering.look_at(SLICE):
                return asyncio.create_task(self._filter_on(message, cached, filtering))
            found = cached.filtered(where, filtering, healthy_only=healthy_only)
        return self._found(message, cached, found)

    async def _filter_on(self, message: Discover, cached: CachedOffers, filtering: Filtering) -> Offers:
        """Look at the offers that are left, a slice at a time."""
        is_left = True
        while is_left:
            await asyncio.sleep(0)
            is_left = filtering.look_at(SLICE)
        found = cached.filtered(message.where, filtering, healthy_only=message.healthy_only)
        return self._found(message, cached, found)

    def _found(self, message: Discover, cached: CachedOffers, found: Offers) -> Offers:
        if not found.listings:
            raise NoProvider(message.service, offered=len(cached.listings), dropped=found.dropped)
        return found

    def _refresh(self, service: str) -> asyncio.Task[CachedOffers]:
        task = self._refreshing.get(service)
        if task is None:
            task = self._refreshing[service] = asyncio.create_task(self._look_up(service))
            task.add_done_callback(lambda done: self._lookup_done(service, done))
        return task

    async def _look_up(self, service: str) -> CachedOffers:
        """Ask the registry, and prepare its answer a slice at a time; nothing of it is shown before it is complete."""
        async with asyncio.timeout(LOOKUP_TIMEOUT):
            listings, before = tuple(await self.registry(service)), self._cache.get(service)
        if before is not None and len(listings) == len(before.listings) and all(map(is_, listings, before.listings)):
            return before
        names: set[str] = set()
        health = ServiceHealth(self.watch)
        for begin in range(0, len(listings), SLICE):
            if begin:
                await asyncio.sleep(0)
            some = listings[begin : begin + SLICE]
            check_listings(some, names)
            health.add((one.provider for one in some), self.context.now())
        return CachedOffers(listings, health, stale_at=self.context.now())

    def _lookup_done(self, service: str, task: asyncio.Task[CachedOffers]) -> None:
        if task in self._superseded:
            self._superseded.discard(task)
            if not task.cancelled():
                task.exception()  # Those that wait for it are told; if none does, it is seen here.
            return
        self._refreshing.pop(service, None)
        if task.cancelled():
            return
        error, now, random = task.exception(), self.context.now(), self.context.random.random()
        if error is None:
            self._failures.pop(service, None)
            until = now + self.config.ttl * (1 + self.jitter * (2 * random - 1))
            self._store(service, task.result(), now=now, until=until)
        else:
            self.context.log.warning("the registry could not list the providers of {!r}: {}", service, error)
            if service in self._cache or service in self._subscribers:
                failures = self._failures[service] = self._failures.get(service, 0) + 1
                self._paused_until[service] = now + LOOKUP_BACKOFF.delay(failures, random=random)
        if service in self._subscribers:
            self.refresh_if_due(RefreshDue(service))

    def _store(self, service: str, cached: CachedOffers, *, now: float, until: float) -> None:
        """Cache an answer of the registry, and notify the subscribers."""
        self._paused_until.pop(service, None)
        self._before.pop(service, None)
        before, cached.stale_at = self._cache.get(service), until
        if before is not None and before is not cached:
            before.end_lease()
        if cached.listings:
            cached.used_at = now if before is None else before.used_at
            self._cache[service] = cached
            if len(self._cache) > MAX_SERVICES:
                self._forget_longest_unused()
        else:
            # An empty answer is not cached, so that the next asker finds the first provider at once. For subscribers
            # alone, it is looked up again only after the usual time to live.
            self._cache.pop(service, None)
            if service in self._subscribers:
                self._paused_until[service] = until
        self._notify(service, cached)

    def _forget_unused(self, now: float) -> None:
        """Let go of the services that were not asked for in the last hour and have no subscribers."""
        self._forget_at, since = now + FORGET_AFTER, now - FORGET_AFTER
        self._before = {one: cached for one, cached in self._before.items() if cached.used_at > since}
        for service, cached in tuple(self._cache.items()):
            if cached.used_at <= since and service not in self._subscribers:
                self._forget(service)
        for service in [*self._paused_until]:
            if service not in self._cache and service not in self._subscribers:
                self._forget(service)

    def _forget_longest_unused(self) -> None:
        unused = [name for name in self._cache if name not in self._subscribers]
        if len(unused) > MAX_SERVICES:
            self._forget(min(unused, key=lambda name: self._cache[name].used_at))

    def _forget(self, service: str) -> None:
        if (cached := self._cache.pop(service, None)) is not None:
            cached.end_lease()
        self._failures.pop(service, None)
        self._paused_until.pop(service, None)

    def _notify(self, service: str, cached: CachedOffers) -> None:
        """Send the subscribers the providers of a service, as declared."""
        if service not in self._subscribers:
            return
        for ref in self._subscribers.notify(service, tuple(cached.health.declared)):
            self.context.log.warning("{} is too busy to receive the new providers of {!r}", ref.path, service)

    def broken_invariants(self) -> Iterator[str]:
        for service in self._refreshing:
            yield f"the look-up of {service!r} never ended"

    def __repr__(self) -> str:
        return f"<Discovery {len(self._cache)} services cached, {len(self._refreshing)} being refreshed>"
