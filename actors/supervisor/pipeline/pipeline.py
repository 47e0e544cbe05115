"""The way of one request, from discovery to its end: found, chosen, admitted, called, classified, settled, decided.

It is fixed, so that it cannot be composed wrongly. The decisions are made elsewhere and pure; this module waits.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from actors.policies.breaker.states import Closed
from actors.providers.bandit import low_rated, rescore
from actors.supervisor.pipeline.candidate_order import CandidateOrder
from actors.supervisor.pipeline.choosing import QuotaWait, choose, names_in_order
from actors.supervisor.pipeline.hedging import attempt
from actors.supervisor.pipeline.money_state import ENOUGH
from actors.supervisor.pipeline.quota_wait import wait_for_share
from actors.supervisor.pipeline.recovery import recover_or_raise
from actors.supervisor.pipeline.staying import choose_warm, note_usage
from actors.supervisor.pipeline.tracing import begin_wait
from actors.supervisor.pipeline.waiter_limit import check_is_let_wait, check_may_wait
from actors.supervisor.targets.waiting import Wait
from actors.transports.streaming import WholeAnswer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from actors.discovery.offers import Offers
    from actors.supervisor.messages import SmartResult
    from actors.supervisor.pipeline.choosing import Choice
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.transports.transport import ProviderReply

T = TypeVar("T")
WAITS = (Wait, QuotaWait)
"""As a tuple: a union would be made anew for each request."""


async def serve(deps: Deps, job: Job) -> SmartResult:
    """Return the answer to a request; raises a member of `CallFailed`."""
    clock, now = deps.context.now, job.started  # The clock is read again after each wait, and only then.
    if job.message.account is not None:
        await deps.payments.accounts.ensure_open(job.message.account)
        now = clock()
    offers = deps.finder.known(job.message, now)
    if offers is None:
        finding = deps.finder.find(job.message, now)
        offers = await (finding if job.trace is None else _traced(deps, job, finding))
        now = clock()
    _take_offers(deps, job, offers, now=now)
    warm: Choice | None = None
    if job.candidates.may_be_warm and deps.market.warmth:
        warm, now = await choose_warm(deps, job, now=now), clock()
    while True:
        names = names_in_order(job)
        if (
            job.message.health_check
            and warm is None
            and job.chance is None
            and _has_unknown_health(deps, job, names, now=now)
        ):
            checking = _find_unhealthy(deps, job, names)
            await (checking if job.trace is None else _traced(deps, job, checking, reason="health check"))
            names, now = names_in_order(job), clock()
        choice, warm = warm or choose(job, names, deps.queues, now=now), None
        if isinstance(choice, WAITS):
            choice = await _wait(deps, job, choice)
            now = clock()
            if choice is None:
                continue
        if choice is not None:
            reply = await attempt(deps, job, choice)
        else:
            reply = await _go_on_without(deps, job)
        now = clock()
        if reply is not None:
            await _give_whole(deps, job, reply)
            deps.scores.answers.record(job.message.service, job.request_id, job.last)
            return job.result(reply, now=now)


async def _traced(deps: Deps, job: Job, work: Coroutine[Any, Any, T], *, reason: str | None = None) -> T:
    """Wait for others within a span of its own, for a `reason` that requests do not wait for in a queue."""
    waiting = begin_wait(deps, job, reason=reason)
    try:
        return await work
    finally:
        if waiting is not None:
            waiting.end(deps.context.now())


async def _go_on_without(deps: Deps, job: Job) -> ProviderReply | None:
    """Go on if no provider is left to call: by money that may have come back, or an answer that is found after all."""
    if job.money.is_stale and job.chance is None:
        job.money = ENOUGH
        return None
    return await recover_or_raise(deps, job)


async def _give_whole(deps: Deps, job: Job, reply: ProviderReply) -> None:
    """Note what an answer has used, and give it whole to a consumer of pieces, if it did not come piece by piece."""
    if job.candidates.has_tariffs:
        note_usage(deps, job, reply)
    terms = job.message.stream
    if terms is not None and (job.stream is None or job.stream.first_at is None):
        await terms.put(WholeAnswer(reply.output), deps.market.streams)


async def _wait(deps: Deps, job: Job, wait: Wait | QuotaWait) -> Choice | None:
    """Wait for what is short; return the choice that it allows, or None to choose anew."""
    check_may_wait(deps, job, wait)
    job.wait_for(wait, deps.context.now())
    waiting = None if job.trace is None else begin_wait(deps, job)
    try:
        if isinstance(wait, QuotaWait):
            return await wait_for_share(deps, job, wait)
        await deps.queues.wait(job.entry, wait)
        check_is_let_wait(deps, job)
    finally:
        job.waits_for = None
        if waiting is not None:
            waiting.end(deps.context.now())
    job.money = job.money.after_wait(now=deps.context.now())
    return None


def _take_offers(deps: Deps, job: Job, offers: Offers, *, now: float) -> None:
    """Set what the request chooses from, and what is known of it beside."""
    message, rng = job.message, deps.context.random
    former = deps.finder.former
    if former is None:
        job.candidates = candidates = deps.targets.candidates(
            offers, message.requirement, service=message.service, where=message.where, now=now
        )
    else:
        job.candidates = candidates = former.candidates(offers, message.requirement, service=message.service)
    held_back = tuple(deps.targets.held_back_by_slow_start(candidates)) if deps.targets.has_slow_starts else ()
    if message.stream is not None:
        job.look_at_pieces()
    priced = job.all_priced if candidates.has_tariffs or job.usual_interval else None
    bandit = deps.scores.bandits.get(message.service)
    if bandit is None:
        if held_back:
            job.deprioritized = frozenset(held_back)
        job.order = CandidateOrder(candidates, rng, observed=offers.observed, now=now, priced=priced)
    else:
        listings = candidates.listings
        job.rated = rescore(bandit, (listings[name].provider for name in bandit.arms if name in listings), now)
        job.order = CandidateOrder(
            candidates, rng, rated=job.rated, bandit=bandit, observed=offers.observed, now=now, priced=priced
        )
        # The strategy "bandit" tries a provider that fell again, now and then.
        low = () if "bandit" in message.strategies else low_rated(job.rated, candidates.declared_qualities())
        job.deprioritized = frozenset((*held_back, *low))
    if candidates.has_windows:
        job.look_at_windows()


def _has_unknown_health(deps: Deps, job: Job, names: Iterable[str], *, now: float) -> bool:
    """Tell whether a health check is needed: not if the first choice is known to be well."""
    name = next(iter(names), None)
    first = None if name is None else job.candidates.targets[name]
    if first is None or first.health is None or job.unhealthy or job.tried:
        return True
    is_known = first.has_fresh_health(max_age=deps.market.health.max_age, now=now)
    return not (is_known and first.health.is_healthy and isinstance(first.state.breaker, Closed))


async def _find_unhealthy(deps: Deps, job: Job, names: Iterable[str]) -> None:
    """Check the first choice, and if it is unhealthy the next, and so on, and note the unhealthy ones.

    That takes at most half of the time left: a provider that is not known by then counts as healthy.
    """
    if job.unhealthy:
        job.unhealthy = ()
        names = names_in_order(job)
    now, max_age = deps.context.now(), deps.market.health.max_age
    with suppress(TimeoutError):
        async with asyncio.timeout_at(now + (job.deadline - now) / 2):
            for name in names:
                target = job.candidates.targets[name]
                if name in job.tried or not isinstance(target.state.breaker, Closed):
                    continue
                if not target.has_fresh_health(max_age=max_age, now=deps.context.now()):
                    # The requests behind must not wait for the answer too.
                    deps.queues.leave(job.entry)
                if (await target.check(max_age=max_age)).is_healthy:
                    break
                job.unhealthy = (*job.unhealthy, name)
