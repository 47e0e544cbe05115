"""The whole cast on markets that misbehave by a seeded plan: whatever happens, what is promised holds."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from actors import (
    AllProvidersFailed,
    BreakerConfig,
    BudgetExceeded,
    CallFailed,
    FunctionTransport,
    GetStatus,
    Isolate,
    Listing,
    Market,
    NotAdmitted,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    ProviderReply,
    Release,
    Retry,
    Supervisor,
    Throttled,
    Transient,
    Unclassified,
    smart_request,
)
from actors.ledger import Account, GetStatement, MoneyHeld, MoneyReserved, MoneySettled, OpenAccount
from actors.money import Micros
from actors.policies.breaker.states import HalfOpen
from runtime import ActorFailed, ActorSystem, Event
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

MOODS = ("well", "fails", "throttles", "hangs", "slow", "crashes", "charges and hangs", "rejects")
FOREVER = 1e7
CAP = 3_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider behaves: one mood after the other, each for `spell` seconds."""

    name: str
    moods: tuple[str, ...]
    spell: float
    price: int
    later_price: int
    idempotent: str
    latency: float
    timeout: float
    max_concurrency: int
    rate_limit: float | None

    def mood(self, now: float) -> str:
        return self.moods[int(now / self.spell) % len(self.moods)]

    def listing(self, transport: Callable[[], Any], *, price: int) -> Listing:
        return Listing(
            provider=Provider(name=self.name, services={"s"}, price=Micros(price), response_time=self.latency),
            transport=transport,
            timeout=self.timeout,
            max_concurrency=self.max_concurrency,
            rate_limit=self.rate_limit,
            burst=3,
        )


def draw_plan(name: str, dice: random.Random) -> Plan:
    price = dice.choice([0, 10, 20, 50])
    return Plan(
        name=name,
        moods=tuple(dice.choice(MOODS) for _ in range(dice.randint(1, 6))),
        spell=dice.choice([0.5, 3.0, 20.0, 200.0]),
        price=price,
        later_price=dice.choice([price, 2 * price, price // 2]),
        idempotent=dice.choice(["key", "repeatable", "no"]),
        latency=dice.choice([0.0, 0.05, 1.0]),
        timeout=dice.choice([1.0, 5.0]),
        max_concurrency=dice.choice([1, 3, 20]),
        rate_limit=dice.choice([None, None, 2.0, 20.0]),
    )


WELL = Plan(
    name="well",
    moods=("well",),
    spell=1.0,
    price=0,
    later_price=0,
    idempotent="key",
    latency=0.1,
    timeout=5.0,
    max_concurrency=1000,
    rate_limit=None,
)


class World:
    """The truth outside of the cast: who was called when, and who was charged for what."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.plans = [draw_plan(f"p{number}", self.dice) for number in range(self.dice.randint(1, 5))]
        self.has_one_who_is_well = self.dice.random() < 0.6
        if self.has_one_who_is_well:
            self.plans.append(WELL)
        self.charges: dict[str, Counter[str]] = defaultdict(Counter)
        self.paid_keys: set[tuple[str, str]] = set()
        self.called_at: dict[str, list[float]] = defaultdict(list)
        self.under_way: Counter[str] = Counter()
        self.open_transports: Counter[str] = Counter()
        self.problems: list[str] = []
        self.supervisors: list[Supervisor] = []
        self.began = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    async def registry(self, service: str) -> list[Listing]:
        if self.dice.random() < 0.2 and self.now() > 100:
            raise OSError("registry is down")
        late = self.now() > 300
        return [self.listing(plan, price=plan.later_price if late else plan.price) for plan in self.plans]

    def listing(self, plan: Plan, *, price: int) -> Listing:
        return plan.listing(lambda: Wire(self, plan), price=price)

    def market(self) -> Market:
        return Market(
            providers=[self.listing(plan, price=plan.price) for plan in self.plans],
            retry=Retry(base=self.dice.choice([0.0, 0.1, 1.0]), cap=5.0, max_retries=self.dice.randint(0, 4)),
            breaker=BreakerConfig(open_for=self.dice.choice([0.5, 5.0, 30.0]), min_calls=self.dice.choice([5, 20])),
        )

    def make_supervisor(self) -> Supervisor:
        self.supervisors.append(Supervisor(self.market(), registry=self.registry))
        return self.supervisors[-1]

    def charge(self, plan: Plan, call: ProviderCall) -> None:
        key = (plan.name, call.idempotency_key)
        if call.max_cost and (plan.idempotent != "key" or key not in self.paid_keys):
            self.paid_keys.add(key)
            self.charges[call.request_id][plan.name] += call.max_cost


class Wire:
    """A transport of the world: behaves by its provider's plan, and notes each call."""

    paid = True

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.idempotent = plan.idempotent
        world.open_transports[plan.name] += 1
        self.is_closed = False

    async def call(self, call: ProviderCall) -> ProviderReply:
        world, plan = self.world, self.plan
        world.called_at[plan.name].append(world.now())
        world.under_way[plan.name] += 1
        if self.is_closed:
            world.problems.append(f"{plan.name} was called after it was closed")
        if world.under_way[plan.name] > plan.max_concurrency:
            world.problems.append(f"{plan.name} has {world.under_way[plan.name]} calls under way")
        try:
            return await self.behave(call)
        finally:
            world.under_way[plan.name] -= 1

    async def behave(self, call: ProviderCall) -> ProviderReply:
        plan, world = self.plan, self.world
        match plan.mood(world.now()):
            case "fails":
                raise Transient("down", provider=plan.name, outcome="not_started")
            case "throttles":
                raise Throttled("slow down", provider=plan.name, retry_after=world.dice.choice([None, 0.5, 30.0]))
            case "hangs":
                await asyncio.sleep(FOREVER)
            case "charges and hangs":
                world.charge(plan, call)
                await asyncio.sleep(FOREVER)
            case "slow":
                await asyncio.sleep(plan.timeout * 0.9)
            case "crashes":
                raise KeyError("bug")
            case "rejects":
                raise Permanent("not this", provider=plan.name)
            case _:
                await asyncio.sleep(plan.latency)
        world.charge(plan, call)
        cost = world.dice.choice([None, call.max_cost])
        return ProviderReply(output=call.input, cost=None if cost is None else Micros(cost))

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
        match self.plan.mood(self.world.now()):
            case "hangs":
                await asyncio.sleep(2 * timeout)
            case "crashes":
                raise KeyError("bug")
            case "fails":
                raise Transient("down", provider=self.plan.name)
            case _:
                await asyncio.sleep(0)

    async def aclose(self) -> None:
        if self.is_closed:
            self.world.problems.append(f"{self.plan.name} was closed twice")
        self.is_closed = True
        self.world.open_transports[self.plan.name] -= 1


class Customer:
    """Makes requests of all kinds, some of which are cancelled."""

    def __init__(self, world: World, supervisor: Any) -> None:
        self.world, self.supervisor = world, supervisor
        self.outcomes: dict[str, Any] = {}

    async def request(self, number: int, **options: Any) -> None:
        name = f"r{number}"
        try:
            self.outcomes[name] = await smart_request(
                self.supervisor, service="s", input=number, request_id=name, **options
            )
        except CallFailed as error:
            self.outcomes[name] = error

    async def come_and_go(self, number: int) -> None:
        dice = self.world.dice
        await asyncio.sleep(dice.choice([0.0, dice.random(), 10 * dice.random(), 900 * dice.random()]))
        request = asyncio.create_task(
            self.request(
                number,
                timeout=60.0,
                account=dice.choice([None, "acc"]),
                strategy=dice.choice(["best", "cheapest", "fastest", "balanced"]),
                health_check=dice.random() < 0.3,
            )
        )
        if dice.random() < 0.3:
            for _ in range(dice.randint(0, 12)):
                await asyncio.sleep(0)
            await asyncio.sleep(dice.choice([0.0, dice.random(), 8 * dice.random()]))
            request.cancel()
        await asyncio.wait([request])
        assert request.cancelled() or request.exception() is None, request


async def meddle(world: World, supervisor: Any) -> None:
    """Isolate, release and look, as a person does."""
    for _ in range(5):
        await asyncio.sleep(200 * world.dice.random())
        name = world.dice.choice(world.plans).name
        if name != WELL.name:
            await supervisor.ask(Isolate(provider=name), timeout=1)
            await supervisor.ask(GetStatus(check_health=world.dice.random() < 0.5), timeout=9)
            await asyncio.sleep(world.dice.random())
            await supervisor.ask(Release(provider=name), timeout=1)


async def run(world: World) -> tuple[dict[str, Any], list[Event], Any]:
    events: list[Event] = []
    world.began = asyncio.get_running_loop().time()
    async with ActorSystem("market") as system:
        system.events.subscribe(Event, events.append)
        supervisor = system.spawn(world.make_supervisor, name="supervisor")
        await supervisor.ask(OpenAccount(name="acc", cap=Micros(CAP)), timeout=1)
        customer = Customer(world, supervisor)
        # Tasks of their own, because whoever is cancelled must not take the others along.
        tasks = [asyncio.create_task(customer.come_and_go(number)) for number in range(world.dice.randint(20, 120))]
        tasks.append(asyncio.create_task(meddle(world, supervisor)))
        await asyncio.gather(*tasks)
        await asyncio.sleep(1.0)
        actor = world.supervisors[-1]
        assert len(world.supervisors) == 1, "the supervisor was restarted"
        for target in actor.targets.by_name.values():
            assert target.state.under_way == 0, target
            assert not isinstance(target.state.breaker, HalfOpen), target
        assert len(actor.queues) == 0, actor.queues
        assert world.under_way.total() == 0
        account = await supervisor.ask(GetStatement("acc"), timeout=1)
        assert account.reserved == 0
    return customer.outcomes, events, account


def check_money(world: World, outcomes: dict[str, Any], account: Any) -> None:
    assert account.settled + account.held <= CAP
    for name, charged in world.charges.items():
        assert len(charged) <= 1, f"{name} was paid to {dict(charged)}"
    for name, outcome in outcomes.items():
        if not isinstance(outcome, BaseException):
            (price,) = world.charges[name].values() or (0,)
            plan = next(plan for plan in world.plans if plan.name == outcome.provider)
            assert outcome.cost == price or (plan.idempotent == "repeatable" and outcome.cost < price)


def check_rates(world: World) -> None:
    for plan in world.plans:
        if plan.rate_limit is not None:
            times = world.called_at[plan.name]
            for first, time in enumerate(times):
                within = sum(1 for other in times[first:] if other < time + 1.0 - 1e-6)
                # One more, because a token that came back from a call that never ran is used again.
                assert within <= plan.rate_limit + 3 + 1, (plan.name, time, within)


async def a_market_that_misbehaves(simulation: Simulation) -> None:
    world = World(simulation.random)
    outcomes, events, account = await run(world)
    assert world.problems == []
    assert world.open_transports.total() == 0
    check_money(world, outcomes, account)
    check_rates(world)
    crashed = [event for event in events if isinstance(event, ActorFailed)]
    assert all("gateway" in event.ref.path and isinstance(event.error, KeyError) for event in crashed), crashed
    spent = sum(sum(charged.values()) for charged in world.charges.values())
    known = sum(target.spent for target in world.supervisors[0].targets.by_name.values())
    assert known <= spent
    if world.has_one_who_is_well:
        # Only the caller's mistake, and a call that may have been paid, keep a request from whoever can serve it.
        lost = {name: error for name, error in outcomes.items() if isinstance(error, AllProvidersFailed | NotAdmitted)}
        assert lost == {}, lost
        unknown = [error for error in outcomes.values() if isinstance(error, OutcomeUnknown)]
        can_be_unknown = {"hangs", "charges and hangs", "crashes"} & {
            mood for plan in world.plans for mood in plan.moods
        }
        assert not unknown or can_be_unknown


def test_whatever_providers_do_nothing_is_lost_leaked_or_paid_twice():
    assert explore(a_market_that_misbehaves, seeds=range(repeated(300))).runs == repeated(300)


def test_nor_is_it_in_the_order_of_production():
    assert explore(a_market_that_misbehaves, seeds=range(repeated(100)), order="fifo").runs == repeated(100)


class Race:
    """Providers that charge, fail and leave open which, for two hundred who draw on one account."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.cap = self.dice.choice([100, 777, 5_000])
        self.budgets = {str(number): self.dice.choice([None, 20, 40]) for number in range(200)}
        self.charged: Counter[str] = Counter()
        self.supervisors: list[Supervisor] = []
        self.booked: list[int] = []

    async def moody(self, call: ProviderCall) -> Any:
        await asyncio.sleep(self.dice.choice([0.0, self.dice.random()]))
        what = self.dice.random()
        if what < 0.1:
            raise Transient("down", provider="x", outcome="not_started")
        if what < 0.15:
            self.charged[call.request_id] += call.max_cost
            raise Unclassified("garbage", provider="x", charged="yes")
        if what < 0.25:
            self.charged[call.request_id] += self.dice.choice([0, call.max_cost])
            raise ConnectionResetError("gone")
        cost = self.dice.randint(0, call.max_cost)
        self.charged[call.request_id] += cost
        return ProviderReply(output="x", cost=Micros(cost))

    def offer(self, name: str, price: int, idempotent: Any) -> Listing:
        return Listing(
            provider=Provider(name=name, services={"s"}, price=Micros(price)),
            transport=lambda: FunctionTransport(self.moody, paid=True, idempotent=idempotent, provider=name),
            max_concurrency=self.dice.choice([5, 200]),
        )

    def make_supervisor(self) -> Supervisor:
        market = Market(
            providers=[self.offer("a", 7, "no"), self.offer("b", 11, "repeatable"), self.offer("c", 30, "no")],
            retry=Retry(base=0.1, cap=1.0),
            breaker=BreakerConfig(failure_threshold=1000, min_calls=1000),
        )
        self.supervisors.append(Supervisor(market))
        return self.supervisors[-1]

    @property
    def account(self) -> Account:
        ledger: Any = self.supervisors[0].payments._client.ledger.ref.recipient
        return ledger.actor.book.statement("acc")  # type: ignore[no-any-return]

    def look(self, _: Event) -> None:
        self.booked.append(self.account.settled + self.account.held + self.account.reserved)

    async def run(self, supervisor: Any, name: str) -> Any:
        budget = self.budgets[name]
        return await smart_request(
            supervisor,
            service="s",
            input=name,
            request_id=name,
            account="acc",
            budget=None if budget is None else Micros(budget),
            strategy=self.dice.choice(["cheapest", "best"]),
            timeout=30.0,
        )


async def a_race_for_one_budget(simulation: Simulation) -> None:
    race = Race(simulation.random)
    async with ActorSystem("race") as system:
        supervisor = system.spawn(race.make_supervisor)
        await supervisor.ask(OpenAccount(name="acc", cap=Micros(race.cap)), timeout=1)
        with (
            system.events.subscribe(MoneyReserved, race.look),
            system.events.subscribe(MoneyHeld, race.look),
            system.events.subscribe(MoneySettled, race.look),
        ):
            tasks = {name: asyncio.create_task(race.run(supervisor, name)) for name in race.budgets}
            for name in race.dice.sample(list(tasks), 40):
                await asyncio.sleep(race.dice.choice([0.0, 0.01, 0.2]))
                tasks[name].cancel()
            await asyncio.wait(tasks.values())
            await asyncio.sleep(1.0)
        account = race.account
    assert len(race.supervisors) == 1
    assert max(race.booked) <= race.cap
    assert account.reserved == 0
    assert race.charged.total() <= account.settled + account.held <= race.cap
    for name, budget in race.budgets.items():
        assert budget is None or race.charged[name] <= budget
    errors = [task.exception() for task in tasks.values() if not task.cancelled()]
    assert all(error is None or isinstance(error, CallFailed) for error in errors)
    # Who was refused for want of money was refused rightly: not even the cheapest call could be paid for any more.
    if any(isinstance(error, BudgetExceeded) and error.cap == "acc" for error in errors):
        assert account.available is not None
        assert account.available < 30


def test_two_hundred_workers_racing_for_one_budget_never_exceed_it_by_a_micro_unit():
    assert explore(a_race_for_one_budget, seeds=range(repeated(60))).runs == repeated(60)
