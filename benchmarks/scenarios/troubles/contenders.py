"""Who is put through the troubles, behind one interface: the cast as it comes, the seed's recipe, and a stack by hand.

Each has one configuration for every trouble. All get the same providers, in the same order of preference, and where a
provider says what it may be asked, they know that too.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from actors import BreakerConfig, Market, Supervisor
from actors.providers import ScoreAnswer, rank
from actors.simulation import simulated_registry
from actors.supervisor.client import ANSWER_GRACE
from actors.supervisor.messages import SmartRequest
from actors.transports.transport import ProviderCall
from benchmarks.resilience.peers import is_installed
from benchmarks.scenarios import seed_port
from benchmarks.scenarios.hand_stack import PACKAGES, HandStack, Tuning
from benchmarks.scenarios.troubles.provider import SERVICE, tokens_of
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from actors.money import Amount
    from benchmarks.scenarios.troubles.provider import TroubledProvider, TroubledTransport
    from runtime.simulation import Simulation

OURS, SEED, BY_HAND = "ours", "the seed's port", "by hand"
FOREVER = 1e6
"""Seconds; the seed has no timeout of its own."""
SEED_CONCURRENCY = 10


class Reply(msgspec.Struct, frozen=True):
    """What a contender hands over, and whether it calls that a success."""

    output: Any
    is_success: bool = True
    by: str | None = None
    """Who gave the answer, where the contender says so."""


class Client(Protocol):
    """A contender at work."""

    async def request(
        self,
        question: Any,
        *,
        timeout: float,  # noqa: ASYNC109 - it is passed on.
        budget: Amount | None = None,
        tenant: str | None = None,
    ) -> Reply:
        """Have one input worked on; raises where the contender admits that it failed."""
        ...

    def judge(self, reply: Reply, *, is_right: bool) -> None:
        """Say whether an answer was right, for those who learn from that."""
        ...


Contender: TypeAlias = "Callable[[Simulation, Sequence[TroubledProvider]], AbstractAsyncContextManager[Client]]"


class Ours:
    """The cast, with the defaults that it is shipped with."""

    def __init__(self, supervisor: Any) -> None:
        self.supervisor = supervisor

    async def request(
        self,
        question: Any,
        *,
        timeout: float,  # noqa: ASYNC109 - it is passed on.
        budget: Amount | None = None,
        tenant: str | None = None,
    ) -> Reply:
        message = SmartRequest(
            service=SERVICE,
            input=question,
            strategies=("balanced",),
            timeout=timeout,
            budget=budget,
            request_id=f"request-{question}",
            tenant=tenant,
            weights={"tokens": tokens_of(question)},
        )
        result = await self.supervisor.ask(message, timeout=timeout + ANSWER_GRACE)
        return Reply(result.output, by=result.provider)

    def judge(self, reply: Reply, *, is_right: bool) -> None:
        """Score the answer."""
        self.supervisor.tell(ScoreAnswer(service=SERVICE, provider=reply.by, score=float(is_right)))


@asynccontextmanager
async def ours(simulation: Simulation, providers: Sequence[TroubledProvider]) -> AsyncGenerator[Client]:
    """Start a system with a supervisor over these providers."""
    accounts = {provider.account.name: provider.account.stated for provider in providers if provider.account}
    market = Market(providers=[provider.listing() for provider in providers], quotas=accounts)
    registry = simulated_registry(simulation, providers)
    async with ActorSystem("troubles") as system:
        yield Ours(system.spawn(lambda: Supervisor(market, registry=registry), name="supervisor"))


class Deaf:
    """Who has no use for what customers say of their answers."""

    def judge(self, reply: Reply, *, is_right: bool) -> None:
        """Do nothing."""


class TheSeed(Deaf):
    """The page's "High-Reliability Production Setup", request by request, without its rate limit of 5 a second."""

    def __init__(self, providers: Sequence[seed_port.SeedProvider]) -> None:
        self.discovery = seed_port.ProviderDiscovery(list(providers))
        self.breaker = seed_port.CircuitBreaker("batch-process", failure_threshold=5, reset_time=60.0)
        self.places = asyncio.Semaphore(SEED_CONCURRENCY)

    async def request(
        self,
        question: Any,
        *,
        timeout: float,  # noqa: ASYNC109 - it is passed on.
        budget: Amount | None = None,
        tenant: str | None = None,
    ) -> Reply:
        async def attempt() -> Any:
            return await seed_port.smart_request(
                self.discovery,
                service=SERVICE,
                payload=question,
                budget=float("inf") if budget is None else float(budget),
                strategy="balanced",
                health_check=True,
            )

        async with self.places:
            result = await self.breaker.execute(lambda: seed_port.with_retry(attempt, max_retries=3))
        # What it returns instead of raising is a success to its caller.
        return Reply(result.data)


@asynccontextmanager
async def the_seed(_simulation: Simulation, providers: Sequence[TroubledProvider]) -> AsyncGenerator[Client]:
    """Offer the providers to the seed's port, the preferred one first."""
    calls = itertools.count()
    async with AsyncExitStack() as stack:

        def offer(provider: TroubledProvider) -> seed_port.SeedProvider:
            transport = opened(stack, provider)

            async def call(question: Any) -> Any:
                # It knows of no idempotency key, so that each call is another to the provider.
                key = f"call-{next(calls)}"
                return (await transport.call(call_of(provider, question, key=key, timeout=FOREVER))).output

            async def healthy() -> bool:
                try:
                    await transport.check(timeout=2.0)
                except Exception:  # noqa: BLE001 - whatever it is, the ping failed.
                    return False
                return True

            terms = provider.offer
            return seed_port.SeedProvider(
                terms.name, terms.price / 1e6, terms.reputation, terms.response_time, call, healthy
            )

        yield TheSeed([offer(provider) for provider in providers])


class ByHand(Deaf):
    """The stack composed by hand, with the same thresholds, waits and timeouts as ours."""

    def __init__(self, stack: HandStack) -> None:
        self.stack = stack

    async def request(
        self,
        question: Any,
        *,
        timeout: float,  # noqa: ASYNC109 - it is passed on.
        budget: Amount | None = None,
        tenant: str | None = None,
    ) -> Reply:
        async with asyncio.timeout(timeout):
            _, output = await self.stack.request(question, key=f"request-{question}")
        return Reply(output)


@asynccontextmanager
async def by_hand(_simulation: Simulation, providers: Sequence[TroubledProvider]) -> AsyncGenerator[Client]:
    """Compose a stack over these providers; each with a limit that it lists has a limiter of its own."""
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 - an extra.

    class Limiter(AsyncLimiter):
        def _leak(self) -> None:
            super()._leak()
            # It waits for what is missing, be it 1e-17 of a token: for ever, where time stands still meanwhile.
            self._level = round(self._level, 9)

    by_name = {provider.name: provider for provider in providers}
    async with AsyncExitStack() as exits:

        def offer(provider: TroubledProvider) -> Callable[[Any, str], Awaitable[Any]]:
            transport, listing = opened(exits, provider), provider.listing()
            limiter = Limiter(listing.burst, listing.burst / listing.rate_limit) if listing.rate_limit else None
            places = asyncio.Semaphore(listing.max_concurrency)

            async def call(question: Any, key: str) -> Any:
                async with places:
                    if limiter is not None:
                        await limiter.acquire()
                    return (await transport.call(call_of(provider, question, key=key, timeout=FOREVER))).output

            return call

        ranked = rank([provider.offer for provider in providers], "balanced")
        tuning = Tuning(
            max_concurrency=1_000,
            rounds=4,
            timeout=max(provider.listing().timeout for provider in providers),
            failure_threshold=5,
            open_for=BreakerConfig().open_for,
            backoff=1.0,
            max_backoff=30.0,
        )
        yield ByHand(HandStack({one.name: offer(by_name[one.name]) for one in ranked}, tuning))


def opened(stack: AsyncExitStack, provider: TroubledProvider) -> TroubledTransport:
    """Return a transport that is closed with the stack."""
    transport = provider.transport()
    stack.push_async_callback(transport.aclose)
    return transport


def call_of(provider: TroubledProvider, question: Any, *, key: str, timeout: float) -> ProviderCall:
    """Return a call as a client of the provider would make it."""
    return ProviderCall(
        service=SERVICE,
        input=question,
        request_id=key,
        idempotency_key=key,
        max_cost=provider.offer.price,
        timeout=timeout,
    )


def all_contenders() -> dict[str, Contender]:
    """Return all that can be run here; the last needs the packages of the extra `bench`.

    Left out are hyx, whose breaker asks `datetime.utcnow`, and pyresilience, which takes `time.monotonic` by itself
    when it is imported: both live in real time while their providers live in virtual time, and never half-open.
    """
    found: dict[str, Contender] = {SEED: the_seed, OURS: ours}
    return found | ({BY_HAND: by_hand} if is_installed(*PACKAGES) else {})
