"""Which provider to call next: the first in the order of the strategy that may be called now, or what to wait for."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import DeadlineTooShort
from actors.limits.class_queue import turn_cost
from actors.supervisor.pipeline.routing import in_force, in_order
from actors.supervisor.targets.admission import Admitted, Full, Later, Never
from actors.supervisor.targets.ranked_names import RankedNames
from actors.supervisor.targets.waiting import QueueName, Wait, WaitQueues

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.pipeline.shared_quota import QuotaShare
    from actors.supervisor.targets.admission import CallNeeds
    from actors.supervisor.targets.state import TargetState
    from actors.supervisor.targets.target import Target


class Choice(msgspec.Struct, frozen=True):
    """The provider to call, and what it would become; without an admission, the one to call if there were money."""

    target: Target
    at: float
    admitted: Admitted | None = None
    before: TargetState | None = None
    """The state that the admission was made of."""
    share: QuotaShare | None = None
    """What it has taken of a shared quota already, because it had to wait for that."""


class QuotaWait(msgspec.Struct, frozen=True):
    """Wait for shared quotas: no provider that needs none can be called now.

    `choices` are the providers to call, one for each quota, and `besides` says what may come sooner.
    """

    choices: tuple[Choice, ...]
    besides: Wait

    @property
    def names(self) -> Sequence[str]:
        """The names of these providers."""
        return [choice.target.name for choice in self.choices]


def names_in_order(job: Job) -> Iterable[str]:
    """Return the providers that may be called, the one to call first in front; worked out as far as they are read."""
    tried, held = job.tried, job.held
    is_plain = not (tried or held or job.unhealthy or job.deprioritized or job.candidates.has_failed_checks)
    ranked = (held.target.name,) if held else job.order.by(in_force(job.message.strategies, tried), tried)
    return ranked if is_plain else NamesInOrder(job, ranked)


class NamesInOrder:
    """The names that a request may call, worked out anew each time that they are read."""

    def __init__(self, job: Job, ranked: Iterable[str]) -> None:
        self._job = job
        self._ranked = ranked

    @property
    def ranked(self) -> Iterable[str]:
        """Those that this order is made of."""
        return self._ranked

    def __iter__(self) -> Iterator[str]:
        return self.of(self._ranked)

    def of(self, ranked: Iterable[str]) -> Iterator[str]:
        """Return the order with these names as those ranked."""
        job, held_at = self._job, self._job.held_at
        among = job.candidates.listings if held_at is None else (held_at,)
        return in_order(ranked, tried=job.tried, among=among, is_unhealthy=job.is_deprioritized)


def choose(job: Job, names: Iterable[str], queues: WaitQueues, *, now: float) -> Choice | Wait | QuotaWait | None:
    """Choose a provider, or tell what to wait for; None if there is no hope, or if its item is a dead letter.

    Nothing is taken, but a request that is refused is enqueued if others wait before it. There are three cases with
    regard to money:

    1. It is not short: the first of `names` that is admitted is chosen.
    2. It is short for some, and something else is waited for: it is asked for again while waiting.
    3. It is short, and nothing else is left: it is waited for at the ledger.
    """
    if job.chance is not None:
        return None
    choice = _first_not_full(job, names, queues, now=now) or _first_admitted(job, names, queues, now=now)
    if not job.money.short_of or now >= job.deadline:
        return choice
    first = job.money.first_to_wait_for(name for name in names if name not in job.too_small)
    if first is None:
        return choice
    if isinstance(choice, Wait):
        return _until(choice, job.money.recheck_at)
    if isinstance(choice, QuotaWait):
        return msgspec.structs.replace(choice, besides=_until(choice.besides, job.money.recheck_at))
    return choice or Choice(job.candidates.targets[first], now)


def _until(wait: Wait, at: float) -> Wait:
    return Wait(wait.queues, min(wait.until, at))


def _first_not_full(job: Job, names: Iterable[str], queues: WaitQueues, *, now: float) -> Choice | None:
    """Choose a provider without looking at those in front that are full; None if there are none, or if none is left."""
    ranked = names.ranked if isinstance(names, NamesInOrder) else names
    if not isinstance(ranked, RankedNames) or not (full := ranked.full_ahead()):
        return None
    others = islice(ranked.names, full, None)
    choice = _first_admitted(job, names.of(others) if isinstance(names, NamesInOrder) else others, queues, now=now)
    if not isinstance(choice, Choice):
        return None
    job.full = (ranked.names, full)
    return choice


def _first_admitted(
    job: Job, names: Iterable[str], queues: WaitQueues, *, now: float
) -> Choice | Wait | QuotaWait | None:
    until, is_hopeful = job.deadline, False
    waits_in: dict[QueueName, None] = {}
    short: dict[str | None, Choice] = {}
    for name in names:
        if name in job.money.short_of or name in job.too_small:
            continue
        target, tried = job.candidates.targets[name], job.tried.get(name)
        if tried is not None and tried.ready_at > now:
            until, is_hopeful = min(until, tried.ready_at), True
            continue
        before = target.state
        needs = job.needs(target)
        admission = target.admit(job.candidates.listings[name], needs, now=now)
        if isinstance(admission, Admitted):
            if not queues or _is_first(job, target, needs, queues):
                choice = Choice(target, now, admission, before)
                if not job.short_quotas or (may_wait := _may_wait(job, name)) is None:
                    return choice
                if may_wait:
                    short.setdefault(job.candidates.listings[name].quota, choice)
                continue
            # A request that came before has been woken, and will be next.
            waits_in[target.queue] = None
            continue
        job.entry.cost = turn_cost(needs.weights)
        until = min(until, _refused(job, name, admission, queues, waits_in))
    if short and now < job.deadline:
        return QuotaWait(tuple(short.values()), Wait(tuple(waits_in), until))
    if (is_hopeful or waits_in) and now < job.deadline:
        return Wait(tuple(waits_in), until)
    return None


def _is_first(job: Job, target: Target, needs: CallNeeds, queues: WaitQueues) -> bool:
    """Tell whether it is the turn of a request at a provider that admits it."""
    job.entry.cost = turn_cost(needs.weights)
    return queues.is_first(job.entry, target.queue)


def _may_wait(job: Job, name: str) -> bool | None:
    """Tell whether a request may wait for the quota that a provider shares; None if that is not short."""
    quota = job.candidates.listings[name].quota
    return None if quota is None else job.short_quotas.get(quota)


def _refused(
    job: Job, name: str, admission: Full | Later | Never, queues: WaitQueues, waits_in: dict[QueueName, None]
) -> float:
    """Note a refusal, and in `waits_in` where to wait; return when to look again if nothing happens before."""
    if isinstance(admission, Never):
        if not job.refused or not isinstance(admission.refusal, DeadlineTooShort):
            job.refused[name] = admission
        return math.inf
    job.refused[name] = admission
    if isinstance(admission, Full):
        queue = job.candidates.targets[name].queue
        waits_in[queue] = None
        queues.join(job.entry, queue)
    elif admission.is_in_time(job.deadline):
        waits_in[admission.queue] = None
        if queues.is_first(job.entry, admission.queue):
            return admission.at
    return math.inf
