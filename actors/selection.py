"""Which provider to take: each strategy is a sort key, and every tie is broken the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.provider import Provider

Strategy: TypeAlias = Literal["best", "cheapest", "fastest", "balanced"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# What others say of a provider and what its calls show weigh the same; a market that trusts one of them
# more filters by it.
REPUTATION_WEIGHT = 0.5
SUCCESS_WEIGHT = 0.5

# For "balanced": quality first, as a bad answer costs another call; then money; then time.
BALANCED_QUALITY = 0.4
BALANCED_PRICE = 0.35
BALANCED_SPEED = 0.25


def quality(provider: Provider) -> float:
    """Return from 0 to 1 how good `provider` is: the mean of its reputation (of 100) and success rate."""
    return REPUTATION_WEIGHT * (provider.reputation / 100) + SUCCESS_WEIGHT * provider.success_rate


def rank(providers: Sequence[Provider], strategy: Strategy) -> list[Provider]:
    """Return the providers, the one to take first; the input stays as it is.

    "best" goes by `quality`, "cheapest" by price, "fastest" by response time, and "balanced" by the sum of
    all three, each scaled to where it stands between the worst and the best *of these providers*, weighted
    0.4, 0.35 and 0.25. Equal ones go by quality, price, response time and at last by name, so one set of
    providers has one order, however it is given. Raises ValueError for an unknown strategy.
    """
    match strategy:
        case "best":
            return sorted(providers, key=_merits)
        case "cheapest":
            return sorted(providers, key=lambda provider: (provider.price, _merits(provider)))
        case "fastest":
            return sorted(providers, key=lambda provider: (provider.response_time, _merits(provider)))
        case "balanced":
            demerit = _balanced_demerit(providers)
            return sorted(providers, key=lambda provider: (demerit(provider), _merits(provider)))
        case _:  # pyright: ignore[reportUnnecessaryComparison] - it may come from a file.
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")


def select_best(providers: Sequence[Provider], strategy: Strategy = "best") -> Provider:
    """Return the first of `rank`; raise ValueError if there is nobody to choose from."""
    if not providers:
        raise ValueError("there is no provider to select from; relax the filter, or register one")
    return rank(providers, strategy)[0]


def _merits(provider: Provider) -> tuple[float, float, float, int, float, str, str]:
    # Two qualities may round to one number; the numbers behind them still tell better from worse.
    return (
        -quality(provider),
        -provider.reputation,
        -provider.success_rate,
        provider.price,
        provider.response_time,
        provider.name,
        provider.address,
    )


def _balanced_demerit(providers: Sequence[Provider]) -> Callable[[Provider], float]:
    """Return how far a provider is from the best at hand, 0 to 1.

    Each step is monotonic, in floats too, so whoever is no worse in everything has no greater demerit.
    """
    badness = _scaled([-quality(provider) for provider in providers])
    dearness = _scaled([provider.price for provider in providers])
    slowness = _scaled([provider.response_time for provider in providers])

    def demerit(provider: Provider) -> float:
        return (
            BALANCED_QUALITY * badness(-quality(provider))
            + BALANCED_PRICE * dearness(provider.price)
            + BALANCED_SPEED * slowness(provider.response_time)
        )

    return demerit


def _scaled(numbers: Sequence[float]) -> Callable[[float], float]:
    """Return the function that maps the least of `numbers` to 0 and the greatest to 1 (min-max scaling).

    Where all are equal they do not matter, and each is 0.

    >>> scale = _scaled([2.0, 4.0, 3.0])
    >>> scale(2.0), scale(3.0), scale(4.0)
    (0.0, 0.5, 1.0)
    """
    least = min(numbers, default=0.0)
    span = max(numbers, default=0.0) - least
    return lambda number: (number - least) / span if span > 0 else 0.0
