"""What calls cost by their tokens: reserved by the bound, settled by the usage, recomputed from the journal alone."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    BudgetExceeded,
    FunctionTransport,
    Ledger,
    Listing,
    Market,
    Micros,
    Provider,
    ProviderReply,
    Supervisor,
    Transient,
    smart_request,
)
from actors.ledger import GetStatement, MoneySettled, Resolve
from actors.ledger.entries import MoneyReserved, TariffListed
from actors.ledger.journal import MoneyJournal
from actors.limits import per_minute
from actors.market.market import DiscoveryConfig
from actors.tariffs import Demand, Tariff, Usage
from actors.tariffs.estimate import demand_of
from actors.transports import Answered
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actors import ProviderCall

TARIFF = Tariff(input="0.25", output="2", cache_read="0.025")
DEARER = Tariff(input="0.75", output="6", per_call="0.001")
BODY = {"model": "m", "messages": [{"role": "user", "content": "Say hello to all of them."}], "max_tokens": 100}
LONG = BODY | {"messages": [{"role": "user", "content": "Say hello to all of them. " * 80}]}


def listing(answer: Any, *, name: str = "alder", tariff: Tariff | None = TARIFF, **terms: Any) -> Listing:
    async def call(call: ProviderCall) -> ProviderReply:
        await asyncio.sleep(0.01)
        return answer(call)

    transport = FunctionTransport(call, paid=True, idempotent="no")
    return Listing(provider=Provider(name=name, services={"chat"}), transport=lambda: transport, tariff=tariff, **terms)


def used(**counts: Any) -> Callable[[Any], ProviderReply]:
    return lambda _: ProviderReply(output="hello", usage=Usage(**counts))


def as_estimated(call: ProviderCall) -> ProviderReply:
    demand = demand_of(call.input)
    assert demand is not None
    return ProviderReply(output="hello", usage=Usage(input=demand.input_estimate, output=10))


class Shop:
    """A supervisor over some listings, with a ledger of its own, and what that has recorded."""

    def __init__(self, system: ActorSystem, *listings: Listing, journal: Path | None = None, **market: Any) -> None:
        self.entries: list[Any] = []
        for kind in (MoneyReserved, MoneySettled, TariffListed):
            system.events.subscribe(kind, self.entries.append)
        self.ledger: Any = system.spawn(lambda: Ledger(journal=journal))
        self.supervisor: Any = system.spawn(
            lambda: Supervisor(Market(providers=list(listings), **market), ledger=self.ledger)
        )

    async def chat(self, body: Any = BODY, **options: Any) -> Any:
        return await smart_request(self.supervisor, service="chat", input=body, timeout=60.0, **options)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.entries if type(one) is kind]

    async def statement(self, account: str | None = None) -> Any:
        return await self.ledger.ask(GetStatement(account), timeout=1.0)


async def test_the_bound_is_reserved_and_the_usage_settled() -> None:
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(used(input=30, cache_read=100, output=7)))
        result = await shop.chat()
        demand = demand_of(BODY)
        assert demand is not None
        assert [one.amount for one in shop.of(MoneyReserved)] == [TARIFF.most(demand)]
        assert result.cost == math.ceil(30 * 0.25 + 100 * 0.025 + 7 * 2)
        (settled,) = shop.of(MoneySettled)
        assert (settled.basis, settled.tariff) == ("exact", TARIFF.digest)
        assert settled.usage == Usage(input=30, cache_read=100, output=7)
        assert [one.digest for one in shop.of(TariffListed)] == [TARIFF.digest]
        assert (await shop.statement()).estimated == 0


@pytest.mark.parametrize(
    "reply",
    [
        ProviderReply(output="x"),
        ProviderReply(output="x", usage=Usage()),
        ProviderReply(output="x", usage=Usage(input=1, output=1, is_counted=True)),
    ],
)
async def test_without_usage_the_estimate_is_settled_and_said_to_be_one(reply: ProviderReply) -> None:
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(lambda _: reply))
        result = await shop.chat()
        assert 0 < result.cost <= TARIFF.most(demand_of(BODY) or Demand(input_bound=0, input_estimate=0))
        (settled,) = shop.of(MoneySettled)
        assert settled.basis == "estimated"
        statement = await shop.statement()
        assert statement.estimated == statement.settled == result.cost

        entry = await shop.ledger.ask(Resolve(settled.reservation, "yes", "0.000012"), timeout=1.0)
        assert (entry.cost, entry.corrects) == (12, result.cost)
        statement = await shop.statement()
        assert (statement.settled, statement.estimated, statement.held) == (12, 0, 0)


async def test_a_cost_that_the_provider_states_counts_instead() -> None:
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(used(input=30, output=7, cost="0.000033")))
        assert (await shop.chat()).cost == 33
        assert shop.of(MoneySettled)[0].basis == "provider"


async def test_the_tariff_in_force_when_the_call_was_sent_counts_also_after_a_change() -> None:
    tariff = [TARIFF]

    async def slow(_: ProviderCall) -> ProviderReply:
        await asyncio.sleep(1_000.0)
        return ProviderReply(output="x", usage=Usage(input=1_000, output=10))

    function = FunctionTransport(slow, paid=True, idempotent="no")
    make: Any = lambda: function  # noqa: E731 - one and the same transport of both listings.

    async def registry(_: str) -> list[Listing]:
        provider = Provider(name="alder", services={"chat"})
        return [Listing(provider=provider, transport=make, tariff=tariff[0], timeout=2_000.0)]

    async with ActorSystem("shop", log=False) as system:
        entries: list[MoneySettled] = []
        system.events.subscribe(MoneySettled, entries.append)
        market = Market(discovery=DiscoveryConfig(ttl=300.0))
        supervisor = system.spawn(lambda: Supervisor(market, registry=registry))
        first = asyncio.create_task(smart_request(supervisor, service="chat", input=LONG, timeout=5_000.0))
        await asyncio.sleep(100.0)
        tariff[0] = DEARER
        await asyncio.sleep(600.0)  # It is listed anew, while the first call is under way, for the request after next.
        await smart_request(supervisor, service="chat", input=LONG, timeout=5_000.0)
        second = await smart_request(supervisor, service="chat", input=LONG, timeout=5_000.0)
        assert ((await first).cost, second.cost) == (270, 1_810)
        await asyncio.sleep(0.1)  # The ledger has its turn.
        assert [one.tariff for one in entries] == [TARIFF.digest, TARIFF.digest, DEARER.digest]


def recomputed(path: Path) -> tuple[Fraction, int, dict[str, int]]:
    """Recompute from a journal alone what was settled: exactly, with each call rounded up, and by basis."""
    journal = MoneyJournal(path)
    tariffs: dict[str, Tariff] = {}
    exact, rounded, by_basis = Fraction(0), 0, dict[str, int]()
    for entry in journal.read():
        if isinstance(entry, TariffListed):
            assert entry.tariff.digest == entry.digest
            tariffs[entry.digest] = entry.tariff
        if not isinstance(entry, MoneySettled):
            continue
        cost = Fraction(int(entry.cost))
        if entry.basis == "exact":
            assert entry.usage is not None
            assert entry.tariff is not None
            prices, usage = tariffs[entry.tariff], entry.usage
            cost = Fraction(str(prices.per_call)) * 10**6
            cost += usage.input * Fraction(str(prices.input)) + usage.output * Fraction(str(prices.output))
            cost += usage.cache_read * Fraction(str(prices.cache_read or prices.input))
        exact += cost
        rounded += math.ceil(cost)
        by_basis[str(entry.basis)] = by_basis.get(str(entry.basis), 0) + int(entry.cost) - int(entry.corrects)
    journal.close()
    return exact, rounded, by_basis


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_settled_is_the_sum_that_the_journal_gives(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)

    def answer(_: ProviderCall) -> ProviderReply:
        usage = Usage(input=rng.randint(0, 900), cache_read=rng.randint(0, 900), output=rng.randint(1, 100))
        kind = rng.random()
        if kind < 0.1:
            return ProviderReply(output="x")
        stated = Micros(rng.randint(0, 99)) if kind > 0.9 else None
        return ProviderReply(output="x", usage=msgspec.structs.replace(usage, cost=stated))

    async with ActorSystem("shop", log=False, seed=seed) as system:
        shop = Shop(
            system,
            listing(answer, max_concurrency=50),
            listing(answer, name="birch", tariff=DEARER, max_concurrency=50),
            journal=tmp_path / "l.db",
        )
        await asyncio.gather(*[shop.chat(LONG, strategy="least_loaded") for _ in range(60)])
        statement = await shop.statement()
    exact, rounded, by_basis = recomputed(tmp_path / "l.db")
    assert rounded == statement.settled
    assert 0 <= statement.settled - exact < 60
    assert by_basis["estimated"] == statement.estimated
    assert set(by_basis) == {"exact", "provider", "estimated"}

    async with ActorSystem("again", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=tmp_path / "l.db"))
        again = await ledger.ask(GetStatement(), timeout=1.0)
        assert (again.settled, again.estimated) == (statement.settled, statement.estimated)


async def test_a_request_without_a_bound_gets_the_one_of_its_listing_or_what_its_money_buys() -> None:
    seen: list[Any] = []

    def answer(call: ProviderCall) -> ProviderReply:
        seen.append(call.input["max_completion_tokens"])
        return ProviderReply(output="x", usage=Usage(input=30, output=min(50, seen[-1])))

    body = {"messages": BODY["messages"]}
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(answer, max_output=1_000), budget="0.0015")
        await shop.chat(body)
        await shop.chat(body, budget="0.0005")
        assert seen[0] < 1_000  # The whole run has less.
        assert seen[1] == TARIFF.most_output(demand_of(body) or Demand(input_bound=0, input_estimate=0), Micros(500))
        assert "max_completion_tokens" not in body
        for _ in range(20):
            with_money = (await shop.statement("run")).available
            try:
                await shop.chat(body)
            except BudgetExceeded:
                assert with_money < 150
                break
        statement = await shop.statement("run")
        assert statement.settled + statement.reserved <= 1_500


async def test_a_cap_is_never_crossed_whatever_is_used_within_the_bounds() -> None:
    rng = Random(5)

    def answer(call: ProviderCall) -> ProviderReply:
        demand = demand_of(call.input)
        assert demand is not None
        most = demand.output_bound or 0
        usage = Usage(input=rng.randint(1, demand.input_bound), output=rng.choice([1, most // 2, most]))
        return ProviderReply(output="x", usage=usage)

    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(answer, max_concurrency=40), budget="0.01")
        bodies = [BODY | {"max_tokens": rng.randint(1, 2_000), "n": rng.randint(1, 3)} for _ in range(80)]
        results = await asyncio.gather(*[shop.chat(body) for body in bodies], return_exceptions=True)
        assert any(isinstance(one, BudgetExceeded) for one in results)
        assert (await shop.statement("run")).settled <= 10_000


async def test_the_cheapest_is_the_one_where_this_request_costs_least() -> None:
    reads, writes = Tariff(input="0.1", output="10"), Tariff(input="1", output="1")
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(
            system,
            listing(as_estimated, name="reads", tariff=reads),
            listing(as_estimated, name="writes", tariff=writes),
        )
        long = BODY | {"messages": [{"role": "user", "content": "x" * 400_000}], "max_tokens": 10}
        short = BODY | {"max_tokens": 4_000}
        assert (await shop.chat(short, strategy="cheapest")).provider == "writes"
        assert (await shop.chat(long, strategy="cheapest")).provider == "reads"


async def test_an_overdraft_lets_the_estimate_in_and_is_never_passed() -> None:
    rng = Random(3)

    def answer(call: ProviderCall) -> ProviderReply:
        demand = demand_of(call.input)
        assert demand is not None
        output = min(demand.output_bound or 0, int(rng.expovariate(1 / 60)) + 1)
        return ProviderReply(output="x", usage=Usage(input=demand.input_estimate, output=output))

    body = LONG | {"max_tokens": 4_000}
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(answer, max_concurrency=8), budget="0.2", overdraft="0.01")
        served = 0
        while True:
            done = await asyncio.gather(*[shop.chat(body) for _ in range(8)], return_exceptions=True)
            assert all(isinstance(one, BudgetExceeded) for one in done if isinstance(one, BaseException))
            served += sum(1 for one in done if not isinstance(one, BaseException))
            if any(isinstance(one, BudgetExceeded) for one in done):
                break
        with suppress(BudgetExceeded):
            while True:  # One after the other, until not even the estimate is left.
                await shop.chat(body)
                served += 1
        statement = await shop.statement("run")
        assert statement.overdraft == 10_000
        assert any(one.overdrawn for one in shop.of(MoneyReserved))
        assert 200_000 - 3_000 < statement.settled <= 210_000
        assert served > 300
        overdrawn = [one for one in shop.of(MoneySettled) if one.overcharged]
        assert len(overdrawn) <= 0.01 * served


async def test_without_an_overdraft_the_bound_is_what_counts() -> None:
    body = LONG | {"max_tokens": 4_000}
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(as_estimated), budget="0.2")
        with suppress(BudgetExceeded):
            while True:
                await shop.chat(body)
        assert not any(one.overdrawn for one in shop.of(MoneyReserved))
        assert (await shop.statement("run")).settled <= 200_000 - 8_000 + 1_000


async def test_limits_by_the_token_are_drawn_by_the_estimate_and_corrected_by_the_usage() -> None:
    limits = (per_minute("tokens", 60_000, burst=10_000),)
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, listing(used(input=100, output=10), limits=limits, headroom=1.0))
        started = asyncio.get_running_loop().time()
        for _ in range(40):
            await shop.chat(LONG | {"max_tokens": 2_000})
        # By its bound each call would take 4,000 tokens, which come back in 4 s.
        assert asyncio.get_running_loop().time() - started < 20.0


async def test_usage_that_cannot_be_is_charged_and_holds_no_later_call_back() -> None:
    """One absurd figure must not put the limit of its provider in debt for days."""
    usual, absurd = Usage(input=12, output=10), Usage(input=2**39, output=2**39)
    told = iter([absurd, *[usual] * 5])
    limits = (per_minute("tokens", 60_000, burst=10_000),)
    async with ActorSystem("shop", log=False) as system:
        answers = listing(
            lambda _: ProviderReply(output="hello", usage=next(told)), limits=limits, price_tolerance=1e15
        )
        shop = Shop(system, answers)
        assert (await shop.chat()).cost == TARIFF.cost(absurd)
        for _ in range(5):
            assert (await shop.chat()).cost == TARIFF.cost(usual)


async def test_a_repetition_under_a_key_has_the_same_body() -> None:
    bodies: list[Any] = []

    async def call(call: ProviderCall) -> ProviderReply:
        bodies.append(call.input)
        if len(bodies) < 3:
            raise Transient("the line went dead", charged="held")
        return ProviderReply(output="x", usage=Usage(input=10, output=5))

    transport = FunctionTransport(call, paid=True, idempotent="key")
    one = Listing(
        provider=Provider(name="alder", services={"chat"}), transport=lambda: transport, tariff=TARIFF, max_output=900
    )
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, one)
        result = await shop.chat({"messages": BODY["messages"]}, budget="0.0015")
        assert len(bodies) == 3
        assert bodies[0] == bodies[1] == bodies[2]
        assert result.cost == TARIFF.cost(Usage(input=10, output=5))
        statement = await shop.statement()
        assert (statement.settled, statement.held, statement.reserved) == (result.cost, 0, 0)


async def test_what_is_found_out_later_is_settled_by_the_tariff_too() -> None:
    class Asked(FunctionTransport):
        async def look_up(self, call: ProviderCall, *, timeout: float) -> Answered:  # noqa: ASYNC109 - see `LooksUp`.
            return Answered(ProviderReply(output="found", usage=Usage(input=20, output=3)))

    async def hang_up(_: ProviderCall) -> ProviderReply:
        raise ConnectionResetError("the line went dead")

    transport = Asked(hang_up, paid=True, idempotent="no")
    one = Listing(provider=Provider(name="alder", services={"chat"}), transport=lambda: transport, tariff=TARIFF)
    async with ActorSystem("shop", log=False) as system:
        shop = Shop(system, one)
        result = await shop.chat()
        assert (result.output, result.cost) == ("found", 11)
        (settled,) = shop.of(MoneySettled)
        assert (settled.basis, settled.tariff, settled.cost) == ("exact", TARIFF.digest, 11)
