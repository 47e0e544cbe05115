"""Whether a request may begin to wait, and when one that may not can come back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.errors.families import NotAdmitted, TooManyWaiting
from actors.supervisor.targets.admission import Full, Later
from actors.supervisor.targets.waiter_bound import LEAST_PAUSE
from actors.supervisor.targets.waiting import Wait

if TYPE_CHECKING:
    from actors.supervisor.pipeline.choosing import QuotaWait
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job


def check_may_wait(deps: Deps, job: Job, wait: Wait | QuotaWait) -> None:
    """Raise `TooManyWaiting` if too many requests wait already for this one to wait too.

    A request that has made a call, or may have been paid for, may wait whatever their number: it would lose what it
    has. One that waits for its backoff alone holds up no other, and does not count.
    """
    if isinstance(wait, Wait) and not wait.queues:
        return
    job.entry.has_waited |= job.calls > 0 or job.held is not None
    now = deps.context.now()
    if not deps.queues.may_wait(job.entry, now, max_of_tenant=job.message.max_waiting):
        raise _too_many_waiting(deps, job)


def check_is_let_wait(deps: Deps, job: Job) -> None:
    """Raise `TooManyWaiting` if a request that has waited may not wait on, because too many do that go before it."""
    if job.entry.is_sent_away:
        raise _too_many_waiting(deps, job)


def _too_many_waiting(deps: Deps, job: Job) -> TooManyWaiting:
    now, bound, most = deps.context.now(), deps.queues.bound, job.message.max_waiting
    soonest = min((_wait_at(job, name, now) for name in job.refused), default=math.inf)
    least = max(LEAST_PAUSE, soonest) if soonest < math.inf else LEAST_PAUSE
    tenant = job.entry.tenant if bound.is_full_for(job.entry, most) else None
    pause = max(least, bound.time_to_clear(now, tenant))
    if most is None or tenant is None:
        return TooManyWaiting(job.message.service, max_waiting=bound.max_waiting, retry_after=pause)
    return TooManyWaiting(job.message.service, max_waiting=most, retry_after=pause, tenant=tenant)


def _wait_at(job: Job, name: str, now: float) -> float:
    """Return the seconds until a provider that has refused may admit a call, as far as it is known; else infinity."""
    refused = job.refused[name]
    if isinstance(refused, Full):
        return job.candidates.targets[name].state.limit.expected_latency
    if isinstance(refused, Later):
        return refused.at - now
    retry_after = refused.retry_after if isinstance(refused, NotAdmitted) else refused.refusal.retry_after
    return math.inf if retry_after is None else retry_after
