"""What an actor keeps outlives the program: whatever is killed or full, what an answer rests on is there again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest

from runtime import (
    IMMEDIATELY,
    ActorCrashed,
    ActorRef,
    ActorSystem,
    AskTimeout,
    Message,
    Request,
    RestartIntensity,
    Supervision,
    handles,
)
from runtime.persistence import DurableActor, JournalError, MemoryDisk, MemoryJournal, NotKept
from runtime.persistence.durable_actor import SAVE_EVERY
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runtime.simulation import Simulation

TIRELESS = Supervision(backoff=IMMEDIATELY, intensity=RestartIntensity(max_restarts=1_000))


class Plan(msgspec.Struct):
    steps: list[str]


class Put(Request[Any], frozen=True):
    name: str
    value: Any = None
    crashes: bool = False


class PutLater(Put, frozen=True):
    """Handled by an async handler."""


class PutByFuture(Put, frozen=True):
    """Answered by a future."""


class PutInline(Put, frozen=True):
    """Handled in the task of the asker."""


class Add(Request[list[int]], frozen=True):
    """Change a value in place."""

    number: int


class Drop(Request[None], frozen=True):
    name: str


class Tell(Message, frozen=True):
    value: int


class Look(Request[dict[str, Any]], frozen=True): ...


class Agent(DurableActor[Put | PutLater | PutByFuture | PutInline | Add | Drop | Tell | Look]):
    kept_types: ClassVar[Mapping[str, Any]] = {"plan": Plan}

    def recovered(self) -> None:
        self.at_start = dict(self.context.kept)

    @handles(Put)
    def put(self, message: Put) -> Any:
        self.context.kept[message.name] = message.value
        if message.crashes:
            raise RuntimeError("after it was kept")
        return message.value

    @handles(PutLater)
    async def put_later(self, message: PutLater) -> Any:
        await asyncio.sleep(0)
        return self.put(message)

    @handles(PutInline, concurrent=10, inline=True)
    async def put_inline(self, message: PutInline) -> Any:
        await asyncio.sleep(0)
        return self.put(message)

    @handles(PutByFuture)
    def put_by_future(self, message: PutByFuture) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, lambda: future.set_result(self.put(message)))
        return future

    @handles(Add)
    def add(self, message: Add) -> list[int]:
        numbers: list[int] = self.context.kept.setdefault("numbers", [])
        numbers.append(message.number)
        return list(numbers)

    @handles(Drop)
    def drop(self, message: Drop) -> None:
        del self.context.kept[message.name]

    @handles(Tell)
    def told(self, message: Tell) -> None:
        self.context.kept["told"] = message.value

    @handles(Look)
    def look(self, _: Look) -> dict[str, Any]:
        return dict(self.context.kept)


def spawn(system: ActorSystem, disk: MemoryDisk) -> ActorRef[Any]:
    return system.spawn(lambda: Agent(lambda: MemoryJournal(disk)), name="agent")


@pytest.mark.parametrize("kind", [Put, PutLater, PutByFuture, PutInline])
async def test_what_an_answer_rests_on_is_there_in_the_next_life(kind: type[Put]) -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", log=False) as system:
        agent = spawn(system, disk)
        assert await agent.ask(kind("step", {"number": 7}), timeout=1.0) == {"number": 7}
        written = len(disk.entries)
        assert written == 1
    async with ActorSystem("town", log=False) as system:
        assert await spawn(system, disk).ask(Look(), timeout=1.0) == {"step": {"number": 7}}


@pytest.mark.parametrize("kind", [Put, PutLater, PutByFuture, PutInline])
async def test_what_cannot_be_written_is_refused_and_written_once_there_is_room(kind: type[Put]) -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", log=False) as system:
        agent = spawn(system, disk)
        await agent.ask(Look(), timeout=1.0)
        disk.is_full = True
        with pytest.raises(NotKept, match="because its journal cannot be written: its disk is full"):
            await agent.ask(kind("step", 1), timeout=1.0)
        disk.is_full = False
        assert await agent.ask(Look(), timeout=5.0) == {"step": 1}
        assert len(disk.entries) == 1


async def test_a_change_in_place_and_a_dropped_value_are_written_too() -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", log=False) as system:
        agent = spawn(system, disk)
        assert await agent.ask(Add(1), timeout=1.0) == [1]
        assert await agent.ask(Add(2), timeout=1.0) == [1, 2]
        await agent.ask(Put("step", 1), timeout=1.0)
        await agent.ask(Drop("step"), timeout=1.0)
        agent.tell(Tell(5))
        assert (await agent.ask(Look(), timeout=1.0))["told"] == 5
    async with ActorSystem("town", log=False) as system:
        made: list[Agent] = []

        def make() -> Agent:
            made.append(Agent(lambda: MemoryJournal(disk)))
            return made[-1]

        expected = {"numbers": [1, 2], "told": 5}
        assert await system.spawn(make, name="agent").ask(Look(), timeout=1.0) == expected
        assert made[0].at_start == expected


async def test_what_changes_nothing_writes_nothing() -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", log=False) as system:
        agent = spawn(system, disk)
        for _ in range(3):
            await agent.ask(Put("step", 1), timeout=1.0)
            await agent.ask(Look(), timeout=1.0)
        assert len(disk.entries) == 1


async def test_a_crash_keeps_what_was_kept_before_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.journal"
    async with ActorSystem("town", supervision=TIRELESS, log=False) as system:
        agent = system.spawn(lambda: Agent(path), name="agent")
        with pytest.raises(ActorCrashed):
            await agent.ask(Put("step", 1, crashes=True), timeout=1.0)
        assert await agent.ask(Look(), timeout=5.0) == {"step": 1}
    async with ActorSystem("town", log=False) as system:
        agent = system.spawn(lambda: Agent(path), name="agent")
        assert await agent.ask(Look(), timeout=5.0) == {"step": 1}


@pytest.mark.parametrize("value", [{1, 2}, (1, 2), object(), float("nan"), Plan(["a"]), {1: {2}}])
async def test_a_value_that_would_not_come_back_is_named_at_once_and_not_kept(value: Any) -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", supervision=TIRELESS, log=False) as system:
        agent = spawn(system, disk)
        await agent.ask(Put("step", 1), timeout=1.0)
        for name in ("step", "another"):
            with pytest.raises(ActorCrashed) as crash:
                await agent.ask(Put(name, value), timeout=1.0)
            assert isinstance(crash.value.__cause__, TypeError)
            assert f"context.kept[{name!r}] of town/agent cannot be written" in str(crash.value.__cause__)
        assert await agent.ask(Look(), timeout=5.0) == {"step": 1}


async def test_a_value_of_a_named_type_comes_back_as_such() -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", log=False) as system:
        await spawn(system, disk).ask(Put("plan", Plan(["begin"])), timeout=1.0)
    async with ActorSystem("town", log=False) as system:
        assert await spawn(system, disk).ask(Look(), timeout=1.0) == {"plan": Plan(["begin"])}


async def test_a_snapshot_stands_for_the_changes_before_it() -> None:
    disk = MemoryDisk()
    async with ActorSystem("town", log=False) as system:
        agent = spawn(system, disk)
        for number in range(SAVE_EVERY + 5):
            await agent.ask(Put(f"step {number % 3}", number), timeout=1.0)
    assert disk.snapshot is not None
    async with ActorSystem("town", log=False) as system:
        assert sorted((await spawn(system, disk).ask(Look(), timeout=1.0)).values()) == [1002, 1003, 1004]


async def test_a_journal_of_another_kind_is_refused_and_named() -> None:
    disk = MemoryDisk()
    journal = MemoryJournal(disk)
    journal.append(b"\xc1")
    journal.commit()
    journal.close()
    with pytest.raises(JournalError, match="is not of a DurableActor at entry 1"):
        async with ActorSystem("town", log=False, supervision=Supervision(decide=lambda _: "escalate")) as system:  # type: ignore[arg-type,return-value]
            await spawn(system, disk).ask(Look(), timeout=1.0)


def test_nothing_that_was_answered_is_lost_whatever_is_killed_or_full() -> None:
    async def scenario(simulation: Simulation) -> None:
        disk, rng = MemoryDisk(), simulation.random
        answered = asked = 0
        for _ in range(3):
            async with ActorSystem("town", supervision=TIRELESS, log=False) as system:
                agent = spawn(system, disk)
                for _ in range(10):
                    disk.is_full = rng.random() < 0.2
                    asked += 1
                    kind = rng.choice((Put, PutLater, PutInline))
                    try:
                        await agent.ask(kind("step", asked, rng.random() < 0.1), timeout=rng.choice((0.0001, 5.0)))
                    except (NotKept, AskTimeout, ActorCrashed):
                        pass
                    else:
                        answered = asked
                        assert not disk.is_full
                disk.is_full = False
                assert answered <= (await agent.ask(Look(), timeout=30.0)).get("step", 0) <= asked

    explore(scenario, seeds=range(repeated(300)))
