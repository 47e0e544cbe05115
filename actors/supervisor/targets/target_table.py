"""Every provider that is listed, or was lately, by name, and the candidates for the requests that ask alike."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from actors.discovery.offers import ANY_PROVIDER
from actors.errors.families import Permanent
from actors.policies.breaker.transitions import share
from actors.providers.requirement import NO_REQUIREMENT
from actors.supervisor.messages import MarketChange
from actors.supervisor.targets.candidates import MAX_REMEMBERED, Candidates, fitting
from actors.supervisor.targets.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from actors.discovery.offers import Offers
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.providers.provider import ProviderFilter
    from actors.providers.requirement import Requirement
    from actors.supervisor.targets.target import TargetDeps

Question: TypeAlias = "str | tuple[str, ProviderFilter]"
"""What discovery was asked: a service, and a filter unless any provider passes."""

FORGET_AFTER = 3600.0
"""Seconds after which a provider is forgotten that no request has found any more, and how often they are looked for."""


class TargetTable:
    """The targets of one supervisor."""

    def __init__(
        self,
        deps: TargetDeps,
        *,
        isolated: Collection[str] = (),
        needed: Callable[[], Iterable[str]] = tuple,
        on_relisted: Callable[[Listing], None] = lambda _: None,
    ) -> None:
        self.by_name: dict[str, Target] = {one.provider.name: Target(one, deps) for one in deps.market.providers}
        self._deps = deps
        self._isolated = isolated
        """The providers that were isolated by hand, whatever has become of their breakers since."""
        self._needed = needed
        """Names the providers that are asked about calls whose outcome is unknown."""
        self._on_relisted = on_relisted
        """Told what discovery lists of a provider by now."""
        self._candidates: dict[Question, Candidates] = {}
        """By what was asked; what an older answer listed lives on only with the requests that chose from it."""
        self._remembered = 0
        """The listings in all of these."""
        self._former: dict[str, WeakSet[Target]] = {}
        """By name, those that were removed or forgotten, and that requests under way may still call."""
        self._successors = 0
        """Counts the targets that came after another of the same name."""
        self._listed_by_market = frozenset(self.by_name)
        self._forget_at = deps.context.now() + FORGET_AFTER
        for target in self.by_name.values():
            self._isolate_again(target)

    def switch(self, before: Market, *, is_whole: bool) -> MarketChange:
        """Take on the providers of the market that is in force now, in the place of those of the market `before`.

        Requests under way keep the targets that they have found. Without `is_whole` there may be other providers.
        """
        market, targets = self._deps.market, self.by_name
        by_name: dict[str, Target] = {}
        added: list[str] = []
        moved: list[str] = []
        for listing in market.providers:
            name = listing.provider.name
            target = targets.get(name)
            if target is None:
                by_name[name] = self._new_target(listing)
                added.append(name)
            elif target.listing.provider.address == listing.provider.address:
                target.go_by(listing, before)
                by_name[name] = target
            else:
                self._keep_former(target)
                by_name[name] = self._new_target(listing)
                moved.append(name)
        if not is_whole:
            for name, target in targets.items():
                if name not in by_name:
                    by_name[name] = target
                    target.go_by(target.listing, before)
        for name, target in targets.items():
            if by_name.get(name) is not target:
                target.remove()
                self._keep_former(target)
        # Another object: the candidates of requests under way have been made of the one before.
        self.by_name = by_name
        self._candidates.clear()
        self._remembered = 0
        self._listed_by_market = frozenset(one.provider.name for one in market.providers)
        for name in (*added, *moved):
            self._isolate_again(by_name[name])
        return MarketChange(
            added=tuple(added),
            removed=tuple(name for name in targets if name not in by_name),
            moved=tuple(moved),
            kept=tuple(name for name in by_name if name in targets and name not in moved),
        )

    def named(self, name: str) -> Target:
        """Return one target; raise `Permanent` if there is no provider of that name."""
        target = self.by_name.get(name)
        if target is None:
            raise Permanent(f"there is no provider {name!r}; there are {', '.join(sorted(self.by_name))}")
        return target

    def candidates(
        self, offers: Offers, requirement: Requirement, *, service: str, where: ProviderFilter, now: float
    ) -> Candidates:
        """Return the targets that may serve a request; raise `NoProvider` if none of them can take its input."""
        if now >= self._forget_at:
            self._forget(now)
        key: Question = service if where is ANY_PROVIDER else (service, where)
        known = self._candidates.get(key)
        if known is None or known.offers.listings is not offers.listings:
            known = self._made(offers)
            if where.predicate is None:  # A function may be another one for each request.
                self._remember(key, known)
        elif known.offers is not offers:
            known.renew(offers)
        known.used_at = now
        if requirement is NO_REQUIREMENT:
            return known
        return Candidates(offers, fitting(offers, requirement, service), self.by_name)

    def _made(self, offers: Offers) -> Candidates:
        for listing in offers.listings:
            self._list(listing)
        return Candidates(offers, offers.listings, self.by_name)

    def _remember(self, key: Question, candidates: Candidates) -> None:
        """Remember candidates in place of those found before, and let go of the oldest if they are too many."""
        self._let_go(key)
        self._candidates[key] = candidates
        self._remembered += len(candidates.listings)
        while self._remembered > MAX_REMEMBERED and len(self._candidates) > 1:
            self._let_go(next(iter(self._candidates)))

    def _let_go(self, key: Question) -> None:
        before = self._candidates.pop(key, None)
        if before is not None:
            self._remembered -= len(before.listings)

    @property
    def has_slow_starts(self) -> bool:
        """Whether a provider may have just come back."""
        return bool(self._deps.coming_back)

    def held_back_by_slow_start(self, candidates: Candidates) -> Iterator[str]:
        """Name the providers that have just come back, and whose part of the load this request is not in."""
        context, config, coming_back = self._deps.context, self._deps.market.breaker, self._deps.coming_back
        for name, target in tuple(coming_back.items()):
            part = share(target.state.breaker, context.now(), config)
            if part == 1:
                del coming_back[name]
            elif candidates.targets.get(name) is target and context.random.random() >= part:
                yield name

    def _list(self, listing: Listing) -> None:
        """Take on a listing, which may be new or say something new."""
        name = listing.provider.name
        target = self.by_name.get(name)
        if target is None:
            target = self.by_name[name] = self._new_target(listing)
            self._isolate_again(target)
        elif listing is not target.listing:
            target.relist(listing)
            self._on_relisted(listing)
        target.used_at = self._deps.context.now()

    def _new_target(self, listing: Listing) -> Target:
        """Make a target; requests that wait for a former one of its name keep that one's wait queue for themselves."""
        name = listing.provider.name
        if not self._former.get(name):
            return Target(listing, self._deps)
        self._successors += 1
        return Target(listing, self._deps, queue=("provider", f"{name} #{self._successors}"))

    def _keep_former(self, target: Target) -> None:
        self._former.setdefault(target.name, WeakSet()).add(target)

    def _forget(self, now: float) -> None:
        """Let go of the providers that no request has found for long: of their gateways, breakers and figures."""
        self._forget_at, since = now + FORGET_AFTER, now - FORGET_AFTER
        for key in [key for key, one in self._candidates.items() if one.used_at <= since]:
            self._let_go(key)
        kept = {name for one in self._candidates.values() for name in one.listings} | self._listed_by_market
        kept.update(self._needed(), self._isolated)
        for name, target in tuple(self.by_name.items()):
            if name in kept or target.used_at > since or target.state.under_way:
                continue
            target.forget()
            self._keep_former(target)
            del self.by_name[name]
        self._former = {name: targets for name, targets in self._former.items() if targets}

    def _isolate_again(self, target: Target) -> None:
        if target.name in self._isolated:
            target.isolate_quietly()

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold of a provider although no call is under way."""
        for target in chain(self.by_name.values(), *self._former.values()):
            yield from target.broken_invariants()

    def __repr__(self) -> str:
        return f"<TargetTable {', '.join(map(repr, self.by_name.values()))}>"
