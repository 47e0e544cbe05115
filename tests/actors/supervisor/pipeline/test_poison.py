"""An item that fails wherever others are answered: how soon that is known, and what it costs the providers."""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any

import pytest

from actors import AllProvidersFailed, OutcomeUnknown, Transient
from actors.errors import PoisonItem
from actors.errors.classification import classify_status
from actors.policies.breaker.states import Closed
from actors.supervisor.pipeline.poison import ItemFailure, chance_of, fails_alike_elsewhere, is_dead, is_suspect
from tests.actors.supervisor.stage import Stage, now, offer, staged

if TYPE_CHECKING:
    from actors import ProviderCall


def failures(*providers: str, **terms: Any) -> list[ItemFailure]:
    """Make failures whose providers have answered others in between."""
    return [ItemFailure(name, "Transient", number, **terms) for number, name in enumerate(providers)]


@pytest.mark.parametrize(
    ("providers", "shares", "dead"),
    [
        ("ab", {"a": 0.01, "b": 0.01}, True),
        ("aa", {"a": 0.01}, True),
        ("abc", {"a": 0.3, "b": 0.1, "c": 0.01}, False),
        ("abca", {"a": 0.3, "b": 0.1, "c": 0.01}, True),
        ("ab", {"a": 0.02, "b": 0.01}, False),
        ("ababab", {"a": 0.5, "b": 0.5}, False),
    ],
)
def test_an_item_is_dead_once_its_failures_are_unlikely_by_chance(
    providers: str, shares: dict[str, float], *, dead: bool
):
    assert is_dead(chance_of(failures(*providers), shares)) is dead


def test_the_same_provider_twice_tells_little_if_it_answered_nothing_in_between():
    same = [ItemFailure("a", "Transient", 7), ItemFailure("a", "Transient", 7)]
    assert chance_of(same, {"a": 0.01}) == pytest.approx(0.005)
    assert not is_suspect(same)


def test_hanging_tells_little_while_nothing_shows_that_others_do_not():
    shares = {"a": 0.01, "b": 0.01}
    assert not is_dead(chance_of(failures("a", "b", has_hung=True), shares))
    assert is_dead(chance_of(failures("a", "b", has_hung=True, was_overtaken=True), shares))


def test_failures_are_alike_if_they_are_of_one_kind_at_different_providers():
    a, b = ItemFailure("a", "Transient", 0), ItemFailure("b", "Unclassified", 0)
    assert not fails_alike_elsewhere([a, b])
    assert fails_alike_elsewhere([a, b, ItemFailure("b", "Transient", 0)])


class Server:
    """A provider that answers each input but "poison", and counts the calls of each."""

    def __init__(self, name: str, *, hangs: bool = False, paid: bool = False) -> None:
        self.name, self.hangs, self.paid = name, hangs, paid
        self.calls: collections.Counter[Any] = collections.Counter()
        self.timeouts: list[float] = []

    async def __call__(self, call: ProviderCall) -> Any:
        self.calls[call.input] += 1
        await asyncio.sleep(0.1)
        if call.input != "poison":
            return call.input
        self.timeouts.append(call.timeout)
        if self.hangs:
            await asyncio.sleep(call.timeout)
            raise TimeoutError
        raise classify_status(500, provider=self.name, paid=self.paid, idempotent=True)


async def serve_others(stage: Stage, count: int = 40) -> None:
    for number in range(count):
        await stage.request(input=number)


async def flow(stage: Stage) -> None:
    """Keep other items coming."""
    async with asyncio.TaskGroup() as group:
        for number in range(10_000):
            group.create_task(stage.request(input=f"other {number}"))
            await asyncio.sleep(0.05)


async def test_two_healthy_providers_settle_it_with_two_attempts():
    a, b = Server("a"), Server("b")
    async with staged(offer("a", a, idempotent="repeatable"), offer("b", b, idempotent="repeatable")) as stage:
        await serve_others(stage)
        with pytest.raises(PoisonItem, match="2 attempts") as failed:
            await stage.request(input="poison")
        assert [one.provider for one in failed.value.attempts] == ["a", "b"]
        assert isinstance(failed.value, AllProvidersFailed)
        assert failed.value.chance == pytest.approx(1e-4)
        await stage.assert_at_rest()


async def test_bad_items_open_no_breaker_not_even_of_providers_that_see_nothing_else():
    servers = [Server(name) for name in "abc"]
    async with staged(*(offer(one.name, one, idempotent="repeatable") for one in servers)) as stage:
        await serve_others(stage)
        for number in range(20):
            with pytest.raises(PoisonItem):
                await stage.request(input="poison")
            for other in range(9):
                await stage.request(input=f"other {number} {other}")
        status = {name: target.state.breaker for name, target in stage.actor.targets.by_name.items()}
        assert all(isinstance(one, Closed) for one in status.values())
        assert isinstance(status["b"], Closed)
        assert (status["b"].failures, servers[1].calls["poison"], servers[2].calls["poison"]) == (0, 20, 0)
        assert stage.actor.targets.named("b").failures == 0


async def test_while_nothing_is_known_of_others_it_is_tried_as_often_as_any_item():
    a, b = Server("a"), Server("b")
    async with staged(offer("a", a, idempotent="repeatable"), offer("b", b, idempotent="repeatable")) as stage:
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(input="poison")
        assert not isinstance(failed.value, PoisonItem)
        assert len(failed.value.attempts) == 8


async def test_if_all_begin_to_fail_one_item_at_most_is_taken_for_bad():
    is_down = False

    async def answer(call: ProviderCall) -> Any:
        if is_down:
            raise classify_status(500, provider=call.provider or "")
        return call.input

    async with staged(*(offer(name, answer, idempotent="repeatable") for name in "ab")) as stage:
        await serve_others(stage)
        is_down = True
        kinds = []
        for number in range(6):
            try:
                await stage.request(input=f"during {number}", timeout=2.0)
            except Exception as error:  # noqa: BLE001 - its kind is looked at.
                kinds.append(type(error).__name__)
        assert kinds.count("PoisonItem") <= 1
        is_down = False
        await asyncio.sleep(20.0)
        assert (await stage.request(input="after")).output == "after"


async def test_an_item_that_hangs_gets_three_times_the_usual_latency_at_its_next_attempts():
    a, b = Server("a", hangs=True), Server("b", hangs=True)
    async with staged(offer("a", a, idempotent="repeatable"), offer("b", b, idempotent="repeatable")) as stage:
        await serve_others(stage)
        others = asyncio.create_task(flow(stage))
        begun = now()
        stage.actor.targets.named("b").state = stage.actor.targets.named("a").state  # It is as well known.
        with pytest.raises(PoisonItem):
            await stage.request(input="poison")
        assert b.timeouts == [pytest.approx(0.3, rel=0.1)]
        assert now() - begun < 2.0
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)


async def test_a_paid_call_that_may_not_be_repeated_keeps_its_whole_time_and_its_money():
    a, b = Server("a", hangs=True, paid=True), Server("b")
    listings = [offer("a", a, price=5, timeout=4.0), offer("b", b, price=9)]
    async with staged(*listings) as stage:
        await serve_others(stage)
        with pytest.raises(OutcomeUnknown) as failed:
            await stage.request(input="poison")
        assert (a.timeouts, b.calls, failed.value.charged) == ([4.0], {}, "held")


async def test_a_paid_item_that_fails_again_under_its_key_ends_as_unknown_and_says_why():
    a = Server("a", paid=True)
    async with staged(offer("a", a, price=5, idempotent="key")) as stage:
        await serve_others(stage)
        others = asyncio.create_task(flow(stage))
        with pytest.raises(OutcomeUnknown, match="fails wherever others are answered") as failed:
            await stage.request(input="poison")
        assert failed.value.charged == "held"
        assert a.calls["poison"] == 2
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)


async def test_an_item_that_is_answered_after_all_leaves_its_failures_on_the_record():
    async def flaky(call: ProviderCall) -> Any:
        if call.input == "unlucky":
            raise Transient("bad luck", provider="a")
        return call.input

    b = Server("b")
    async with staged(offer("a", flaky, idempotent="repeatable"), offer("b", b, idempotent="repeatable")) as stage:
        await serve_others(stage)
        assert (await stage.request(input="unlucky")).provider == "b"
        history = stage.actor.targets.named("a").history
        assert history.without("other", now=now()).failures == 1
