"""Requests that wait for a place, for tokens or for money are served in order; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import actors.supervisor.targets.target as target_module
from actors import (
    BreakerOpen,
    FunctionTransport,
    Listing,
    Provider,
    ProviderFilter,
    ProviderReply,
    RequestOptions,
    Retry,
)
from actors.errors import BulkheadFull
from actors.events import BreakerOpened
from actors.ledger import OpenAccount
from actors.limits import RateLimit
from actors.market import SharedQuota
from actors.money import Micros
from actors.supervisor.targets.waiting import QueueEntry, WaitQueues
from tests.actors.supervisor.stage import FRAGILE, Script, flaky, now, offer, staged, steps, trip

if TYPE_CHECKING:
    from actors import ProviderCall
    from tests.actors.supervisor.stage import Stage


async def count_decisions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    decided: list[float] = []
    true_admit = target_module.admit

    def counting(*args: Any, **kwargs: Any) -> Any:
        decided.append(kwargs["now"])
        return true_admit(*args, **kwargs)

    monkeypatch.setattr(target_module, "admit", counting)
    await stage.request()  # So that discovery knows.
    decided.clear()
    return decided


async def in_turn(stage: Stage, count: int) -> list[asyncio.Task[Any]]:
    """Start numbered requests, each after the one before it has come to its first wait."""
    requests: list[asyncio.Task[Any]] = []
    for number in range(count):
        requests.append(asyncio.create_task(stage.request(input=number, timeout=1000)))
        await steps(4)
    return requests


async def test_a_thousand_who_wait_for_a_place_are_served_in_order_with_two_looks_a_release(
    monkeypatch: pytest.MonkeyPatch,
):
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=10)) as stage:
        decided = await count_decisions(stage, monkeypatch)
        script.calls.clear()
        await asyncio.gather(*await in_turn(stage, 1000))
        assert [call.input for call in script.calls] == list(range(1000))
        assert now() == pytest.approx(101.0)
        assert script.most_under_way == 10
        assert len(decided) <= 1000 + 2 * 1000
        await stage.assert_at_rest()


async def test_a_thousand_who_wait_for_tokens_are_served_in_order_and_at_the_rate(monkeypatch: pytest.MonkeyPatch):
    script = Script("done")
    async with staged(offer("a", script, max_concurrency=1000, rate_limit=100.0, burst=1, headroom=1.0)) as stage:
        decided = await count_decisions(stage, monkeypatch)
        started = now()
        script.calls.clear()
        await asyncio.gather(*await in_turn(stage, 1000))
        assert [call.input for call in script.calls] == list(range(1000))
        assert 1000 / (now() - started) >= 99.5
        # One look on arrival, one at its time, one as the new first in line; and a call that ends looks too.
        assert len(decided) <= 4 * 1000
        await stage.assert_at_rest()


async def test_a_thousand_who_wait_for_money_take_two_looks_a_release(monkeypatch: pytest.MonkeyPatch):
    script = Script(ProviderReply(output="x", cost=Micros(1)), lasts=1.0)
    async with staged(offer("a", script, price=10, max_concurrency=1000)) as stage:
        decided = await count_decisions(stage, monkeypatch)
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(1009)), timeout=1)
        results = await asyncio.gather(*(stage.request(account="acc", timeout=1000) for _ in range(1000)))
        assert sum(result.cost for result in results) == 1000
        assert len(decided) <= 4 * 1000
        await stage.assert_at_rest()


async def test_those_who_wait_while_another_market_is_busy_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    slow = Listing(
        provider=Provider(name="slow", services={"t"}),
        transport=lambda: FunctionTransport(Script(lasts=9.0), paid=False, idempotent="no"),
        max_concurrency=1,
    )
    async with staged(slow, offer("a", Script("done", lasts=0.1))) as stage:
        decided = await count_decisions(stage, monkeypatch)
        waiting = [asyncio.create_task(stage.request(service="t", timeout=100)) for _ in range(6)]
        await steps(10)
        decided.clear()
        for _ in range(50):
            await stage.request()
        assert len(decided) == 50
        await asyncio.gather(*waiting)


async def test_one_who_is_cancelled_right_when_it_is_woken_passes_its_turn_on():
    script = Script("done", lasts=1.0)
    for k in range(12):
        async with staged(offer("a", script, max_concurrency=1)) as stage:
            began = now()
            first = asyncio.create_task(stage.request())
            await steps(10)
            second, third = (asyncio.create_task(stage.request()) for _ in range(2))
            await asyncio.wait([first])
            await steps(k)
            second.cancel()
            await asyncio.wait([second, third])
            assert third.result().output == "done"
            assert now() - began <= 3.0
            await steps(5)
            await stage.assert_at_rest()


async def test_who_takes_another_provider_leaves_the_front_of_the_line_to_the_next():
    a, b = Script("a", lasts=10.0), Script("b", lasts=4.0)
    async with staged(
        offer("a", a, price=1, max_concurrency=1, timeout=60), offer("b", b, price=2, max_concurrency=1, timeout=60)
    ) as stage:
        cheap = ProviderFilter(max_price="0.000001")
        requests = [asyncio.create_task(stage.request(input=number, timeout=100)) for number in range(3)]
        await steps(10)
        # The third waits for both; this one only for the cheaper, and stands behind it.
        requests.append(asyncio.create_task(stage.request(input=3, where=cheap, timeout=100)))
        await steps(10)
        await asyncio.gather(*requests)
        assert [call.input for call in a.calls] == [0, 3]
        assert [call.input for call in b.calls] == [1, 2]
        assert a.at == [0.0, 10.0]
        await stage.assert_at_rest()


async def test_places_that_become_free_together_are_all_taken_at_once_by_tenants_in_turn():
    gate = asyncio.Event()
    begun: list[str] = []

    async def answer(call: ProviderCall) -> str:
        begun.append(call.input)
        if not call.input.startswith("later"):
            await gate.wait()
        else:
            await asyncio.sleep(1.0)
        return "done"

    async with staged(offer("a", answer, max_concurrency=8)) as stage:
        requests = [asyncio.create_task(stage.request(input=f"first {number}")) for number in range(8)]
        await steps(20)
        for tenant in ("bulk", "small"):
            for number in range(12 if tenant == "bulk" else 3):
                options = RequestOptions(tenant=tenant)
                request = stage.request(input=f"later {tenant} {number}", options=options)
                requests.append(asyncio.create_task(request))
        await steps(20)
        assert len(begun) == 8
        gate.set()
        await steps(8)  # A turn each for the end of the calls, the wake-up, and the new calls; no turn for each call.
        assert begun[8:] == [f"later {tenant} {number}" for number in range(3) for tenant in ("bulk", "small")] + [
            "later bulk 3",
            "later bulk 4",
        ]
        await asyncio.gather(*requests)
        assert [one for one in begun if "bulk" in one] == [f"later bulk {number}" for number in range(12)]
        await stage.assert_at_rest()


async def test_a_newcomer_does_not_overtake_those_who_wait():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        await stage.request()  # So that discovery knows.
        script.calls.clear()
        requests = [asyncio.create_task(stage.request(input=number)) for number in range(3)]
        served = 1
        while len(script.calls) < 3:
            # Somebody new in every turn of the loop, also in the one in which a place becomes free.
            if len(requests) < 200:
                requests.append(asyncio.create_task(stage.request(input=len(requests), timeout=500)))
                await steps(1)
            else:
                await asyncio.sleep(served)
        await asyncio.gather(*requests)
        assert [call.input for call in script.calls] == list(range(len(requests)))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_concurrency": 1}, BulkheadFull), ({"max_concurrency": 9, "rate_limit": 0.001}, "RateLimited")],
    ids=["place", "tokens"],
)
async def test_who_waits_in_vain_ends_in_time_and_learns_for_what(limits: dict[str, Any], reason: Any):
    script = Script("done", lasts=50.0)
    async with staged(offer("a", script, timeout=100.0, **limits)) as stage:
        busy = asyncio.create_task(stage.request(timeout=100))
        await steps(10)
        with pytest.raises(Exception, match=r".") as failed:
            await stage.request(timeout=3)
        assert type(failed.value).__name__ == getattr(reason, "__name__", reason)
        assert now() <= 3.0
        await busy
        await stage.assert_at_rest()


async def test_who_waits_for_an_open_breaker_in_vain_fails_at_once_and_in_time_gets_through():
    script = Script(*[flaky("a")] * 5, "done")
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        with pytest.raises(BreakerOpen):
            await stage.request(timeout=5)
        assert now() == 0.0
        assert (await stage.request(timeout=100)).output == "done"
        assert now() == pytest.approx(stage.of(BreakerOpened)[0].wait)


async def test_a_request_keeps_its_place_that_was_granted_a_quota_when_its_provider_was_full():
    script = Script("done", lasts=10.0)
    quotas = {"org": SharedQuota(limits=(RateLimit(rate=1.0),), headroom=1.0)}
    async with staged(offer("a", script, max_concurrency=2, quota="org", timeout=60.0), quotas=quotas) as stage:
        requests: list[asyncio.Task[Any]] = []
        # The third waits for the quota, which is granted at 2 s, when both places are taken and the fourth waits there.
        for number, at in enumerate((0.0, 0.1, 0.2, 1.5, 1.6)):
            await asyncio.sleep(at - now())
            requests.append(asyncio.create_task(stage.request(input=number, timeout=1000)))
        await asyncio.gather(*requests)
        assert [call.input for call in script.calls] == list(range(5))
        await stage.assert_at_rest()


async def test_two_that_leave_a_queue_and_come_back_do_not_wake_each_other_for_ever():
    queues, names = WaitQueues(), (("provider", "a"), ("provider", "b"))
    entries = [QueueEntry() for _ in range(3)]
    for entry in entries:
        queues._move_to(entry, names)
    for turn in range(4):  # Each in turn looks as the first one, leaves for nothing, and comes back.
        for entry in entries:
            entry.waiter = asyncio.get_running_loop().create_future()
        before = [entry.waiter for entry in entries]
        queues._move_to(entries[0], names[1:])
        queues.is_first(entries[1], names[0])
        queues._move_to(entries[1], names[1:])
        queues.is_first(entries[2], names[0])
        queues._move_to(entries[0], names)
        queues._move_to(entries[1], names)
        assert queues.is_first(entries[0], names[0])
        woken = [waiter is not None and waiter.done() for waiter in before]
        assert woken == (
            [False, True, True] if turn == 0 else [False] * 3
        )  # What was seen once need not be seen again.


async def test_one_that_looked_again_behind_another_is_woken_when_that_leaves():
    queues, name = WaitQueues(), ("provider", "a")
    late, early = QueueEntry(), QueueEntry(priority="high")
    queues._move_to(late, (name,))
    assert queues.is_first(late, name)
    queues._move_to(early, (name,))
    assert not queues.is_first(late, name)  # It has nothing of its own to wait for now.
    late.waiter = asyncio.get_running_loop().create_future()
    queues.leave(early)
    assert late.waiter.done()


async def test_a_release_wakes_the_first_one_that_has_looked():
    queues, names = WaitQueues(), (("provider", "a"),)
    entries = [QueueEntry()]
    queues._move_to(entries[0], names)
    assert queues.is_first(entries[0], names[0])
    entries[0].waiter = asyncio.get_running_loop().create_future()
    queues.wake(names[0])
    assert entries[0].waiter is not None
    assert entries[0].waiter.done()
    for entry in entries:
        queues.leave(entry)
    assert not queues
