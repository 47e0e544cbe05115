"""Ranks providers by a strategy: each strategy is a sort key, and every tie is broken in the same way."""

from __future__ import annotations

import inspect
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from actors.errors.families import Permanent
from actors.providers.provider import Provider

NamedStrategy: TypeAlias = Literal["best", "cheapest", "fastest", "balanced", "least_loaded", "weighted", "bandit"]
OwnStrategy: TypeAlias = Callable[[Sequence[Provider]], Iterable[Provider]]
"""A function that returns the providers in order, the one to call first at the head; those left out come after them."""
if TYPE_CHECKING:
    SelectionStrategy: TypeAlias = NamedStrategy | OwnStrategy
else:
    SelectionStrategy = Any  # msgspec knows no type for functions; `check_strategy` looks at what comes.
STRATEGIES: tuple[NamedStrategy, ...] = ("best", "cheapest", "fastest", "balanced")
"""The strategies that use only what is known about the providers."""
ADAPTIVE_STRATEGIES: tuple[NamedStrategy, ...] = ("least_loaded", "weighted", "bandit")
"""The strategies that use `Signals` as well: loads of the providers, their weights, and how answers were scored."""

KNOWN_STRATEGIES = frozenset((*STRATEGIES, *ADAPTIVE_STRATEGIES))

# What others say about a provider and what its calls show weigh the same; a market that trusts one of them
# more filters by it.
REPUTATION_WEIGHT = 0.5
SUCCESS_WEIGHT = 0.5

# For "balanced": quality first, as a bad answer costs another call; then money; then time.
BALANCED_QUALITY = 0.4
BALANCED_PRICE = 0.35
BALANCED_SPEED = 0.25

# For "bandit": from the cheapest of the candidates to the dearest, the price counts as a third of the quality.
BANDIT_QUALITY = 0.75
BANDIT_PRICE = 0.25


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What the adaptive strategies use besides the providers; the caller draws the random numbers.

    `loads` holds load scores by name (`observed.load`), `draws` two numbers from [0, 1), and `samples` qualities drawn
    by name (`bandit.draw_qualities`). For a provider that is not named, its declared response time and quality are
    used. Without `draws`, "least_loaded" takes the least loaded of all. `weights` are those of their listings, by name;
    that of a provider that is not named is 1.
    """

    loads: Mapping[str, float] = {}
    draws: tuple[float, float] | None = None
    samples: Mapping[str, float] = {}
    weights: Mapping[str, float] = {}


NO_SIGNALS = Signals()


def check_strategy(strategy: object) -> None:
    """Raise ValueError if `strategy` is neither the name of one nor a function that orders providers."""
    if isinstance(strategy, str) and strategy in KNOWN_STRATEGIES:
        return  # As nearly always, and for every request.
    if inspect.iscoroutinefunction(strategy):
        raise TypeError(f"strategy must not be async, because it is not awaited, got {strategy!r:.100}")
    if not callable(strategy):
        known = ", ".join((*STRATEGIES, *ADAPTIVE_STRATEGIES))
        raise ValueError(  # noqa: TRY004 - a name that does not exist is what it is, nearly always.
            f"strategy must be one of {known}, or a function that orders providers, got {strategy!r:.100}"
        )


def quality(provider: Provider) -> float:
    """Return the quality of `provider`, from 0 to 1: the mean of its reputation (of 100) and its success rate."""
    return REPUTATION_WEIGHT * (provider.reputation / 100) + SUCCESS_WEIGHT * provider.success_rate


def rank(providers: Sequence[Provider], strategy: SelectionStrategy, signals: Signals = NO_SIGNALS) -> list[Provider]:
    """Return the providers in order, the one to call first at the head; the input is not changed.

    - "best" orders by `quality`, "cheapest" by price, "fastest" by response time.
    - "balanced" orders by quality, price and response time together, weighted 0.4, 0.35 and 0.25. Each is scaled
      between the worst and the best *of these providers*.
    - "least_loaded" draws two providers at random and puts the less loaded one first; the others follow by load.
    - "weighted" orders by weight, the greatest first; a supervisor draws by weight instead (`WeightedDraw`).
    - "bandit" orders by the drawn quality, weighted 0.75, and the scaled price, weighted 0.25.
    - A function of your own gets the providers, the best first, and returns them in its order; those that it leaves out
      come after them, the best first. It is called for each choice and must be quick.

    Ties are broken by quality, price, response time and at last by name, so that one set of providers (and signals) has
    one order, however it is given. Raises ValueError for an unknown strategy, and `Permanent` if a function raises or
    returns anything but some of these providers.

    Source of two choices: Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS 12(10),
    2001): callers that choose at the same time, by the same load scores, do not all choose the same provider.
    """
    match strategy:
        case "best" | "cheapest" | "fastest" | "balanced":
            return sorted(providers, key=declared_key(strategy, providers))
        case "least_loaded":
            return _least_loaded(providers, signals)
        case "weighted":
            return _sorted_by([-signals.weights.get(one.name, 1.0) for one in providers], providers)
        case "bandit":
            return _sorted_by(_bandit_penalties(providers, signals), providers)
        case _:
            if callable(strategy):
                return _by_function(providers, strategy)
            # It may come from a file.
            raise ValueError(
                f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}; "
                f"with signals it may also be {' or '.join(ADAPTIVE_STRATEGIES)}"
            )


def select_best(
    providers: Sequence[Provider], strategy: SelectionStrategy = "best", signals: Signals = NO_SIGNALS
) -> Provider:
    """Return the first provider of `rank`; raises ValueError if `providers` is empty."""
    if not providers:
        raise ValueError("there is no provider to select from; relax the filter, or register one")
    return rank(providers, strategy, signals)[0]


def _by_function(providers: Sequence[Provider], strategy: OwnStrategy) -> list[Provider]:
    if not providers:
        return []
    best_first = sorted(providers, key=quality_key)
    name = getattr(strategy, "__name__", repr(strategy))
    try:
        chosen: Iterable[Any] = strategy(tuple(best_first))
        if isinstance(chosen, Provider):
            chosen = (chosen,)
        ordered = {one.name: one for one in chosen}
    except Exception as error:
        # It is its caller's mistake, and other requests must not suffer from it.
        raise Permanent(f"strategy {name} raised {type(error).__name__}", outcome="not_started") from error
    known = {one.name: one for one in best_first}
    if strange := ordered.keys() - known.keys():
        raise Permanent(f"strategy {name} chose {sorted(strange)}, of which it was not given", outcome="not_started")
    return [known[one] for one in {**ordered, **known}]


def two_choices(loads: Sequence[float], first: float, second: float) -> int:
    """Return the index of the less loaded of two choices; `first` and `second`, from [0, 1), choose them from `loads`.

    The two are different unless `loads` has a single entry; of two equal loads the first choice is returned.

    >>> two_choices([3.0, 1.0, 2.0], 0.0, 0.99), two_choices([3.0, 1.0, 2.0], 0.0, 0.0), two_choices([3.0], 0.5, 0.5)
    (2, 1, 0)
    """
    count = len(loads)
    one = int(first * count)
    if count == 1:
        return one
    other = int(second * (count - 1))
    other += other >= one
    return other if loads[other] < loads[one] else one


def quality_key(provider: Provider) -> tuple[float, float, float, int, float, str, str]:
    """Return what ties are broken by: quality, then price, response time, name and address."""
    # Two qualities may round to the same number; their parts still tell better from worse.
    reputation, success_rate = provider.reputation, provider.success_rate
    return (
        -(REPUTATION_WEIGHT * (reputation / 100) + SUCCESS_WEIGHT * success_rate),  # As `quality`, without its call.
        -reputation,
        -success_rate,
        provider.price,
        provider.response_time,
        provider.name,
        provider.address,
    )


def _sorted_by(keys: Sequence[float], providers: Sequence[Provider]) -> list[Provider]:
    """Return the providers by their keys, and by `quality_key` if keys are equal, which is computed only then."""
    by_key = dict(zip(keys, providers, strict=True))
    if len(by_key) == len(keys):
        return [by_key[key] for key in sorted(by_key)]
    ranked = sorted(zip(keys, map(quality_key, providers), range(len(keys)), strict=True))
    return [providers[index] for _, _, index in ranked]


def _least_loaded(providers: Sequence[Provider], signals: Signals) -> list[Provider]:
    loads = signals.loads
    by_load = _sorted_by([loads.get(one.name, one.response_time) for one in providers], providers)
    if signals.draws is None or not by_load:
        return by_load
    # The two are drawn from the order of load, so the first of any two is the less loaded one.
    ranks = range(len(by_load))
    chosen = two_choices(ranks, *signals.draws)
    return [by_load[chosen], *by_load[:chosen], *by_load[chosen + 1 :]]


class PriceScale(NamedTuple):
    """From the cheapest to the dearest of some providers, in micro-units."""

    least: int
    span: int

    @classmethod
    def of(cls, providers: Collection[Provider]) -> PriceScale:
        """Return the scale of these providers."""
        least = min((one.price for one in providers), default=0)
        return cls(least, (max((one.price for one in providers), default=0) - least) or 1)


def bandit_penalty(provider: Provider, drawn: float, prices: PriceScale) -> float:
    """Return what "bandit" orders by: less for a better quality, which was drawn, and for a lower price."""
    return BANDIT_PRICE * ((provider.price - prices.least) / prices.span) - BANDIT_QUALITY * drawn


def _bandit_penalties(providers: Sequence[Provider], signals: Signals) -> list[float]:
    drawn, prices = signals.samples, PriceScale.of(providers)
    return [bandit_penalty(one, drawn[one.name] if one.name in drawn else quality(one), prices) for one in providers]


class BalancedScale(NamedTuple):
    """From the best to the worst of some providers, in each of three measures; a measure in which all are equal is 0.

    Each step is monotonic, in floats too, so a provider that is no worse in any measure has no greater penalty.
    """

    least_loss: float
    loss_span: float
    least_time: float
    time_span: float
    prices: PriceScale

    @classmethod
    def of(cls, providers: Collection[Provider]) -> BalancedScale:
        """Return the scale of these providers."""
        losses = [-quality(one) for one in providers] or [0.0]
        times = [one.response_time for one in providers] or [0.0]
        # If all are equal in a measure, every numerator is 0, and any divisor will do.
        return cls(
            min(losses),
            (max(losses) - min(losses)) or 1.0,
            min(times),
            (max(times) - min(times)) or 1.0,
            PriceScale.of(providers),
        )

    def penalty(self, provider: Provider) -> float:
        """Return how far a provider is from the best one: from 0 to 1, if it is one of those scaled."""
        least_loss, loss_span, least_time, time_span, prices = self
        return (
            BALANCED_QUALITY * ((-quality(provider) - least_loss) / loss_span)
            + BALANCED_PRICE * ((provider.price - prices.least) / prices.span)
            + BALANCED_SPEED * ((provider.response_time - least_time) / time_span)
        )


def declared_key(strategy: NamedStrategy, providers: Collection[Provider]) -> Callable[[Provider], Any]:
    """Return the sort key of a strategy by what providers declare, scaled between the worst and the best of these."""
    match strategy:
        case "best" | "weighted":
            return quality_key
        case "cheapest":
            return lambda one: (one.price, quality_key(one))
        case "fastest" | "least_loaded":
            return lambda one: (one.response_time, quality_key(one))
        case "balanced":
            scale = BalancedScale.of(providers)
            return lambda one: (scale.penalty(one), quality_key(one))
        case "bandit":
            prices = PriceScale.of(providers)
            return lambda one: (bandit_penalty(one, quality(one), prices), quality_key(one))
