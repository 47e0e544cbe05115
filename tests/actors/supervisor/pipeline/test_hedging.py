"""A second call beside one that takes unusually long: only where it costs nothing, and never more than the budget."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from actors import FunctionTransport, GetStatus, Listing, Market, Provider, Supervisor, Transient, smart_request
from actors.events import CallEnded, Hedged
from actors.money import Micros
from actors.policies import HedgeConfig
from runtime import ActorSystem, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors import ProviderCall
    from runtime import ActorRef

EAGER = HedgeConfig(ratio=1.0, min_samples=5, min_delay=0.5)
"""Every call that is late has a second one."""


class Door:
    """Takes as long as it is told, a tenth of a second else, and raises what it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lasts: list[float] = []
        self.error: Exception | None = None
        self.calls = self.under_way = self.cancelled = 0

    async def answer(self, _call: ProviderCall) -> str:
        self.calls += 1
        self.under_way += 1
        try:
            await asyncio.sleep(self.lasts.pop(0) if self.lasts else 0.1)
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return self.name

    def listing(
        self, *, price: int = 0, paid: bool = False, idempotent: Any = "repeatable", response_time: float = 1.0
    ) -> Listing:
        return Listing(
            provider=Provider(name=self.name, services={"s"}, price=Micros(price), response_time=response_time),
            transport=lambda: FunctionTransport(
                self.answer, paid=paid or price > 0, idempotent=idempotent, provider=self.name, ends_when_cancelled=True
            ),
        )


class Stage:
    def __init__(self, system: ActorSystem, market: Market) -> None:
        self.supervisor: ActorRef[Any] = system.spawn(lambda: Supervisor(market))
        self.events: list[Any] = []
        system.events.subscribe(Event, self.events.append)

    async def request(self, **terms: Any) -> Any:
        return await smart_request(self.supervisor, service="s", input="x", strategy="fastest", **terms)

    async def settle_in(self) -> None:
        """Let the supervisor learn how long an answer usually takes."""
        for _ in range(10):
            await self.request()

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    async def assert_at_rest(self) -> None:
        await asyncio.sleep(0)
        for status in await self.supervisor.ask(GetStatus(), timeout=1.0):
            assert status.under_way == 0


@asynccontextmanager
async def staged(*listings: Listing, hedge: HedgeConfig | None = EAGER) -> AsyncIterator[Stage]:
    async with ActorSystem("stage", seed=1) as system:
        stage = Stage(system, Market(providers=listings, hedge=hedge))
        await stage.settle_in()
        yield stage
        await stage.assert_at_rest()
    assert len(asyncio.all_tasks()) == 1


TICK = 1 / 1024
"""Seconds by which the timer of late calls may be late."""


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_late_call_gets_a_second_elsewhere_whose_answer_ends_it():
    slow, other = Door("slow"), Door("other")
    async with staged(slow.listing(), other.listing(response_time=2.0)) as stage:
        slow.lasts = [9.0]
        began = now()
        result = await stage.request()
        assert (result.output, result.provider, result.attempts) == ("other", "other", 2)
        assert now() - began == pytest.approx(0.6, abs=TICK)
        assert (slow.cancelled, slow.under_way, stage.count(Hedged)) == (1, 0, 1)


async def test_the_first_may_still_answer_first_and_ends_the_second():
    slow, other = Door("slow"), Door("other")
    async with staged(slow.listing(), other.listing(response_time=2.0)) as stage:
        slow.lasts, other.lasts = [0.7], [5.0]
        result = await stage.request()
        assert (result.output, result.provider) == ("slow", "slow")
        assert (other.calls, other.cancelled, other.under_way) == (1, 1, 0)


async def test_a_second_call_that_fails_leaves_the_first_the_word():
    slow, other = Door("slow"), Door("other")
    async with staged(slow.listing(), other.listing(response_time=2.0)) as stage:
        slow.lasts, other.error = [2.0], Transient("down", provider="other")
        assert (await stage.request()).output == "slow"
        assert other.calls == 1


async def test_a_first_call_that_fails_waits_for_the_second():
    slow, other = Door("slow"), Door("other")
    async with staged(slow.listing(), other.listing(response_time=2.0)) as stage:
        slow.lasts, other.lasts, slow.error = [0.7], [3.0], Transient("down", provider="slow")
        assert (await stage.request()).output == "other"
        assert (slow.calls, other.calls) == (11, 1)


@pytest.mark.parametrize(
    ("terms", "hedge"),
    [({"price": 5}, EAGER), ({"paid": True}, EAGER), ({"idempotent": "no"}, EAGER), ({}, None)],
    ids=["priced", "paid", "once", "off"],
)
async def test_what_costs_money_or_may_not_run_twice_is_never_hedged(terms: dict[str, Any], hedge: HedgeConfig | None):
    for terms_of_other in (terms, {}):
        slow, other = Door("slow"), Door("other")
        async with staged(
            slow.listing(**terms), other.listing(response_time=2.0, **terms_of_other), hedge=hedge
        ) as stage:
            slow.lasts = [5.0]
            assert (await stage.request()).output == "slow"
            assert other.calls == 0


async def test_where_everybody_is_slow_second_calls_keep_to_their_budget():
    doors = [Door(name) for name in "abc"]
    async with staged(*(door.listing() for door in doors), hedge=HedgeConfig()) as stage:
        for _ in range(10):
            await stage.settle_in()
        for door in doors:
            door.lasts = [2.0] * 1_000
        before = sum(door.calls for door in doors)
        await asyncio.gather(*(stage.request(timeout=500.0) for _ in range(200)))
        assert sum(door.calls for door in doors) - before <= 200 * 1.05 + HedgeConfig().max_tokens


async def test_a_hedged_request_cancelled_at_any_step_leaves_nothing_behind():
    for steps in range(60):
        slow, other = Door("slow"), Door("other")
        async with staged(slow.listing(), other.listing(response_time=2.0)) as stage:
            slow.lasts, other.lasts = [0.75], [0.3]
            request = asyncio.create_task(stage.request())
            await asyncio.sleep(0.45 + 0.01 * (steps // 2))
            for _ in range(steps % 2):
                await asyncio.sleep(0)
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
            await stage.assert_at_rest()
            assert (slow.under_way, other.under_way) == (0, 0)
            assert stage.count(CallEnded) == slow.calls + other.calls


@pytest.mark.parametrize("terms", [{"price": 10}, {"paid": True}, {"idempotent": "no"}])
async def test_a_free_call_that_is_late_gets_no_second_at_somebody_who_is_paid_or_may_not_run_twice(
    terms: dict[str, Any],
):
    alder, birch = Door("alder"), Door("birch")
    listings = alder.listing(response_time=0.1), birch.listing(**terms)
    async with ActorSystem("stage", seed=1) as system:
        stage = Stage(system, Market(providers=listings, hedge=EAGER))
        await stage.settle_in()
        alder.lasts = [2.0]
        assert (await stage.request()).output == "alder"
        assert birch.calls == 0
