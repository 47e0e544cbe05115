"""A request's share of a quota on which several providers draw: waited for, and given back once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from actors.errors.families import NotAdmitted, Permanent, RateLimited, Throttled
from actors.limits.waiting import Waiting
from actors.rate_limiter.messages import Acquire, ReportThrottled, Settle
from actors.supervisor.targets.admission import Never
from runtime import ActorCrashed, AskTimeout, RuntimeFault

if TYPE_CHECKING:
    from actors.rate_limiter.messages import LimiterGrant, SetLimits
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.services import Service
    from actors.supervisor.targets.settlement import EndedCall
    from runtime import ActorRef


class QuotaShare:
    """What one call has taken of a shared quota."""

    __slots__ = ("_grant", "_learns", "_limiter")

    def __init__(
        self,
        limiter: ActorRef[Acquire | Settle | ReportThrottled | SetLimits] | Service,
        grant: LimiterGrant,
        *,
        learns: bool,
    ) -> None:
        self._limiter = limiter
        self._grant = grant
        self._learns = learns

    def give_back(self) -> None:
        """Give all of it back: the call was not made."""
        self._tell(Settle(grant=self._grant, outcome="never_ran"))

    def settle(self, ended: EndedCall) -> None:
        """Tell how the call ended; of a 429 all learn who draw on the quota, unless its listing is not to learn."""
        error, grant = ended.error, self._grant
        limits = () if ended.told is None or not self._learns else ended.told.limits
        if isinstance(error, Throttled) and self._learns:
            self._tell(ReportThrottled(retry_after=error.retry_after, grant=grant, limits=limits))
        elif isinstance(error, NotAdmitted):
            self.give_back()
        elif ended.reply is not None:
            self._tell(Settle(grant=grant, weights=dict(ended.used), limits=limits))
        else:
            self._tell(Settle(grant=grant, outcome="failed", limits=limits))

    def _tell(self, message: Settle | ReportThrottled) -> None:
        with suppress(RuntimeFault):  # A limiter that has ended counts no more.
            self._limiter.tell(message)


async def acquire(deps: Deps, job: Job, name: str, quota: str, *, at_once: bool = True) -> QuotaShare | None:
    """Take what a call to the provider `name` needs of a shared quota; None if it is short: choose anew.

    Unless it is to be had `at_once`, the request waits for it, in its class and in the order of asking.
    """
    limiter = deps.limiters.get(quota)
    if limiter is None:
        what = f"quota {quota!r}, on which {name!r} draws, is not held here; name it in the market's quotas"
        return _short(job, name, quota, NotAdmitted(what, provider=name), may_wait=False)
    weights = dict(job.weights(job.candidates.targets[name]))
    entry = job.entry
    question = Acquire(
        weights=weights, tenant=entry.tenant, at_once=at_once, priority=entry.priority, asker=job.request_id
    )
    try:
        grant = await limiter.ask(question, timeout=max(0.0, job.deadline - deps.context.now()))
    except RateLimited as refusal:
        until = deps.context.now() + (refusal.retry_after or 0.0)
        waiting = Waiting(reason="quota", until=until, evidence=f"quota {quota!r} is used", provider=name)
        return _short(job, name, quota, refusal, may_wait=at_once, waiting=waiting)
    except Permanent as refusal:
        return _short(job, name, quota, NotAdmitted(str(refusal), provider=name), may_wait=False)
    except AskTimeout:
        return _short(job, name, quota, RateLimited(quota, retry_after=0.0, provider=name), may_wait=False)
    except ActorCrashed:
        return None  # It is restarted, and asked again.
    except RuntimeFault as fault:
        return _short(job, name, quota, NotAdmitted(f"quota {quota!r}: {fault}", provider=name), may_wait=False)
    job.short_quotas = {}
    return QuotaShare(limiter, grant, learns=job.candidates.listings[name].learning)


def _short(
    job: Job, name: str, quota: str, refusal: NotAdmitted, *, may_wait: bool, waiting: Waiting | None = None
) -> None:
    job.short_quotas[quota] = may_wait
    refusal.waiting = waiting
    job.refused[name] = Never(refusal)
