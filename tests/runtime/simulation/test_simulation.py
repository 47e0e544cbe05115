from __future__ import annotations

import asyncio
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runtime import (
    Actor,
    ActorCrashed,
    ActorSystem,
    Mailbox,
    Message,
    Request,
    Restart,
    RestartIntensity,
    Strategy,
    Supervision,
    handles,
)
from runtime.events import ActorFailed, ActorRestarted
from runtime.simulation import Deadlock, InvariantBroken, Simulation, SimulationError, explore
from runtime.simulation.mail import RecordedQueue
from tests.proofs import repeated

sys.path.insert(0, str(Path(__file__).parent))
from random_program import scenario as random_program


class Note(Message):
    number: int


class Query(Request[int]):
    number: int


class Plain(Actor):
    @handles(Note)
    def note(self, message: Note) -> None:
        if message.number < 0:
            raise OSError(message.number)

    @handles(Query)
    async def query(self, message: Query) -> int:
        await asyncio.sleep(1)
        return message.number


def problems(scenario: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(InvariantBroken) as caught:
        Simulation(**options).run(scenario)
    assert "seed 0, after " in caught.value.__notes__[0]
    return caught.value.problems


def test_a_run_gives_the_result_and_what_was_seen() -> None:
    async def scenario(simulation: Simulation) -> str:
        await asyncio.sleep(5)
        simulation.note("nearly done")
        return "done"

    run = Simulation(3).run(scenario)
    assert (run.result, run.seed, run.seconds, run.faults) == ("done", 3, 5.0, ())
    assert [str(entry).split() for entry in run.trace] == [["5.000000", "note:", "nearly", "done"]]
    assert run.digest == Simulation(3).run(scenario).digest != Simulation(4).run(random_program).digest


def test_a_task_that_is_left_running_is_named_with_the_line_it_waits_at() -> None:
    async def left() -> None:
        await asyncio.sleep(100)

    async def scenario() -> None:
        tasks.append(asyncio.create_task(left(), name="left alone"))

    tasks: list[Any] = []
    found = problems(scenario)
    assert found[0].startswith("task left alone was left running; it waits at ")
    assert f"{__file__}:{left.__code__.co_firstlineno + 1} in " in found[0]
    assert tasks[0].cancelled()


def test_a_timer_that_is_left_is_named_with_its_time() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().call_later(100, problems)

    assert problems(scenario) == ("a timer was left: problems at 100 s",)


def test_a_system_that_is_not_left_is_named() -> None:
    async def scenario() -> None:
        await ActorSystem("open").__aenter__()

    assert problems(scenario) == ("system open was not left",)


def test_an_ask_that_is_never_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with ActorSystem("house") as system:
            asking.append(asyncio.ensure_future(system.spawn(Plain).ask(Query(5), timeout=90.0)))
            await asyncio.sleep(0.5)
            monkeypatch.setattr("runtime.envelope.Ask.fail", lambda self, error: None)

    asking: list[Any] = []
    monkeypatch.setattr("runtime.envelope.Ask.answer", lambda self, value: True)
    assert any("<Ask Query(number=5) running" in one and "was never ended" in one for one in problems(scenario))


def test_mail_that_is_left_is_counted() -> None:
    async def keeps() -> None:
        async with ActorSystem("house") as system:
            ref = system.spawn(Plain, name="one")
            ref.tell(Note(1))
            await asyncio.sleep(1)
            queue = ref.recipient.queue
        deque.append(queue, Note(2))
        deque.append(queue, Note(3))

    assert problems(keeps) == ("2 messages were left with house/one",)


class Fragile(Actor):
    supervision = Supervision(strategy=Strategy.ONE_FOR_ALL)

    def __init__(self, name: str, permits: int = 1) -> None:
        self.name = name
        self.permits = permits

    @handles(Note)
    def note(self, message: Note) -> None:
        self.permits -= 1
        if message.number < 0:
            raise OSError(message.number)
        if message.number == 0:
            self.context.stop()

    def broken_invariants(self) -> Any:
        if self.permits < 1:
            yield f"{1 - self.permits} permits of {self.name} are lost"


def test_an_actor_that_says_its_invariants_are_broken_is_named() -> None:
    async def scenario() -> None:
        async with ActorSystem("house") as system:
            system.spawn(lambda: Fragile("alice"), name="one").tell(Note(1))
            system.spawn(lambda: Fragile("bob"), name="two")
            await asyncio.sleep(1)

    assert problems(scenario) == ("house/one: 1 permits of alice are lost",)


@pytest.mark.parametrize("number", [-1, 0])
def test_every_instance_is_asked_also_those_before_a_restart_their_own_or_that_of_a_sibling(number: int) -> None:
    async def scenario() -> None:
        together = Supervision(strategy=Strategy.ONE_FOR_ALL)
        async with ActorSystem("house", supervision=together, log=False) as system:
            one = system.spawn(lambda: Fragile("alice"), name="one", restart=Restart.PERMANENT)
            system.spawn(lambda: Fragile("bob"), name="two").tell(Note(1))
            await asyncio.sleep(1)
            one.tell(Note(number))
            await asyncio.sleep(10)

    assert sorted(problems(scenario)) == [
        "house/one: 1 permits of alice are lost",
        "house/two: 1 permits of bob are lost",
    ]


class Wait(Message):
    pass


class Ordered(Actor):
    """Writes its start into a log: once it begins to start, whether its hook is async or not."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def started(self) -> None:
        self.log.append(self.name)

    @handles(Note)
    def note(self, message: Note) -> None:
        raise OSError(message.number)

    @handles(Wait)
    def wait(self, message: Wait) -> None: ...


class OrderedInTask(Ordered):
    async def started(self) -> None:
        self.log.append(self.name)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
@pytest.mark.parametrize("kind", [Ordered, OrderedInTask])
@pytest.mark.parametrize("mail", [0, 3])
def test_a_group_restarts_in_start_order_under_every_seed(strategy: Strategy, kind: type[Ordered], mail: int) -> None:
    """G7: also if mail waits for its members, and other actors are at work."""
    names = "abcdef"

    async def scenario(log: list[str]) -> None:
        async with ActorSystem("house", supervision=Supervision(strategy=strategy), log=False) as system:
            members = [system.spawn(partial(kind, name, log), name=name) for name in names]
            await asyncio.sleep(1)
            log.clear()
            members[0].tell(Note(1))
            await asyncio.sleep(0)
            for member in members[1:]:
                for _ in range(mail):
                    member.tell(Wait())
            await asyncio.sleep(10)

    for seed in range(30):
        log: list[str] = []
        Simulation(seed=seed).run(partial(scenario, log))
        assert "".join(log) == names, f"seed {seed}"


def test_a_callback_that_raises_fails_the_run() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(1)

    assert "invalid literal for int" in problems(scenario)[0]


async def fails() -> None:
    raise OSError("nobody looked")


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_a_task_whose_exception_nobody_retrieved_fails_the_run(in_a_cycle: bool) -> None:
    async def scenario() -> None:
        task: Any = asyncio.create_task(fails(), name="unlucky")
        if in_a_cycle:
            task.add_done_callback(kept.append)
        await asyncio.sleep(1)

    kept: list[Any] = []
    (problem,) = problems(scenario)
    assert "never retrieved" in problem
    assert "nobody looked" in problem
    assert "unlucky" in problem


def test_restarts_beyond_the_intensity_are_found() -> None:
    async def scenario(simulation: Simulation) -> None:
        tolerant = Supervision(intensity=RestartIntensity(max_restarts=2, within=10.0))
        async with ActorSystem("house", supervision=tolerant, log=False) as system:
            ref = system.spawn(Plain, name="one")
            for number in range(3):
                error = OSError(number)
                simulation.witness.observe(ActorFailed(ref, error))
                simulation.witness.observe(ActorRestarted(ref, number, error))

    assert problems(scenario) == ("house restarted 3 children within 10 s, and tolerates 2",)


def test_messages_of_one_sender_in_the_wrong_order_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    take = RecordedQueue.take

    def take_wrongly(self: Any, item: Any, origin: Any) -> None:
        take(self, item, origin)
        if len(self) == 3:
            for line in (self, self._origins):
                first = deque.popleft(line)
                deque.append(line, first)

    monkeypatch.setattr(RecordedQueue, "take", take_wrongly)

    async def scenario() -> None:
        async with ActorSystem("house") as system:
            ref = system.spawn(Plain, name="one")
            for number in range(3):
                ref.tell(Note(number))
            await asyncio.sleep(1)

    assert problems(scenario) == ("house/one got Note of task 1 after a later message of task 1 (G2)",)


def test_one_and_the_same_message_object_may_be_sent_again_after_its_sender_gave_up() -> None:
    note = Note(1)

    async def scenario() -> None:
        async with ActorSystem("house", log=False) as system:
            ref = system.spawn(Slow, name="one", mailbox=Mailbox(capacity=1))
            for _ in range(3):
                sending = [asyncio.create_task(ref.send(note, timeout=0.9)) for _ in range(3)]
                await asyncio.sleep(0.5)
                sending[1].cancel()
                await asyncio.gather(*sending, return_exceptions=True)
            await asyncio.sleep(10)

    for seed in range(50):
        Simulation(seed).run(scenario)


class Slow(Actor):
    @handles(Note)
    async def note(self, message: Note) -> None:
        await asyncio.sleep(0.5)


@pytest.mark.slow
def test_random_programs_of_plain_actors_break_no_invariant() -> None:
    assert explore(random_program, seeds=range(repeated(150))).runs == repeated(150)


def test_what_the_scenario_raises_comes_out_with_the_seed() -> None:
    async def scenario() -> None:
        await asyncio.sleep(2)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        Simulation(17).run(scenario)
    assert caught.value.__notes__[0].startswith("seed 17, after 2 virtual seconds and ")


def test_an_error_of_the_scenario_is_not_hidden_by_what_it_leaves() -> None:
    async def scenario() -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(100)))
        async with ActorSystem("house", log=False) as system:
            await system.spawn(Plain).ask(Note(-1), timeout=1.0)

    tasks: list[Any] = []
    with pytest.raises((ActorCrashed, OSError, TypeError)):
        Simulation().run(scenario)


def test_a_simulation_runs_once() -> None:
    async def scenario() -> None:
        pass

    simulation = Simulation()
    simulation.run(scenario)
    with pytest.raises(SimulationError, match="has run already; make another one"):
        simulation.run(scenario)


def test_a_scenario_that_is_not_async_is_refused() -> None:
    def scenario() -> int:
        return 5

    with pytest.raises(SimulationError, match=r"async function; .*scenario is not, and returned 5"):
        Simulation().run(scenario)  # type: ignore[arg-type]

    async def generate() -> Any:
        yield 1

    with pytest.raises(SimulationError, match="async function"):
        Simulation().run(generate)  # type: ignore[arg-type]


def test_a_scenario_gets_the_simulation_where_it_needs_a_parameter() -> None:
    async def with_default(size: int = 5) -> int:
        return size

    async def bound(simulation: Simulation, size: int) -> tuple[bool, int]:
        return isinstance(simulation, Simulation), size

    class Callable:
        async def __call__(self, simulation: Simulation) -> bool:
            return isinstance(simulation, Simulation)

    assert Simulation().run(with_default).result == 5
    assert Simulation().run(partial(bound, size=7)).result == (True, 7)
    assert Simulation().run(partial(with_default, size=7)).result == 7
    assert Simulation().run(Callable()).result is True


def test_a_deadlock_while_a_generator_is_closed_does_not_hide_what_the_scenario_raised() -> None:
    async def generate() -> Any:
        try:
            yield 1
        finally:
            await asyncio.Event().wait()

    async def scenario() -> None:
        generators.append(generate())
        await anext(generators[0])
        raise ValueError("the cause")

    generators: list[Any] = []
    with pytest.raises((ValueError, Deadlock)) as caught:
        Simulation().run(scenario)
    assert isinstance(caught.value, ValueError)


# What a report shows of the time before a failure.


def events_of(scenario: Any) -> list[str]:
    """Return the events that a failed run shows."""
    run = Simulation(logs=False)
    with pytest.raises((ValueError, OSError, ExceptionGroup, InvariantBroken)):
        run.run(scenario)
    return run.last_events(20)


async def fails_in_its_system(simulation: Simulation) -> None:
    async with ActorSystem("house", log=False) as system:
        for number in range(30):
            system.spawn(Plain, name=f"actor-{number}")
        await asyncio.sleep(1)
        simulation.note("about to fail")
        raise ValueError("fails")


async def fails_in_two_systems(simulation: Simulation) -> None:
    async with ActorSystem("town", log=False):
        await fails_in_its_system(simulation)


async def fails_in_a_group(simulation: Simulation) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails_in_its_system(simulation))


async def fails_with_another_error(simulation: Simulation) -> None:
    try:
        await fails_in_its_system(simulation)
    except ValueError as error:
        raise OSError("what follows from it") from error


@pytest.mark.parametrize(
    "scenario", [fails_in_its_system, fails_in_two_systems, fails_in_a_group, fails_with_another_error]
)
def test_the_events_before_a_failure_are_not_those_of_the_shutdown(scenario: Any) -> None:
    assert events_of(scenario)[-1].endswith("about to fail")


def test_the_events_before_a_problem_are_those_before_it() -> None:
    async def scenario(simulation: Simulation) -> None:
        async with ActorSystem("house", log=False) as system:
            system.spawn(Plain, name="one")
            simulation.problem("it leaks")

    assert "problem: it leaks" in events_of(scenario)[-1]


def test_the_events_before_a_failing_actor_are_those_before_it() -> None:
    intolerant = Supervision(intensity=RestartIntensity(max_restarts=1, within=10.0))

    async def scenario() -> None:
        async with ActorSystem("house", log=False, supervision=intolerant) as system:
            for number in range(30):
                system.spawn(Plain, name=f"actor-{number}")
            bad = system.spawn(Plain, name="bad")
            for _ in range(2):
                bad.tell(Note(number=-1))
            await asyncio.sleep(1)

    assert any("house/bad" in line and "OSError" in line for line in events_of(scenario))


def test_an_error_that_was_caught_is_not_the_failure() -> None:
    async def scenario(simulation: Simulation) -> None:
        with pytest.raises(ValueError, match="fails"):
            await fails_in_its_system(simulation)
        simulation.note("went on")
        raise OSError("fails later")

    assert events_of(scenario)[-1].endswith("went on")
