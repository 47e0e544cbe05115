"""Another market under a running supervisor: what is under way ends as it began, and what is kept goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors import (
    BreakerConfig,
    BudgetExceeded,
    FunctionTransport,
    GetStatus,
    Isolate,
    Listing,
    Market,
    NoProvider,
    OutcomeUnknown,
    Permanent,
    RequestOptions,
    smart_request,
)
from actors.errors.families import CallFailed, LedgerDown
from actors.ledger.messages import CloseAccount, OpenAccount
from actors.ledger.periods import Renewal
from actors.market import SharedQuota
from actors.money import Micros
from actors.policies.breaker.states import Closed, Open
from actors.supervisor import MarketChange, ReplaceMarket, smart_stream
from actors.supervisor.payments.accounts import Accounts
from actors.supervisor.pipeline.finding import Finder
from tests.actors.supervisor.stage import STEADY, Script, flaky, now, offer, staged, steps, trip
from tests.actors.supervisor.test_services import child


def market_of(*listings: Listing, **policies: Any) -> Market:
    return Market(providers=listings, **{"retry": STEADY} | policies)


def at_address(listing: Listing, address: str) -> Listing:
    return msgspec.structs.replace(listing, provider=msgspec.structs.replace(listing.provider, address=address))


async def replace(stage, *listings: Listing, **policies: Any) -> MarketChange:
    return await stage.ref.ask(ReplaceMarket(market_of(*listings, **policies)), timeout=5.0)


async def test_what_is_under_way_ends_under_the_market_it_began_with_and_the_next_request_under_the_new_one():
    a, b, c = Script(flaky("a"), lasts=5.0), Script("b"), Script("c")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        first = asyncio.create_task(stage.request(timeout=60.0))
        await asyncio.sleep(1.0)
        change = await replace(stage, offer("c", c))
        assert change == MarketChange(added=("c",), removed=("a", "b"))
        assert (await stage.request()).provider == "c"
        assert (await first).provider == "b"
        assert [status.provider.name for status in await stage.ref.ask(GetStatus(), timeout=1.0)] == ["c"]
        with pytest.raises(Permanent, match="there is no provider 'a'"):
            await stage.ref.ask(Isolate(provider="a"), timeout=1.0)
        await stage.assert_at_rest()
        assert list(stage.actor.broken_invariants()) == []


async def test_a_request_that_waits_for_a_removed_provider_is_served_by_it():
    a, b = Script(lasts=5.0), Script("b")
    async with staged(offer("a", a, max_concurrency=1)) as stage:
        asked = [asyncio.create_task(stage.request(timeout=60.0)) for _ in range(3)]
        await asyncio.sleep(1.0)
        await replace(stage, offer("b", b))
        assert [(await one).provider for one in asked] == ["a", "a", "a"]
        assert a.most_under_way == 1
        assert (await stage.request()).provider == "b"
        await stage.assert_at_rest()


async def test_a_provider_of_the_same_name_and_address_keeps_its_breaker_and_one_that_moved_is_new():
    a = Script(flaky("a"))
    async with staged(at_address(offer("a", a), "here"), breaker=BreakerConfig(open_for=30.0)) as stage:
        await trip(stage, a)
        kept = stage.actor.targets.named("a")
        change = await replace(stage, at_address(offer("a", a, timeout=3.0), "here"))
        assert change == MarketChange(kept=("a",))
        assert stage.actor.targets.named("a") is kept
        assert isinstance(kept.state.breaker, Open)
        a.outcomes = ["done"]
        change = await replace(stage, at_address(offer("a", a), "there"))
        assert change == MarketChange(moved=("a",))
        assert isinstance(stage.actor.targets.named("a").state.breaker, Closed)
        began = now()
        assert (await stage.request()).provider == "a"
        assert now() == began


async def test_a_moved_provider_does_not_wait_behind_requests_for_its_old_address():
    old, new = Script(lasts=50.0), Script("new")
    async with staged(at_address(offer("a", old, max_concurrency=1, timeout=60.0), "here")) as stage:
        asked = [asyncio.create_task(stage.request(timeout=200.0)) for _ in range(3)]
        await asyncio.sleep(1.0)
        await replace(stage, at_address(offer("a", new, max_concurrency=1), "there"))
        began = now()
        assert (await stage.request()).output == "new"
        later = [asyncio.create_task(stage.request(timeout=200.0)) for _ in range(3)]
        assert [(await one).output for one in later] == ["new"] * 3
        assert now() == began
        assert [(await one).output for one in asked] == ["done"] * 3
        await stage.assert_at_rest()


@pytest.mark.parametrize("between", [1, 3])
async def test_a_removed_provider_that_comes_back_does_not_share_the_queue_of_those_that_wait_for_it(between: int):
    olds = [Script(f"old {number}", lasts=50.0) for number in range(between)]
    new, other = Script("new"), Script("other")
    async with staged(offer("a", olds[0], max_concurrency=1, timeout=60.0)) as stage:
        asked: list[list[asyncio.Task[Any]]] = []
        for old in olds:
            if old is not olds[0]:
                await replace(stage, offer("a", old, max_concurrency=1, timeout=60.0))
            asked.append([asyncio.create_task(stage.request(timeout=300.0)) for _ in range(3)])
            await asyncio.sleep(1.0)
            await replace(stage, offer("b", other))
        await replace(stage, offer("a", new, max_concurrency=1))
        began = now()
        later = [asyncio.create_task(stage.request(timeout=300.0)) for _ in range(3)]
        assert [(await one).output for one in later] == ["new"] * 3
        assert now() == began
        for old, waiting in zip(olds, asked, strict=True):
            assert [(await one).output for one in waiting] == [old.outcomes[0]] * 3
            assert (len(old.at), old.most_under_way) == (3, 1)
        await stage.assert_at_rest()
        assert list(stage.actor.broken_invariants()) == []


async def test_what_was_learned_of_a_limit_is_kept_as_far_as_new_settings_allow_it():
    a = Script("done")
    async with staged(offer("a", a, max_concurrency=100)) as stage:
        await stage.request()
        target = stage.actor.targets.named("a")
        target.state = msgspec.structs.replace(
            target.state, limit=msgspec.structs.replace(target.state.limit, limit=40.0)
        )
        await replace(stage, offer("a", a, max_concurrency=60))
        assert target.state.limit.allowed == 40
        await replace(stage, offer("a", a, max_concurrency=20))
        assert target.state.limit.allowed == 20
        await replace(stage, offer("a", a, max_concurrency=60))
        assert target.state.limit.allowed == 20


async def test_a_limit_that_changes_gives_no_second_burst():
    a = Script("done")
    async with staged(offer("a", a, rate_limit=1.0, burst=4, headroom=1.0)) as stage:
        for _ in range(4):
            await stage.request()
        began = now()
        await replace(stage, offer("a", a, rate_limit=2.0, burst=4, headroom=1.0))
        await stage.request(timeout=60.0)
        assert now() - began == pytest.approx(0.5)


async def test_a_stream_that_takes_longer_than_its_providers_timeout_is_not_cut_by_another_market():
    async def drip(call):
        for number in range(100):
            await asyncio.sleep(1.0)
            await call.stream.put(number)
            call.stream.commit()
        return "all"

    class Closing(FunctionTransport):
        async def aclose(self) -> None:
            closed.append(now())

    other, closed = Script("other"), list[float]()
    dripping = msgspec.structs.replace(
        offer("a", other), transport=lambda: Closing(drip, paid=False, idempotent="no", provider="a"), timeout=2.0
    )
    for last in (offer("a", other), offer("a", other, max_concurrency=3), offer("b", other)):
        async with staged(dripping) as stage:
            async with smart_stream(stage.ref, service="s", input="x", timeout=1e3, gap=10.0) as stream:
                pieces = [await anext(stream)]
                await replace(stage, last)
                assert (await stage.request()).output == "other"
                pieces += [piece async for piece in stream]
                ended = now()
            assert pieces == list(range(100))
            await steps(5)
            # What was handed over, or removed, is closed as soon as it has nothing to do any more.
            assert closed.pop() == ended
            await stage.assert_at_rest()
            assert list(stage.actor.broken_invariants()) == []


async def test_a_request_pays_the_price_of_its_market():
    a = Script(lasts=5.0)
    async with staged(offer("a", a, price=100), budget="1") as stage:
        first = asyncio.create_task(stage.request(timeout=60.0))
        await asyncio.sleep(1.0)
        await replace(stage, offer("a", a, price=300), budget="1")
        assert (await stage.request(timeout=60.0)).cost == Micros(300)
        assert (await first).cost == Micros(100)
        assert (await stage.account("run")).settled == Micros(400)


async def test_a_cap_that_changes_is_set_at_the_ledger_and_keeps_what_was_spent():
    a = Script("done")
    dear = offer("a", a, price=400_000)
    async with staged(dear, budget="1") as stage:
        await stage.request()
        await stage.request()
        with pytest.raises(BudgetExceeded):
            await stage.request()
        await replace(stage, dear, budget="1.20")
        await stage.request()
        with pytest.raises(BudgetExceeded):
            await stage.request()
        await replace(stage, dear)
        await stage.request()  # There is no cap, but what is spent is counted on.
        assert ((await stage.account("run")).cap, (await stage.account("run")).settled) == (None, 1_600_000)
        await replace(stage, dear, budget="1.70/day")
        assert (await stage.account("run")).renewal == Renewal(unit="day")
        await replace(stage, dear, budget="1.70")
        assert (await stage.account("run")).renewal is None
        with pytest.raises(BudgetExceeded):
            await stage.request()


async def test_an_overdraft_that_changes_alone_reaches_the_ledger_also_while_it_is_told_of_another():
    dear = offer("a", Script("done"), price=400_000, budget="5")
    async with staged(dear, budget="1") as stage:
        await stage.request()
        await asyncio.gather(*(replace(stage, dear, budget="1", overdraft=one) for one in ("0.10", "0.20", "0.30")))
        assert [(await stage.account(one)).overdraft for one in ("run", "provider a")] == [300_000, 300_000]


@pytest.mark.parametrize(("after", "cap"), [({"budget": "1.20"}, 1_200_000), ({}, None)])
async def test_a_cap_that_changed_while_the_ledger_was_down_is_told_after_a_restart(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, Any], cap: int | None
):
    async def is_down(*_: Any) -> None:
        raise LedgerDown("it is restarting")

    dear = offer("a", Script("done"), price=400_000)
    async with staged(dear, budget="1") as stage:
        await stage.request()
        with monkeypatch.context() as patched:
            patched.setattr(Accounts, "_tell", is_down)
            with pytest.raises(LedgerDown):
                await replace(stage, dear, **after)
            supervisor = stage.actor
            for _ in range(4):
                child(supervisor, "discovery").kill()
                await steps(5)
            await asyncio.sleep(1.0)
        assert len(stage.instances) == 2
        await stage.request()
        statement = await stage.account("run")
        assert (statement.cap, statement.settled) == (cap, 800_000)


async def test_a_market_whose_caps_the_ledger_refuses_holds_all_the_same():
    dear, cheap = offer("a", Script(ConnectionResetError()), price=400_000), offer("b", Script("done"))
    async with staged(dear, budget="1") as stage:
        with pytest.raises(OutcomeUnknown):
            await stage.request()
        await stage.actor.payments.ask_ledger(CloseAccount(name="run"))
        with pytest.raises(LedgerDown, match=r"the market is replaced.*there is no open account 'run'"):
            await replace(stage, cheap, budget="2")
        assert [status.provider.name for status in await stage.ref.ask(GetStatus(), timeout=1.0)] == ["b"]


async def test_the_cap_of_a_provider_holds_for_it_whatever_market_comes():
    a, b = Script("done"), Script("b")
    dear = offer("a", a, price=400_000, budget="0.50")
    async with staged(dear) as stage:
        await stage.request()
        await replace(stage, offer("b", b))
        await stage.request()
        await replace(stage, dear)
        with pytest.raises(BudgetExceeded):
            await stage.request()
        await replace(stage, msgspec.structs.replace(dear, budget="0.90"))
        await stage.request()
        with pytest.raises(BudgetExceeded):
            await stage.request()
        assert (await stage.account("provider a")).settled == 800_000


async def test_a_shared_quota_changes_without_a_second_burst_and_refuses_what_never_fits():
    a = Script("done")
    shared = SharedQuota(rate_limit=1.0, burst=4, headroom=1.0)
    async with staged(offer("a", a, quota="org"), quotas={"org": shared}) as stage:
        for _ in range(4):
            await stage.request()
        waiting = [asyncio.create_task(stage.request(timeout=60.0)) for _ in range(2)]
        heavy = asyncio.create_task(stage.request(timeout=60.0, options=RequestOptions(weights={"requests": 3})))
        await steps(5)
        began = now()
        faster = SharedQuota(rate_limit=2.0, burst=2, headroom=1.0)
        await replace(
            stage, offer("a", a, quota="org"), offer("b", a, quota="new"), quotas={"org": faster, "new": shared}
        )
        await asyncio.gather(*waiting)
        assert now() - began == pytest.approx(1.0)
        with pytest.raises(CallFailed):
            await heavy
        assert now() - began == pytest.approx(1.0)
        await stage.assert_at_rest()


async def test_another_market_outlives_a_crash_of_the_supervisor():
    a, b = Script("a"), Script("b")
    async with staged(offer("a", a)) as stage:
        await stage.request()
        await replace(stage, offer("b", b))
        supervisor = stage.actor
        for _ in range(4):
            child(supervisor, "discovery").kill()
            await steps(5)
        await asyncio.sleep(1.0)
        assert len(stage.instances) == 2
        assert (await stage.request()).provider == "b"


async def test_a_market_that_offers_nothing_is_refused_and_changes_nothing():
    a = Script("a")
    async with staged(offer("a", a)) as stage:
        with pytest.raises(Permanent, match="Nothing was changed"):
            await replace(stage)
        assert (await stage.request()).provider == "a"
    with pytest.raises(TypeError, match="needs a Market"):
        ReplaceMarket("market.toml")  # type: ignore[arg-type]


@pytest.mark.parametrize("waits_for", ["discovery", "account", "account and discovery"])
async def test_a_request_that_is_looking_for_providers_ends_under_its_market_and_puts_nothing_back(
    monkeypatch: pytest.MonkeyPatch, waits_for: str
):
    a, b, c = Script("a"), Script("b"), Script("c")
    async with staged(offer("a", a, price=100), offer("b", b, price=200), budget="1") as stage:
        await stage.ref.ask(OpenAccount(name="acme", cap="1"), timeout=5.0)
        if "account" in waits_for:
            accounts, ensure_open = stage.actor.payments.accounts, stage.actor.payments.accounts.ensure_open

            async def late(name: str) -> None:
                await asyncio.sleep(1.0)
                await ensure_open(name)

            monkeypatch.setattr(accounts, "ensure_open", late)
        if "discovery" in waits_for:
            find = Finder.ask

            async def slow(self: Finder, question: Any, **options: Any) -> Any:
                offers = await find(self, question, **options)
                await asyncio.sleep(1.0)
                return offers

            monkeypatch.setattr(Finder, "ask", slow)
        first = asyncio.create_task(stage.request(timeout=60.0, account="acme"))
        await asyncio.sleep(0.5)
        assert not a.at
        change = await replace(stage, offer("b", b, price=300), offer("c", c, price=100), budget="1")
        assert change == MarketChange(added=("c",), removed=("a",), kept=("b",))
        result = await first
        assert (result.provider, result.cost) == ("a", Micros(100))
        assert set(stage.actor.targets.by_name) == {"b", "c"}
        assert stage.actor.targets.named("b").listing.provider.price == Micros(300)
        assert (await stage.request(timeout=60.0)).provider == "c"
        await stage.assert_at_rest()
        assert list(stage.actor.broken_invariants()) == []


async def test_a_registry_of_its_own_goes_on_to_say_which_providers_there_are():
    a = Script("a")

    async def registry(service):
        return [offer("a", a)] if service == "s" else []

    async with staged(registry=registry) as stage:
        await stage.request()
        target = stage.actor.targets.named("a")
        await replace(stage, max_waiting=7)
        assert (await stage.request()).provider == "a"
        assert stage.actor.targets.named("a") is target
        assert stage.actor.queues.bound.max_waiting == 7


async def test_a_service_that_is_no_longer_offered_is_refused_at_once():
    a = Script("a")
    async with staged(offer("a", a)) as stage:
        await stage.request()
        other = offer("b", Script("b"))
        other = msgspec.structs.replace(
            other, provider=msgspec.structs.replace(other.provider, services=frozenset({"t"}))
        )
        await replace(stage, other)
        with pytest.raises(NoProvider):
            await stage.request()
        assert (await smart_request(stage.ref, service="t", input="x")).provider == "b"
