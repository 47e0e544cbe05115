"""A whole market rehearsed: the cast on providers that keep books of their own, under plans of faults of every kind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors import (
    BreakerConfig,
    CallFailed,
    GetStatus,
    Isolate,
    Market,
    OutcomeUnknown,
    Release,
    Retry,
    SmartResult,
    Supervisor,
    smart_request,
)
from actors.ledger import CloseAccount, OpenAccount, provider_key, scoped_key
from actors.money import Micros
from actors.rate_limiter.messages import Acquire
from actors.simulation import (
    PriceChange,
    SimulatedProvider,
    paid_more_than_once,
    random_provider_faults,
    simulated_registry,
)
from actors.supervisor import OpenQuota
from runtime import ActorCrashed, ActorRestarted, ActorSystem, AskTimeout, RuntimeFault
from runtime.simulation import Crash, DropMail, DuplicateMail, explore, random_faults
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors.ledger.account import Account
    from runtime.simulation import Fault, Simulation

SEEDS = range(repeated(150))
CAP = 300
PRICES = (Micros(5), Micros(10), Micros(20), Micros(50))
STRATEGIES = ("best", "cheapest", "fastest", "balanced")
BURST = 3
MAX_CRASHES = 3
"""What the supervisor's own supervisor tolerates at any time."""
HARMLESS = ("Discover", "CheckHealth", "OpenAccount", "OpenQuota", "CloseAccount", "Isolate", "Release", "Acquire")
"""Mail that may come twice: all but what costs money each time."""


class Rehearsal:
    """One market, its customers, and what they were told."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.dice = simulation.random
        self.within = self.dice.choice([3.0, 20.0, 400.0])
        """Seconds in which most things happen."""
        self.prices_change = self.dice.random() < 0.3
        self.providers = [self.provider(f"p{number}") for number in range(self.dice.randint(3, 4))]
        self.registry = simulated_registry(simulation, self.providers, latency=self.dice.choice([0.0, 0.05, 2.0]))
        self.market = self.draw_market()
        self.outcomes: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        """What providers are told as the key of each request."""
        self.statements: list[Account] = []
        self.restarts = 0

    def provider(self, name: str) -> SimulatedProvider:
        dice = self.dice
        return SimulatedProvider(
            self.simulation,
            name,
            services={"s"},
            # Who is free and suddenly is not, breaks what reservations stand on.
            price=dice.choice(PRICES if self.prices_change else [Micros(0), *PRICES]),
            latency=dice.choice([(0.0, 0.0), (0.05, 0.2), (0.5, 3.0)]),
            idempotent=dice.choice(["key", "repeatable", "no"]),
            rate_limit=dice.choice([None, None, 5.0]),
            burst=BURST,
            capacity=dice.choice([None, 1, 5]),
            reputation=dice.choice([20.0, 50.0, 80.0]),
            response_time=dice.choice([0.1, 1.0]),
        )

    def draw_market(self) -> Market:
        dice = self.dice
        listings = [
            provider.listing(
                timeout=dice.choice([1.0, 5.0]),
                max_concurrency=dice.choice([1, 3, 20]),
                rate_limit=dice.choice([None, None, 4.0, 20.0]),
                burst=BURST,
            )
            for provider in self.providers
        ]
        return Market(
            providers=listings,
            retry=Retry(base=dice.choice([0.0, 0.1, 1.0]), cap=5.0, max_retries=dice.randint(0, 4)),
            breaker=BreakerConfig(open_for=dice.choice([0.5, 5.0, 30.0]), min_calls=dice.choice([5, 20])),
        )

    # The customers.

    async def request(self, name: str) -> None:
        dice = self.dice
        options = {
            "timeout": dice.choice([2.0, 20.0, 60.0]),
            "account": dice.choice([None, "account"]),
            "budget": dice.choice([None, None, Micros(30)]),
            "strategy": dice.choice(STRATEGIES),
            "fallback_strategies": dice.choice([(), ("cheapest",)]),
            "health_check": dice.random() < 0.3,
        }
        await asyncio.sleep(dice.choice([0.0, dice.random(), self.within * dice.random(), 500 * dice.random()]))
        self.outcomes[name] = "was cancelled"
        self.keys[name] = provider_key(scoped_key(name, account=options["account"]))
        try:
            self.outcomes[name] = await smart_request(
                self.supervisor, service="s", input=name, request_id=name, **options
            )
        except (CallFailed, RuntimeFault) as error:
            self.outcomes[name] = error

    async def fickle_request(self, name: str) -> None:
        """Request something, and give it up again."""
        request = asyncio.create_task(self.request(name), name=f"request-{name}")
        try:
            await asyncio.sleep(self.dice.choice([0.0, self.dice.random(), 8 * self.dice.random(), 60.0]))
            for _ in range(self.dice.randint(0, 12)):
                await asyncio.sleep(0)
        finally:
            request.cancel()
            await asyncio.wait([request])

    async def account(self) -> None:
        """Open the account, and close it while it is in use."""
        with suppress(CallFailed, RuntimeFault):
            await self.supervisor.ask(OpenAccount(name="account", cap=Micros(CAP)), timeout=5.0)
        await asyncio.sleep(self.dice.choice([1.0, 100.0, 600.0]))
        with suppress(CallFailed, RuntimeFault):
            self.statements.append(await self.supervisor.ask(CloseAccount(name="account"), timeout=90.0))

    async def quota(self) -> None:
        """Share a limiter, whose askers come and go."""
        with suppress(CallFailed, RuntimeFault):
            limiter = await self.supervisor.ask(OpenQuota(name="quota", rate=2.0, burst=2), timeout=5.0)
            asks = [
                asyncio.create_task(limiter.ask(Acquire(), timeout=5 * self.dice.random()), name=f"request-q{number}")
                for number in range(10)
            ]
            await asyncio.sleep(self.dice.random())
            asks[3].cancel()
            for outcome in await asyncio.gather(*asks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, RuntimeFault | CallFailed):
                    raise outcome
            limiter.stop()

    async def meddle(self) -> None:
        """Isolate, look and release, as a person does."""
        for _ in range(3):
            await asyncio.sleep(100 * self.dice.random())
            name = self.dice.choice(self.providers).name
            for message in (
                Isolate(provider=name),
                GetStatus(check_health=self.dice.random() < 0.5),
                Release(provider=name),
            ):
                with suppress(RuntimeFault):
                    await self.supervisor.ask(message, timeout=9.0)

    def provider_faults(self) -> list[Fault]:
        names = [*(provider.name for provider in self.providers), "*"]
        prices = PRICES if self.prices_change else ()
        return random_provider_faults(self.dice, providers=names, within=self.within, max_faults=8, prices=prices)

    def actor_faults(self) -> list[Fault]:
        actors = ["market/supervisor", "market/supervisor/*", "market/supervisor/discovery"]
        return random_faults(self.dice, actors=actors, tasks=["request-*"], within=self.within, max_faults=8)

    async def run(self) -> None:
        async with ActorSystem("market") as system:
            system.events.subscribe(ActorRestarted, self.restarted)
            self.supervisor = system.spawn(lambda: Supervisor(self.market, registry=self.registry), name="supervisor")
            account = asyncio.create_task(self.account(), name="account")
            quota = asyncio.create_task(self.quota(), name="quota")
            meddling = asyncio.create_task(self.meddle(), name="meddling")
            tasks: list[asyncio.Task[None]] = []
            for number in range(self.dice.randint(10, 50)):
                name = f"r{number}"
                kind = self.fickle_request if self.dice.random() < 0.3 else self.request
                tasks.append(asyncio.create_task(kind(name), name=f"request-{name}"))
            for task in (await asyncio.wait([account, quota, meddling, *tasks]))[0]:
                assert task.cancelled() or task.exception() is None, task
            if self.dice.random() < 0.5:
                # Otherwise the last calls are under way when the system is left.
                await asyncio.sleep(120.0)

    def restarted(self, event: ActorRestarted) -> None:
        self.restarts += event.ref.path == "market/supervisor"

    # What must have come of it.

    def check(self) -> None:
        for provider, listing in zip(self.providers, self.market.providers, strict=True):
            assert provider.under_way == 0, provider
            assert provider.open_transports == 0, provider
            assert provider.max_under_way <= listing.max_concurrency, provider
            if listing.rate_limit is not None:
                check_rate(provider, listing.rate_limit, bursts=1 + self.restarts)
        self.check_charges()

    def check_charges(self) -> None:
        by_name = {provider.name: provider for provider in self.providers}
        for key, charges in paid_more_than_once(self.providers).items():
            # Where repeating harms nobody, it may be charged; nobody else may be.
            assert len(charges) == 1, (key, charges)
            assert by_name[next(iter(charges))].idempotent == "repeatable", (key, charges)
        for name, outcome in self.outcomes.items():
            key = self.keys[name]
            charged = [charge for provider in self.providers for charge in provider.charged.get(key, ())]
            match outcome:
                case SmartResult():
                    last = by_name[outcome.provider].charged.get(key, [0])
                    assert outcome.cost in {sum(charged), *last}, (name, outcome, charged)
                case OutcomeUnknown() | AskTimeout() | ActorCrashed() | "was cancelled":
                    pass
                case _:
                    assert not charged, (name, outcome, charged)
        is_dearer = any(isinstance(fault, PriceChange) for fault in self.simulation.faults)
        for statement in self.statements:
            assert statement.reserved == 0
            # A provider that charges more than it lists takes more than was reserved.
            assert is_dearer or statement.settled + statement.held <= CAP


def check_rate(provider: SimulatedProvider, rate: float, *, bursts: int) -> None:
    """See that in no second more calls came than the listing allows; a new supervisor begins with a full burst."""
    times = provider.called_at
    for first, time in enumerate(times):
        within = sum(1 for other in times[first:] if other < time + 1.0 - 1e-6)
        # One more, because a token that came back from a call that never ran is used again.
        assert within <= rate + bursts * BURST + 1, (provider, time, within)


def tolerable(faults: list[Fault]) -> list[Fault]:
    """Leave out what no supervisor is to survive, mail that comes twice although it costs money each time, and a
    `BookCall` that never comes: its money stays reserved, which within one process does not happen."""
    kept: list[Fault] = []
    crashes = 0
    for fault in faults:
        match fault:
            case Crash():
                crashes += fault.times
                if crashes <= MAX_CRASHES:
                    kept.append(fault)
            case DuplicateMail():
                kept += [msgspec.structs.replace(fault, message=kind) for kind in HARMLESS]
            case DropMail():
                kept.append(msgspec.structs.replace(fault, message="[!B]*"))
            case _:
                kept.append(fault)
    return kept


async def a_market_whose_providers_fail(simulation: Simulation) -> None:
    rehearsal = Rehearsal(simulation)
    simulation.inject(*rehearsal.provider_faults())
    await rehearsal.run()
    rehearsal.check()


async def a_market_whose_actors_fail_too(simulation: Simulation) -> None:
    rehearsal = Rehearsal(simulation)
    simulation.inject(*rehearsal.provider_faults(), *tolerable(rehearsal.actor_faults()))
    await rehearsal.run()
    rehearsal.check()


def test_whatever_providers_do_nothing_is_lost_leaked_or_paid_twice():
    assert explore(a_market_whose_providers_fail, seeds=SEEDS).runs == len(SEEDS)


def test_whatever_actors_and_mail_do_besides_nothing_is_lost_leaked_or_paid_twice():
    assert explore(a_market_whose_actors_fail_too, seeds=SEEDS).runs == len(SEEDS)
