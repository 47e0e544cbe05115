"""What the requests of one supervisor share: made once, and passed on as one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from actors.market.market import Market
    from actors.policies.even_draws import EvenDraws
    from actors.rate_limiter.messages import Acquire, ForecastGrants, ReportThrottled, SetLimits, Settle
    from actors.supervisor.payments.payments import Payments
    from actors.supervisor.pipeline.finding import Finder
    from actors.supervisor.pipeline.hedge_budget import HedgeBudget
    from actors.supervisor.pipeline.joining import KeyedCalls
    from actors.supervisor.pipeline.scores import Scores
    from actors.supervisor.pipeline.warmth import PrefixLog
    from actors.supervisor.services import Service
    from actors.supervisor.targets.target_table import TargetTable
    from actors.supervisor.targets.waiting import WaitQueues
    from runtime import ActorRef, Context, EventStream


class Deps(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one supervisor share. `context` has the clock and the random numbers."""

    market: Market
    context: Context
    events: EventStream
    finder: Finder
    targets: TargetTable
    queues: WaitQueues
    payments: Payments
    hedge_budget: HedgeBudget
    scores: Scores
    prefixes: PrefixLog
    keyed: KeyedCalls
    backoffs: EvenDraws
    """By which the waits of failed requests are spread."""
    limiters: dict[str, ActorRef[Acquire | ForecastGrants | Settle | ReportThrottled | SetLimits] | Service]
    """Who holds each quota that providers share, by its name."""
