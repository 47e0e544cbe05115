"""Has a conversation stay at the provider that has its beginning cached, and notes what usage says of that."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from actors.model_calls.prefix import prefix_digest
from actors.policies.breaker.states import Closed
from actors.supervisor.pipeline.choosing import Choice, choose, names_in_order
from actors.supervisor.pipeline.waiter_limit import check_is_let_wait
from actors.supervisor.pipeline.warmth import PLACE_WITHIN, WarmOffer, WarmPrefix, may_stay, where_to_stay
from actors.supervisor.targets.admission import Full, Later
from actors.supervisor.targets.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target
    from actors.tariffs.tariff import Tariff
    from actors.transports.transport import ProviderReply

MAX_LOOKED_AT = 16
"""The providers in the strategy's order that are looked at for one that could be called instead."""


async def choose_warm(deps: Deps, job: Job, *, now: float) -> Choice | None:
    """Choose the provider that has the beginning of the prompt cached, if that is worth it; None for any other choice.

    If all of its places are taken, one is waited for, if it presumably comes within 2 seconds.
    """
    job.prefix = prefix_digest(job.entry.tenant, job.message.input)
    if job.prefix is None:
        return None
    name = _warm_provider(deps, job, deps.prefixes.of(job.prefix), now=now)
    if name is None:
        return None
    target, until = job.candidates.targets[name], min(now + PLACE_WITHIN, (now + job.deadline) / 2)
    while isinstance(target.state.breaker, Closed):
        choice = choose(job, (name,), deps.queues, now=now)
        if isinstance(choice, Choice):
            return choice if choice.admitted is not None else None
        if not isinstance(choice, Wait) or not _comes_by(deps, job, target, until, now=now):
            return None
        wait = Wait(choice.queues, min(choice.until, until))
        job.wait_for(wait, now)
        try:
            await deps.queues.wait(job.entry, wait)
        finally:
            job.waits_for = None
        check_is_let_wait(deps, job)
        now = deps.context.now()
    return None


def _warm_provider(deps: Deps, job: Job, prefixes: Sequence[WarmPrefix], *, now: float) -> str | None:
    """Return the provider to stay at, or None.

    A function that orders providers has its way, and so has a request that has been somewhere already.
    """
    if callable(job.message.strategies[0]) or job.tried or job.held is not None:
        return None
    warm = [offer for prefix in prefixes if (offer := _offer(deps, job, prefix, now=now)) is not None]
    if not warm:
        return None
    known = {offer.provider for offer in warm}
    others = (name for name in islice(names_in_order(job), MAX_LOOKED_AT) if name not in known)
    targets = job.candidates.targets
    other = next(
        (name for name in others if isinstance(targets[name].state.breaker, Closed) and not targets[name].is_full),
        None,
    )
    return where_to_stay(warm, None if other is None else int(job.priced(other).price))


def _offer(deps: Deps, job: Job, prefix: WarmPrefix, *, now: float) -> WarmOffer | None:
    """Return what a call costs at a provider that has something cached; None if it is not to be chosen for that."""
    name = prefix.provider
    listing = job.candidates.listings.get(name)
    if listing is None or listing.tariff is None or name in job.too_small or job.is_deprioritized(name):
        return None
    target, config = job.candidates.targets[name], deps.market.breaker
    if not may_stay(prefix, target.state.breaker, window=listing.cache_window, now=now, config=config):
        return None
    is_checked = target.health is not None and target.health.is_healthy
    if job.message.health_check and not (
        is_checked and target.has_fresh_health(max_age=deps.market.health.max_age, now=now)
    ):
        return None
    tokens = (job.quotes.get(name) or job.quote(target)).tokens
    if tokens is None:
        return None
    read = tokens.demand.input_estimate
    saving = tokens.tariff.cache_saving(min(prefix.cached, read), input_tokens=read)
    return WarmOffer(name, int(job.priced(name).price), int(saving))


def _comes_by(deps: Deps, job: Job, target: Target, until: float, *, now: float) -> bool:
    """Tell whether a place presumably comes by then, and whether the request may wait for it."""
    refusal = job.refused.get(target.name)
    if now >= until or not deps.queues.may_wait(job.entry, now, max_of_tenant=job.message.max_waiting):
        return False
    if isinstance(refusal, Later):
        return refusal.is_sooner_possible or refusal.at <= until
    if isinstance(refusal, Full):
        # Places come free evenly, one in the time of an answer divided by the answers under way.
        ahead = max(1, deps.queues.waiting_in(target.queue))
        return ahead * target.state.limit.expected_latency / max(1, refusal.places) <= until - now
    return True


def note_usage(deps: Deps, job: Job, reply: ProviderReply) -> None:
    """Note what an answer's usage says of caches: what they saved, and what its provider has cached now."""
    usage, listing = reply.usage, job.candidates.listings.get(job.last)
    if usage is None or usage.is_counted or listing is None or listing.tariff is None:
        return
    tariff: Tariff = listing.tariff
    job.saved = tariff.cache_saving(usage.cache_read, input_tokens=usage.all_input)
    if job.prefix is not None:
        cached = usage.cache_read + usage.cache_write + usage.cache_write_1h
        deps.prefixes.note(job.prefix, WarmPrefix(job.last, cached, job.called_at))
