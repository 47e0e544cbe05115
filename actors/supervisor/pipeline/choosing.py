"""Whom to call next: the first in the order of the strategy who may be called now, or what to wait for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from actors.errors.families import DeadlineTooShort, Overpriced
from actors.supervisor.pipeline.routing import in_order
from actors.supervisor.targets.admission import Admission, Admitted, Full, Later, Never, admit, queue_of
from actors.supervisor.targets.waiting import QueueName, Wait, WaitQueues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.market.market import Market
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target
    from runtime import Context

FUNDS_RECHECK_INTERVAL = 1.0
"""Seconds after which a request that waits for something else looks again whether money has come back."""


class Choice(NamedTuple):
    """Whom to call, and what it would become; without an admission, who could be called if there were money."""

    target: Target
    at: float
    admitted: Admitted | None = None
    before: object = None
    """What the admission was made of."""


class Choosing:
    """Chooses for the requests of one supervisor, and takes nothing."""

    def __init__(self, market: Market, context: Context, lines: WaitQueues) -> None:
        self._market = market
        self._now = context.now
        self._lines = lines

    def names(self, job: Job) -> Sequence[str]:
        """Return those who may be called, the one to call first in front."""
        strategies, tried, held_at = job.message.strategies, job.tried, job.held_at
        if not (tried or held_at or job.unhealthy or job.deprioritized or job.rated):
            ranked = job.candidates.ranked(strategies[0])
            if ranked is not None:
                return ranked
        listings = job.candidates.listings
        return in_order(
            [job.rated.get(name) or listings[name].provider for name in (listings if held_at is None else (held_at,))],
            tried=tried,
            strategies=strategies,
            unhealthy=(*job.unhealthy, *job.deprioritized),
            signals=job.signals,
        )

    def choose(self, job: Job, names: Sequence[str]) -> Choice | Wait | None:
        """Choose the first who may be called now, or tell what to wait for; None if there is no hope."""
        now = self._now()
        until, is_hopeful = job.deadline, False
        lines: dict[QueueName, None] = {}
        for name in names:
            if name in job.broke:
                continue
            target, tried = job.candidates.targets[name], job.tried.get(name)
            if tried is not None and tried.ready_at > now:
                until, is_hopeful = min(until, tried.ready_at), True
                continue
            before = target.state
            admission = self.admit(job, target, now)
            if isinstance(admission, Admitted):
                if not self._lines or self._lines.is_first(job.place, queue_of(name)):
                    return Choice(target, now, admission, before)
                # Somebody who came before has been woken, and will be next.
                lines[queue_of(name)] = None
                continue
            until = min(until, self._refused(job, name, admission, lines))
        if (is_hopeful or lines) and now < job.deadline:
            return Wait(tuple(lines), until)
        return None

    def or_for_money(self, job: Job, names: Sequence[str], choice: Choice | Wait | None) -> Choice | Wait | None:
        """Reckon with money that may come back: wait for it where there is nothing else, or look for it meanwhile."""
        now = self._now()
        first = next((name for name in names if name in job.broke and job.broke[name].may_free_up), None)
        if first is None or now >= job.deadline:
            return choice
        if isinstance(choice, Wait):
            return Wait(choice.lines, min(choice.until, job.broke_until))
        return choice or Choice(job.candidates.targets[first], now)

    def _refused(self, job: Job, name: str, admission: Full | Later | Never, lines: dict[QueueName, None]) -> float:
        """Note a refusal, and in `lines` where to wait; return when to look again if nothing happens before."""
        if isinstance(admission, Never):
            if not job.refused or not isinstance(admission.refusal, DeadlineTooShort):
                job.refused[name] = admission
            return math.inf
        job.refused[name] = admission
        if isinstance(admission, Full):
            line = queue_of(name)
            lines[line] = None
            self._lines.join(job.place, line)
        elif admission.is_in_time(job.deadline):
            lines[admission.line] = None
            if self._lines.is_first(job.place, admission.line):
                return admission.at
        return math.inf

    def admit(self, job: Job, target: Target, now: float) -> Admission:
        listing = job.candidates.listings[target.name]
        if target.overpriced == listing.provider.price:
            return Never(Overpriced(target.name, quoted=listing.provider.price))
        return admit(
            listing,
            target.state,
            weights=job.message.weights,
            # A repetition under its key is owed: nobody else may be asked meanwhile.
            is_retry=target.name in job.tried and not job.repeats(target),
            now=now,
            deadline=job.deadline,
            patience=job.deadline - job.started,
            breaker=self._market.breaker,
        )
