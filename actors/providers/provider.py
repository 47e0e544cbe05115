"""A provider: its services, price and quality; and a filter, which says why it drops a provider."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.errors.families import Permanent
from actors.masking import HidesSecrets, shown_address
from actors.money import ZERO, AmountField, Micros, OptionalAmountField, amount_default, take_amount
from actors.validation import SaysOptionNames, check_count, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable


NO_PRICES: Mapping[str, Micros] = {}


class Provider(HidesSecrets, msgspec.Struct, frozen=True, kw_only=True):
    """One provider, as discovery knows it; `price` is per call, in dollars as str, int or Decimal.

    `reputation` is from 0 to 100, `response_time` is the expected seconds of a call, `success_rate` is the part of its
    calls that succeed, and `address` is what its gateway needs to reach it. `services` and `capabilities` may be any
    iterable of names, and are kept as frozensets.

    `max_input_tokens` is the longest input that it takes (None: not stated), and `window` the tokens that its model has
    room for, by a list that may be wrong: what is far too long is not sent, and what may be too long goes to others
    first. `model` is the name of the model that it serves, by which the same model is known at other providers too
    ("": none), and `max_inputs` the most inputs of one call for embeddings (None: not stated).
    """

    name: str
    services: AbstractSet[str]
    price: AmountField = amount_default(ZERO)
    reputation: float = 50.0
    response_time: float = 1.0
    success_rate: float = 1.0
    available: bool = True
    capabilities: AbstractSet[str] = frozenset()
    address: str = ""
    max_input_tokens: int | None = None
    model: str = ""
    max_inputs: int | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        check_text("name of a provider", self.name)
        if not self.name:
            raise ValueError("name of a provider must not be empty")
        _freeze(self, "services")
        _freeze(self, "capabilities")
        take_amount(self, "price")
        _check_range("reputation", self.reputation, 100)
        _check_range("success_rate", self.success_rate, 1)
        if not 0 <= self.response_time < math.inf:
            raise ValueError(f"response_time must be >= 0 seconds and finite, got {self.response_time}")
        if self.max_input_tokens is not None:
            check_count("max_input_tokens", self.max_input_tokens, unit="token")
        if self.max_inputs is not None:
            check_count("max_inputs", self.max_inputs, unit="input")
        if self.window is not None:
            check_count("window", self.window, unit="token")
        check_text("model of a provider", self.model)

    def shown_instead(self) -> dict[str, object]:
        return {"address": shown_address(self.address)}


Predicate: TypeAlias = Callable[[Provider], bool]
"""A filter of one's own: True if a provider may be called."""


class ProviderFilter(msgspec.Struct, frozen=True, kw_only=True, metaclass=SaysOptionNames):
    """What a provider must be like to be called; the defaults require only that it is available.

    `max_price` is in dollars as str, int or Decimal: for a call, and with a tariff for one of usual size, which reads
    1,000 tokens and writes 512; what a certain request may cost is bounded by its `budget`. `predicate` is a function
    of your own, asked of the providers that pass all else: it returns True if one may be called. Equal filters are
    equal and hash alike, so that one can be the key of a cache.
    """

    max_price: OptionalAmountField = amount_default(None)
    min_reputation: float = 0.0
    max_response_time: float | None = None
    min_success_rate: float = 0.0
    required_capabilities: AbstractSet[str] = frozenset()
    available_only: bool = True
    predicate: Predicate | None = None

    def __post_init__(self) -> None:
        if self.predicate is not None:
            _check_predicate("predicate", self.predicate)
        if self.max_price is not None:
            take_amount(self, "max_price")
        _freeze(self, "required_capabilities")
        _check_range("min_reputation", self.min_reputation, 100)
        _check_range("min_success_rate", self.min_success_rate, 1)
        if self.max_response_time is not None and not self.max_response_time >= 0:
            raise ValueError(f"max_response_time must be >= 0 seconds, got {self.max_response_time}")

    def matches(self, provider: Provider, *, price: Micros | None = None) -> str | None:
        """Return None if `provider` passes, or else the first reason why it does not.

        `price` is what a call there costs, if that is not the provider's own price but goes by a tariff.

        Reasons name the limit of the filter and not the provider's value, so that they can be counted. Raises
        `Permanent` if the predicate raises, or returns anything but True or False.
        """
        reason = None
        if self.available_only and not provider.available:
            reason = "unavailable"
        elif self.max_price is not None and (provider.price if price is None else price) > self.max_price:
            reason = f"over max_price {self.max_price}"
        elif provider.reputation < self.min_reputation:
            reason = f"below min_reputation {self.min_reputation:g}"
        elif self.max_response_time is not None and provider.response_time > self.max_response_time:
            reason = f"over max_response_time {self.max_response_time:g}"
        elif provider.success_rate < self.min_success_rate:
            reason = f"below min_success_rate {self.min_success_rate:g}"
        elif missing := self.required_capabilities - provider.capabilities:
            reason = f"without {', '.join(sorted(missing))}"
        elif self.predicate is not None:
            reason = _refused_by(self.predicate, provider)
        return reason

    def select(
        self, providers: Iterable[Provider], *, prices: Mapping[str, Micros] = NO_PRICES
    ) -> tuple[list[Provider], dict[str, int]]:
        """Return the providers that pass, in the order given, and how many were dropped for each reason.

        `prices` are what calls cost, by name, at the providers of which that is not their own price.

        >>> offered = [Provider(name=name, services={"tts"}, price=price) for name, price in (("a", "0.01"), ("b", 9))]
        >>> kept, dropped = ProviderFilter(max_price="0.50").select(offered)
        >>> [provider.name for provider in kept], dropped
        (['a'], {'over max_price $0.50': 1})
        """
        kept: list[Provider] = []
        dropped: Counter[str] = Counter()
        for provider in providers:
            reason = self.matches(provider, price=prices.get(provider.name))
            if reason is None:
                kept.append(provider)
            else:
                dropped[reason] += 1
        return kept, dict(dropped)


def as_filter(where: ProviderFilter | Predicate) -> ProviderFilter:
    """Return a filter, also for a function of a provider."""
    if isinstance(where, ProviderFilter):
        return where
    _check_predicate("where", where)
    return ProviderFilter(predicate=where)


def _check_predicate(name: str, function: object) -> None:
    if not callable(function) or isinstance(function, type) or inspect.iscoroutinefunction(function):
        either = "a ProviderFilter, or " if name == "where" else ""
        raise TypeError(f"{name} must be {either}a function of a provider that is not async, got {function!r:.100}")


def _refused_by(predicate: Predicate, provider: Provider) -> str | None:
    name = getattr(predicate, "__name__", repr(predicate))
    try:
        passes: object = predicate(provider)
    except Exception as error:
        # It is its caller's mistake, and other requests must not suffer from it.
        raise Permanent(f"filter {name} raised {type(error).__name__}", outcome="not_started") from error
    if not isinstance(passes, bool):
        raise Permanent(f"filter {name} must return True or False, got {passes!r:.100}", outcome="not_started")
    return None if passes else f"refused by filter {name}"


def _freeze(struct: Provider | ProviderFilter, field: str) -> None:
    names: str | Iterable[str] = getattr(struct, field)
    if isinstance(names, str):
        raise TypeError(f'{field} must be a set of names, got the string {names!r}; write {{"{names}"}}')
    names = frozenset(names)
    for name in names:
        check_text(f"a name in {field}", name)
    msgspec.structs.force_setattr(struct, field, names)


def _check_range(field: str, number: float, most: float) -> None:
    if not 0 <= number <= most:
        raise ValueError(f"{field} must be from 0 to {most}, got {number}")
