"""The providers of a supervisor, and their breakers as supervision: who is isolated, and what starts and stops.

A provider whose breaker opens is isolated: its gateway is stopped. When its wait is over, a fresh one is started for
exactly one probe.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import Permanent
from actors.events import BreakerClosed, BreakerOpened
from actors.policies.breaker.circuit_breaker import Closed, HalfOpen, Open, isolate, share
from actors.providers.requirement import NO_REQUIREMENT
from actors.supervisor.targets.admission import queue_of
from actors.supervisor.targets.candidates import MAX_REMEMBERED, Candidates, fitting
from actors.supervisor.targets.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from actors.discovery.found import Offers
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.policies.breaker.circuit_breaker import BreakerState
    from actors.providers.requirement import Requirement
    from actors.supervisor.payments.held_call import HeldCall
    from actors.supervisor.targets.gateways import Gateways
    from actors.supervisor.targets.waiting import WaitQueues
    from runtime import Context


FORGET_AFTER = 3600.0
"""Seconds after which a provider is forgotten that no request has found any more, and how often they are looked for."""


class TargetTable:
    """Every provider that is listed, or was lately, by name, and what becomes of it."""

    def __init__(
        self,
        by_name: dict[str, Target],
        market: Market,
        context: Context,
        gateways: Gateways,
        lines: WaitQueues,
        *,
        isolated: Collection[str] = (),
        held: Callable[[], Iterable[HeldCall]] = tuple,
    ) -> None:
        self.by_name = by_name
        self._isolated = isolated
        """Those whom somebody has isolated by hand, whatever has become of their breakers since."""
        for target in by_name.values():
            self._isolate_again(target)
        self._held = held
        """The calls that are still to be found out about, for which gateways are needed."""
        self._breaker = market.breaker
        self._retries = market.retry_budget
        self._context = context
        self._gateways = gateways
        self._lines = lines
        self._remembered: dict[int, Candidates] = {}
        """By the identity of what was found, which each of them keeps alive."""
        self._always = frozenset(by_name)
        """Those whom the market itself lists."""
        self._look_at = context.now() + FORGET_AFTER

    def named(self, name: str) -> Target:
        """Return one provider; raise `Permanent` where there is none of that name."""
        target = self.by_name.get(name)
        if target is None:
            raise Permanent(f"there is no provider {name!r}; there are {', '.join(sorted(self.by_name))}")
        return target

    def candidates(self, found: Offers, requirement: Requirement, service: str) -> Candidates:
        """Return who may serve a request; raise `NoProvider` where nobody of those found can take its input."""
        now = self._context.now()
        if now >= self._look_at:
            self._forget(now)
        known = self._remembered.get(id(found))
        if known is None:
            for listing in found.listings:
                self._list(listing)
            known = Candidates(found, found.listings, self.by_name)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[id(found)] = known
        known.used_at = now
        if requirement is NO_REQUIREMENT:
            return known
        return Candidates(found, fitting(found, requirement, service), self.by_name)

    def eased_in(self, candidates: Candidates) -> Iterator[str]:
        """Name the providers that have just come back, and whose part of the requests this one is not of."""
        for name, target in candidates.targets.items():
            state = target.state.breaker
            if not isinstance(state, Closed) or state.since is None:
                continue
            part = share(state, self._context.now(), self._breaker)
            if part < 1 and self._context.random.random() >= part:
                yield name

    def become(self, target: Target, breaker: BreakerState) -> None:
        """Take on the next state of a breaker, and start or stop what goes with it."""
        before = target.state.breaker
        target.state = msgspec.structs.replace(target.state, breaker=breaker)
        if type(breaker) is type(before):
            return
        events, now = self._context.events, self._context.now()
        if isinstance(breaker, Closed):
            events.publish(BreakerClosed(provider=target.name))
            self._lines.wake(queue_of(target.name))
        elif not isinstance(breaker, HalfOpen):
            # It finishes the calls under way; their results no longer move the breaker.
            self._gateways.close(target)
            wait = breaker.until - now if isinstance(breaker, Open) else math.inf
            if wait > 0:  # A probe that was cancelled proved nothing, and is no trip.
                target.trips += isinstance(breaker, Open)
                events.publish(BreakerOpened(provider=target.name, wait=wait))
                self._lines.wake_all(queue_of(target.name))

    def _list(self, listing: Listing) -> None:
        """Take on a listing, which may be new or say something new."""
        name = listing.provider.name
        target = self.by_name.get(name)
        if target is None:
            target = self.by_name[name] = Target(listing, retries=self._retries)
            self._isolate_again(target)
        elif listing is not target.listing:
            if listing.max_concurrency != target.listing.max_concurrency:
                self._gateways.close(target)  # It would go on to count by the old one.
            target.relist(listing)
            self._lines.wake(queue_of(name))
        target.used_at = self._context.now()

    def _forget(self, now: float) -> None:
        """Let go of those whom no request has found for long: of their gateways, breakers and figures."""
        self._look_at, since = now + FORGET_AFTER, now - FORGET_AFTER
        self._remembered = {key: one for key, one in self._remembered.items() if one.used_at > since}
        kept = {name for one in self._remembered.values() for name in one.listings} | self._always
        kept |= {one.target.name for one in self._held()}
        for name, target in tuple(self.by_name.items()):
            if name in kept or name in self._isolated or target.used_at > since or target.state.under_way:
                continue
            self._gateways.close(target)
            if not isinstance(target.state.breaker, Closed):
                self._context.events.publish(BreakerClosed(provider=name))  # There is nothing left that it would close.
            del self.by_name[name]

    def _isolate_again(self, target: Target) -> None:
        if target.name in self._isolated:
            target.state = msgspec.structs.replace(target.state, breaker=isolate(target.state.breaker))

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold of a provider although no call is under way."""
        for target in self.by_name.values():
            yield from target.broken_invariants()

    def __repr__(self) -> str:
        return f"<Providers {', '.join(map(repr, self.by_name.values()))}>"
