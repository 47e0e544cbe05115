"""What a system tells about itself."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from runtime import Actor, ActorSystem, Backoff, Mailbox, Message, Request, Supervision, SystemClosed, handles


class Work(Request[str]):
    pass


class Boom(Message):
    pass


class Worker(Actor):
    @handles(Work)
    async def work(self, message: Work) -> str:
        await asyncio.sleep(10)
        return "done"

    @handles(Boom)
    def boom(self, message: Boom) -> None:
        raise OSError("boom")


class Lane(Actor):
    @handles(Work, concurrent=2)
    async def work(self, message: Work) -> str:
        await asyncio.sleep(10)
        return "done"


class Later(Actor):
    @handles(Work)
    def work(self, message: Work) -> asyncio.Future[str]:
        return asyncio.get_running_loop().create_future()


class Parent(Actor):
    def started(self) -> None:
        self.context.spawn(Worker, name="left")
        self.context.spawn(Worker, name="right")


async def test_a_snapshot_is_the_tree_depth_first_in_start_order_and_fit_for_json():
    async with ActorSystem("s") as system:
        system.spawn(Parent, name="parent")
        system.spawn(Worker, name="last", mailbox=Mailbox(capacity=7))
        await asyncio.sleep(5)
        snapshot = system.snapshot()
        assert [one.path for one in snapshot.walk()] == ["s", "s/parent", "s/parent/left", "s/parent/right", "s/last"]
        last = snapshot.children[1]
        assert (last.actor, last.phase, last.capacity, last.age, last.idle) == ("Worker", "running", 7, 5.0, True)
        assert json.loads(msgspec.json.encode(snapshot))["children"][0]["children"][1]["path"] == "s/parent/right"
        assert repr(system) == "<ActorSystem s running, 4 actors>"
    assert system.snapshot().phase == "ended"
    assert repr(system) == "<ActorSystem s ended, stopped, 0 actors>"
    with pytest.raises(SystemClosed, match="snapshot"):
        ActorSystem().snapshot()


@pytest.mark.parametrize(("kind", "working", "waiting"), [(Worker, 1, 4), (Lane, 2, 3), (Later, 5, 0)])
async def test_a_snapshot_tells_what_waits_and_what_is_under_way(kind, working, waiting):
    async with ActorSystem() as system:
        ref = system.spawn(kind)
        asks = [asyncio.create_task(ref.ask(Work(), timeout=60.0)) for _ in range(5)]
        await asyncio.sleep(1)
        (actor,) = system.snapshot().children
        assert (actor.working, actor.waiting, actor.idle) == (working, waiting, False)
        assert ref.recipient.load == 5
        for ask in asks:
            ask.cancel()
        await asyncio.sleep(11)
        (actor,) = system.snapshot().children
        assert (actor.working, actor.waiting, actor.idle) == (0, 0, True)


async def test_senders_who_wait_for_room_are_load():
    async with ActorSystem() as system:
        ref = system.spawn(Worker, mailbox=Mailbox(capacity=1))
        asks = [asyncio.create_task(ref.ask(Work(), timeout=60.0)) for _ in range(5)]
        await asyncio.sleep(1)
        assert ref.recipient.load == 5
        for ask in asks:
            ask.cancel()
        await asyncio.sleep(11)


async def test_a_snapshot_counts_restarts_and_shows_an_actor_that_waits_for_one():
    patient = Supervision(backoff=Backoff(initial=10.0, jitter=0.0))
    async with ActorSystem(supervision=patient) as system:
        ref = system.spawn(Worker)
        ref.tell(Boom())
        await asyncio.sleep(1)
        (actor,) = system.snapshot().children
        assert (actor.phase, actor.restarts, actor.idle) == ("awaiting restart", 1, False)
        await asyncio.sleep(20)
        (actor,) = system.snapshot().children
        assert (actor.phase, actor.restarts, actor.idle) == ("running", 1, True)
        assert actor.age == 21.0


async def test_a_sync_handler_sees_itself_at_work():
    class Mirror(Actor):
        @handles(Work)
        def work(self, message: Work) -> str:
            (actor,) = system.snapshot().children
            return f"{actor.working} {actor.idle}"

    async with ActorSystem() as system:
        assert await system.spawn(Mirror).ask(Work(), timeout=1.0) == "1 False"


async def test_the_tree_shows_each_actor_below_its_parent():
    system = ActorSystem("s", supervision=Supervision(backoff=Backoff(initial=1.0)), log=False)
    with pytest.raises(SystemClosed, match="snapshot"):
        system.tree()
    async with system:
        system.spawn(Parent, name="parent")
        last = system.spawn(Worker, name="last")
        last.tell(Boom())
        await asyncio.sleep(0.1)
        assert system.tree().splitlines() == [
            "s            Guardian  running",
            "├─ parent    Parent    running",
            "│  ├─ left   Worker    running",
            "│  └─ right  Worker    running",
            "└─ last      Worker    awaiting restart, 1 restarts",
        ]
    assert system.tree() == "s  Guardian  ended"


async def test_lines_of_the_tree_are_those_that_are_asked_for():
    async with ActorSystem("s") as system:
        system.spawn(Parent, name="one")
        system.spawn(Parent, name="two")
        await asyncio.sleep(1)

        def lines(*opened, **window):
            found = system.rows(opened, **window)
            assert found.first == window.get("first", 0)
            return found.total, [("  " * one.depth + one.path.rpartition("/")[2]) for one in found.rows]

        assert lines() == (3, ["s", "  one", "  two"])
        both = (7, ["s", "  one", "    left", "    right", "  two", "    left", "    right"])
        assert lines("s/two", "s/one") == both
        for first in range(8):
            assert lines("s/one", "s/two", first=first, most=2) == (7, both[1][first : first + 2])
        assert lines("s/gone", "s/one/gone/deep", "elsewhere", "") == lines()
        assert [one.children for one in system.rows().rows] == [2, 2, 2]


async def test_an_actor_is_found_and_restarted_by_its_path():
    async with ActorSystem("s") as system:
        system.spawn(Parent, name="parent")
        await asyncio.sleep(1)
        left = system.find("s/parent/left")
        assert left is not None
        assert left.path == "s/parent/left"
        assert [system.find(path) for path in ("s", "s/parent/none", "t/parent", "", "s/")] == [None] * 5
        assert system.restart("s/parent/left")
        assert not system.restart("s/parent/none")
        await asyncio.sleep(60)
        assert system.find("s/parent/left") == left
        assert next(one for one in system.snapshot().walk() if one.path == "s/parent/left").restarts == 1
    with pytest.raises(SystemClosed, match="rows"):
        ActorSystem().rows()
    with pytest.raises(SystemClosed, match="looking for an actor"):
        system.find("s/parent")
