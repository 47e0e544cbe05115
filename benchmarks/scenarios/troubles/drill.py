"""The customers: they come by the dice, wait as long as they said, and check what they get."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any

from benchmarks.scenarios.troubles.outcome import Outcome, Served, outcome_of, time_to_return
from benchmarks.scenarios.troubles.provider import right_answer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from benchmarks.scenarios.troubles.contenders import Client, Contender
    from benchmarks.scenarios.troubles.outcome import Span
    from benchmarks.scenarios.troubles.provider import TroubledProvider
    from runtime.simulation import Simulation

TIMEOUT = 30.0
"""Seconds that a customer gives a request."""
PATIENCE = 2.0
"""Seconds beyond its timeout after which a customer goes away, whatever the contender does."""
MIN_REQUESTS = 180
MAX_WAIT = 150.0
"""Seconds after recovery for which customers keep on coming, if the provider is not in full use before."""


class Customers:
    """All who make requests in one run; those who `judge` tell the contender whether its answers are right."""

    def __init__(
        self,
        simulation: Simulation,
        client: Client,
        names: Collection[str],
        *,
        tenant: str | None = None,
        judge: bool = False,
    ) -> None:
        self.simulation = simulation
        self.client = client
        self.names = names
        self.tenant = tenant
        self.judge = judge
        self.served: list[Served] = []
        self.waiting: dict[Any, float] = {}
        """When those who still wait came, the first in front."""
        self.dice = random.Random(f"{simulation.seed}/customers")

    async def request(self, question: Any, *, timeout: float = TIMEOUT) -> None:  # noqa: ASYNC109 - it is passed on.
        """Make one request, and note what came of it; one that is cancelled is not noted."""
        begun, error, by, is_reported = self.simulation.now(), None, None, False
        self.waiting[question] = begun
        try:
            async with asyncio.timeout(timeout + PATIENCE):
                reply = await self.client.request(question, timeout=timeout, tenant=self.tenant)
            is_reported = reply.is_success
            by = next((name for name in self.names if reply.output == right_answer(name, question)), None)
            if self.judge:
                self.client.judge(reply, is_right=by is not None)
        except Exception as failure:  # noqa: BLE001 - contenders raise what they like.
            error = type(failure).__name__
        finally:
            del self.waiting[question]
        self.served.append(
            Served(
                question=question,
                begun=begun,
                ended=self.simulation.now(),
                by=by,
                is_reported=is_reported,
                error=error,
            )
        )

    def served_in_turn(self) -> list[Served]:
        """Return the requests before which no customer waits any more."""
        first = next(iter(self.waiting.values()), math.inf)
        return [one for one in self.served if one.begun < first]

    def wait(self, rate: float) -> float:
        """Return the seconds to the next who comes, of `rate` a second."""
        return self.dice.expovariate(rate)


async def drill(
    simulation: Simulation,
    contender: Contender,
    providers: Sequence[TroubledProvider],
    *,
    rate: float,
    span: Span,
    failing: TroubledProvider | None = None,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - it is passed on.
    min_requests: int = MIN_REQUESTS,
    returns: bool = True,
    judge: bool = False,
) -> Outcome:
    """Let `rate` customers a second come before, during and after a trouble; return the figures.

    They come until `min_requests` have been made and the failing provider is in full use again (if it `returns`).
    """
    async with contender(simulation, providers) as client, asyncio.TaskGroup() as group:
        customers = Customers(simulation, client, [provider.name for provider in providers], judge=judge)
        watched = failing.name if failing is not None and returns else None
        number = 0
        while not is_over(customers, span, watched, number, min_requests):
            group.create_task(customers.request(number, timeout=timeout))
            number += 1
            await asyncio.sleep(customers.wait(rate))
    return outcome_of(customers.served, providers, span=span, failing=failing, returns=returns)


def is_over(customers: Customers, span: Span, watched: str | None, number: int, min_requests: int) -> bool:
    """Tell whether enough has been seen; looked at for every tenth customer."""
    now = customers.simulation.now()
    if number < min_requests or now < span.until or number % 10:
        return False
    if watched is None or now >= span.until + MAX_WAIT:
        return True
    # One who still waits might break the row that tells of the return.
    return time_to_return(customers.served_in_turn(), watched, span) < math.inf
