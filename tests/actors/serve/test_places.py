"""The places of a tenant: others wait in its line, in their classes, within bounds, and none is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from actors.fake import FakeModel
from actors.serve import DoorConfig, KeyRing, Tenant, new_key
from actors.serve.places import PlaceWish, TenantPlaces
from actors.serve.problems import Problem
from actors.serve.switching import go_by
from tests.actors.serve.doors import HELLO, serving
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors.limits.class_queue import Priority

PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/services/chat")


def wish(priority: Priority = "normal", timeout: float = 60.0, tokens: int = 10) -> PlaceWish:
    return PlaceWish(priority, {"messages": HELLO, "max_tokens": tokens}, "chat", timeout)


def places_of(max_waiting: int = 100, **tenants: Tenant) -> TenantPlaces:
    return TenantPlaces(tenants.get, max_waiting)


class Asking:
    """Asks for places, each held for a second, and notes in which order they were had and what was refused."""

    def __init__(self, places: TenantPlaces) -> None:
        self.places, self.had, self.tasks = places, [], []
        self.refused: dict[str, Problem] = {}

    async def _hold(self, name: str, tenant: str, wished: PlaceWish, seconds: float) -> None:
        try:
            async with self.places.held(tenant, wished):
                self.had.append(name)
                await asyncio.sleep(seconds)
        except Problem as problem:
            self.refused[name] = problem

    async def ask(self, name: str, tenant: str, *, seconds: float = 1.0, **wished: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(self._hold(name, tenant, wish(**wished), seconds))
        self.tasks.append(task)
        await asyncio.sleep(0.001)
        return task


async def test_a_line_is_served_in_order_of_its_classes_and_other_tenants_do_not_feel_it():
    asking = Asking(places_of(acme=Tenant(max_under_way=1), initech=Tenant(max_under_way=1)))
    for name, priority in (("first", "low"), ("low", "low"), ("normal", "normal"), ("high", "high")):
        await asking.ask(name, "acme", priority=priority)
    await asking.ask("other", "initech")
    await asyncio.gather(*asking.tasks)
    assert asking.had == ["first", "other", "high", "normal", "low"]
    assert asking.refused == {}


async def test_if_too_many_wait_the_newest_of_the_tenant_with_the_most_in_the_lowest_class_goes():
    asking = Asking(places_of(3, acme=Tenant(max_under_way=1), initech=Tenant(max_under_way=1)))
    for name in ("a", "i"):
        await asking.ask(name, {"a": "acme", "i": "initech"}[name], seconds=9.0)
    for name in ("a-1", "a-2"):
        await asking.ask(name, "acme", priority="low")
    for name in ("i-1", "i-2"):
        await asking.ask(name, "initech", priority="low")
    await asking.ask("i-high", "initech", priority="high")
    await asyncio.gather(*asking.tasks)
    # The second of initech was one too many of two tenants with as many; then a high one came.
    assert set(asking.refused) == {"i-2", "a-2"}
    assert "i-high" in asking.had


async def test_those_past_their_deadline_go_first_and_each_at_its_deadline():
    asking = Asking(places_of(2, acme=Tenant(max_under_way=1)))
    await asking.ask("a", "acme", seconds=9.0)
    await asking.ask("short", "acme", timeout=1.0)
    await asking.ask("long", "acme")
    await asyncio.sleep(2.0)
    assert set(asking.refused) == {"short"}
    await asking.ask("new", "acme")
    await asyncio.gather(*asking.tasks)
    assert asking.had == ["a", "long", "new"]


async def test_a_refusal_tells_the_time_in_which_those_before_it_will_have_gone():
    asking = Asking(places_of(acme=Tenant(max_under_way=2, max_waiting=4)))
    for number in range(4):
        await asking.ask(f"before-{number}", "acme", seconds=5.0)
    await asyncio.gather(*asking.tasks)
    for number in range(7):
        await asking.ask(str(number), "acme", seconds=5.0)
    loop = asyncio.get_running_loop()
    refused_at = loop.time()
    assert asking.refused["6"].retry_after == pytest.approx(12.5)
    await asyncio.gather(*asking.tasks)
    # Two have places, and four wait: the last of them has gone after three rounds of five seconds.
    assert loop.time() - refused_at == pytest.approx(15.0, abs=0.1)


async def test_another_bound_gives_places_at_once():
    tenants = {"acme": Tenant(max_under_way=1)}
    asking = Asking(TenantPlaces(tenants.get, 100))
    for number in range(4):
        await asking.ask(str(number), "acme")
    tenants["acme"] = Tenant(max_under_way=3)
    asking.places.look_again()
    await asyncio.sleep(0.001)
    assert asking.had == ["0", "1", "2"]
    del tenants["acme"]
    asking.places.look_again()
    await asyncio.gather(*asking.tasks)
    assert asking.had == ["0", "1", "2", "3"]


@pytest.mark.parametrize("seed", range(repeated(20)))
async def test_no_place_is_lost_or_given_twice_whenever_requests_are_cancelled(seed: int):
    dice, limits = random.Random(seed), {"acme": 2, "initech": 1}
    tenants = {name: Tenant(max_under_way=most, max_waiting=dice.choice([None, 3])) for name, most in limits.items()}
    places, under_way, most = TenantPlaces(tenants.get, 5), Counter[str](), Counter[str]()

    async def ask(tenant: str) -> None:
        with suppress(Problem):
            async with places.held(tenant, wish(dice.choice(["low", "normal", "high"]), dice.uniform(0.1, 3.0))):
                under_way[tenant] += 1
                most[tenant] = max(most[tenant], under_way[tenant])
                try:
                    await asyncio.sleep(dice.choice([0.0, 0.5, 1.0]))
                finally:
                    under_way[tenant] -= 1

    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(ask(dice.choice(["acme", "initech"]))))
        if dice.random() < 0.4:
            dice.choice(tasks).cancel()
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(dice.choice([0.0, 0.0, 0.1]))
    await asyncio.wait(tasks)
    assert most == limits
    assert (places.bound.count, repr(places)) == (0, "<TenantPlaces {} under way, 0 waiting>")


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_over_the_bound_of_its_tenant_waits_within_its_own_time(path):
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(max_under_way=1)})
    model = FakeModel(name="m", latency=4.0)
    async with serving(model, config=config, keys=KeyRing([kept]), caps={"acme": "5"}) as stage:
        body = {"model": "auto", "messages": HELLO, "max_tokens": 5}
        asking = [
            asyncio.create_task(stage.post(path, body, x_api_key=shown, x_understudy_timeout=str(seconds)))
            for seconds in (20, 19, 6)
        ]
        answers = await asyncio.gather(*asking)
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["type"] == "rate_limit_error"
        assert int(answers[2].headers["retry-after"]) >= 4
        assert stage.calls == 2
        assert stage.door.places.bound.count == 0


async def test_a_stream_waits_in_line_with_comments_and_a_client_that_leaves_makes_room():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(max_under_way=1)}, commit_after=2.0, comment_every=2.0)
    model = FakeModel(name="m", latency=9.0)
    async with serving(model, config=config, keys=KeyRing([kept]), caps={"acme": "5"}) as stage:
        body = {"model": "auto", "messages": HELLO, "stream": True}
        first, leaves, last = (asyncio.create_task(stage.post(PATHS[0], body, x_api_key=shown)) for _ in range(3))
        await asyncio.sleep(1.0)
        leaves.cancel()
        await asyncio.sleep(1.0)
        assert stage.door.places.bound.count == 1
        assert (await first).text.count(": waiting") == 4
        said = (await last).text
        assert 8 <= said.count(": waiting") <= 9
        assert said.endswith("data: [DONE]\n\n")
        assert "attempts=1" in said
        assert (stage.calls, stage.door.places.bound.count) == (2, 0)


async def test_a_stream_that_waited_too_long_is_told_by_an_event():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(max_under_way=1)}, commit_after=1.0)
    model = FakeModel(name="m", latency=9.0)
    async with serving(model, config=config, keys=KeyRing([kept]), caps={"acme": "5"}) as stage:
        body = {"model": "auto", "messages": HELLO, "stream": True}
        first = asyncio.create_task(stage.post(PATHS[0], body, x_api_key=shown))
        await asyncio.sleep(0.1)
        late = await stage.post(PATHS[0], body, x_api_key=shown, x_understudy_timeout="3")
        assert late.status_code == 200
        assert '"code":"too_many_under_way"' in late.text
        go_by(stage.door, stage.door.names, config, stage.door.keys)
        assert (await first).status_code == 200
        assert stage.calls == 1
