"""A hundred workers race for one budget through the whole pipeline: no key is paid twice, and no cap is exceeded.

Replies are lost, providers hang and fail, callers give up, gateways crash, prices fall, and the supervisor is killed in
the middle of it. What was charged is what the providers' own books say.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    BreakerConfig,
    BudgetExceeded,
    CallFailed,
    Ledger,
    Market,
    OutcomeUnknown,
    Permanent,
    Retry,
    Supervisor,
    Throttled,
    Transient,
    Unclassified,
    smart_request,
)
from actors.events import Reconciled
from actors.ledger import (
    Book,
    CloseAccount,
    GetHeld,
    GetStatement,
    MoneyHeld,
    OpenAccount,
    provider_key,
    scoped_key,
)
from actors.money import Micros
from actors.simulation import (
    BrownOut,
    Hanging,
    LostReplies,
    Outage,
    PriceChange,
    SimulatedProvider,
    paid_more_than_once,
)
from actors.supervisor.payments.accounts import account_of
from runtime import ActorSystem, RestartIntensity, RuntimeFault, Supervision
from runtime.simulation import Crash, Simulation
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import ProviderCall, ProviderReply
    from runtime import ActorRef
    from runtime.simulation import Fault

WORKERS = 100
PRICES = {"alder": 70, "birch": 110, "cedar": 50}
RESTARTING = Supervision(intensity=RestartIntensity(max_restarts=1_000))


def told_key(key: str) -> str:
    """Return the key that providers are told for a request of this name: every other one draws on an account."""
    number = int(key.removeprefix("request "))
    return provider_key(scoped_key(key, account="batch" if number % 2 else None))


class Race:
    """One market, one ledger, and all that draws on it."""

    can_tell = 0.5
    """How likely a provider can be asked what became of a call, and how likely it can cancel one."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.dice = dice = simulation.random
        self.cap = dice.choice([2_000, 4_000, 20_000])
        self.cap_of_cedar = dice.choice([500, 20_000])
        self.cap_of_batch = dice.choice([1_000, 20_000])
        self.providers = {
            name: SimulatedProvider(
                simulation,
                name,
                services={"s"},
                price=Micros(price),
                latency=(0.1, 2.0),
                idempotent=dice.choice(["no", "no", "key"]),
                looks_up=dice.random() < self.can_tell,
                cancels=dice.random() < self.can_tell,
                capacity=dice.choice([None, 20]),
            )
            for name, price in PRICES.items()
        }
        self.mumbles = dice.random() < 0.5
        faults = self.faults()
        simulation.inject(*faults)
        self.has_crashed = any(isinstance(fault, Crash) for fault in faults)
        """Whether an actor that would have found out may have forgotten it."""
        self.book = Book()
        self.outcomes: dict[str, Any] = {}
        self.repeated: set[str] = set()

    def faults(self) -> list[Fault]:
        dice = self.dice

        def some(*kinds: Any) -> list[Fault]:
            return [
                kind(provider=name, at=dice.uniform(0.0, 10.0), lasts=dice.uniform(1.0, 10.0), **terms)
                for name in PRICES
                for kind, terms in kinds
                if dice.random() < 0.4
            ]

        faults = some(
            (LostReplies, {"rate": 0.5}),
            (Hanging, {}),
            (Outage, {}),
            (BrownOut, {"rate": 0.5}),
            (LostReplies, {"rate": 1.0}),
        )
        if dice.random() < 0.5:
            faults.append(PriceChange(provider="birch", at=dice.uniform(0.0, 10.0), price=Micros(40)))
        if dice.random() < 0.3:
            faults.append(Crash(actor="*gateway*", at=dice.uniform(0.0, 10.0)))
        if dice.random() < 0.3:
            faults.append(Crash(actor="*/supervisor", at=dice.uniform(1.0, 10.0)))
        if dice.random() < 0.3:
            faults.append(Crash(actor="*/ledger", at=dice.uniform(1.0, 10.0)))
        return faults

    def market(self) -> Market:
        cedar = self.providers["cedar"].listing(timeout=3.0, max_concurrency=50, budget=Micros(self.cap_of_cedar))
        others = [self.providers[name].listing(timeout=3.0, max_concurrency=50) for name in ("alder", "birch")]
        if self.mumbles:
            others[0] = msgspec.structs.replace(others[0], transport=partial(self.mumbling, others[0].transport))
        return Market(
            providers=[cedar, *others],
            budget=Micros(self.cap),
            retry=Retry(base=0.1, cap=1.0),
            breaker=BreakerConfig(open_for=1.0),
        )

    def mumbling(self, make: Callable[[], Any]) -> Any:
        """Make a transport that calls a failure anything, and says of the money alone what is true."""
        transport = make()
        call = transport.call

        async def mumble(request: ProviderCall) -> ProviderReply:
            try:
                return await call(request)
            except OutcomeUnknown as error:
                family = self.dice.choice([Transient, Throttled, Unclassified, Permanent])
                raise family(str(error), provider=error.provider, charged=error.charged) from error

        transport.call = mumble
        return transport

    async def work(self, supervisor: ActorRef[Any], number: int) -> None:
        dice, key = self.dice, f"request {number}"
        await asyncio.sleep(dice.uniform(0.0, 12.0))
        budget = Micros(dice.choice([60, 120, 500]))
        for repetition in range(dice.choice([1, 1, 2, 3])):  # Who was not answered may ask again, under the same key.
            if repetition:
                self.repeated.add(key)
            try:
                self.outcomes[key] = await smart_request(
                    supervisor,
                    service="s",
                    input=number,
                    request_id=key,
                    account="batch" if number % 2 else None,
                    budget=budget,
                    strategy=dice.choice(["cheapest", "balanced", "best"]),
                    timeout=dice.choice([4.0, 15.0]),
                )
            except (CallFailed, RuntimeFault) as error:
                self.outcomes[key] = error
                await asyncio.sleep(dice.choice([0.0, 1.0, 10.0]))
            else:
                return

    @property
    def income(self) -> int:
        return sum(provider.income for provider in self.providers.values())

    async def run(self, kinds: Counter[str] | None = None) -> None:
        async with ActorSystem("race", supervision=RESTARTING) as system:
            if kinds is not None:
                system.events.subscribe(Reconciled, lambda event: kinds.update([event.found]))
                system.events.subscribe(MoneyHeld, lambda _: kinds.update(["MoneyHeld"]))
            market, ledger = self.market(), None
            if self.simulation.seed % 2:
                ledger = system.spawn(lambda: Ledger(book=self.book), name="ledger")
            supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger), name="supervisor")
            await supervisor.ask(OpenAccount(name="batch", cap=Micros(self.cap_of_batch)), timeout=5.0)
            tasks = [asyncio.create_task(self.work(supervisor, number)) for number in range(WORKERS)]
            for task in self.dice.sample(tasks, 20):
                asyncio.get_running_loop().call_later(self.dice.uniform(0.0, 15.0), task.cancel)
            await asyncio.wait(tasks)
            # Those that may have been paid are found out about, where their providers can tell.
            await asyncio.sleep(900.0)
            # A supervisor passes on what is asked of a ledger of its own.
            await self.check(supervisor, ledger or supervisor)

    async def check(self, supervisor: ActorRef[Any], ledger: ActorRef[Any]) -> None:
        run, cedar, batch = [
            await ledger.ask(GetStatement(name), timeout=5.0) for name in ("run", account_of("cedar"), "batch")
        ]
        for statement, cap in ((run, self.cap), (cedar, self.cap_of_cedar), (batch, self.cap_of_batch)):
            assert statement.used <= cap
            assert statement.reserved == 0, "a reservation leaked"
        assert self.income <= run.settled + run.held
        assert run.settled <= self.income, "something was booked twice"
        assert self.providers["cedar"].income <= cedar.settled + cedar.held
        assert paid_more_than_once(self.providers.values()) == {}
        for one in await ledger.ask(GetHeld(), timeout=5.0):
            provider = self.providers[one.provider]
            assert not provider.looks_up or self.has_crashed, f"{one} could have been looked up"
        for key, outcome in self.outcomes.items():
            charged = sum(sum(provider.charged.get(told_key(key), ())) for provider in self.providers.values())
            if key in self.repeated:
                continue  # What a repetition says of money is about itself, and not about those before it.
            if not isinstance(outcome, Exception):
                assert outcome.cost == charged or self.has_crashed
            elif isinstance(outcome, CallFailed) and not isinstance(outcome, OutcomeUnknown):
                assert outcome.charged != "no" or charged == 0 or self.has_crashed
        await self.spend_the_rest(supervisor, run.available or 0)
        await supervisor.ask(CloseAccount(name="batch"), timeout=5.0)

    async def spend_the_rest(self, supervisor: ActorRef[Any], rest: int) -> None:
        """What is left can be spent, down to less than the cheapest price that the caps allow."""
        before = self.income
        refused = None
        for number in range(1_000):
            try:
                await smart_request(supervisor, service="s", input="rest", request_id=f"rest {number}", timeout=60.0)
            except BudgetExceeded as error:
                refused = error
                break
        assert refused is not None
        assert rest - (self.income - before) < max(PRICES.values())


@pytest.mark.simulate(seeds=repeated(100))
async def test_a_hundred_workers_pay_no_key_twice_and_exceed_no_cap(simulation):
    await Race(simulation).run()


def test_the_races_are_eventful_enough_to_prove_something():
    kinds: Counter[str] = Counter()

    async def race(simulation: Simulation) -> None:
        one = Race(simulation)
        await one.run(kinds)
        kinds.update(type(outcome).__name__ for outcome in one.outcomes.values())

    for seed in range(repeated(25, at_least=10)):
        Simulation(seed, logs=False).run(race)
    assert {"SmartResult", "OutcomeUnknown", "BudgetExceeded", "AllProvidersFailed"} <= {*kinds}
    assert {"Answered", "NeverRan", "MoneyHeld"} <= {*kinds}, kinds
    assert kinds["OutcomeUnknown"] < kinds["SmartResult"]
