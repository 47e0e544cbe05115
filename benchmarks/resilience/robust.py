"""2,000 items over three providers that fail 30, 10 and 1 % of their calls: what is reported, and what is true.

The providers take 1 to 5 ms, charge for every answer, and know what they were paid for. A failure is a refusal before
any work, like a 503. Every stack gets the same ones, with the same dice.
"""

from __future__ import annotations

import random
from asyncio import sleep
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from actors import (
    BreakerConfig,
    Done,
    FunctionTransport,
    Listing,
    Market,
    Provider,
    ProviderCall,
    Retry,
    Supervisor,
    Transient,
    robust_batch,
    to_micros,
)
from actors.providers import rank
from benchmarks.scenarios.hand_stack import HandStack, Tuning
from benchmarks.scenarios.seed_port import ProviderDiscovery, SeedProvider, robust_batch_process
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ITEMS = 2_000
FAILING = {"alder": 0.3, "birch": 0.1, "cedar": 0.01}
PRICES = {"alder": "0.001", "birch": "0.002", "cedar": "0.003"}
MAX_CONCURRENCY = 10
AT_ONCE = 100


class RobustFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    reported: float
    """Per cent of the items that the stack calls successes."""
    real: float
    """Per cent of the items that a provider answered, and whose answer was handed over."""
    overstated: float
    """The difference of the two."""
    calls: float
    seconds: float
    paid_twice: float
    p99: float | None
    """The ms that 99 % of the items took at most, each from its begin; None where the stack does not tell."""


class Providers:
    """The three, and what they know."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.calls = 0
        self.paid: Counter[int] = Counter()

    async def ask(self, name: str, item: int) -> int:
        """Do what provider `name` does when it is called."""
        self.calls += 1
        await sleep(self.dice.uniform(0.001, 0.005))
        if self.dice.random() < FAILING[name]:
            raise Transient(f"503: {name} is overloaded", provider=name, outcome="not_started")
        self.paid[item] += 1
        return -item

    async def is_healthy(self, name: str) -> bool:
        """Answer a ping, which fails like a tenth of the calls."""
        await sleep(0.0005)
        return self.dice.random() >= FAILING[name] / 10

    def facts(
        self, answers: dict[int, int], reported: int, taken: list[float], *, items: int, seconds: float
    ) -> RobustFacts:
        """Return the facts, of which `answers` are what the stack handed over."""
        real = sum(self.paid[item] > 0 and answer == -item for item, answer in answers.items())
        return RobustFacts(
            reported=100 * reported / items,
            real=100 * real / items,
            overstated=100 * (reported - real) / items,
            calls=self.calls,
            seconds=seconds,
            paid_twice=sum(count > 1 for count in self.paid.values()),
            p99=sorted(taken)[int(len(taken) * 0.99)] * 1e3 if taken else None,
        )


def listings(providers: Providers) -> list[Listing]:
    """Put the three on a market; what is known of each is true."""

    def listing(name: str) -> Listing:
        async def call(call: ProviderCall) -> int:
            return await providers.ask(name, call.input)

        return Listing(
            provider=Provider(
                name=name,
                services={"process"},
                price=to_micros(PRICES[name]),
                reputation=90 - 100 * FAILING[name],
                success_rate=1 - FAILING[name],
            ),
            transport=lambda: FunctionTransport(call, paid=True, idempotent="no", provider=name),
        )

    return [listing(name) for name in FAILING]


async def ours(seed: int, items: int = ITEMS) -> RobustFacts:
    providers = Providers(seed)
    market = Market(
        providers=listings(providers),
        retry=Retry(base=0.005, cap=0.05),
        breaker=BreakerConfig(open_for=0.1, max_open_for=1.0),
    )
    began: dict[int, float] = {}
    taken: list[float] = []
    answers: dict[int, int] = {}

    def source() -> Iterator[int]:
        # An item is taken from here when its turn has come.
        for item in range(1, items + 1):
            began[item] = perf_counter()
            yield item

    begin = perf_counter()
    async with ActorSystem("robust", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        batch = robust_batch(
            supervisor,
            source(),
            service="process",
            max_concurrency=MAX_CONCURRENCY,
            budget="25",
            strategy="balanced",
            fallback_strategies=("best", "cheapest"),
        )
        async with batch as outcomes:
            async for outcome in outcomes:
                taken.append(perf_counter() - began[outcome.item])
                if isinstance(outcome, Done):
                    answers[outcome.item] = outcome.result.output
        seconds = perf_counter() - begin
    return providers.facts(answers, len(answers), taken, items=items, seconds=seconds)


async def items_at_once(items: int) -> float:
    """Return the items a second of a batch with a budget, 100 at a time, at one paid provider that answers at once."""

    async def answer(call: ProviderCall) -> int:
        return -call.input

    def transport() -> FunctionTransport:
        return FunctionTransport(answer, paid=True, idempotent="key", ends_when_cancelled=True)

    provider = Provider(name="alder", services={"process"}, price="0.000001")
    market = Market(providers=[Listing(provider=provider, transport=transport, max_concurrency=10 * AT_ONCE)])
    async with ActorSystem("robust", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        begin = perf_counter()
        batch = robust_batch(supervisor, range(items), service="process", max_concurrency=AT_ONCE, budget="25")
        async with batch as outcomes:
            done = sum([isinstance(outcome, Done) async for outcome in outcomes])
        assert done == items
        return items / (perf_counter() - begin)


async def items_at_once_by_hand(items: int) -> float:
    """Return the same of the stack that is put together by hand, which has no budget."""

    async def answer(item: int, _key: str) -> int:
        return -item

    stack = HandStack({"alder": answer}, Tuning(max_concurrency=AT_ONCE, rate_limit=1e7))
    begin = perf_counter()
    done = sum([result.error is None async for result in stack.batch(range(items))])
    assert done == items
    return items / (perf_counter() - begin)


async def by_hand(seed: int, items: int = ITEMS) -> RobustFacts:
    providers = Providers(seed)

    def call_of(name: str) -> Callable[[Any, str], Awaitable[Any]]:
        async def call(item: Any, _key: str) -> Any:
            return await providers.ask(name, item)

        return call

    # In the order that our strategy would have, which is the better for it.
    ranked = rank([listing.provider for listing in listings(providers)], "balanced")
    stack = HandStack(
        {provider.name: call_of(provider.name) for provider in ranked}, Tuning(max_concurrency=MAX_CONCURRENCY)
    )
    answers: dict[int, int] = {}
    taken: list[float] = []
    begin = perf_counter()
    async for result in stack.batch(range(1, items + 1)):
        taken.append(result.taken)
        if result.error is None:
            answers[result.item] = result.output
    return providers.facts(answers, len(answers), taken, items=items, seconds=perf_counter() - begin)


async def as_the_seed(seed: int, items: int = ITEMS) -> RobustFacts:
    providers = Providers(seed)

    def offer(name: str) -> SeedProvider:
        async def call(item: Any) -> Any:
            return await providers.ask(name, item)

        async def healthy() -> bool:
            return await providers.is_healthy(name)

        return SeedProvider(name, float(PRICES[name]), 90 - 100 * FAILING[name], 0.003, call, healthy)

    discovery = ProviderDiscovery([offer(name) for name in FAILING])
    begin = perf_counter()
    # Without its rate limit of 5 a second, which the others do not have either.
    results = await robust_batch_process(discovery, range(1, items + 1), rate_limit=None)
    seconds = perf_counter() - begin
    answers = {
        item: result.data.data
        for item, result in enumerate(results, start=1)
        if result.success and result.data.data is not None
    }
    reported = sum(result.success for result in results)
    return providers.facts(answers, reported, [], items=items, seconds=seconds)
