"""What a run would meet, told from its market and its requests alone: which have no provider, what they cost. Pure."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.limits.quota import REQUESTS
from actors.model_calls.request import demand_of_input
from actors.money import ZERO, Micros, micros_of
from actors.spelling import closest
from actors.supervisor.targets.quote import InputDemand, quote_of
from actors.supervisor.targets.windows import window_of
from actors.tariffs.learned import CallHistory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actors.command.requests_file import RequestLine
    from actors.limits.quota import RateLimit
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.tariffs.demand import Demand

NEW = CallHistory()
"""Nothing is known of the calls before."""


class CostRange(NamedTuple):
    """What a call costs presumably, and at most; before its answer only the second is certain."""

    likely: Micros
    most: Micros


class Unserved(msgspec.Struct, frozen=True):
    """A request that would fail without a call: `whys` says of each provider of its service why it is not called."""

    number: int
    line: RequestLine
    whys: dict[str, str]


class Pace(msgspec.Struct, frozen=True):
    """For at least how many seconds a run lasts, and which limit says so."""

    seconds: float
    limit: str


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would meet. `unoffered` has the requests of each service that no provider offers, by its name.

    The cost is that of one charged call for each request that can be served: presumably `likely`, at the provider that
    is cheapest for it, and at most `most`, at the dearest.
    """

    unoffered: dict[str, list[int]]
    unserved: tuple[Unserved, ...]
    likely: Micros
    most: Micros
    paces: tuple[Pace, ...]


class Load(msgspec.Struct):
    """What requests need of limits, in all, and the providers that share them."""

    listings: list[Listing]
    requests: int = 0
    tokens: Counter[str] = msgspec.field(default_factory=Counter)
    """By the dimension of the limit."""

    def add(self, demand: Demand | None) -> None:
        """Add a request."""
        self.requests += 1
        if demand is not None:
            read, written = demand.input_estimate, demand.output_estimate
            self.tokens.update({"tokens": read + written, "input_tokens": read, "output_tokens": written})


def forecast(
    market: Market,
    requests: Sequence[tuple[int, RequestLine]],
    *,
    rate_limit: float | None = None,
    max_concurrency: int = 10,
) -> Forecast:
    """Return what a run of requests, each with the number of its line, would meet."""
    by_service: dict[str, list[Listing]] = {}
    for listing in market.providers:
        for service in listing.provider.services:
            by_service.setdefault(service, []).append(listing)
    unoffered: dict[str, list[int]] = {}
    unserved: list[Unserved] = []
    likely = most = ZERO
    loads = {service: Load(listings) for service, listings in by_service.items()}
    for number, line in requests:
        listings = by_service.get(line.service)
        if listings is None:
            unoffered.setdefault(line.service, []).append(number)
            continue
        need = InputDemand(line.input)
        costs, whys = costs_of(line, listings, need)
        if not costs:
            unserved.append(Unserved(number, line, whys))
            continue
        likely += min(one.likely for one in costs.values())
        most += max(one.most for one in costs.values())
        loads[line.service].add(need.by(demand_of_input))
    paces = paces_of(market, loads, rate_limit=rate_limit, max_concurrency=max_concurrency)
    return Forecast(unoffered=unoffered, unserved=tuple(unserved), likely=likely, most=most, paces=tuple(paces))


def costs_of(
    line: RequestLine, listings: Iterable[Listing], need: InputDemand
) -> tuple[dict[str, CostRange], dict[str, str]]:
    """Return what a request costs at each provider that can be called for it, and why the others are not."""
    costs: dict[str, CostRange] = {}
    whys: dict[str, str] = {}
    demand = need.by(demand_of_input)
    for listing in listings:
        name = listing.provider.name
        why = line.where.matches(listing.provider, price=listing.typical_price)
        window = window_of(listing)
        if why is None and demand is not None and window is not None and demand.input_least > window:
            why = f"its window is {window:,} tokens, and the input has {demand.input_least:,} at least"
        if why is None:
            cost = cost_at(line, listing, need)
            if line.budget is not None and cost.most > line.budget:
                why = f"it may cost {cost.most}, over the budget of {line.budget}"
            else:
                costs[name] = cost
                continue
        whys[name] = why
    return costs, whys


def cost_at(line: RequestLine, listing: Listing, need: InputDemand) -> CostRange:
    """Return what one call of a request costs at a provider; a tariff's bound is cut to what the budget buys.

    If it cannot be told what the request needs, it counts as a call of usual size.
    """
    if listing.tariff is None or need.by(demand_of_input) is None:
        return CostRange(listing.typical_price, listing.typical_price)
    quote = quote_of(listing, need, NEW, None, tolerance=math.inf, money=line.budget)
    likely = quote.price if quote.tokens is None else quote.tokens.estimate
    return CostRange(micros_of(min(int(likely), int(quote.price))), quote.price)


def paces_of(
    market: Market, loads: Mapping[str, Load], *, rate_limit: float | None, max_concurrency: int
) -> list[Pace]:
    """Return how long the requests take by each limit that is known, the longest first.

    The providers of a service share its requests, each as fast as its own limits and places allow.
    """
    count = sum(load.requests for load in loads.values())
    paces: list[Pace] = []
    if rate_limit is not None and count:
        paces.append(Pace((count - 1) / rate_limit, f"--rate-limit {rate_limit:g}"))
    busy = 0.0
    for service, load in loads.items():
        if load.requests:
            rate = rate_of(market, load)
            if rate < math.inf:
                paces.append(Pace(load.requests / rate, f"{rate:.3g} a second at the providers of {service!r}"))
            busy += load.requests * min(listing.provider.response_time for listing in load.listings)
    if busy:
        paces.append(Pace(busy / max_concurrency, f"--max-concurrency {max_concurrency}"))
    return sorted(paces, key=lambda one: -one.seconds)


def rate_of(market: Market, load: Load) -> float:
    """Return how many such requests a second their providers take together; infinity if no limit is known.

    Those that draw on one quota take no more than that allows.
    """
    own: dict[str | None, float] = {}
    for listing in load.listings:
        rates = [_within(limit, listing.headroom, load) for limit in listing.all_limits()]
        if listing.provider.response_time:
            rates.append(listing.max_concurrency / listing.provider.response_time)
        own[listing.quota] = own.get(listing.quota, 0.0) + min(rates, default=math.inf)
    for name, rate in own.items():
        if name is not None:
            shared = market.quotas[name]
            own[name] = min([rate, *(_within(limit, shared.headroom, load) for limit in shared.all_limits())])
    return sum(own.values())


def _within(limit: RateLimit, headroom: float, load: Load) -> float:
    """Return how many such requests a second a limit allows."""
    weight = 1.0 if limit.dimension == REQUESTS else load.tokens[limit.dimension] / load.requests
    return headroom * limit.rate / weight if weight else math.inf


def meant(service: str, market: Market) -> str | None:
    """Return which service a mistyped one was probably meant to be; None if none is like it."""
    return closest(service, sorted({one for listing in market.providers for one in listing.provider.services}))
