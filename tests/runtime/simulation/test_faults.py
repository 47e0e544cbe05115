from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    Message,
    Request,
    RestartIntensity,
    Supervision,
    Terminated,
    handles,
    pool,
)
from runtime.simulation import (
    CancelTask,
    Crash,
    CutOff,
    Deadlock,
    DelayMail,
    DropMail,
    DuplicateMail,
    Fault,
    Hang,
    InjectedCrash,
    InvariantBroken,
    ReorderMail,
    Simulation,
    SlowSystem,
    TimedFault,
    World,
    random_faults,
)


class Note(Message):
    number: int


class Query(Request[int]):
    number: int


class Sync(Actor):
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    @handles(Note)
    def note(self, message: Note) -> None:
        self.seen.append((message.number, self.context.now()))

    @handles(Query)
    def query(self, message: Query) -> int:
        self.seen.append((message.number, self.context.now()))
        return message.number

    def unclaimed(self, request: Any, answer: Any) -> None:
        self.seen.append(("unclaimed", answer))


class Async(Sync):
    @handles(Note)
    async def note(self, message: Note) -> None:
        self.seen.append((message.number, self.context.now()))

    @handles(Query)
    async def query(self, message: Query) -> int:
        await asyncio.sleep(0.5)
        self.seen.append((message.number, self.context.now()))
        return message.number


class Lanes(Sync):
    @handles(Note, concurrent=2)
    async def note(self, message: Note) -> None:
        self.seen.append((message.number, self.context.now()))

    @handles(Query, concurrent=2)
    async def query(self, message: Query) -> int:
        await asyncio.sleep(0.5)
        self.seen.append((message.number, self.context.now()))
        return message.number


KINDS = (Sync, Async, Lanes)


def lines(run: Any, what: str) -> list[float]:
    return [entry.at for entry in run.trace if entry.what == what]


def notes_each_second(*faults: Any, kind: type[Sync] = Sync, count: int = 10, order: Any = "seeded") -> tuple[Any, Any]:
    """Tell an actor a number at 0.5 s, 1.5 s, and so on; return what it saw, and the run."""
    seen: list[Any] = []

    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(lambda: kind(seen), name="one")
            for number in range(count):
                await asyncio.sleep(0.5)
                ref.tell(Note(number))
                await asyncio.sleep(0.5)
            await asyncio.sleep(20)

    run = Simulation(faults=faults, order=order).run(scenario)
    return seen, run


def test_drop_mail_loses_messages_during_its_time_and_only_then() -> None:
    seen, run = notes_each_second(DropMail(at=2, lasts=3, actor="house/*", message="Note"))
    assert [number for number, _ in seen] == [0, 1, 5, 6, 7, 8, 9]
    assert lines(run, "fault: drop") == [2.5, 3.5, 4.5]


def test_mail_faults_strike_the_messages_they_name_and_the_part_of_them_they_are_to() -> None:
    assert len(notes_each_second(DropMail(actor="house/*", message="Query"))[0]) == 10
    assert len(notes_each_second(DropMail(actor="elsewhere/*", may_miss=True))[0]) == 10
    kept = len(notes_each_second(DropMail(actor="house/one", rate=0.5), count=200)[0])
    assert 60 < kept < 140


def test_delay_mail_delays_and_keeps_the_order_also_of_what_is_sent_after_its_time() -> None:
    seen, run = notes_each_second(DelayMail(at=2, lasts=2, actor="house/one", delay=2.5))
    assert [number for number, _ in seen] == list(range(10))
    assert seen[2:7] == [(2, 5.0), (3, 6.0), (4, 6.0), (5, 6.0), (6, 6.5)]
    assert lines(run, "fault: delay") == [2.5, 3.5]


@pytest.mark.parametrize("kind", KINDS)
def test_duplicate_mail_of_a_message_is_handled_twice_the_first_time_in_its_place(kind: type[Sync]) -> None:
    seen, _ = notes_each_second(DuplicateMail(at=1, lasts=1, actor="house/one"), kind=kind, count=4)
    assert [number for number, _ in seen] == [0, 1, 1, 2, 3]


def test_delayed_mail_is_not_overtaken_by_its_duplicates() -> None:
    plan = (DelayMail(at=1, lasts=1, actor="*", delay=3), DuplicateMail(at=2, lasts=1, actor="*"))
    seen, _ = notes_each_second(*plan, count=4)
    assert [number for number, _ in seen] == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_answer_to_a_duplicated_request_is_unclaimed(kind: type[Sync]) -> None:
    seen: list[Any] = []

    async def scenario() -> int:
        async with ActorSystem("house") as system:
            answer = await system.spawn(lambda: kind(seen), name="one").ask(Query(7), timeout=5.0)
            await asyncio.sleep(2)
        return answer

    for seed in range(10):
        assert Simulation(seed, faults=[DuplicateMail(actor="house/one")]).run(scenario).result == 7
        assert [one for one, _ in seen].count(7) == 2
        assert seen.pop() == ("unclaimed", 7)
        seen.clear()


def test_reordered_mail_overtakes_what_waits_and_nothing_is_lost() -> None:
    orders = set()
    for seed in range(10):
        seen: list[Any] = []

        async def scenario(seen: list[Any] = seen) -> None:
            async with ActorSystem("house") as system:
                ref = system.spawn(lambda: Sync(seen), name="one")
                for number in range(6):
                    ref.tell(Note(number))
                await asyncio.sleep(1)

        Simulation(seed, faults=[ReorderMail(actor="house/one")]).run(scenario)
        orders.add(tuple(number for number, _ in seen))
    assert len(orders) > 5
    assert all(sorted(order) == list(range(6)) for order in orders)


@pytest.mark.parametrize("fault", [DropMail(actor="*"), DuplicateMail(actor="*"), ReorderMail(actor="*")])
def test_the_end_of_an_actor_is_told_once_whatever_happens_to_the_mail(fault: Any) -> None:
    ends = []

    class Watcher(Actor):
        @handles(Terminated)
        def ended(self, message: Terminated) -> None:
            ends.append(message.ref)

        def started(self) -> None:
            child = self.context.spawn(lambda: Sync([]))
            self.context.watch(child)
            child.stop()

    async def scenario() -> None:
        async with ActorSystem("house") as system:
            system.spawn(Watcher)
            await asyncio.sleep(1)

    Simulation(faults=[fault]).run(scenario)
    assert len(ends) == 1


@pytest.mark.parametrize("fault", [DropMail(actor="*"), DelayMail(actor="*", delay=99.0)])
def test_whoever_asked_what_never_arrived_is_told_when_the_system_is_left(fault: Any) -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        async with ActorSystem("house") as system:
            asking = asyncio.ensure_future(system.spawn(lambda: Sync([])).ask(Query(1), timeout=50.0))
            await asyncio.sleep(1)
        with pytest.raises(ActorStopped):
            await asking
        return loop.time()

    assert Simulation(faults=[fault]).run(scenario).result == 1.0


def test_whoever_asked_what_was_dropped_waits_for_the_deadline() -> None:
    async def scenario() -> float:
        async with ActorSystem("house") as system:
            with pytest.raises(AskTimeout):
                await system.spawn(lambda: Sync([])).ask(Query(1), timeout=5.0)
        return asyncio.get_running_loop().time()

    assert Simulation(faults=[DropMail(actor="house/*")]).run(scenario).result == 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_that_hangs_handles_nothing_until_its_time_is_over(kind: type[Sync]) -> None:
    seen, run = notes_each_second(Hang(at=2, lasts=3, actor="house/one"), kind=kind)
    assert sorted(number for number, _ in seen) == list(range(10))
    assert sorted(at for number, at in seen if number in (2, 3, 4)) == [5.0] * 3
    assert lines(run, "fault: hang") == [2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_ask_waits_for_an_actor_that_hangs_also_where_its_handler_runs_already(kind: type[Sync]) -> None:
    seen: list[Any] = []

    async def scenario() -> list[Any]:
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(lambda: kind(seen), name="one")
            await asyncio.sleep(0.8)
            early = asyncio.ensure_future(ref.ask(Query(1), timeout=9.0))
            await asyncio.sleep(0.4)
            late = asyncio.ensure_future(ref.ask(Query(2), timeout=9.0))
            return await asyncio.gather(early, late)

    for seed in range(10):
        assert Simulation(seed, faults=[Hang(at=1, lasts=3, actor="house/one")]).run(scenario).result == [1, 2]
        assert seen[-1][1] >= 4.0
        assert kind is Sync or seen[0][1] == 4.0
        seen.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_that_hangs_to_the_end_leaves_nothing_behind(kind: type[Sync]) -> None:
    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(lambda: kind([]), name="one")
            with pytest.raises((AskTimeout, ActorCrashed)):
                await ref.ask(Query(1), timeout=3.0)

    for seed in range(10):
        for lasts in (60.0, math.inf):
            hang = Hang(at=0.04 * (seed + 1), lasts=lasts, actor="house/*")
            Simulation(seed, faults=[hang]).run(scenario if kind is not Sync else stays_for_a_second)


async def stays_for_a_second() -> None:
    async with ActorSystem("house") as system:
        ref = system.spawn(lambda: Sync([]), name="one")
        await asyncio.sleep(1)
        ref.tell(Note(1))


def test_to_wait_for_an_actor_that_hangs_for_ever_is_a_deadlock() -> None:
    class Waits(Actor):
        @handles(Note)
        async def note(self, message: Note) -> None:
            await asyncio.sleep(2)
            done.set()

    async def scenario() -> None:
        nonlocal done
        done = asyncio.Event()
        async with ActorSystem("house", log=False) as system:
            system.spawn(Waits, name="one").tell(Note(1))
            await done.wait()

    done: Any = None
    with pytest.raises(Deadlock):
        Simulation(faults=[Hang(at=1, actor="house/one")]).run(scenario)


def test_cut_off_mail_from_outside_is_lost_and_mail_within_arrives() -> None:
    seen: dict[str, list[Any]] = {"near": [], "far": []}

    class Passes(Sync):
        def __init__(self, seen: list[Any], to: Any) -> None:
            super().__init__(seen)
            self.to = to

        @handles(Note)
        def note(self, message: Note) -> None:
            self.to().tell(message)

    async def scenario() -> None:
        async with ActorSystem("near") as near, ActorSystem("far") as far:
            near_end = near.spawn(lambda: Sync(seen["near"]))
            far_end = far.spawn(lambda: Sync(seen["far"]))
            passes = {
                "near to near": near.spawn(lambda: Passes([], lambda: near_end)),
                "near to far": near.spawn(lambda: Passes([], lambda: far_end)),
            }
            simulation = far.spawn(lambda: Passes([], lambda: far_end))
            for number in range(4):
                for ref in passes.values():
                    ref.tell(Note(number))
                simulation.recipient.timers.once(0.5, Note(100 + number)) if number else simulation.tell(Note(100))
                await asyncio.sleep(1)

    run = Simulation(faults=[CutOff(at=0.9, lasts=2, system="far")]).run(scenario)
    assert [number for number, _ in seen["near"]] == [0, 1, 2, 3]
    assert sorted(number for number, _ in seen["far"]) == [0, 3, 100, 101, 102, 103]
    assert lines(run, "fault: cut off") == [1.0, 2.0]


def test_in_a_slow_system_each_step_takes_time_and_afterwards_none() -> None:
    async def scenario(simulation: Simulation) -> tuple[float, float]:
        begin = simulation.now()
        while simulation.now() < 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        steps = simulation.loop.steps
        assert simulation.loop.step_cost == 0.0
        for _ in range(1000):
            await asyncio.sleep(0)
        return steps, simulation.now() - begin

    plan = [SlowSystem(step=0.01, lasts=0.9), SlowSystem(step=0.0001, lasts=1.0), SlowSystem(step=0.3, lasts=0.95)]
    steps, seconds = Simulation(faults=plan).run(scenario).result
    assert steps < 200
    assert 1 <= seconds < 2


def test_a_spell_of_slowness_is_no_livelock_when_it_is_over() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.loop.max_steps_at_one_time = 3_000
        for _ in range(6_000):
            await asyncio.sleep(0)

    Simulation(faults=[SlowSystem(step=0.001, lasts=4.0)]).run(scenario)


def test_cancel_task_hits_the_task_it_names_and_never_the_scenario() -> None:
    async def scenario(simulation: Simulation) -> list[bool]:
        tasks = [asyncio.create_task(asyncio.sleep(5), name=f"worker {number}") for number in range(3)]
        await asyncio.wait(tasks)
        await asyncio.sleep(10)
        return [task.cancelled() for task in tasks]

    for seed in range(20):
        faults = [
            CancelTask(at=1, task="worker 1"),
            CancelTask(at=7, task="scen*", may_miss=True),
            CancelTask(at=8, may_miss=True),
        ]
        run = Simulation(seed, faults=faults).run(scenario)
        assert run.result == [False, True, False]
        assert lines(run, "fault: cancel") == [1.0]


class House(Sync):
    supervision = Supervision(intensity=RestartIntensity(max_restarts=2, within=10.0))


def test_a_crash_within_the_restart_intensity_is_a_restart() -> None:
    seen, run = notes_each_second(Crash(at=1, actor="house/one", times=3, every=4.0))
    assert [number for number, _ in seen] == list(range(10))
    assert lines(run, "fault: crash") == [1.0, 5.0, 9.0]
    assert lines(run, "ActorRestarted") == pytest.approx([1, 5, 9], abs=1)


def test_a_crash_beyond_the_restart_intensity_ends_the_system_with_it() -> None:
    with pytest.raises(InjectedCrash, match="house/one was made to crash"):
        notes_each_second(Crash(at=1, actor="house/one", times=9, every=0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_asks_an_actor_that_is_made_to_crash_is_told(kind: type[Sync]) -> None:
    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(lambda: kind([]), name="one")
            await ref.ask(Query(1), timeout=5.0)

    run = Simulation(faults=[Crash(at=0.2, actor="house/one", may_miss=kind is Sync)], order="fifo")
    if kind is Sync:
        run.run(scenario)  # It has been answered by then.
    else:
        with pytest.raises(ActorCrashed):
            run.run(scenario)


def test_a_handler_may_inject_faults_itself() -> None:
    async def scenario(simulation: Simulation) -> list[int]:
        class Injects(Actor):
            @handles(Query)
            def query(self, message: Query) -> int:
                made.append(id(self))
                simulation.inject(Crash(actor="house/*"))
                return message.number

        made: list[int] = []
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(Injects, name="one")
            for number in range(2):
                with suppress(ActorCrashed):
                    await ref.ask(Query(number), timeout=50.0)
        return made

    for seed in range(10):
        assert len(Simulation(seed).run(scenario).result) == 2


def test_faults_find_pools_and_their_workers() -> None:
    async def scenario(simulation: Simulation) -> None:
        async with ActorSystem("house", log=False) as system:
            ref = pool(system, lambda: Sync([]), size=2, name="pool")
            await asyncio.sleep(1)
            assert [found.path for found in simulation.actors("house/*")] == [
                "house/pool",
                "house/pool/worker-1",
                "house/pool/worker-2",
            ]
            simulation.inject(Crash(actor="house/pool"), Hang(actor="house/pool/*", lasts=1))
            assert await ref.ask(Query(3), timeout=9.0) == 3

    Simulation().run(scenario)


def test_a_spell_that_is_injected_late_lasts_from_then_on() -> None:
    class Outage(TimedFault, frozen=True, kw_only=True):
        pass

    async def scenario(simulation: Simulation) -> list[int]:
        await asyncio.sleep(100)
        simulation.inject(Outage(at=3, lasts=5))
        counts = []
        for _ in range(3):
            counts.append(len(simulation.active(Outage)))
            await asyncio.sleep(2.5)
        return counts

    assert Simulation().run(scenario).result == [1, 1, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crash(at=-1, actor="a"),
        lambda: Crash(at=math.nan, actor="a"),
        lambda: Crash(at=math.inf, actor="a"),
        lambda: Crash(actor="a", times=0),
        lambda: Crash(actor="a", every=0),
        lambda: Crash(actor="a", every=math.inf),
        lambda: Hang(actor="a", lasts=0),
        lambda: Hang(actor="a", lasts=math.nan),
        lambda: DropMail(actor="a", rate=0),
        lambda: DropMail(actor="a", rate=1.1),
        lambda: DelayMail(actor="a", delay=0),
        lambda: DelayMail(actor="a", delay=math.inf),
        lambda: SlowSystem(step=0),
        lambda: SlowSystem(step=math.inf),
        lambda: CancelTask(at=-0.1),
        lambda: random_faults(random.Random(1), within=-1),
        lambda: random_faults(random.Random(1), within=math.inf),
        lambda: random_faults(random.Random(1), max_faults=-1),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_what_was_given(make: Any) -> None:
    with pytest.raises(ValueError, match=r"(must be|at most).*, got "):
        make()


def test_random_faults_are_decided_by_the_seed_and_every_kind_comes_up() -> None:
    def draw(seed: int) -> Any:
        dice = random.Random(seed)
        return random_faults(dice, actors=("a", "b"), tasks=("t",), systems=("s",), within=10.0, max_faults=4)

    plans = [draw(seed) for seed in range(300)]
    assert plans == [draw(seed) for seed in range(300)]
    assert {len(plan) for plan in plans} == {0, 1, 2, 3, 4}
    assert all(plan == sorted(plan, key=lambda fault: fault.at) for plan in plans)
    kinds = Counter(type(fault).__name__ for plan in plans for fault in plan)
    assert set(kinds) == {
        "Crash",
        "Hang",
        "DropMail",
        "DelayMail",
        "DuplicateMail",
        "ReorderMail",
        "CutOff",
        "SlowSystem",
        "CancelTask",
    }


@pytest.mark.parametrize("hangs", [[(2, 8), (3, 1)], [(3, 1), (2, 8)]])
def test_one_hang_does_not_shorten_another(hangs: list[tuple[float, float]]) -> None:
    seen: list[Any] = []

    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(lambda: Sync(seen), name="one")
            await asyncio.sleep(3.5)
            ref.tell(Note(1))
            await asyncio.sleep(20)

    faults = [Hang(at=at, lasts=lasts, actor="house/one") for at, lasts in hangs]
    Simulation(faults=faults).run(scenario)
    assert [at for _, at in seen] == [10.0]


@pytest.mark.parametrize(
    "fault",
    [Crash(actor="hous/*"), Hang(actor="hous/*"), CancelTask(task="no such task")],
    ids=lambda one: type(one).__name__,
)
def test_a_fault_that_matches_nothing_fails_the_run_unless_it_may_miss(fault: Fault) -> None:
    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            system.spawn(lambda: Sync([]), name="one")
            await asyncio.sleep(1)

    with pytest.raises(InvariantBroken, match="strikes nothing"):
        Simulation(faults=[fault]).run(scenario)
    may_miss = msgspec.structs.replace(fault, may_miss=True)
    (line,) = [one for one in Simulation(faults=[may_miss]).run(scenario).trace.tail(100) if "matches nothing" in one]
    assert type(fault).__name__ in line
    assert "hous/*" in line or "no such task" in line


@pytest.mark.parametrize(
    "fault", [Crash(at=5, actor="house/one"), DropMail(at=5, actor="house/*")], ids=lambda one: type(one).__name__
)
def test_a_fault_whose_time_does_not_come_fails_the_run_unless_it_may_miss(fault: Fault) -> None:
    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            system.spawn(lambda: Sync([]), name="one")
            await asyncio.sleep(1)

    with pytest.raises(InvariantBroken, match="strikes nothing: the run ended before it began"):
        Simulation(faults=[fault]).run(scenario)
    Simulation(faults=[msgspec.structs.replace(fault, may_miss=True)]).run(scenario)
    Simulation(faults=[fault], keep=[]).run(scenario)


@pytest.mark.parametrize("fault", [Crash(actor="house/one"), Hang(actor="house/*")], ids=lambda one: type(one).__name__)
def test_a_fault_at_a_time_at_which_there_is_no_actor_says_so(fault: Fault) -> None:
    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            system.spawn(lambda: Sync([]), name="one")
            await asyncio.sleep(1)

    with pytest.raises(InvariantBroken, match=r"at 0 s: .* there is no actor at all then\. Give it a time"):
        Simulation(faults=[fault]).run(scenario)


class Shutdown(TimedFault, frozen=True, kw_only=True):
    """A fault of a program's own: it stops actors, cancels tasks, and says what it found."""

    actors: str

    def apply(self, world: World) -> None:
        stopped, tasks = world.actors(self.actors), world.tasks("job-*")
        for ref in stopped:
            ref.stop()
        for task in tasks:
            task.cancel()
        world.note(f"stopped {len(stopped)} actors and {len(tasks)} tasks at {world.now():g}")

    def revert(self, world: World) -> None:
        world.note(f"over at {world.now():g}")


def test_a_fault_of_a_programs_own_acts_on_the_actors_and_tasks_of_the_run():
    async def scenario(simulation: Simulation) -> list[bool]:
        simulation.inject(Shutdown(at=2.0, lasts=3.0, actors="house/t*"))
        async with ActorSystem("house", log=False) as system:
            refs = [system.spawn(lambda: Sync([]), name=name) for name in ("one", "two", "three")]
            job = asyncio.create_task(asyncio.sleep(60), name="job-1")
            await asyncio.sleep(10)
            living = [ref in simulation.actors("house/*") for ref in refs]
            assert job.cancelled()
            assert simulation.tasks("job-*") == []
            return living

    run = Simulation().run(scenario)
    assert run.result == [True, False, False]
    notes = [line for line in run.trace.tail(100) if "note:" in line]
    assert [line.split("note: ")[1] for line in notes] == ["stopped 2 actors and 1 tasks at 2", "over at 5"]
