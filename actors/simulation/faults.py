"""What goes wrong with providers, as plain values: each says when, for how long, and with whom.

None of them does anything by itself: a `SimulatedProvider` looks up which of them last, and behaves accordingly.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from runtime.simulation import Fault, TimedFault

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

Dialect: TypeAlias = Literal["429", "402", "403", "400"]
"""How a provider says that its bill has not been paid; see `OutOfQuota`."""
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


def check_rate(rate: float) -> None:
    """Raise ValueError for what is not a part of all calls."""
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}")


def check_duration(name: str, duration: float) -> None:
    """Raise ValueError for what is not a time that passes."""
    if not 0 < duration < math.inf:
        raise ValueError(f"{name} must be > 0 seconds and finite, got {duration}")


class ProviderFault(TimedFault, frozen=True, kw_only=True):
    """Something is wrong with `provider`, a name or a pattern such as `*`."""

    provider: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_provider(self.provider)

    def concerns(self, name: str) -> bool:
        """Tell whether this provider is one of those struck."""
        return fnmatchcase(name, self.provider)


def check_provider(pattern: str) -> None:
    """Raise ValueError for a pattern that no name matches."""
    if not pattern:
        raise ValueError('provider must name one, or be a pattern such as "*", got an empty string')


# Calls that do not reach it.


class Outage(ProviderFault, frozen=True, kw_only=True):
    """Connections are refused: no call runs."""


class Flapping(ProviderFault, frozen=True, kw_only=True):
    """Comes and goes: from `at` on it answers for `up` seconds, then refuses connections for `down`, and so on."""

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
    """Takes every call, does nothing, and never answers."""


# Calls that it refuses.


class BrownOut(ProviderFault, frozen=True, kw_only=True):
    """Overloaded somewhere: so large a part of the calls is answered 503."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.rate)


class ThrottleStorm(ProviderFault, frozen=True, kw_only=True):
    """Every call is answered 429; with `retry_after` seconds, if given, as `Retry-After`."""

    retry_after: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retry_after is not None and not 0 <= self.retry_after < math.inf:
            raise ValueError(f"retry_after must be >= 0 seconds and finite, or None, got {self.retry_after}")


class OutOfQuota(ProviderFault, frozen=True, kw_only=True):
    """The bill has not been paid, which providers say by different statuses.

    "429" and "403" carry the code `insufficient_quota`; "402" is what HTTP has for it; "400" says so in prose.
    """

    dialect: Dialect = "429"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, got {self.dialect!r}")


# Calls that run.


class SlowLoris(ProviderFault, frozen=True, kw_only=True):
    """Gives the right answers, each of which takes `latency` seconds more: far too late."""

    latency: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_duration("latency", self.latency)


class WrongAnswers(ProviderFault, frozen=True, kw_only=True):
    """So large a part of the answers is wrong, `output` instead of the right one; they look like any other."""

    rate: float = 1.0
    output: Any = "wrong"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.rate)


class LostReplies(ProviderFault, frozen=True, kw_only=True):
    """Of so large a part of the calls the connection breaks after the work is done and charged."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.rate)


# What is not about single calls.


class PriceChange(Fault, frozen=True, kw_only=True):
    """From `at` on for good, a call costs `price` micro-units.

    The provider charges it at once; whoever has asked the registry before learns of it when it asks again.
    """

    provider: str
    price: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_provider(self.provider)
        if self.price < 0:
            raise ValueError(f"price must be >= 0 micro-units, got {self.price}")

    def concerns(self, name: str) -> bool:
        """Tell whether this provider is one of those whose price changes."""
        return fnmatchcase(name, self.provider)


class RegistryOutage(TimedFault, frozen=True, kw_only=True):
    """The registry raises ConnectionError; where it `hangs`, it does not answer those who ask meanwhile at all."""

    hangs: bool = False


def random_provider_faults(
    random: random.Random,
    *,
    providers: Sequence[str],
    within: float = 60.0,
    max_faults: int = 5,
    prices: Sequence[int] = (),
) -> list[Fault]:
    """Draw up to `max_faults` faults that begin in the first `within` seconds, in the order of their times.

    They strike the `providers` named (names and patterns) and the registry; prices change where `prices`, in
    micro-units, are given to choose from. Draw from `Simulation.random`, and the seed decides.
    """
    if not providers:
        raise ValueError("providers must name at least one, or a pattern")
    plan = [_draw(random, random.choice(providers), within, prices) for _ in range(random.randint(0, max_faults))]
    return sorted(plan, key=lambda fault: fault.at)


def _draw(random: random.Random, provider: str, within: float, prices: Sequence[int]) -> Fault:
    at, lasts = random.uniform(0, within), random.uniform(0, within / 4) + 0.001
    rate = random.choice((1.0, 0.5, 0.1))
    where: dict[str, Any] = {"at": at, "lasts": lasts, "provider": provider}
    kinds: list[Fault] = [
        Outage(**where),
        BrownOut(**where, rate=rate),
        Flapping(**where, up=random.choice((0.1, 1.0, 5.0)), down=random.choice((0.1, 1.0, 5.0))),
        SlowLoris(**where, latency=random.choice((1.0, 10.0, 100.0))),
        Hanging(**where),
        ThrottleStorm(**where, retry_after=random.choice((None, 0.5, 5.0, 60.0))),
        OutOfQuota(**where, dialect=random.choice(DIALECTS)),
        WrongAnswers(**where, rate=rate),
        LostReplies(**where, rate=rate),
        Bug(**where),
        RegistryOutage(at=at, lasts=lasts, hangs=random.choice((False, True))),
    ]
    if prices:
        kinds.append(PriceChange(at=at, provider=provider, price=random.choice(prices)))
    return random.choice(kinds)
