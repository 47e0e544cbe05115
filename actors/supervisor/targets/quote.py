"""What a call will cost by its listing: a price for each call, or what its tokens cost by a tariff. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from actors.model_calls.request import demand_of_input, with_output_bound
from actors.money import MAX_MICROS, ZERO, Micros, micros_of
from actors.tariffs.demand import Demand
from actors.tariffs.tariff import Tariff  # noqa: TC001 - msgspec resolves the annotations below.

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.ledger.entries import CostBasis
    from actors.market.listing import Listing
    from actors.tariffs.learned import CallHistory
    from actors.tariffs.usage import Usage
    from actors.transports.pricing import PricesCalls
    from actors.transports.transport import ProviderReply

DEFAULT_MAX_OUTPUT = 4_096
"""Tokens of each answer if neither its request nor its listing bounds it."""
LEAST_OUTPUT = 16
"""Tokens of each answer that the money must buy at least for a call to be made; no provider takes a smaller bound."""


CREDIBLE = 10
"""Usage of more than so many times the bound of its call is charged as told, but not learned, nor drawn from limits."""


UNKNOWN = Demand(input_bound=0, input_estimate=0, output_bound=0, kind="unknown")
"""What a call needs of which nothing can be told."""


class InputDemand(msgspec.Struct, eq=False):
    """What calls with one input need: counted once for all transports that count alike."""

    input: Any
    counted: dict[Callable[[Any], Demand | None], Demand | None] = msgspec.field(default_factory=dict)
    """What it needs, by what counts it."""

    def by(self, count: Callable[[Any], Demand | None]) -> Demand | None:
        """Return what it needs as a transport counts it; None if it is no request that costs tokens."""
        if count not in self.counted:
            self.counted[count] = count(self.input)
        return self.counted[count]

    def __repr__(self) -> str:
        return f"<InputDemand counted by {len(self.counted)}>"


class TokenQuote(msgspec.Struct, frozen=True, eq=False):
    """What the tokens of one call cost: by the `tariff` that was in force when it was sent.

    `first` is its demand as its request tells it, and `demand` with the estimates that the calls before it have
    corrected. `upper` is what it costs presumably at most, once enough calls like it are known. `max_output` is the
    bound of each answer that was chosen for it, because the request has none.
    """

    tariff: Tariff
    first: Demand
    demand: Demand
    most: Micros
    estimate: Micros
    upper: Micros | None = None
    max_output: int | None = None
    with_max_output: Any = None
    """Puts that bound into the input."""

    def bounded(self, given: Any) -> Any:
        """Return the input with the bound of its output, if that was chosen for it."""
        return given if self.max_output is None else self.with_max_output(given, self.max_output)

    def weights(self) -> dict[str, int]:
        """Return what the call will presumably use of limits by the token."""
        read, written = self.demand.input_estimate, self.demand.output_estimate
        return {"tokens": read + written, "input_tokens": read, "output_tokens": written}

    def is_credible(self, usage: Usage) -> bool:
        """Tell whether the call can have used so much, by its bound; True if nothing is known of what it needs."""
        demand = self.demand
        if not demand.input_bound:
            return True
        read, written = demand.input_bound, demand.output_bound or 0
        return usage.all_input <= CREDIBLE * read and usage.all_output <= CREDIBLE * max(written, LEAST_OUTPUT)


class Quote(NamedTuple):
    """What a provider lists for a call: the `price` that is reserved, and how many times that an answer may cost.

    `listed` is the price of its listing, by which answers that cost more are told apart; with a tariff it is not what
    the call costs, and `tokens` says what does.
    """

    price: Micros
    tolerance: float = math.inf
    listed: Micros = ZERO
    tokens: TokenQuote | None = None

    def is_of(self, listing: Listing) -> bool:
        """Tell whether it is by what a listing says now."""
        if self.tokens is not None:
            return self.tokens.tariff == listing.tariff
        return listing.tariff is None and self.price == listing.provider.price


FREE = Quote(ZERO)
FOR_ANY_COST = Quote(MAX_MICROS)
"""A quote above which no charge is."""


class ToldCost(NamedTuple):
    """What an answer cost, as far as it tells, and how that is known; None if it is a listed price, or unknown."""

    cost: Micros | None = None
    basis: CostBasis | None = None


UNTOLD = ToldCost()


def told_cost(reply: ProviderReply, tokens: TokenQuote | None) -> ToldCost:
    """Return what an answer cost.

    There are four cases: 1. The provider has stated it. 2. It has told the usage, or that was counted here, and there
    is a tariff. 3. There is a tariff, but no usage: the estimate, and never nothing. 4. There is no tariff.
    """
    usage = reply.usage
    stated = reply.cost if reply.cost is not None or usage is None else usage.cost
    if stated is not None:
        return ToldCost(stated, "provider")
    if tokens is None:
        return UNTOLD
    if usage is None or usage.is_empty:
        return ToldCost(max(tokens.estimate, micros_of(1)), "estimated")
    return ToldCost(tokens.tariff.cost(usage), "estimated" if usage.is_counted else "exact")


def quote_of(
    listing: Listing,
    given: InputDemand,
    history: CallHistory,
    pricing: PricesCalls | None,
    *,
    tolerance: float,
    money: Micros | None,
) -> Quote:
    """Return what a call with an input costs by the tariff of its listing; see `token_quote` for `money`.

    If it cannot be told what it needs, the price that is listed besides is reserved, and its usage counts afterwards.
    """
    tariff, price = listing.tariff, listing.provider.price
    assert tariff is not None  # noqa: S101 - the caller has looked.
    demand = given.by(demand_of_input if pricing is None else pricing.demand)
    if demand is None:
        tokens = TokenQuote(tariff, UNKNOWN, UNKNOWN, price, price)
        return Quote(max(price, tariff.most(UNKNOWN)), tolerance, price, tokens)
    put = with_output_bound if pricing is None else pricing.with_max_output
    tokens = token_quote(tariff, demand, history, listing=listing, money=money, put=put)
    return Quote(tokens.most, tolerance, price, tokens)


def output_left(listing: Listing, demand: Demand) -> int:
    """Return the tokens that each answer may have: as its listing says, and as its window leaves beside the input.

    Providers refuse a call whose input and bound together exceed the window. A fifth of the input, which is only
    estimated, is left free.
    """
    chosen, window = listing.max_output or DEFAULT_MAX_OUTPUT, listing.provider.window
    if window is None:
        return chosen
    left = window - demand.input_estimate * 6 // 5
    return max(min(chosen, left), min(chosen, LEAST_OUTPUT))


def learn_usage(history: CallHistory, tokens: TokenQuote, reply: ProviderReply | None) -> None:
    """Take note of what a call used, if its provider told it, and it can be."""
    usage = None if reply is None else reply.usage
    if usage is not None and not (usage.is_empty or usage.is_counted) and tokens.is_credible(usage):
        history.learn(tokens.first, usage, cost=tokens.tariff.cost(usage), estimated=tokens.estimate)


def token_quote(
    tariff: Tariff,
    demand: Demand,
    history: CallHistory,
    *,
    listing: Listing,
    money: Micros | None,
    put: Callable[[Any, int], Any],
) -> TokenQuote:
    """Return what the tokens of a call cost, which may cost no more than `money` (None: any sum).

    If its request does not bound the output, the listing does, or what the money buys if that is less: at least
    `LEAST_OUTPUT` tokens, so that a call that money is short for is refused and not cut to nothing.
    """
    window = listing.provider.max_input_tokens
    if window is not None and demand.input_bound > window:
        # What is longer is refused by the provider, and costs nothing.
        estimate = min(demand.input_estimate, window)
        demand = msgspec.structs.replace(demand, input_bound=window, input_estimate=estimate)
    first, chosen = demand, None
    if demand.output_bound is None:
        chosen = output_left(listing, demand)
        if money is not None:
            bought = tariff.most_output(demand, money) // demand.answers
            chosen = max(min(chosen, bought), min(chosen, LEAST_OUTPUT))
        demand = msgspec.structs.replace(demand, output_bound=chosen * demand.answers)
    known = history.of(first)
    refined = known.refined(demand)
    estimate = tariff.estimate(refined)
    most = tariff.most(demand)
    upper = known.upper(estimate)
    return TokenQuote(
        tariff,
        first,
        refined,
        most,
        min(estimate, most),
        upper=None if upper is None or upper >= most else upper,
        max_output=chosen,
        with_max_output=put,
    )
