"""A hundred workers race within a risk: under no key is more than its risk paid twice, nor in all more than the total.

What was charged is what the providers' own books say. Whatever was paid under a key beyond the dearest of its calls was
paid twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import AllProvidersFailed, CallFailed, OutcomeUnknown, SmartResult, smart_request
from actors.ledger import GetHeld, GetStatement
from actors.money import usd
from actors.simulation import paid_more_than_once
from actors.supervisor.payments.accounts import account_of
from runtime import RuntimeFault
from runtime.simulation import Simulation
from tests.money.test_paid_once import Race, told_key
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors import Market
    from runtime import ActorRef

RISKS = [0, 60, 110, 150, 400]


class RiskyRace(Race):
    """The race for one budget, in which requests may leave something to be paid twice."""

    can_tell = 0.15

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.risk = self.dice.choice(RISKS)
        self.risk_total = self.dice.choice([None, 200, 1_000])
        self.holds = self.dice.random() < 0.3
        self.risks: dict[str, int] = {}
        """What may be paid twice under each key."""

    def market(self) -> Market:
        market = super().market()
        cedar, *others = market.providers
        if self.holds:
            cedar = msgspec.structs.replace(cedar, on_unknown="hold")
        total = None if self.risk_total is None else usd(self.risk_total)
        return msgspec.structs.replace(market, providers=[cedar, *others], risk=usd(self.risk), risk_total=total)

    async def work(self, supervisor: ActorRef[Any], number: int) -> None:
        dice, key = self.dice, f"request {number}"
        await asyncio.sleep(dice.uniform(0.0, 12.0))
        own = dice.choice([None, None, *RISKS])
        self.risks[key] = self.risk if own is None else own

        async def ask() -> None:
            try:
                self.outcomes[key] = await smart_request(
                    supervisor,
                    service="s",
                    input=number,
                    request_id=key,
                    account="batch" if number % 2 else None,
                    budget=usd(500),
                    risk=None if own is None else usd(own),
                    strategy=dice.choice(["cheapest", "balanced", "best"]),
                    timeout=dice.choice([4.0, 15.0]),
                )
            except (CallFailed, RuntimeFault) as error:
                self.outcomes[key] = error

        for repetition in range(dice.choice([1, 1, 2, 3])):
            if repetition:
                self.repeated.add(key)
            # Some callers ask twice at the same time, under one key.
            twice = dice.random() < 0.1
            self.repeated |= {key} if twice else set()
            await asyncio.gather(*(ask() for _ in range(1 + twice)))
            await asyncio.sleep(dice.choice([0.0, 1.0, 10.0]))
            if isinstance(self.outcomes[key], SmartResult):
                return

    async def check(self, supervisor: ActorRef[Any], ledger: ActorRef[Any]) -> None:
        names = ("run", account_of("cedar"), "batch")
        statements = [await ledger.ask(GetStatement(name), timeout=5.0) for name in names]
        for statement, cap in zip(statements, (self.cap, self.cap_of_cedar, self.cap_of_batch), strict=True):
            assert statement.used <= cap
            assert statement.reserved == 0, "a reservation leaked"
        run = statements[0]
        assert run.settled <= self.income <= run.settled + run.held
        charged: defaultdict[str, list[int]] = defaultdict(list)
        for provider in self.providers.values():
            for key, costs in provider.charged.items():
                charged[key] += costs
        twice = {key: sum(costs) - max(costs) for key, costs in charged.items() if costs}
        risks = {told_key(key): risk for key, risk in self.risks.items()}
        for key, excess in twice.items():
            assert excess <= risks[key], f"{key} was charged {charged[key]} at a risk of {self.risks[key]}"
        if self.risk_total is not None:
            assert sum(twice.values()) <= self.risk_total
            await self.check_account(ledger, sum(twice.values()))
        for key, outcome in self.outcomes.items():
            if key not in self.repeated and not self.has_crashed:
                self.check_outcome(outcome, sum(charged[told_key(key)]))

    async def check_account(self, ledger: ActorRef[Any], twice: int) -> None:
        try:
            risk = await ledger.ask(GetStatement("risk"), timeout=5.0)
        except CallFailed:
            assert twice == 0  # It is opened for the first call that is passed over.
            return
        held = await ledger.ask(GetHeld("risk"), timeout=5.0)
        assert risk.reserved == 0
        assert risk.used <= (self.risk_total or 0)
        assert sum(one.amount for one in held) == risk.held
        assert all(one.is_passed_over for one in held)
        assert twice <= risk.held + risk.settled

    def check_outcome(self, outcome: Any, charged: int) -> None:
        """What is said of a request's money is true, as far as it goes."""
        if isinstance(outcome, SmartResult):
            assert outcome.cost <= charged <= outcome.cost + outcome.at_risk
            assert sum(one.amount for one in outcome.held) == outcome.at_risk
        elif isinstance(outcome, OutcomeUnknown | AllProvidersFailed):
            assert charged <= sum(one.amount for one in outcome.held) + sum(
                attempt.cost for attempt in getattr(outcome, "attempts", ())
            )
            assert outcome.at_risk <= sum(one.amount for one in outcome.held)


@pytest.mark.simulate(seeds=repeated(100))
async def test_no_more_than_the_risk_is_paid_twice(simulation):
    await RiskyRace(simulation).run()


def test_the_races_are_risky_enough_to_prove_something():
    kinds: Counter[str] = Counter()

    async def race(simulation: Simulation) -> None:
        one = RiskyRace(simulation)
        await one.run(kinds)
        for outcome in one.outcomes.values():
            kinds[type(outcome).__name__] += 1
            kinds["at risk"] += getattr(outcome, "at_risk", 0) > 0
        kinds["paid twice"] += len(paid_more_than_once(one.providers.values()))

    for seed in range(repeated(25, at_least=10)):
        Simulation(seed, logs=False).run(race)
    assert {"SmartResult", "OutcomeUnknown", "at risk", "paid twice"} <= {*+kinds}, kinds
    assert kinds["paid twice"] > 2
