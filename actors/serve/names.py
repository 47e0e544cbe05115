"""What a client may call a model: an alias, a service, a model's own name, or a word such as `cheapest`. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.market.model_listing import CHAT
from actors.providers.provider import Predicate, Provider, ProviderFilter
from actors.providers.selection import SelectionStrategy, check_strategy
from actors.serve.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actors.market.market import Market

WORDS: Mapping[str, SelectionStrategy | None] = {"auto": None, "cheapest": "cheapest", "fastest": "fastest"}
"""Words that stand for any model of a service, and the strategy that each means."""
NEAR_NAMES = 3
ANY = ProviderFilter()
Allowed: TypeAlias = frozenset[str] | None
"""The models that may be called, by any of their names; None is all."""


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name of your own for what providers offer: those of `service` that pass `where` and serve one of `models`.

    Without a `service`, it is that of the models, or else of the endpoint that is asked. `strategy` ranks the
    providers; None leaves that to the door.
    """

    service: str | None = None
    models: tuple[str, ...] = ()
    where: ProviderFilter = ANY
    strategy: SelectionStrategy | None = None

    def __post_init__(self) -> None:
        if self.strategy is not None:
            check_strategy(self.strategy)


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for: the service that is asked for, of which providers, and by which strategy."""

    service: str
    where: ProviderFilter = ANY
    strategy: SelectionStrategy | None = None


class UnusableName(ValueError):
    """A name of a market has two meanings, or an alias stands for nothing; `name` is the alias, service or model."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name


class Names:
    """All names of a market. Raises `UnusableName` if one has two meanings, or an alias names what is not offered."""

    def __init__(self, providers: Iterable[Provider], aliases: Mapping[str, Alias] | None = None) -> None:
        self._providers = tuple(providers)
        self._aliases = dict(aliases or {})
        self._services = frozenset[str]().union(*(one.services for one in self._providers))
        self._models = {one.model for one in self._providers if one.model}
        self._made: dict[tuple[str, str, Allowed], Named] = {}
        self._check()

    def _check(self) -> None:
        for name in (*self._services, *self._aliases):
            if name in WORDS:
                problem = f"the name {name!r} stands for any model; give the alias or service another name"
                raise UnusableName(name, problem)
        for name, alias in self._aliases.items():
            if name in self._services:
                problem = f"the name {name!r} is an alias and a service or model too; give the alias another"
                raise UnusableName(name, problem)
            for one in (*alias.models, *(() if alias.service is None else (alias.service,))):
                if one not in self._services:
                    problem = f"alias {name!r} names {one!r}, which no provider offers{self._hint(one)}"
                    raise UnusableName(name, problem)
        for name in self._models:
            others = [one for one in self._providers if name in one.services and one.model != name]
            if others:
                problem = (
                    f"{name!r} is a model, and a service of {others[0].name!r}, which serves another model; give the "
                    "service another name, or, if both are the same model, state known_as"
                )
                raise UnusableName(name, problem)

    def resolve(self, name: str, *, service: str = CHAT, allowed: Allowed = None) -> Named:
        """Return what is meant by a name at an endpoint whose own service is `service`.

        Raises `Problem`, 404 `model_not_found`, for a name that is unknown, or stands for no model that is allowed.
        """
        key = (name, service, allowed)
        if (found := self._made.get(key)) is None:
            found = self._meant(name, service)
            if found is None or not any(self._serves(one, found, allowed) for one in self._providers):
                raise self._unknown(name, allowed)
            if allowed is not None:
                found = msgspec.structs.replace(found, where=_only(found.where, _is_allowed(allowed)))
            self._made[key] = found  # Bounded: only names that are there come so far.
        return found

    def is_of_models(self, service: str) -> bool:
        """Tell whether any provider of a service is a model."""
        return any(one.model and service in one.services for one in self._providers)

    def _meant(self, name: str, service: str) -> Named | None:
        if (alias := self._aliases.get(name)) is not None:
            return self._of_alias(alias, service)
        if name in self._services:
            return Named(service=name)
        return Named(service=service, strategy=WORDS[name]) if name in WORDS else None

    def _of_alias(self, alias: Alias, service: str) -> Named:
        where = _only(alias.where, _serves_any(frozenset(alias.models))) if alias.models else alias.where
        chosen = alias.service or (alias.models[0] if len(alias.models) == 1 else service)
        return Named(service=chosen, where=where, strategy=alias.strategy)

    @staticmethod
    def _serves(provider: Provider, named: Named, allowed: Allowed) -> bool:
        return (
            named.service in provider.services
            and (allowed is None or _is_allowed(allowed)(provider))
            and (named.where.predicate is None or named.where.predicate(provider))
        )

    def listed(self, allowed: Allowed = None) -> list[str]:
        """Return every name that a client may use, aliases and words first."""
        names = [*self._aliases, *WORDS, *sorted(self._models or self._services)]
        return [name for name in names if self._is_usable(name, allowed)]

    def _is_usable(self, name: str, allowed: Allowed) -> bool:
        named = self._meant(name, CHAT)
        return named is not None and any(self._serves(one, named, allowed) for one in self._providers)

    def _unknown(self, name: str, allowed: Allowed) -> Problem:
        hint = self._hint(name, self.listed(allowed))
        message = f"there is no model {name!r:.100} here{hint}"
        return Problem(404, message, code="model_not_found", param="model", should_retry=False)

    def _hint(self, name: str, known: Sequence[str] | None = None) -> str:
        known = sorted(self._services) if known is None else known
        near = difflib.get_close_matches(name, known, n=NEAR_NAMES, cutoff=0.5)
        return f"; near it are {', '.join(near)}" if near else f"; there are {', '.join(known[:10])}" if known else ""


def names_of(market: Market, aliases: Mapping[str, Alias]) -> Names:
    """Return what clients of a door may ask for. Raises as `Names` does."""
    return Names((listing.provider for listing in market.providers), aliases)


def _only(where: ProviderFilter, and_also: Predicate) -> ProviderFilter:
    """Return a filter that asks one thing more."""
    before = where.predicate

    def both(provider: Provider) -> bool:
        return and_also(provider) and (before is None or before(provider))

    return msgspec.structs.replace(where, predicate=both)


def _is_allowed(allowed: frozenset[str]) -> Callable[[Provider], bool]:
    def passes(provider: Provider) -> bool:
        names = {provider.model, provider.name} if provider.model else {provider.name, *provider.services}
        return not allowed.isdisjoint(names)

    return passes


def _serves_any(models: frozenset[str]) -> Callable[[Provider], bool]:
    return lambda provider: not models.isdisjoint(provider.services)
