"""A probe costs its request no more time than it can spare, unless that would leave money unknown; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, FunctionTransport, Listing, OutcomeUnknown, Provider, Retry, Transient
from actors.events import CallEnded
from actors.money import Micros
from actors.policies.breaker.states import Closed, Open
from actors.supervisor.targets.probe_time import time_of_probe
from tests.actors.supervisor.stage import FRAGILE, Script, offer, staged, wait_is_over
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors import ProviderCall
    from tests.actors.supervisor.stage import Stage

SEEDS = repeated(100)


class Hanging:
    """A provider that answers at once until it hangs, and keeps the time that each call was given."""

    def __init__(self, *, is_charged: bool = True) -> None:
        self.hangs = False
        self.is_charged = is_charged
        self.given: list[float] = []

    async def __call__(self, call: ProviderCall) -> str:
        self.given.append(call.timeout)
        try:
            # A hair earlier than its transport, which would not know what a cut costs.
            async with asyncio.timeout(None if self.is_charged else call.timeout - 0.0005):
                await asyncio.sleep(1e6 if self.hangs else 0.2)
        except TimeoutError:
            raise Transient("cut off", provider="a", charged="no") from None
        return "a"


async def trip_by_hanging(stage: Stage, hanging: Hanging) -> None:
    """Let it answer until its usual latency is known, and hang until its breaker is open."""
    for _ in range(30):
        await stage.request()
    hanging.hangs = True
    target = stage.actor.targets.named("a")
    for _ in range(10):
        if isinstance(target.state.breaker, Closed):
            with suppress(CallFailed):
                await stage.request(timeout=10)
    assert isinstance(target.state.breaker, Open)
    hanging.given.clear()


async def probe(stage: Stage, **options: Any) -> Any:
    await wait_is_over(stage)
    return await stage.request(timeout=10, **options)


async def test_each_probe_that_is_cut_doubles_the_time_of_the_next_and_its_request_is_served_elsewhere():
    hanging = Hanging()
    async with staged(
        offer("a", hanging, price=0), offer("b", Script("b", lasts=0.4), price=1), breaker=FRAGILE
    ) as stage:
        await trip_by_hanging(stage, hanging)
        for _ in range(7):
            assert (await probe(stage)).output == "b"
        # The last ones leave what another provider needs, 2.5 times its 0.4 seconds.
        assert hanging.given == pytest.approx([1.0, 2.0, 4.0, 8.0, 9.0, 9.0, 9.0], abs=0.05)
        hanging.hangs = False
        assert (await probe(stage)).output == "a"
        hanging.hangs = True
        await trip_by_hanging(stage, hanging)
        assert (await probe(stage)).output == "b"
        assert hanging.given == pytest.approx([1.0], abs=0.3)
        await stage.assert_at_rest()


async def test_what_is_not_charged_when_it_is_cut_is_cut_although_it_is_paid():
    hanging = Hanging(is_charged=False)
    async with staged(
        offer("a", hanging, price=1), offer("b", Script("b", lasts=0.4), price=2), breaker=FRAGILE
    ) as stage:
        await trip_by_hanging(stage, hanging)
        for _ in range(3):
            assert (await probe(stage)).output == "b"
        assert hanging.given == pytest.approx([1.0, 2.0, 4.0], abs=0.05)
        await stage.assert_at_rest()


async def test_what_may_be_paid_although_it_is_cut_keeps_its_deadline_and_says_so():
    hanging = Hanging()
    listing = offer("a", hanging, price=1, idempotent="no", timeout=30)
    async with staged(listing, offer("b", Script("b"), price=2), breaker=FRAGILE) as stage:
        await trip_by_hanging(stage, hanging)
        with pytest.raises(
            OutcomeUnknown, match="it was the probe of 'a', and kept its whole deadline because it may be"
        ):
            await probe(stage)
        assert hanging.given == pytest.approx([10.0], abs=0.01)


async def test_a_probe_that_is_cut_is_none_of_the_tries_of_its_request():
    hanging = Hanging()
    async with staged(offer("a", hanging), breaker=FRAGILE, retry=Retry(base=0.0, cap=0.0, max_retries=2)) as stage:
        await trip_by_hanging(stage, hanging)
        waiting = [asyncio.create_task(stage.request(timeout=5000)) for _ in range(5)]
        await asyncio.sleep(1500.0)
        assert hanging.given[:6] == pytest.approx([1.0, 2.0, 4.0, 8.0, 10.0, 10.0], abs=0.3)
        hanging.hangs = False
        assert [(await one).output for one in waiting] == ["a"] * 5
        await stage.assert_at_rest()


async def test_a_probe_of_a_single_request_that_can_go_nowhere_else_is_not_cut():
    hanging = Hanging()
    async with staged(offer("a", hanging), breaker=FRAGILE) as stage:
        await trip_by_hanging(stage, hanging)
        with pytest.raises(CallFailed):
            await probe(stage)
        assert len(stage.of(CallEnded)) > 30
        assert hanging.given[0] > 1.5


def test_a_probe_leaves_half_of_the_time_if_it_is_not_known_how_long_another_takes():
    given = time_of_probe(100.0, left=10.0, patience=12.0, spare=float("inf"))
    assert (given.seconds, given.proof, given.is_cut) == (5.0, 5.0, True)


@pytest.mark.simulate(seeds=SEEDS)
async def test_nobody_pays_for_the_probes_of_a_slow_provider_while_another_is_idle(simulation):
    dice = simulation.random
    at, lasts, latency = dice.uniform(15.0, 40.0), dice.uniform(60.0, 200.0), dice.uniform(15.0, 60.0)
    usual, patience, pause = dice.uniform(0.05, 0.8), dice.uniform(6.0, 20.0), dice.uniform(0.1, 0.4)
    is_uncharged = dice.random() < 0.5

    async def slow(call: ProviderCall) -> str:
        try:
            async with asyncio.timeout(call.timeout - 0.0005 if is_uncharged else None):
                await asyncio.sleep(latency if at <= simulation.now() < at + lasts else usual)
        except TimeoutError:
            raise Transient("cut off, not charged", provider="a", charged="no") from None
        return "a"

    listings = [
        Listing(
            provider=Provider(name=name, services={"s"}, price=Micros(int(is_uncharged)), reputation=reputation),
            transport=lambda function=function: FunctionTransport(
                function, paid=is_uncharged, idempotent="repeatable", ends_when_cancelled=True
            ),
            max_concurrency=100,
        )
        for name, function, reputation in (("a", slow, 90.0), ("b", Script("b", lasts=usual), 50.0))
    ]
    failed: list[CallFailed] = []
    async with staged(*listings) as stage:

        async def request(number: int) -> None:
            try:
                await stage.request(input=number, timeout=patience, strategy="best")
            except CallFailed as error:
                failed.append(error)

        async with asyncio.TaskGroup() as group:
            for number in range(1200):
                group.create_task(request(number))
                await asyncio.sleep(pause)
    assert len(failed) <= 1, [str(error) for error in failed]
