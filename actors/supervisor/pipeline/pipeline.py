"""The way of one request, from discovery to its end: found, chosen, admitted, called, classified, settled, decided.

It is fixed, so that nobody can compose it wrongly. What it decides by is elsewhere and pure; here it is waited.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from actors.discovery.messages import Discover
from actors.errors.families import RegistryDown
from actors.policies.breaker.circuit_breaker import Closed
from actors.providers.bandit import Answers, Bandit, fallen, rated, samples
from actors.providers.observed import NOTHING as NOTHING_OBSERVED
from actors.providers.observed import load
from actors.providers.selection import ADAPTIVE_STRATEGIES, Signals
from actors.supervisor.pipeline.attempts import Attempts
from actors.supervisor.pipeline.choosing import Choosing
from actors.supervisor.targets.gateways import is_fresh
from actors.supervisor.targets.waiting import Wait, WaitQueues
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.market.market import Market
    from actors.providers.observed import Observed
    from actors.supervisor.messages import SmartResult
    from actors.supervisor.payments.funds import Funds
    from actors.supervisor.payments.reconciler import Reconciler
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.gateways import Gateways
    from actors.supervisor.targets.target_table import TargetTable
    from runtime import ActorRef, Context

ADAPTIVE = frozenset(ADAPTIVE_STRATEGIES)
NEW_BANDIT = Bandit()


class Pipeline:
    """Serves the requests of one supervisor."""

    def __init__(
        self,
        market: Market,
        context: Context,
        discovery: ActorRef[Discover],
        providers: TargetTable,
        gateways: Gateways,
        lines: WaitQueues,
        spending: Funds,
        reconciler: Reconciler,
    ) -> None:
        self.bandits: dict[str, Bandit] = {}
        """What scores have told of the providers of each service."""
        self.answers = Answers()
        self._market = market
        self._context = context
        self._now = context.now
        self._discovery = discovery
        self._providers = providers
        self._gateways = gateways
        self._lines = lines
        self._spending = spending
        self._choosing = Choosing(market, context, lines)
        self._attempts = Attempts(market, context, self._choosing, providers, gateways, lines, spending, reconciler)

    async def serve(self, job: Job) -> SmartResult:
        """Return the answer to a request; raises a member of `CallFailed`."""
        if job.message.account is not None:
            await self._spending.ensure(job.message.account)
        await self._find_candidates(job)
        while True:
            names = self._choosing.names(job)
            if job.message.health_check and self._has_unknown_health(job, names):
                await self._find_unhealthy(job, names)
                names = self._choosing.names(job)
            choice = self._choosing.choose(job, names)
            if job.broke:
                choice = self._choosing.or_for_money(job, names, choice)
            if choice is None and job.broke and job.has_kept_broke:
                # There is nobody else left, and money may have come back.
                job.has_kept_broke = False
                job.broke.clear()
                continue
            if choice is None:
                reply = await self._attempts.last_resort(job)
            elif isinstance(choice, Wait):
                await self._lines.wait(job.place, choice)
                job.has_kept_broke = self._now() < job.broke_until
                if not job.has_kept_broke:
                    job.broke.clear()
                continue
            else:
                reply = await self._attempts.make(job, choice)
            if reply is not None:
                self.answers.note(job.message.service, job.request_id, job.last)
                return job.result(reply)

    async def _find_candidates(self, job: Job) -> None:
        message = job.message
        question = Discover(service=message.service, where=message.where)
        try:
            found = await self._discovery.ask(question, timeout=message.timeout)
        except RuntimeFault as error:
            raise RegistryDown(message.service, str(error)) from error
        job.candidates = candidates = self._providers.candidates(found, message.requirement, message.service)
        job.deprioritized = (*candidates.deprioritized(), *self._providers.eased_in(candidates))
        bandit = self.bandits.get(message.service)
        if bandit is not None:
            self._rate(job, bandit)
        if not ADAPTIVE.isdisjoint(message.strategies):
            job.signals = self._signals(job, found.observed)

    def _rate(self, job: Job, bandit: Bandit) -> None:
        """Let scores correct what is declared, and let whoever fell far below the others stand back."""
        providers = [listing.provider for listing in job.candidates.listings.values()]
        job.rated = rated(bandit, providers, self._now())
        if "bandit" not in job.message.strategies:  # It tries those again that fell, now and then.
            job.deprioritized += tuple(fallen(job.rated, providers))

    def _signals(self, job: Job, observed: Mapping[str, Observed]) -> Signals:
        """Return what the adaptive strategies go by, drawn once for each request."""
        now, dice, listings = self._now(), self._context.random, job.candidates.listings
        loads = {
            name: load(
                listing.provider,
                observed.get(name, NOTHING_OBSERVED),
                under_way=job.candidates.targets[name].state.under_way,
                now=now,
            )
            for name, listing in listings.items()
        }
        bandit = self.bandits.get(job.message.service, NEW_BANDIT)
        return Signals(
            loads=loads,
            draws=(dice.random(), dice.random()),
            samples=samples(bandit, [listing.provider for listing in listings.values()], dice)
            if "bandit" in job.message.strategies
            else {},
        )

    def _has_unknown_health(self, job: Job, names: Sequence[str]) -> bool:
        """Tell whether anybody has to be asked: not where the first choice is known to be well."""
        first = job.candidates.targets[names[0]] if names else None
        if first is None or first.health is None or job.unhealthy or job.tried:
            return True
        is_known = is_fresh(first, max_age=self._market.health.max_age, now=self._now())
        return not (is_known and first.health.is_healthy and isinstance(first.state.breaker, Closed))

    async def _find_unhealthy(self, job: Job, names: Sequence[str]) -> None:
        """Check the first choice, and if it is unhealthy the next, and so on, and note the unhealthy ones.

        That takes at most half of the time left: who is not known by then counts as healthy, as without a check.
        """
        if job.unhealthy:
            job.unhealthy = ()
            names = self._choosing.names(job)
        now, max_age = self._now(), self._market.health.max_age
        with suppress(TimeoutError):
            async with asyncio.timeout_at(now + (job.deadline - now) / 2):
                for name in names:
                    target = job.candidates.targets[name]
                    if name in job.tried or not isinstance(target.state.breaker, Closed):
                        continue
                    if not is_fresh(target, max_age=max_age, now=self._now()):
                        # Those behind must not wait for the answer too.
                        self._lines.leave(job.place)
                    if (await self._gateways.check(target, max_age=max_age)).is_healthy:
                        break
                    job.unhealthy = (*job.unhealthy, name)
