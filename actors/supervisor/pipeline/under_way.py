"""What the requests under way wait for, worked out when it is asked for: each provider once, and in short slices."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.limits.waiting import Waiting, WaitReason
from actors.money import micros_of
from actors.rate_limiter.messages import ForecastGrants
from actors.supervisor.messages import RequestStatus, RequestsUnderWay
from actors.supervisor.pipeline.choosing import Choice, QuotaWait
from actors.supervisor.targets.admission import Later, Never
from actors.supervisor.targets.candidates import NO_CANDIDATES
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.waiting import QueueEntry, QueueName

    GrantTimes: TypeAlias = dict[str, dict[str, float]]
    """When requests will be granted their share of each quota, by its name and by their ids."""

MAX_QUEUES = 10
"""The queues of one request that are looked at; with more providers, its first ones tell enough."""
MAX_PLACES = 2_000
"""The requests of a queue whose place is worked out; further back it is not told."""
MAX_FORECAST = 1_000
"""The calls to come that are worked out one by one; later ones follow at the mean pace of these."""
LIMITER_TIMEOUT = 1.0
"""Seconds that a limiter has to tell when those that wait for it are due."""
SLICE = 100
"""The requests that are looked at in one turn of the event loop."""


async def look_at(deps: Deps, jobs: Collection[Job], *, most: int) -> RequestsUnderWay:
    """Return what the requests under way wait for; the oldest `most` of them are listed."""
    all_jobs = tuple(jobs)
    look = Look(deps, await granted_at(deps, all_jobs))
    listed: list[RequestStatus] = []
    waiting: Counter[WaitReason] = Counter()
    calling = 0
    for number, job in enumerate(all_jobs):
        if number and not number % SLICE:
            await asyncio.sleep(0)
            look = look.renewed()
        if number < most:
            status = look.status(job)
            listed.append(status)
            reason = status.waiting[0].reason if status.waiting else None
        else:
            reason = look.reason(job)
        calling += bool((job.served or job).under_way)
        if reason is not None:
            waiting[reason] += 1
    return RequestsUnderWay(
        now=deps.context.now(), count=len(all_jobs), calling=calling, waiting=dict(waiting), requests=tuple(listed)
    )


async def granted_at(deps: Deps, jobs: Sequence[Job]) -> GrantTimes:
    """Ask the limiters of shared quotas when the requests that wait for one will presumably be granted their share."""
    waiting: set[str] = set()
    for one in jobs:
        job = one.served or one
        if isinstance(job.waits_for, QuotaWait):
            waiting.update(job.candidates.listings[name].quota or "" for name in job.waits_for.names)
    granted: GrantTimes = {}
    for quota in sorted(waiting):
        with suppress(RuntimeFault):
            granted[quota] = await deps.limiters[quota].ask(ForecastGrants(), timeout=LIMITER_TIMEOUT)
    return granted


class Look:
    """A look at what requests wait for at one time; what several wait for is worked out once."""

    def __init__(self, deps: Deps, granted: GrantTimes) -> None:
        self._deps, self._granted = deps, granted
        self._now = deps.context.now()
        self._places: dict[QueueName, dict[QueueEntry, int]] = {}
        self._reasons: dict[QueueName, Waiting | None] = {}
        self._admissions: dict[tuple[QueueName, ...], Admissions] = {}

    def renewed(self) -> Look:
        """Return it, or a new one if time has passed."""
        return self if self._deps.context.now() == self._now else Look(self._deps, self._granted)

    def status(self, job: Job) -> RequestStatus:
        """Return the state of one request."""
        served, message = job.served or job, job.message
        return RequestStatus(
            request_id=job.request_id,
            service=message.service,
            account=message.account,
            tenant=job.entry.tenant,
            since=job.started,
            deadline=job.deadline,
            calls=served.calls,
            attempts=tuple(served.attempts),
            cost=micros_of(served.cost),
            provider=served.last if served.under_way else None,
            waiting=self.waits(job),
        )

    def waits(self, job: Job) -> tuple[Waiting, ...]:
        """Return what a request waits for, the soonest first."""
        job = job.served or job
        what = job.waits_for
        found = self._by_phase(job) if what is None else list(self._by_wait(job, what))
        return tuple(sorted(found, key=_soonest))

    def reason(self, job: Job) -> WaitReason | None:
        """Return what a request waits for, without a look at its place; None if it does not wait."""
        job = job.served or job
        what = job.waits_for
        queues = () if what is None or isinstance(what, Choice) else _besides(what)
        if queues:
            blocked = self._blocked_at(queues[0], job)
            return "turn" if blocked is None else blocked.reason
        found = self.waits(job)
        return found[0].reason if found else None

    def _by_phase(self, job: Job) -> list[Waiting]:
        """Return what a request waits for that waits in no queue."""
        if job.under_way:
            return []
        if job.held is not None:
            name = job.held.target.name
            evidence = "it is found out whether its last call was paid"
            return [Waiting(reason="outcome", since=job.waits_since, evidence=evidence, provider=name)]
        if job.candidates is NO_CANDIDATES:
            evidence = "it is looked up which providers offer the service"
            return [Waiting(reason="discovery", since=job.started, evidence=evidence)]
        return []

    def _by_wait(self, job: Job, what: object) -> Iterator[Waiting]:
        """Yield each thing that a request waits for."""
        if isinstance(what, Choice):
            yield from self._by_refusals(job, [what.target.name])
            return
        if isinstance(what, QuotaWait):
            yield from self._by_refusals(job, what.names)
        queues = _besides(what)
        yield from self._by_queues(job, queues)
        for name, tried in job.tried.items():
            if self._now < tried.ready_at < job.deadline:
                evidence = "its last call there failed"
                yield Waiting(
                    reason="backoff", since=tried.failed_at, until=tried.ready_at, evidence=evidence, provider=name
                )
        if job.money.short_of:
            yield from self._by_refusals(job, [name for name, one in job.money.short_of.items() if one.may_free_up])

    def _by_refusals(self, job: Job, names: Sequence[str]) -> Iterator[Waiting]:
        """Yield what providers wait for that was said when they were refused: money, or a quota that they share."""
        for name in names:
            refused = job.money.short_of.get(name) or job.refused.get(name)
            refusal = refused.refusal if isinstance(refused, Never) else refused
            waiting: Waiting | None = getattr(refusal, "waiting", None)
            if waiting is not None:
                until = waiting.until
                if waiting.reason == "quota":
                    granted = self._granted.get(job.candidates.listings[name].quota or "", {})
                    until = granted.get(job.request_id)
                until = until if until is not None and until > self._now else None
                yield msgspec.structs.replace(waiting, since=job.waits_since, until=until)

    def _by_queues(self, job: Job, queues: tuple[QueueName, ...]) -> Iterator[Waiting]:
        found: list[Waiting] = []
        weights = job.message.weights
        places = [self._place(job.entry, queue) for queue in queues]
        for queue, place in zip(queues, places, strict=True):
            blocked = self._blocked_at(queue, job) or Waiting(reason="turn", evidence="others came before it")
            until = self._times_of((queue,), weights).at(place) or (blocked.until if not place else None)
            found.append(
                msgspec.structs.replace(
                    blocked, since=job.waits_since, until=until, provider=queue[1], before=place or 0
                )
            )
        known = [place for place in places if place is not None]
        if len(found) > 1 and known:
            # Those before it wait for all of these too, and go on wherever they can first.
            first = min(range(len(found)), key=lambda number: _soonest(found[number]))
            until = self._times_of(queues, weights).at(min(known))
            if until is not None:
                found[first] = msgspec.structs.replace(found[first], until=until)
        yield from found

    def _blocked_at(self, queue: QueueName, job: Job) -> Waiting | None:
        """Return what lets no request of a queue through; None if it is a request's turn, or soon will be."""
        if queue not in self._reasons:
            self._reasons[queue] = self._first_reason(queue)
        found = self._reasons[queue]
        refused = job.refused.get(queue[1])
        if found is None and isinstance(refused, Later) and refused.at > self._now:
            # It needs more of a limit than the next request does that needs least.
            return refused.refusal.waiting
        return found

    def _first_reason(self, queue: QueueName) -> Waiting | None:
        kind, name = queue
        target = self._deps.targets.by_name.get(name)
        if target is None:
            return None
        for one in target.waits(self._now):
            is_only_slow = one.reason == "learned limit" and target.state.learned.wait(self._now) <= 0
            if not is_only_slow and (one.reason == "retries") == (kind == "retries"):
                return one
        return None

    def _place(self, entry: QueueEntry, queue: QueueName) -> int | None:
        if queue not in self._places:
            self._places[queue] = self._deps.queues.places_in(queue, MAX_PLACES)
        return self._places[queue].get(entry)

    def _times_of(self, queues: tuple[QueueName, ...], weights: dict[str, int]) -> Admissions:
        """Return when these queues together let requests through; by the weights of the first one that asks."""
        known = self._admissions.get(queues)
        if known is None:
            by_name = self._deps.targets.by_name
            names = [name for kind, name in queues if kind == "provider" and name in by_name]
            each = [by_name[name].admissions(self._now, weights) for name in names]
            known = self._admissions[queues] = Admissions(heapq.merge(*each))
        return known


class Admissions:
    """When requests will be let through, one after the other, worked out as far as is asked for."""

    def __init__(self, times: Iterator[float]) -> None:
        self._times = islice(times, MAX_FORECAST)
        self._known: list[float] = []

    def at(self, place: int | None) -> float | None:
        """Return when the request is let through that so many come before; None if that is not known.

        >>> ten_a_second = Admissions(number / 10 for number in range(2_000))
        >>> ten_a_second.at(20), round(ten_a_second.at(1_500), 3), Admissions(iter([1.0])).at(1)
        (2.0, 150.0, None)
        """
        if place is None:
            return None
        self._known.extend(islice(self._times, max(0, place + 1 - len(self._known))))
        known = self._known
        if place < len(known):
            return known[place]
        if len(known) < MAX_FORECAST:
            return None
        return known[0] + place * (known[-1] - known[0]) / (len(known) - 1)


def _besides(what: object) -> tuple[QueueName, ...]:
    """Return the queues in which a request waits, the first ones."""
    wait = what.besides if isinstance(what, QuotaWait) else what
    queues: tuple[QueueName, ...] = getattr(wait, "queues", ())
    return queues[:MAX_QUEUES]


def _soonest(waiting: Waiting) -> float:
    return math.inf if waiting.until is None else waiting.until
