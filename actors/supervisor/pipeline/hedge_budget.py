"""Whether and when a supervisor makes a second call beside one that takes unusually long.

Only for calls that cost nothing and may take effect twice: of two calls both may be charged, and both may run. The
budget is one for the whole supervisor, and fed by calls: when all providers are slow at once, every call is late, and
second calls would only add to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.policies.hedge import HedgeConfig, LatencyQuantile, budget_of, hedge_delay
from runtime import DeadlineWatch

if TYPE_CHECKING:
    import asyncio

    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target

UNSEEN = LatencyQuantile()


class HedgeBudget:
    """The second calls that one supervisor may make; without a configuration there are none."""

    def __init__(self, config: HedgeConfig | None) -> None:
        self.config = config
        self.budget = budget_of(config or HedgeConfig())
        self.estimates: dict[str, LatencyQuantile] = {}
        self.made = self.won = 0
        """The second calls, and those of them that answered first."""
        self._watch: DeadlineWatch | None = None

    def delay(self, job: Job, target: Target, now: float) -> float | None:
        """Return the seconds after which a call is late enough for a second one; None if there is to be none."""
        config = self.config
        listings = job.candidates.listings
        if config is None or target.idempotent == "no" or target.paid or listings[target.name].may_cost:
            return None
        self.budget = self.budget.deposit(now)
        if len(listings) < 2 or job.held is not None or not self.budget.allows(now):
            return None
        return hedge_delay(self.estimates.get(target.name, UNSEEN), config)

    def learn(self, target: Target, latency: float) -> None:
        """Take note of how long a call took that was answered, or was late and given up."""
        may_run_twice = target.idempotent != "no" and not target.paid
        if self.config is not None and may_run_twice and not target.listing.may_cost:
            estimate = self.estimates.get(target.name, UNSEEN)
            self.estimates[target.name] = estimate.after(latency, quantile=self.config.quantile)

    def take(self, now: float) -> bool:
        """Take one second call from the budget, if it has one left."""
        left = self.budget.withdraw(now)
        self.budget = left or self.budget
        self.made += left is not None
        return left is not None

    def give_back(self) -> None:
        """Put back a second call that no provider could be found for."""
        self.budget = self.budget.give_back()
        self.made -= 1

    def watch(self, loop: asyncio.AbstractEventLoop) -> DeadlineWatch:
        """Return what watches for first calls that are late, all with one timer of the running `loop`."""
        if self._watch is None:
            self._watch = DeadlineWatch(loop)
        return self._watch

    def close(self) -> None:
        """Drop that timer; no call is under way any more."""
        if self._watch is not None:
            self._watch.close()

    def __repr__(self) -> str:
        return f"<HedgeBudget {self.made} second calls, {self.won} of which answered first>"
