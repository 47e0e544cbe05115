"""Troubles that take long: answers of minutes, calls at work, layers that repeat, and bills not paid for an hour."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from actors.money import Micros
from actors.simulation import BrownOut, Outage, OutOfQuota
from actors.simulation.faults import DIALECTS
from benchmarks.scenarios.troubles.drill import drill
from benchmarks.scenarios.troubles.market import draw_span, rate_of, three
from benchmarks.scenarios.troubles.outcome import Span, part, with_more
from benchmarks.scenarios.troubles.provider import TroubledProvider

if TYPE_CHECKING:
    from benchmarks.scenarios.troubles.contenders import Contender
    from benchmarks.scenarios.troubles.outcome import Outcome
    from runtime.simulation import Simulation

LENGTHS = ((1.0, 45.0), (1.0, 300.0), (0.5, 60.0))
"""The share of answers that take long, and how many seconds."""
HOUR = 3_600.0
SETTLED = 60.0
"""Seconds after recovery, beside those of an answer, in which a provider is found to be back."""


async def slow_answers(simulation: Simulation, contender: Contender) -> Outcome:
    """Answers take 45 or 300 s, or 1 s and 60 s by turns; the preferred provider is down for a minute, and then well.

    `used_again` is its part of the answers once there was time for a probe; it bears half of the calls or more.
    """
    share, seconds = simulation.random.choice(LENGTHS)
    usual = {"reputation": 60.0, "response_time": share * seconds}
    providers = three(simulation, reputation=90.0, response_time=share * seconds)[:1]
    providers.append(TroubledProvider(simulation, "birch", price=Micros(1_500), latency=(0.1, 0.3), **usual))
    for provider in providers:
        provider.long_answers = (share, seconds)
        provider.listing(timeout=2.5 * seconds, max_concurrency=500)
    span = draw_span(simulation, at=seconds, least=60.0, most=90.0)
    simulation.inject(Outage(provider="alder", at=span.at, lasts=span.lasts))
    outcome = await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 10.0, 20.0) / seconds,
        span=span,
        failing=providers[0],
        timeout=6 * seconds,
        min_requests=300,
        returns=False,
    )
    back = span.until + seconds + SETTLED
    answered = [[one for one in provider.attempts if one.at >= back and one.kind is None] for provider in providers]
    return with_more(outcome, used_again=part(len(answered[0]), sum(map(len, answered))))


async def still_at_work(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider honours keys, and takes longer than a call may: repeated, it is still at work (409)."""
    dice = simulation.random
    providers = three(simulation, idempotent="key")
    share, seconds = dice.choice([0.05, 0.2, 1.0]), dice.uniform(12.0, 40.0)
    providers[0].long_answers = (share, seconds)
    outcome = await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 0.5, 2.0),
        span=Span(0.0, 60.0),
        timeout=90.0,
        returns=False,
    )
    calls = Counter(one.input for one in providers[0].attempts)
    return with_more(outcome, most_calls=max(calls.values(), default=0))


async def repeating_layer(simulation: Simulation, contender: Contender) -> Outcome:
    """A layer below sends each call up to three times, to a provider that fails half of them or more for a minute.

    `wire_calls_at_first` are the most that one request makes there, and `wire_calls_later` those of requests that begin
    when this has been seen.
    """
    providers = three(simulation)
    for provider in providers:
        provider.sends = 3
    span = draw_span(simulation, least=40.0, most=60.0)
    failing = simulation.random.uniform(0.5, 1.0)
    simulation.inject(BrownOut(provider="alder", at=span.at, lasts=span.lasts, rate=failing))
    outcome = await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 1.5, 3.0),
        span=span,
        failing=providers[0],
        returns=False,
    )
    at_first, later = wire_calls(providers[0])
    return with_more(outcome, wire_calls_at_first=at_first, wire_calls_later=later)


def wire_calls(provider: TroubledProvider) -> tuple[int, int]:
    """Return the most that one request made: of all, and of those that began when it was known that calls repeat."""
    known = min((one.ended for one in provider.attempts if one.wire_calls > 1), default=math.inf)
    all_, later, began = Counter[int](), Counter[int](), dict[int, float]()
    for one in provider.attempts:
        all_[one.input] += one.wire_calls
        if began.setdefault(one.input, one.at) > known:
            later[one.input] += one.wire_calls
    return max(all_.values(), default=0), max(later.values(), default=0)


async def unpaid_hour(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider's bill is not paid for an hour, and it does not say until when."""
    dialect = simulation.random.choice(DIALECTS)
    providers, span = three(simulation), Span(10.0, 10.0 + HOUR)
    simulation.inject(OutOfQuota(provider="alder", at=span.at, lasts=span.lasts, dialect=dialect))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 0.1, 0.3),
        span=span,
        failing=providers[0],
        returns=False,
    )
