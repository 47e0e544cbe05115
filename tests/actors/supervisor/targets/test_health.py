"""Health checks before a request chooses; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from actors import FunctionTransport, Listing, Provider
from actors.money import Micros
from runtime import ActorFailed
from tests.actors.supervisor.stage import Script, flaky, healthy_for, now, offer, staged, steps, unhealthy_for


async def test_a_health_check_skips_the_unhealthy_first_choice_and_is_remembered_for_a_while():
    a, b, checks = Script("a"), Script("b"), list[str]()
    listings = [
        offer("a", a, price=1, check=unhealthy_for("a", checks)),
        offer("b", b, price=2, check=healthy_for("b", checks)),
        offer("c", Script("c"), price=3, check=healthy_for("c", checks)),
    ]
    max_age = 31.0
    async with staged(*listings) as stage:
        for _ in range(5):
            assert (await stage.request(health_check=True)).output == "b"
        assert checks == ["a", "b"]
        await asyncio.sleep(max_age)
        assert (await stage.request(health_check=True)).output == "b"
        assert checks == ["a", "b", "a", "b"]
        assert a.calls == []


async def test_a_request_is_not_lost_when_all_are_unhealthy():
    checks: list[str] = []
    listings = [
        offer("a", Script("a"), price=1, check=unhealthy_for("a", checks)),
        offer("b", Script("b"), price=2, check=unhealthy_for("b", checks)),
    ]
    async with staged(*listings) as stage:
        assert (await stage.request(health_check=True)).output == "a"
        assert checks == ["a", "b"]


@pytest.mark.parametrize("bug", [KeyError("bug"), RuntimeError("bug"), flaky("a")], ids=repr)
async def test_a_check_that_raises_finds_the_provider_unhealthy_and_harms_no_call_under_way(bug: Exception):
    async def check(_: float) -> None:
        raise bug

    class Bad(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
            raise bug

    slow = Script("slow", lasts=5.0)
    bad = Listing(
        provider=Provider(name="bad", services={"s"}, price=Micros(1)),
        transport=lambda: Bad(slow, paid=True, idempotent="no", provider="bad"),
    )
    async with staged(bad, offer("b", Script("b"), price=2)) as stage:
        paid = asyncio.create_task(stage.request())
        await steps(10)
        assert (await stage.request(health_check=True)).output == "b"
        assert (await paid).output == "slow"
        assert stage.of(ActorFailed) == []


async def test_many_who_want_a_check_share_one_and_a_check_that_hangs_is_given_up():
    checks: list[str] = []
    forever = 1e9

    class Deaf(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
            checks.append("deaf")
            await asyncio.sleep(forever)

    deaf = Listing(
        provider=Provider(name="deaf", services={"s"}, price=Micros(1)),
        transport=lambda: Deaf(Script("deaf"), paid=True, idempotent="no", provider="deaf"),
    )
    async with staged(deaf, offer("b", Script("b"), price=2, max_concurrency=100)) as stage:
        results = await asyncio.gather(*(stage.request(health_check=True) for _ in range(10)))
        assert {result.output for result in results} == {"b"}
        assert checks == ["deaf"]
        assert now() <= 3.0
        await asyncio.sleep(stage.actor.market.health.max_age)
        await stage.request(health_check=True)
        assert checks == ["deaf", "deaf"]  # The one that hung is not waited for again.


async def test_checks_that_hang_leave_half_of_the_time_for_the_call():
    forever = 1e9

    class Deaf(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the protocol.
            await asyncio.sleep(forever)

    def deaf(name: str) -> Listing:
        return Listing(
            provider=Provider(name=name, services={"s"}),
            transport=lambda: Deaf(Script("done"), paid=False, idempotent="no", provider=name),
        )

    async with staged(*(deaf(name) for name in "abc")) as stage:
        assert (await stage.request(health_check=True, timeout=3.0)).provider == "a"
        assert now() == 1.5
        # Until 2.25 s the check of the first still runs, and then that of the second begins.
        assert (await stage.request(health_check=True, timeout=3.0)).provider == "b"
        assert now() == 3.0
        await stage.assert_at_rest()
