"""Faults of providers and of the registry, as plain values with a beginning, a duration and a provider.

They do nothing by themselves: a `SimulatedProvider`, or a transport that `with_faults` wraps, looks up which of them
last, and behaves accordingly.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import msgspec

from actors.money import AmountField, take_amount
from runtime.simulation import Fault, TimedFault

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from actors.money import Amount, Micros
    from runtime.simulation import Simulation

Dialect: TypeAlias = Literal["429", "402", "403", "400"]
"""How a provider says that its bill has not been paid; see `OutOfQuota`."""
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


def check_rate(rate: float) -> None:
    """Raise ValueError unless a rate is a share of all calls."""
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}")


def check_duration(name: str, duration: float) -> None:
    """Raise ValueError unless a duration is above 0 and finite."""
    if not 0 < duration < math.inf:
        raise ValueError(f"{name} must be > 0 seconds and finite, got {duration}")


class ProviderFault(TimedFault, frozen=True, kw_only=True):
    """A fault of `provider`, a name or a pattern such as `*`."""

    provider: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_provider(self.provider)

    @property
    def target(self) -> tuple[str, str]:
        return "provider", self.provider

    def concerns(self, name: str) -> bool:
        """Tell whether the fault affects the provider of this name."""
        return fnmatchcase(name, self.provider)


def check_provider(pattern: str) -> None:
    """Raise ValueError for an empty pattern, which matches no name."""
    if not pattern:
        raise ValueError('provider must be a name, or a pattern such as "*", got an empty string')


# Calls that do not reach the provider.


class Outage(ProviderFault, frozen=True, kw_only=True):
    """Connections are refused: no call runs."""


class Flapping(ProviderFault, frozen=True, kw_only=True):
    """The provider answers for `up` seconds from `at` on, then refuses connections for `down` seconds, and so on."""

    up: float
    down: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_duration("up", self.up)
        check_duration("down", self.down)

    def is_down(self, now: float) -> bool:
        """Tell whether connections are refused at `now`."""
        return (now - self.at) % (self.up + self.down) >= self.up


class Bug(ProviderFault, frozen=True, kw_only=True):
    """The transport itself is broken: it raises KeyError before anything is sent."""


class Hanging(ProviderFault, frozen=True, kw_only=True):
    """The provider takes every call, does nothing, and never answers."""


# Calls that the provider refuses.


class BrownOut(ProviderFault, frozen=True, kw_only=True):
    """The provider is overloaded: the share `rate` of its calls is answered 503."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.rate)


class ThrottleStorm(ProviderFault, frozen=True, kw_only=True):
    """Every call is answered 429, with `Retry-After: retry_after` if that is given (seconds)."""

    retry_after: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retry_after is not None and not 0 <= self.retry_after < math.inf:
            raise ValueError(f"retry_after must be >= 0 seconds and finite, or None, got {self.retry_after}")


class OutOfQuota(ProviderFault, frozen=True, kw_only=True):
    """The bill has not been paid, which providers express by different statuses.

    "429" and "403" carry the code `insufficient_quota`; "402" is the status that HTTP has for it; "400" has a message.
    """

    dialect: Dialect = "429"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, got {self.dialect!r}")


# Calls that run.


class SlowLoris(ProviderFault, frozen=True, kw_only=True):
    """The provider gives the right answers, each `latency` seconds late."""

    latency: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_duration("latency", self.latency)


class WrongAnswers(ProviderFault, frozen=True, kw_only=True):
    """The share `rate` of the answers has the wrong output, `output`, and looks like any other answer."""

    rate: float = 1.0
    output: Any = "wrong"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.rate)


class LostReplies(ProviderFault, frozen=True, kw_only=True):
    """For the share `rate` of the calls, the connection breaks after the work is done and charged."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.rate)


# Faults that do not concern single calls.


class PriceChange(Fault, frozen=True, kw_only=True):
    """From `at` on, a call costs `price` dollars (str, int or Decimal).

    The provider charges the new price at once; a client of the registry learns of it at its next look-up.
    """

    provider: str
    price: AmountField

    def __post_init__(self) -> None:
        super().__post_init__()
        check_provider(self.provider)
        take_amount(self, "price")

    @property
    def target(self) -> tuple[str, str]:
        return "provider", self.provider

    def concerns(self, name: str) -> bool:
        """Tell whether the price of the provider of this name changes."""
        return fnmatchcase(name, self.provider)


class RegistryOutage(TimedFault, frozen=True, kw_only=True):
    """The registry raises ConnectionError; with `hangs`, it never answers look-ups made meanwhile."""

    hangs: bool = False

    @property
    def target(self) -> tuple[str, str]:
        return "registry", "*"


def faults_of(simulation: Simulation, provider: str) -> list[ProviderFault]:
    """Return the faults that affect a provider now."""
    return [fault for fault in simulation.active(ProviderFault) if fault.concerns(provider)]


def changed_price(simulation: Simulation, provider: str) -> Micros | None:
    """Return what a call of a provider costs now if a fault has changed its price, else None."""
    changes = [change for change in simulation.active(PriceChange) if change.concerns(provider)]
    return changes[-1].price if changes else None


def random_provider_faults(
    random: random.Random,
    *,
    providers: Sequence[str],
    within: float = 60.0,
    max_faults: int = 5,
    prices: Sequence[Amount] = (),
) -> list[Fault]:
    """Draw up to `max_faults` faults that begin in the first `within` seconds, in the order of their times.

    They may miss. They affect the given `providers` (names or patterns) and the registry. Prices change if `prices` to
    choose from are given, in dollars as str, int or Decimal. Pass `Simulation.random` as `random`, so that the seed
    decides.
    """
    if not providers:
        raise ValueError("providers must have at least one name or pattern, got none")
    plan = [_draw(random, random.choice(providers), within, prices) for _ in range(random.randint(0, max_faults))]
    return sorted(plan, key=lambda fault: fault.at)


def _draw(random: random.Random, provider: str, within: float, prices: Sequence[Amount]) -> Fault:
    at, lasts = random.uniform(0, within), random.uniform(0, within / 4) + 0.001
    rate = random.choice((1.0, 0.5, 0.1))
    common: dict[str, Any] = {"at": at, "lasts": lasts, "provider": provider}
    kinds: list[Fault] = [
        Outage(**common),
        BrownOut(**common, rate=rate),
        Flapping(**common, up=random.choice((0.1, 1.0, 5.0)), down=random.choice((0.1, 1.0, 5.0))),
        SlowLoris(**common, latency=random.choice((1.0, 10.0, 100.0))),
        Hanging(**common),
        ThrottleStorm(**common, retry_after=random.choice((None, 0.5, 5.0, 60.0))),
        OutOfQuota(**common, dialect=random.choice(DIALECTS)),
        WrongAnswers(**common, rate=rate),
        LostReplies(**common, rate=rate),
        Bug(**common),
        RegistryOutage(at=at, lasts=lasts, hangs=random.choice((False, True))),
    ]
    if prices:
        kinds.append(PriceChange(at=at, provider=provider, price=random.choice(prices)))
    return msgspec.structs.replace(random.choice(kinds), may_miss=True)
