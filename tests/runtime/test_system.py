"""Entering, leaving and failing as a whole: G3, G9, G10, G11."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorEnded,
    ActorFailed,
    ActorRef,
    ActorRestarted,
    ActorStopped,
    ActorSystem,
    Backoff,
    Mailbox,
    Message,
    Request,
    RestartIntensity,
    Strategy,
    Supervision,
    SystemClosed,
    WrongThread,
    handles,
    run_in_thread,
)
from runtime.simulation import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable

FRAGILE = Supervision(intensity=RestartIntensity(max_restarts=0))


class Boom(Message):
    pass


class Work(Request[str]):
    seconds: float


class Later(Request[str]):
    pass


class Worker(Actor):
    @handles(Boom)
    def boom(self, message: Boom) -> None:
        raise OSError("boom")

    @handles(Work)
    async def work(self, message: Work) -> str:
        await asyncio.sleep(message.seconds)
        return "done"

    @handles(Later)
    def later(self, message: Later) -> asyncio.Future[str]:
        return asyncio.ensure_future(Worker.work(self, Work(3600.0)))


class Lane(Worker):
    @handles(Work, concurrent=3)
    async def work(self, message: Work) -> str:
        return await super().work(message)


# Leaving: G9.


async def test_leaving_with_everything_in_flight_leaves_no_task_timer_or_pending_ask(leftovers):
    """G9."""

    class Ticking(Worker):
        def started(self) -> None:
            self.context.timers.every(1.0, Boom())
            self.context.spawn(Worker)

    asks: list[asyncio.Task[Any]] = []
    patient = Supervision(backoff=Backoff(initial=20.0), intensity=RestartIntensity(max_restarts=99))
    async with ActorSystem(supervision=patient) as system:
        for kind in (Worker, Lane, Ticking):
            ref = system.spawn(kind, mailbox=Mailbox(capacity=4))
            asks += [asyncio.create_task(ref.ask(Work(3600.0), timeout=7200.0)) for _ in range(9)]
            asks += [asyncio.create_task(ref.send(Work(3600.0)))]
        answering_later = system.spawn(Worker)
        asks += [asyncio.create_task(answering_later.ask(Later(), timeout=7200.0)) for _ in range(3)]
        system.spawn(Worker).tell(Boom())
        await asyncio.sleep(2.5)
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    assert {type(one) for one in outcomes} <= {ActorStopped, ActorCrashed, type(None)}
    assert leftovers() == []


async def test_a_future_that_answers_later_has_its_cleanup_within_the_life_of_its_actor(leftovers):
    """G9: a task behind it is waited for."""
    log: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(2)
            log.append("cleaned up")
        return ""

    class Deferring(Actor):
        @handles(Later)
        def later(self, message: Later) -> asyncio.Future[str]:
            return asyncio.ensure_future(work())

        def stopped(self) -> None:
            log.append("stopped")

    async with ActorSystem() as system:
        ref = system.spawn(Deferring)
        asking = asyncio.create_task(ref.ask(Later(), timeout=60.0))
        await asyncio.sleep(1)
    assert log == ["cleaned up", "stopped"]
    with pytest.raises(ActorCrashed, match="its handler was cancelled"):
        await asking
    assert leftovers() == []


async def test_an_exception_of_the_body_leaves_as_it_is(leftovers):
    """G9."""

    async def run() -> None:
        async with ActorSystem() as system:
            system.spawn(Worker).tell(Work(1.0))
            await asyncio.sleep(0)
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        await run()
    assert leftovers() == []


async def test_a_failure_that_nobody_handles_cancels_the_body_and_leaves_as_itself(leftovers):
    """G3: the body would have waited for ever."""
    reached: list[str] = []

    async def run() -> None:
        async with ActorSystem("s", supervision=FRAGILE) as system:
            system.spawn(Worker).tell(Boom())
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                reached.append("cleanup")

    with pytest.raises(OSError, match="boom") as failure:
        await run()
    assert failure.value.__notes__ == ["not handled by any supervisor of system 's'"]
    assert reached == ["cleanup"]
    assert leftovers() == []
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_failure_of_which_the_body_hears_first_leaves_as_itself():
    """G3: the body's own exception is its context, and the cancellation of the body leaves no trace."""

    async def run() -> None:
        async with ActorSystem(supervision=FRAGILE) as system:
            ref = system.spawn(Worker)
            asyncio.get_running_loop().call_later(1.0, ref.tell, Boom())
            await ref.ask(Work(0.5), timeout=9.0)
            await ref.ask(Work(5.0), timeout=9.0)

    with pytest.raises(OSError, match="boom"):
        await run()
    await asyncio.sleep(1)


async def test_a_failure_in_the_last_turn_of_the_body_still_leaves():
    """G3: the body is not waiting, so its cancellation comes too late for it."""

    async def run() -> None:
        async with ActorSystem(supervision=FRAGILE) as system:
            with pytest.raises(ActorCrashed):
                await system.spawn(SyncBoom).ask(Work(0.0), timeout=1.0)

    with pytest.raises(OSError, match="sync"):
        await run()
    await asyncio.sleep(1)


class SyncBoom(Actor):
    @handles(Work)
    def work(self, message: Work) -> str:
        raise OSError("sync")


async def test_a_timeout_around_a_system_ends_it_in_order(leftovers):
    """G9, G11."""
    log: list[str] = []

    class Tidy(Actor):
        async def stopped(self) -> None:
            await asyncio.sleep(1)
            log.append("stopped")

    async def run() -> None:
        async with asyncio.timeout(5), ActorSystem() as system:
            system.spawn(Tidy)
            await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        await run()
    assert log == ["stopped"]
    assert asyncio.get_running_loop().time() == 6.0
    assert leftovers() == []


async def leave_slowly(log: list[str]) -> None:
    """Leave a system, after a second, whose only actor has ten more seconds for its message."""

    class Slow(Worker):
        async def stopped(self) -> None:
            await asyncio.sleep(1)
            log.append("stopped")

    async with ActorSystem() as system:
        system.spawn(Slow, stop_timeout=10.0).tell(Work(3600.0))
        await asyncio.sleep(1)


async def test_a_timeout_while_the_system_is_left_kills_its_actors_and_is_one(leftovers):
    """G9: what handles a message is cancelled, and its `stopped` still runs."""
    log: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4):
            await leave_slowly(log)
    assert log == ["stopped"]
    assert asyncio.get_running_loop().time() == 5.0
    assert leftovers() == []


async def test_a_cancel_scope_around_a_system_that_is_left_waits_for_the_limits_of_the_actors(leftovers):
    """G9, G11: anyio cancels again and again; leaving is shielded from that."""
    log: list[str] = []
    with anyio.move_on_after(4):
        await leave_slowly(log)
    assert log == ["stopped"]
    assert asyncio.get_running_loop().time() == 12.0
    assert leftovers() == []


async def test_a_cancelled_task_takes_its_system_along(leftovers):
    """G9."""

    async def run() -> None:
        async with ActorSystem() as system:
            system.spawn(Worker).tell(Work(2.0))
            await asyncio.sleep(3600)

    running = asyncio.create_task(run())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert leftovers() == []


@pytest.fixture
async def system_of_a_fixture():
    async with ActorSystem("fixture") as system:
        yield system


async def test_a_system_may_be_entered_and_left_by_different_tasks(system_of_a_fixture: ActorSystem):
    """G11: as a fixture of pytest does."""
    assert await system_of_a_fixture.spawn(Worker).ask(Work(1.0), timeout=2.0) == "done"


# Crashes while the system ends, or none.


async def test_a_crash_while_the_system_is_left_is_an_event_and_no_failure():
    """G3."""
    failures: list[Any] = []

    class Sore(Actor):
        async def stopped(self) -> None:
            raise OSError("stopped")

    async with ActorSystem(supervision=FRAGILE) as system:
        system.events.subscribe(ActorFailed, failures.append)
        system.spawn(Sore)
        await asyncio.sleep(0)
    assert [str(one.error) for one in failures] == ["stopped"]


# Before and after.


async def test_a_system_is_of_use_between_entering_and_leaving_only():
    system = ActorSystem("s")
    assert repr(system) == "<ActorSystem 's' not entered>"
    for use in (lambda: system.spawn(Worker), lambda: system.events, lambda: system.children):
        with pytest.raises(SystemClosed, match=r"system 's' is not running"):
            use()
    with pytest.raises(SystemClosed, match="leaving it"):
        await system.__aexit__(None, None, None)
    async with system:
        ref = system.spawn(Worker)
        assert repr(system) == "<ActorSystem s running, 1 actors>"
    assert repr(system) == "<ActorSystem s ended, stopped, 0 actors>"
    with pytest.raises(SystemClosed):
        system.spawn(Worker)
    with pytest.raises(SystemClosed, match="entering it a second time"):
        await system.__aenter__()
    ref.tell(Boom())
    with pytest.raises(ActorStopped):
        await ref.ask(Work(0.0), timeout=1.0)


@pytest.mark.parametrize("name", ["", "a/b"])
def test_a_system_has_a_name_that_is_usable_in_a_path(name: str):
    with pytest.raises(ValueError, match="a system's name must not be empty"):
        ActorSystem(name)


def test_a_name_is_a_str():
    with pytest.raises(TypeError, match="a system's name must be a str, got 3"):
        ActorSystem(3)  # type: ignore[arg-type]


# Many, anywhere: G10, G11.


async def test_two_systems_in_one_loop_ask_each_other_and_end_apart(leftovers):
    """G11."""

    class Relay(Actor):
        def __init__(self, below: ActorRef[Any]) -> None:
            self.below = below

        @handles(Work)
        async def work(self, message: Work) -> str:
            return await self.below.ask(message, timeout=60.0)

    async with ActorSystem("a") as first:
        worker = first.spawn(Worker)
        async with ActorSystem("b") as second:
            relay = second.spawn(lambda: Relay(worker))
            assert await relay.ask(Work(1.0), timeout=2.0) == "done"
            asking = asyncio.create_task(relay.ask(Work(3600.0), timeout=7200.0))
            await asyncio.sleep(1)
            relay.kill()
        with pytest.raises(ActorCrashed):
            await asking
        assert await worker.ask(Work(1.0), timeout=2.0) == "done", "the end of b has cancelled its request"
    assert leftovers() == []


async def test_a_failure_of_an_inner_system_is_an_exception_to_the_outer():
    """G11."""

    async def inner() -> None:
        async with ActorSystem("inner", supervision=FRAGILE) as system:
            system.spawn(Worker).tell(Boom())
            await asyncio.sleep(3600)

    async with ActorSystem("outer") as outer:
        with pytest.raises(OSError, match="boom"):
            await inner()
        assert await outer.spawn(Worker).ask(Work(1.0), timeout=2.0) == "done"


async def test_the_same_seed_gives_the_same_jitter(recorded):
    """G10."""
    runs: list[list[float]] = []
    for seed in (1, 1, 2):
        start = asyncio.get_running_loop().time()
        times: list[float] = []
        jittery = Supervision(backoff=Backoff(initial=1.0, jitter=0.5))
        async with ActorSystem(seed=seed, supervision=jittery) as system:
            restarts = recorded(system, ActorRestarted)
            ref = system.spawn(Worker)
            for _ in range(3):
                ref.tell(Boom())
                await ref.ask(Work(0.0), timeout=60.0)
                times.append(asyncio.get_running_loop().time() - start)
            assert len(restarts) == 3
        runs.append(times)
    assert runs[0] == pytest.approx(runs[1])
    assert runs[0] != pytest.approx(runs[2])


@pytest.mark.real_time
async def test_a_thread_enters_through_one_call():
    """G11."""
    told = asyncio.Event()

    class Listener(Actor):
        @handles(Boom)
        def boom(self, message: Boom) -> None:
            told.set()

    async with ActorSystem() as system:
        ref = system.spawn(Listener)
        thread = threading.Thread(target=system.from_thread, args=(ref.tell, Boom()))
        thread.start()
        await told.wait()
        thread.join()


@pytest.mark.real_time
@pytest.mark.parametrize("use", ["tell", "tell again", "send", "ask", "stop", "kill", "spawn"])
async def test_an_actor_used_from_another_thread_says_how_to_enter(use: str):
    """G11: nothing has been done then, and the actor works on."""
    handled: list[Message] = []

    class Listener(Actor):
        @handles(Boom)
        def boom(self, message: Boom) -> None:
            handled.append(message)

    async with ActorSystem("threads") as system:
        ref = system.spawn(Listener)
        if use == "tell again":
            ref.tell(Boom())
            await asyncio.sleep(0)
        uses: dict[str, Callable[[], object]] = {
            "send": lambda: asyncio.run(ref.send(Boom())),
            "ask": lambda: asyncio.run(ref.ask(Work(0.0), timeout=1.0)),
            "stop": ref.stop,
            "kill": ref.kill,
            "spawn": lambda: system.spawn(Listener),
        }
        with pytest.raises(WrongThread, match=r"system\.from_thread"):
            await run_in_thread(uses.get(use, lambda: ref.tell(Boom())))
        before = len(handled)
        assert before == (use == "tell again")
        assert list(system.children) == ["listener-1"]
        ref.tell(Boom())
        await asyncio.sleep(0)
        assert len(handled) == before + 1


# Exceptions that end the program.


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_ends_the_program_leaves_the_run_queue_in_order(error: type[BaseException], is_async: bool):  # noqa: FBT001
    """G9: it goes through the loop at once, and the system can still be left in order."""
    log: list[str] = []

    class Quitting(Worker):
        @handles(Later)
        def later(self, message: Later) -> Any:
            raise error

        def stopped(self) -> None:
            log.append("stopped")

    class QuittingSync(Actor):
        later = Quitting.later
        stopped = Quitting.stopped

    async def run() -> None:
        # asyncio reports the task that was interrupted, whenever it is collected.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY)) as system:
            other = system.spawn(Worker)
            ref = system.spawn(Quitting if is_async else QuittingSync)
            try:
                ref.tell(Later())
                await asyncio.sleep(60)
            finally:
                log.append(await other.ask(Work(0.0), timeout=5.0))
                await asyncio.sleep(1)
                log.append(repr(ref))

    with pytest.raises(error), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
    name = "quitting-2" if is_async else "quittingsync-2"
    assert log == ["stopped", "done", f"<ActorRef system/{name} running, 1 restarts>", "stopped"]


class Quits(Actor):
    """Ends the program; its own end takes a task."""

    @handles(Later)
    def later(self, message: Later) -> Any:
        raise SystemExit

    async def stopped(self) -> None:
        await asyncio.sleep(1.0)


class QuitsWithChild(Actor):
    later = Quits.later

    def started(self) -> None:
        self.context.spawn(Worker)


class QuitsLater(QuitsWithChild):
    @handles(Later)
    async def later(self, message: Later) -> Any:
        await asyncio.sleep(0.01)
        raise SystemExit


@pytest.mark.parametrize("actor", [Quits, QuitsWithChild, QuitsLater])
def test_what_ends_the_program_ends_it_also_where_all_tasks_are_cancelled_before_they_begin(actor: type[Actor]):
    """G9: `asyncio.run` cancels what an actor's end has begun, and waits for the rest."""

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with ActorSystem(log=False) as system:
            system.spawn(actor).tell(Later())
            await asyncio.sleep(60)

    with pytest.raises(SystemExit), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def test_a_start_that_is_cancelled_before_it_begins_ends_the_actor():
    """G9."""

    class Slow(Actor):
        async def started(self) -> None:
            await asyncio.sleep(60)

    async with ActorSystem(log=False) as system:
        before = asyncio.all_tasks()
        ref = system.spawn(Slow)
        while not (starting := asyncio.all_tasks() - before):  # noqa: ASYNC110 - until it is there, and no turn more.
            await asyncio.sleep(0)
        for task in starting:
            task.cancel()
        await asyncio.sleep(1)
        assert "ended" in repr(ref)


async def test_no_group_of_children_is_restarted_once_their_system_has_been_left(leftovers):
    """G9."""

    class Crashing(Actor):
        @handles(Later)
        def later(self, message: Later) -> Any:
            raise ValueError

    group = Supervision(strategy=Strategy.ONE_FOR_ALL, backoff=Backoff(initial=30.0, jitter=0.0))
    async with ActorSystem(supervision=group, log=False) as system:
        refs = [system.spawn(Crashing) for _ in range(2)]
        refs[0].tell(Later())
        await asyncio.sleep(1)
        for ref in refs:
            ref.stop()
    assert leftovers() == []


async def test_children_end_also_where_the_end_of_their_parent_is_cancelled_midway(recorded):
    """G8."""
    ended: list[str] = []

    class Quiet(Actor):
        def stopped(self) -> None:
            ended.append("quiet")

    class Slow(Actor):
        async def stopped(self) -> None:
            await asyncio.sleep(1.0)

    class Parent(Actor):
        def started(self) -> None:
            self.context.spawn(Quiet)
            self.context.spawn(Slow)

    async with ActorSystem("s", log=False) as system:
        told = recorded(system, ActorEnded)
        parent = system.spawn(Parent, name="parent")
        await asyncio.sleep(0.1)
        parent.stop()
        await asyncio.sleep(0.1)
        for task in asyncio.all_tasks():
            if task.get_name() == "parent ends":
                task.cancel()
        await asyncio.sleep(5.0)
        assert ended == ["quiet"]
        assert sorted(one.ref.path for one in told) == ["s/parent", "s/parent/quiet-1", "s/parent/slow-2"]


# A program that has to be told of a failure.


async def test_on_failure_is_called_once_before_the_block_is_cancelled():
    """G7."""
    told: list[Exception] = []

    async def run() -> None:
        async with ActorSystem(supervision=FRAGILE, on_failure=told.append) as system:
            for _ in range(2):
                system.spawn(Worker).tell(Boom())
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                told.append(RuntimeError("cancelled"))
                raise

    with pytest.raises(OSError, match="boom") as caught:
        await run()
    assert [str(error) for error in told] == ["boom", "cancelled"]
    assert told[0] is caught.value


async def test_an_on_failure_that_raises_is_reported_and_the_failure_leaves_the_block():
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(_: Exception) -> None:
        raise LookupError("no server")

    async def run() -> None:
        async with ActorSystem("s", supervision=FRAGILE, on_failure=fail) as system:
            system.spawn(Worker).tell(Boom())
            await asyncio.sleep(3600)

    with pytest.raises(OSError, match="boom"):
        await run()
    assert [(one["message"], str(one["exception"])) for one in reported] == [
        ("on_failure of system 's' raised", "no server")
    ]


async def test_an_on_failure_that_would_not_be_awaited_is_refused():
    async def shut_down(_: Exception) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="a function that is not async"):
        ActorSystem(on_failure=shut_down)


@pytest.mark.parametrize("fails", [True, False])
async def test_a_task_beside_the_block_waits_for_the_end_of_the_system(fails: bool):  # noqa: FBT001
    system = ActorSystem(supervision=FRAGILE)
    with pytest.raises(SystemClosed, match="failed"):
        await system.failed()

    async def run() -> None:
        async with system:
            system.spawn(Worker)
            waiting.append(asyncio.create_task(system.failed()))
            await asyncio.sleep(1.0)
            if fails:
                system.spawn(Worker).tell(Boom())
                await asyncio.sleep(3600)

    waiting: list[asyncio.Task[Exception | None]] = []
    if fails:
        with pytest.raises(OSError, match="boom") as caught:
            await run()
        assert await waiting[0] is caught.value
    else:
        await run()
        assert await waiting[0] is None
        assert await system.failed() is None
