"""Markets change under load, at any moment: what is under way ends as it began, and no cent and no place is lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    BreakerConfig,
    CallFailed,
    FunctionTransport,
    Listing,
    Market,
    Provider,
    Retry,
    Supervisor,
    smart_request,
)
from actors.ledger import GetStatement, Ledger
from actors.ledger.book import Book
from actors.ledger.messages import OpenAccount
from actors.market import SharedQuota
from actors.money import Micros
from actors.policies.hedge import HedgeConfig
from actors.simulation import SimulatedProvider
from actors.simulation.faults import BrownOut, Hanging, LostReplies, Outage, ThrottleStorm
from actors.supervisor import ReplaceMarket
from runtime import ActorSystem, RuntimeFault
from runtime.simulation import Crash, Simulation, explore
from tests.proofs import repeated
from tests.simulation.test_keyed_streams import KEYS, check_all_came_back, read
from tests.simulation.test_streams import PRICE, Drip

if TYPE_CHECKING:
    import random

    from actors.supervisor import SmartRequest
    from actors.supervisor.pipeline.job import Job
    from runtime import ActorRef

SEEDS = repeated(300)
NAMES = ("alder", "birch", "cedar", "dogwood")
RATE, BURST = 6.0, 5
FAULTS = (Outage, BrownOut, Hanging, ThrottleStorm, LostReplies)
CUSTOMERS = 60
ANSWERED_LATE = 400.0
"""Seconds after which all is known that will be, and gateways that are idle were closed."""


def any_market(dice: random.Random, providers: list[SimulatedProvider]) -> Market:
    """Return one of the markets that an operator might write: some of the providers, at some terms."""
    chosen = dice.sample(providers, dice.randint(1, len(providers)))
    listings: list[Listing] = []
    for one in chosen:
        listing = Listing(
            provider=msgspec.structs.replace(
                one.offer, price=one.price, address=dice.choice(["here", "here", "there"])
            ),
            transport=one.transport,
            max_concurrency=dice.choice([1, 2, 8]),
            timeout=dice.choice([1.0, 5.0]),
            rate_limit=dice.choice([None, None, 3.0, 9.0]),
            burst=dice.choice([1, 4]),
            headroom=1.0,
            budget=dice.choice([None, None, "0.20", "1/hour"]),
            quota="org",
        )
        listings.append(listing)
    slower = dice.choice([1.0, 1.0, 0.5])
    return Market(
        providers=listings,
        quotas={"org": SharedQuota(rate_limit=RATE * slower, burst=dice.choice([BURST, 2]), headroom=1.0)},
        budget=dice.choice([None, "0.30", "0.60", "5", "0.50/hour"]),
        risk_total=dice.choice([None, "0.05"]),
        retry=dice.choice([Retry(), Retry(base=0.0, cap=0.0)]),
        breaker=dice.choice([BreakerConfig(), BreakerConfig(open_for=2.0, max_open_for=4.0)]),
        hedge=dice.choice([None, HedgeConfig()]),
        max_waiting=dice.choice([5, 100_000]),
    )


def never_over(at: list[float], *, rate: float, burst: int) -> bool:
    at = sorted(at)
    return all(
        last - first + 1 <= burst + rate * (at[last] - at[first]) + 1e-3
        for first in range(len(at))
        for last in range(first, len(at))
    )


class Office(Supervisor):
    """A supervisor that tells under which market each request began."""

    def __init__(self, market: Market, begun_under: dict[str, Market], *, ledger: ActorRef[Any]) -> None:
        super().__init__(market, ledger=ledger)
        self.begun_under = begun_under

    def _begin(self, message: SmartRequest) -> Job:
        job = super()._begin(message)
        self.begun_under[job.request_id] = self.market
        return job


class Changing:
    """An office whose market changes, its customers, and what its providers were asked."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self.dice = simulation, simulation.random
        self.providers = [self.provider(name) for name in NAMES]
        self.markets = [any_market(self.dice, self.providers)]
        self.begun_under: dict[str, Market] = {}
        """The market in force when each request came to the office."""
        self.strays: list[tuple[str, str]] = []
        """Calls to a provider that is not in the market under which their request began."""
        self.ended: list[str] = []

    def provider(self, name: str) -> SimulatedProvider:
        dice = self.dice
        return SimulatedProvider(
            self.simulation,
            name,
            services={"s"},
            price=dice.choice([0, "0.01", "0.02"]),
            latency=(0.0, dice.choice([0.2, 3.0])),
            answer=self.answer,
            idempotent=dice.choice(["no", "key"]),
            looks_up=dice.random() < 0.5,
            cancels=dice.random() < 0.3,
        )

    def answer(self, call: Any) -> Any:
        market = self.begun_under[call.request_id]
        if call.provider not in {one.provider.name for one in market.providers}:
            self.strays.append((call.request_id, call.provider))
        return call.input

    def inject_faults(self) -> None:
        dice = self.dice
        for _ in range(dice.randint(0, 4)):
            fault = dice.choice(FAULTS)
            provider = dice.choice(NAMES)
            self.simulation.inject(fault(at=dice.uniform(0, 20), lasts=dice.uniform(1, 8), provider=provider))
        crashes = ["changes/office", "changes/office/gateway-*", "changes/ledger"]
        for actor in dice.sample(crashes, dice.choice([0, 0, 1])):
            self.simulation.inject(Crash(at=dice.uniform(0, 20), actor=actor, may_miss=True))

    async def operator(self, office: ActorRef[Any]) -> None:
        dice = self.dice
        for _ in range(dice.randint(1, 8)):
            await asyncio.sleep(dice.choice([0.0, dice.uniform(0, 6)]))
            self.markets.append(any_market(dice, self.providers))
            with contextlib.suppress(TimeoutError, CallFailed, RuntimeFault):
                async with asyncio.timeout(dice.choice([0.0, 0.01, None, None])):
                    await office.ask(ReplaceMarket(self.markets[-1]), timeout=dice.choice([0.01, 10.0]))

    async def customer(self, office: ActorRef[Any]) -> None:
        dice = self.dice
        await asyncio.sleep(dice.uniform(0, 20))
        asking = smart_request(
            office,
            service="s",
            input=0,
            timeout=dice.uniform(1, 40),
            account=dice.choice([None, "acme"]),
            idempotency_key=dice.choice([None, None, f"key-{dice.randint(0, 3)}"]),
        )
        try:
            async with asyncio.timeout(dice.choice([0.0, 0.5, 3.0, None, None, None])):
                await asking
            self.ended.append("answered")
        except (CallFailed, RuntimeFault, TimeoutError) as error:
            self.ended.append(type(error).__name__)


@pytest.mark.simulate(seeds=SEEDS)
async def test_no_money_no_place_and_no_request_is_lost_whenever_the_market_changes(simulation: Simulation):
    changing = Changing(simulation)
    changing.inject_faults()
    made, book = list[Office](), Book()
    async with ActorSystem("changes") as system:

        def make() -> Office:
            made.append(Office(changing.markets[0], changing.begun_under, ledger=ledger))
            return made[-1]

        ledger = system.spawn(lambda: Ledger(book=book), name="ledger")
        office = system.spawn(make, name="office")
        await office.ask(OpenAccount(name="acme", cap="0.40"), timeout=5.0)
        await asyncio.gather(changing.operator(office), *(changing.customer(office) for _ in range(CUSTOMERS)))
        await asyncio.sleep(ANSWERED_LATE)
        supervisor = made[-1]
        assert len(changing.ended) == CUSTOMERS
        assert [*supervisor.broken_invariants(), *book.broken_invariants()] == []
        assert book.unsettled(is_held=False) == ()
        if len(made) == 1:
            assert changing.strays == []
            total = await office.ask(GetStatement(None), timeout=5.0)
            charged = sum(one.income for one in changing.providers)
            assert total.settled <= charged <= total.settled + total.held, (total, charged)
        assert [one.name for one in changing.providers if one.under_way] == []
        # A removed provider is closed at once when it is done, and the others when they have been idle for long.
        assert [one.name for one in changing.providers if one.open_transports] == []
    at = [at for one in changing.providers for at in one.called_at]
    assert never_over(at, rate=RATE, burst=BURST)


async def streams(simulation: Simulation) -> None:
    dice = simulation.random
    drips = [Drip(dice) for _ in range(3)]

    def market() -> Market:
        some = dice.sample(range(3), dice.randint(1, 3))
        return Market(
            providers=[
                Listing(
                    provider=Provider(
                        name=f"p{number}",
                        services={"s"},
                        price=Micros(PRICE),
                        response_time=0.1,
                        address=dice.choice(["here", "there"]),
                    ),
                    transport=lambda drip=drips[number]: FunctionTransport(
                        drip, paid=True, idempotent="no", ends_when_cancelled=True
                    ),
                    max_concurrency=dice.choice([2, 8]),
                    timeout=2.0,
                )
                for number in some
            ],
            budget=dice.choice([None, "10"]),
        )

    async with ActorSystem("streams", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market()))

        async def one() -> None:
            await asyncio.sleep(dice.choice([0.0, 0.0, 1.0, 3.0, 10.0]))
            with contextlib.suppress(CallFailed):
                async with asyncio.timeout(dice.choice([0.0, 0.5, 3.0, 1e4])):
                    await read(supervisor, dice, dice.choice(KEYS))

        async def operator() -> None:
            for _ in range(12):
                await asyncio.sleep(dice.choice([0.0, dice.uniform(0, 2)]))
                await supervisor.ask(ReplaceMarket(market()), timeout=5.0)

        results = await asyncio.gather(operator(), *(one() for _ in range(14)), return_exceptions=True)
        await check_all_came_back(supervisor, drips, results)
    assert len(asyncio.all_tasks()) == 1


def test_streams_go_on_to_their_end_and_are_paid_once_whenever_the_market_changes() -> None:
    seeds = range(repeated(400, at_least=10, part=40))
    assert explore(streams, seeds=seeds).runs == len(seeds)
