"""What a viewer is told: figures that are those of the supervisor and the ledger, as changes, in bounded pieces."""

from __future__ import annotations

import asyncio
import random
import sys

import msgspec
import pytest

from actors import GetStatus, Micros, Throttled, Transient
from actors.dashboard import GetUpdate, Viewport
from actors.dashboard.series import Series
from actors.dashboard.table import START, Version, ViewTable
from actors.dashboard.view import EventRow, Seen
from actors.errors.families import OutcomeUnknown
from actors.ledger import GetHeld, GetStatement
from runtime import Actor, Message
from tests.actors.dashboard.stage import looked_at
from tests.proofs import repeated


def by_name(rows):
    return {row.name: row for row in rows.values()}


async def test_a_viewer_sees_what_was_called_and_paid():
    async with looked_at() as stage:
        await asyncio.gather(*(stage.request(account="batch") for _ in range(5)))
        await stage.look()
        view = stage.view
        accounts = by_name(view.accounts)
        assert accounts["batch"].settled == Micros(100_000)
        assert (accounts["batch"].used, accounts["batch"].cap) == (Micros(100_000), Micros(1_000_000))
        assert accounts[""].settled == Micros(100_000)
        providers = by_name(view.providers)
        assert sum(one.calls for one in providers.values()) == 5
        assert {one.breaker for one in providers.values()} == {"closed"}
        (total,) = view.totals.values()
        assert (total.requests, total.failed) == (5, 0)


async def test_money_of_calls_under_way_is_reserved_and_they_are_counted():
    async with looked_at("alder") as stage:
        stage.latency = 10.0
        request = asyncio.create_task(stage.request(account="batch"))
        await stage.look()
        assert by_name(stage.view.accounts)["batch"].reserved == Micros(20_000)
        assert by_name(stage.view.providers)["alder"].under_way == 1
        (row,) = stage.view.requests.values()
        assert (row.service, row.account, row.provider, row.calls) == ("shout", "batch", "alder", 1)
        await request
        await stage.look()
        assert by_name(stage.view.accounts)["batch"].reserved == 0
        assert by_name(stage.view.providers)["alder"].under_way == 0


async def test_a_provider_that_fails_shows_its_words_and_its_breaker():
    async with looked_at("alder", "birch") as stage:
        stage.failing["alder"] = Transient("the \x1b[31moven\u202e is cold <img src=x onerror=alert(1)>")
        for _ in range(20):
            await stage.request()
        await stage.look()
        alder = by_name(stage.view.providers)["alder"]
        assert alder.breaker == "open"
        assert [one.reason for one in alder.waiting] == ["breaker"]
        assert alder.last_words == r"the \x1b[31moven\u202e is cold <img src=x onerror=alert(1)>"
        assert {one.kind for one in stage.view.events.values()} >= {"breaker"}
        stage.failing["birch"] = Transient("no")
        waiting = [asyncio.create_task(stage.request()) for _ in range(10)]
        await stage.look()
        (total,) = stage.view.totals.values()
        assert (total.under_way, sum(total.waits.values())) == (10, 10)
        assert {wait.reason for row in stage.view.requests.values() for wait in row.waiting[:1]} <= set(total.waits)
        await asyncio.gather(*waiting)
        await stage.look()
        assert stage.view.requests == {}
        traces = [one for one in stage.view.traces.values() if len(one.steps) > 1]
        assert {step.kind for one in traces for step in one.steps} >= {"call", "reroute"}


async def test_nothing_is_told_twice():
    async with looked_at() as stage:
        await stage.request()
        assert await stage.look() == 1
        assert await stage.look() == 0
        await stage.request()
        seen = len(stage.view.events)
        assert await stage.look() == 1
        assert len(stage.view.events) >= seen


async def test_a_watcher_that_was_restarted_tells_all_anew():
    async with looked_at() as stage:
        await stage.request(account="batch")
        await stage.look()
        stage.system.restart(stage.watcher.path)
        await stage.look()
        assert by_name(stage.view.accounts)["batch"].settled == Micros(20_000)
        assert {one.name for one in stage.view.providers.values()} == {"alder", "birch"}


async def test_held_calls_are_listed_until_they_are_resolved():
    async with looked_at("alder") as stage:
        stage.failing["alder"] = Transient("it may have run", charged="held")
        answer = await stage.request(account="batch")
        assert isinstance(answer, OutcomeUnknown)
        await stage.look()
        (held,) = stage.view.held.values()
        assert (held.provider, held.amount) == ("alder", Micros(20_000))
        assert by_name(stage.view.accounts)["batch"].held == Micros(20_000)
        assert len(await stage.supervisor.ask(GetHeld(), timeout=1.0)) == 1


class Silent(Actor):
    pass


class Parent(Actor):
    def __init__(self, children: int) -> None:
        self.wanted = children

    def started(self) -> None:
        for number in range(self.wanted):
            self.context.spawn(Silent, name=f"child-{number}")


async def test_of_ten_thousand_actors_only_what_is_looked_at_is_told():
    counted = 10_000
    async with looked_at() as stage:
        stage.system.spawn(lambda: Parent(counted), name="crowd")
        await stage.look(most=50)
        page = stage.view.actors
        crowd = next(one for one in page.rows if one.name == "crowd")
        assert (page.total, crowd.children) == (5, counted)
        await stage.look(opened=("shop/crowd",), first=5_000, most=50)
        page = stage.view.actors
        assert (page.total, page.first, len(page.rows)) == (counted + 5, 5_000, 50)
        crowd_line = 1 + list(stage.system.children).index("crowd")
        assert page.rows[0].name == f"child-{5_000 - crowd_line - 1}"
        assert await stage.look(opened=("shop/crowd",), first=5_000, most=50) == 0


async def test_an_update_costs_what_is_looked_at_and_not_what_there_is():
    calls = []
    for count in (100, 10_000):
        async with looked_at() as stage:
            stage.system.spawn(lambda count=count: Parent(count), name="crowd")
            await stage.look(opened=("shop/crowd",), first=20, most=50)
            made = 0

            def count_call(_frame, event, _arg):
                nonlocal made
                made += event == "call"

            await asyncio.sleep(0.3)
            await stage.request()
            sys.setprofile(count_call)
            try:
                await stage.watcher.ask(
                    GetUpdate(seen=stage.view.seen, look=Viewport(opened=("shop/crowd",), first=40, most=50)),
                    timeout=5.0,
                )
            finally:
                sys.setprofile(None)
            calls.append(made)
    assert calls[1] <= calls[0] * 1.05


class Dropped(Message, frozen=True):
    secret: str


async def test_a_dead_letter_tells_its_kind_and_never_its_content():
    async with looked_at() as stage:
        ref = stage.system.spawn(Silent, name="gone")
        ref.stop()
        await ref.terminated()
        for _ in range(3):
            ref.tell(Dropped("sk-secret"))
        await stage.look()
        (row,) = stage.view.dead_letters.values()
        assert (row.message, row.reason, row.count) == ("Dropped", "stopped", 3)
        assert b"sk-secret" not in msgspec.json.encode(
            [list(stage.view.dead_letters.values()), list(stage.view.events.values())]
        )


async def test_the_way_of_a_request_is_told_to_those_that_look_at_it():
    async with looked_at("alder", "birch") as stage:
        stage.failing["alder"] = Throttled("slow down", retry_after=1.0)
        await stage.request(request_id="r-1")
        await stage.look(request="r-1")
        trace = stage.view.trace
        assert trace.request_id == "r-1"
        assert trace.ended is not None
        assert trace.steps[-1].kind == "call"


async def test_the_page_the_supervisor_and_the_ledger_tell_the_same_figures():
    rng = random.Random(7)
    async with looked_at("alder", "birch", "cedar") as stage:
        stage.latency = 5.0

        async def day() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(stage.request(account=rng.choice(["batch", None])))
                    await asyncio.sleep(rng.uniform(0.0, 60.0))
                    name = rng.choice(["alder", "birch", "cedar"])
                    stage.failing[name] = rng.choice(
                        [None, None, Transient("no"), Transient("perhaps", charged="held")]
                    )

        running = asyncio.create_task(day())
        for _ in range(repeated(50)):
            await asyncio.sleep(rng.uniform(0.0, 1728.0))
            await stage.look()
            statuses = await stage.supervisor.ask(GetStatus(), timeout=5.0)
            for status in statuses:
                row = by_name(stage.view.providers)[status.provider.name]
                for field in ("breaker", "under_way", "calls", "failures", "trips", "spent", "queued"):
                    assert getattr(row, field) == getattr(status, field), field
            for name, account in (("batch", "batch"), ("", None)):
                statement = await stage.supervisor.ask(GetStatement(account), timeout=5.0)
                row = by_name(stage.view.accounts)[name]
                for field in ("settled", "held", "reserved", "cap", "used"):
                    assert getattr(row, field) == getattr(statement, field), field
            held = await stage.supervisor.ask(GetHeld(), timeout=5.0)
            assert sum(one.amount for one in stage.view.held.values()) == sum(one.amount for one in held)
        running.cancel()
        await asyncio.wait({running})


# Tables.


def event(text: str) -> EventRow:
    return EventRow(kind="a", level="info", subject="s", text=text, at=0.0)


def test_a_viewer_that_is_cut_short_gets_the_rest_and_the_newest_state():
    table: ViewTable[EventRow] = ViewTable(Version(), most=1_000)
    rng, have, place, names = random.Random(1), dict[str, bytes](), START, [str(number) for number in range(200)]
    for _ in range(repeated(2_000)):
        for _ in range(rng.randrange(40)):
            name = rng.choice(names)
            if rng.random() < 0.4:
                table.remove(name)
            else:
                table.put(name, event("x" * rng.randrange(100)))
        delta = table.since(place, room=rng.choice([200, 5_000, 100_000]))
        if delta is not None:
            have = {} if delta.is_all else have
            for key in delta.gone:
                have.pop(key, None)
            have |= {key: bytes(raw) for key, raw in delta.put.items()}
            place = delta.seen
    while (delta := table.since(place, room=3_000)) is not None:
        have = {} if delta.is_all else have
        for key in delta.gone:
            have.pop(key, None)
        have |= {key: bytes(raw) for key, raw in delta.put.items()}
        place = delta.seen
    assert {key: msgspec.json.decode(raw, type=EventRow) for key, raw in have.items()} == table.rows()


def test_a_table_keeps_what_changed_last():
    table: ViewTable[EventRow] = ViewTable(Version(), most=2)
    for name in ("a", "b", "a", "c"):
        table.put(name, event(f"{name}{len(table)}"))
    assert set(table.rows()) == {"a", "c"}


def test_a_series_has_a_point_for_each_step():
    series = Series()
    for second in range(20):
        series.add(float(second), 0.1, is_failed=second == 3)
        series.spend(float(second), 5)
    chart = series.chart(20.0)
    assert (chart.until, chart.calls, chart.failed, chart.cost) == (20.0, (5, 5, 5, 5), (1, 0, 0, 0), (25, 25, 25, 25))
    assert chart.p50[0] == pytest.approx(0.1, rel=0.02)
    assert series.recent(1_000.0) == (None, None)


async def test_what_is_seen_of_another_run_is_no_excuse_to_leave_anything_out():
    async with looked_at() as stage:
        await stage.request()
        seen = Seen(epoch="another", versions={"providers": (10**9, 0)})
        encoded = await stage.watcher.ask(GetUpdate(seen=seen), timeout=5.0)
        assert len(msgspec.json.decode(encoded)["providers"]["put"]) == 2
