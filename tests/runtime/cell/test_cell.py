"""The life of one actor: started, stopped, killed, restarted, watched: G7, G8."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorEnded,
    ActorFailed,
    ActorRef,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    ActorSystem,
    Backoff,
    CancellationIgnored,
    DeadReason,
    ExitReason,
    Mailbox,
    Message,
    NameTaken,
    Overflow,
    Request,
    Restart,
    RestartIntensity,
    Supervision,
    Terminated,
    handles,
)

AT_ONCE = Supervision(backoff=IMMEDIATELY, intensity=RestartIntensity(max_restarts=100))


class Do(Message):
    what: str


class Work(Message):
    seconds: float


class Ping(Request[str]):
    pass


class Life(Actor):
    """Writes down every turn of its life, over all its instances."""

    log: list[str]

    def started(self) -> Any:
        self.log.append("started")

    def stopped(self) -> Any:
        self.log.append("stopped")

    @handles(Do)
    def do(self, message: Do) -> None:
        self.log.append(message.what)
        match message.what:
            case "crash":
                raise RuntimeError(message.what)
            case "stop":
                self.context.stop()
            case "kill":
                self.context.ref.kill()

    @handles(Ping)
    def ping(self, message: Ping) -> str:
        return "pong"


class AsyncLife(Life):
    """As `Life`, with a handler that takes its time, and hooks that do."""

    async def started(self) -> None:
        await asyncio.sleep(1)
        self.log.append("started")

    async def stopped(self) -> None:
        await asyncio.sleep(1)
        self.log.append("stopped")

    @handles(Work)
    async def work(self, message: Work) -> None:
        try:
            await asyncio.sleep(message.seconds)
            self.log.append("worked")
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise


class LaneLife(AsyncLife):
    @handles(Work, concurrent=2)
    async def work(self, message: Work) -> None:
        await AsyncLife.work(self, message)


def variant(kind: type[Life]) -> type[Life]:
    """Return a class of its own, whose instances share one log."""
    return type(kind.__name__, (kind,), {"log": []})


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", [Life, AsyncLife])
async def test_started_comes_before_the_first_message_and_stopped_after_the_last(kind: type[Life], recorded):
    """G8."""
    async with ActorSystem() as system:
        started, ended = recorded(system, ActorStarted), recorded(system, ActorEnded)
        life = variant(kind)
        ref = system.spawn(life)
        ref.tell(Do("a"))
        assert await ref.ask(Ping(), timeout=5.0) == "pong"
        ref.stop()
        assert (await ref.terminated()).reason is ExitReason.STOPPED
        assert life.log == ["started", "a", "stopped"]
        assert [one.ref for one in started] == [one.ref for one in ended] == [ref]


@pytest.mark.parametrize(("kind", "did"), [(Life, []), (AsyncLife, ["worked"]), (LaneLife, ["worked"])])
async def test_stop_finishes_the_current_message_and_leaves_the_rest(kind: type[Life], did: list[str], recorded):
    """G8, G3."""
    async with ActorSystem() as system:
        letters = recorded(system)
        life = variant(kind)
        ref = system.spawn(life)
        await ref.ask(Ping(), timeout=5.0)
        if did:
            ref.tell(Work(3.0))
            await turns()
        ref.stop()
        ref.tell(Do("late"))
        await ref.terminated()
        assert life.log == ["started", *did, "stopped"]
        assert [(one.message, one.reason) for one in letters] == [(Do("late"), DeadReason.STOPPED)]


@pytest.mark.parametrize("kind", [AsyncLife, LaneLife])
async def test_stop_cancels_what_takes_longer_than_the_limit(kind: type[Life]):
    """G8."""
    async with ActorSystem() as system:
        life = variant(kind)
        ref = system.spawn(life, stop_timeout=2.0)
        ref.tell(Work(60.0))
        await asyncio.sleep(1.5)
        ref.stop()
        await ref.terminated()
        assert life.log == ["started", "cancelled", "stopped"]
        assert asyncio.get_running_loop().time() == 1.5 + 2.0 + 1.0


@pytest.mark.parametrize("kind", [AsyncLife, LaneLife])
async def test_kill_cancels_the_current_message_at_once(kind: type[Life]):
    """G8: also if the actor has been stopping for a while."""
    for stop_first in (False, True):
        async with ActorSystem() as system:
            begin = asyncio.get_running_loop().time()
            life = variant(kind)
            ref = system.spawn(life)
            ref.tell(Work(60.0))
            await asyncio.sleep(1.5)
            if stop_first:
                ref.stop()
                await asyncio.sleep(0.5)
            ref.kill()
            assert (await ref.terminated()).reason is ExitReason.KILLED
            assert life.log == ["started", "cancelled", "stopped"]
            assert asyncio.get_running_loop().time() == begin + 1.5 + stop_first * 0.5 + 1.0


@pytest.mark.parametrize("what", ["stop", "kill"])
@pytest.mark.parametrize("kind", [Life, AsyncLife])
async def test_an_actor_may_end_itself_from_a_sync_handler(kind: type[Life], what: str):
    """G8: the handler's message is its last."""
    async with ActorSystem() as system:
        life = variant(kind)
        ref = system.spawn(life)
        ref.tell(Do(what))
        ref.tell(Do("late"))
        exit_ = await ref.terminated()
        assert exit_.reason is (ExitReason.STOPPED if what == "stop" else ExitReason.KILLED)
        assert life.log == ["started", what, "stopped"]


@pytest.mark.parametrize("concurrent", [1, 2])
async def test_an_actor_may_stop_itself_from_an_async_handler_and_finish_it(concurrent: int):
    """G8."""
    log: list[str] = []

    class Quitter(Actor):
        @handles(Work, concurrent=concurrent)
        async def work(self, message: Work) -> None:
            self.context.stop()
            await asyncio.sleep(message.seconds)
            log.append("finished")

        def stopped(self) -> None:
            log.append("stopped")

    async with ActorSystem() as system:
        ref = system.spawn(Quitter)
        ref.tell(Work(2.0))
        assert (await ref.terminated()).reason is ExitReason.STOPPED
        assert log == ["finished", "stopped"]


@pytest.mark.parametrize("children", [0, 1])
async def test_an_actor_may_stop_itself_while_it_starts(children: int, recorded):
    """G8: it ends, once, and `stopped` cleans up after a `started` that returned."""

    class Reluctant(Life):
        log: list[str] = []  # noqa: RUF012

        def started(self) -> None:
            for _ in range(children):
                self.context.spawn(Actor)
            self.context.stop()
            self.log.append("started")

    Reluctant.log.clear()
    async with ActorSystem() as system:
        ends = recorded(system, ActorEnded)
        ref = system.spawn(Reluctant)
        ref.tell(Do("never"))
        await ref.terminated()
        await turns()
        assert Reluctant.log == ["started", "stopped"]
        assert [one.exit.reason for one in ends if one.ref is ref] == [ExitReason.STOPPED]
        assert "reluctant-1 ended" in repr(ref)


async def test_a_stop_while_started_runs_waits_for_it_and_cleans_up_after_it():
    """G8: what `started` acquired is given back."""
    async with ActorSystem() as system:
        life = variant(AsyncLife)
        ref = system.spawn(life)
        await turns()
        ref.stop()
        await ref.terminated()
        assert life.log == ["started", "stopped"]


async def test_a_kill_while_started_runs_cancels_it_and_there_is_nothing_to_clean_up(recorded):
    """G8."""
    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        life = variant(AsyncLife)
        ref = system.spawn(life)
        await turns()
        ref.kill()
        assert (await ref.terminated()).reason is ExitReason.KILLED
        assert (life.log, failures) == ([], [])
        assert asyncio.get_running_loop().time() == 0.0


async def test_a_started_that_ignores_its_cancellation_does_not_raise_the_dead(recorded):
    """G8."""

    class Undead(Actor):
        async def started(self) -> None:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

    async with ActorSystem() as system:
        ignored = recorded(system, CancellationIgnored)
        ref = system.spawn(Undead, stop_timeout=1.0)
        await turns()
        ref.kill()
        await ref.terminated()
        assert len(ignored) == 1
        await asyncio.sleep(200)
        assert "ended" in repr(ref)


@pytest.mark.parametrize("when", ["started", "stopped"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_hook_that_raises_is_reported(when: str, is_async: bool, recorded):  # noqa: FBT001
    """G3, G6: in `started` it is a crash; after `stopped` the actor ends all the same."""

    def fail(_: Actor) -> None:
        raise OSError(when)

    async def fail_later(_: Actor) -> None:
        await asyncio.sleep(1)
        raise OSError(when)

    kind = type("Faulty", (Actor,), {when: fail_later if is_async else fail})
    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(kind, restart=Restart.TEMPORARY)
        await turns()
        ref.stop() if when == "stopped" else None
        exit_ = await ref.terminated()
        assert exit_.reason is (ExitReason.CRASHED if when == "started" else ExitReason.STOPPED)
        assert [(str(one.error), one.message) for one in failures] == [(when, None)]


async def test_a_stopped_hook_is_shielded_within_its_limit(recorded):
    """G8: a kill does not cut it off, the limit does."""

    class Tidy(Actor):
        async def stopped(self) -> None:
            await asyncio.sleep(3600)

    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Tidy, stop_timeout=3.0)
        await turns()
        ref.stop()
        await asyncio.sleep(1)
        ref.kill()
        assert (await ref.terminated()).reason is ExitReason.KILLED
        assert asyncio.get_running_loop().time() == 3.0
        assert [type(one.error) for one in failures] == [TimeoutError]


async def test_a_stopped_hook_that_ignores_cancellation_does_not_hold_the_system_for_ever(recorded, leftovers):
    """G8, G9."""

    class Clinging(Actor):
        async def stopped(self) -> None:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

    async with ActorSystem() as system:
        ignored = recorded(system, CancellationIgnored)
        ref = system.spawn(Clinging, stop_timeout=1.0)
        await turns()
        ref.stop()
        await ref.terminated()
        assert asyncio.get_running_loop().time() == 2.0
        assert [one.ref for one in ignored] == [ref]
        await asyncio.sleep(200)
        assert leftovers() == []


# Restart: G7.


class Remembering(Life):
    """Counts its instances in what it keeps."""

    def started(self) -> None:
        self.context.kept["instances"] = self.context.kept.get("instances", 0) + 1
        self.log.append(f"instance {self.context.kept['instances']}")


async def test_what_an_actor_keeps_goes_over_to_its_next_instance_and_to_no_other_actor():
    """G7."""
    log: list[str] = []

    def make() -> Remembering:
        remembering = Remembering()
        remembering.log = log
        return remembering

    async with ActorSystem(supervision=AT_ONCE) as system:
        ref, other = system.spawn(make), system.spawn(make)
        ref.tell(Do("crash"))
        assert await ref.ask(Ping(), timeout=1.0) == "pong"
        assert await other.ask(Ping(), timeout=1.0) == "pong"
        assert [one for one in log if one.startswith("instance")] == ["instance 1", "instance 1", "instance 2"]


@pytest.mark.parametrize("kind", [Life, AsyncLife])
async def test_a_restart_is_a_fresh_instance_under_the_same_ref_with_the_same_mail(kind: type[Life], recorded):
    """G7."""
    async with ActorSystem(supervision=AT_ONCE) as system:
        restarts = recorded(system, ActorRestarted)
        life = variant(kind)
        ref = system.spawn(life)
        for what in ("a", "crash", "b"):
            ref.tell(Do(what))
        assert await ref.ask(Ping(), timeout=9.0) == "pong"
        assert life.log == ["started", "a", "crash", "stopped", "started", "b"]
        assert [(one.ref, one.attempt, str(one.cause)) for one in restarts] == [(ref, 1, "crash")]


async def test_children_and_timers_of_the_old_instance_are_gone():
    """G7."""
    ticks: list[float] = []

    class Parent(Life):
        log: list[str] = []  # noqa: RUF012

        def started(self) -> None:
            assert self.context.children == {}
            self.context.spawn(Actor, name="child")
            self.context.timers.every(1.0, Work(0.0))

        @handles(Work)
        def tick(self, message: Work) -> None:
            ticks.append(self.context.now())

    async with ActorSystem(supervision=AT_ONCE) as system:
        ref = system.spawn(Parent)
        await asyncio.sleep(1.5)
        old = ref.recipient.children["child"]
        ref.tell(Do("crash"))
        assert (await old.terminated()).reason is ExitReason.STOPPED
        await asyncio.sleep(2.2)
        assert ref.recipient.children["child"] is not old
        assert ticks == [1.0, 2.5, 3.5]


async def test_a_timer_that_stopped_sets_is_gone_too(leftovers):
    """G9."""

    class Last(Actor):
        def stopped(self) -> None:
            self.context.timers.once(60.0, Ping())

    async with ActorSystem() as system:
        actor = Last()
        system.spawn(lambda: actor)
    assert leftovers() == []
    with pytest.raises(ActorStopped):
        _ = actor.context.timers


async def test_mail_of_a_restarting_actor_waits_until_the_backoff_is_over():
    """G7."""
    async with ActorSystem(supervision=Supervision(backoff=Backoff(initial=4.0, jitter=0.0))) as system:
        life = variant(Life)
        ref = system.spawn(life)
        ref.tell(Do("crash"))
        await turns()
        assert "awaiting restart" in repr(ref)
        assert await ref.ask(Ping(), timeout=5.0) == "pong"
        assert asyncio.get_running_loop().time() == 4.0


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_an_end_during_the_backoff_is_final(end: str, recorded, leftovers):
    """G7, G8, G9."""
    async with ActorSystem() as system:
        letters = recorded(system)
        life = variant(Life)
        ref = system.spawn(life)
        ref.tell(Do("crash"))
        ref.tell(Do("b"))
        await turns()
        getattr(ref, end)()
        exit_ = await ref.terminated()
        assert exit_.reason is (ExitReason.STOPPED if end == "stop" else ExitReason.KILLED)
        await asyncio.sleep(60)
        assert life.log == ["started", "crash", "stopped"]
        assert [one.message for one in letters] == [Do("b")]
    assert leftovers() == []


@pytest.mark.parametrize(
    ("restart", "what", "reason"),
    [
        (Restart.PERMANENT, "crash", None),
        (Restart.PERMANENT, "stop", None),
        (Restart.PERMANENT, "kill", ExitReason.KILLED),
        (Restart.TRANSIENT, "crash", None),
        (Restart.TRANSIENT, "stop", ExitReason.STOPPED),
        (Restart.TRANSIENT, "kill", ExitReason.KILLED),
        (Restart.TEMPORARY, "crash", ExitReason.CRASHED),
        (Restart.TEMPORARY, "stop", ExitReason.STOPPED),
    ],
)
async def test_who_is_restarted_after_what(restart: Restart, what: str, reason: ExitReason | None):
    """G7: a stop or kill by ref is always final."""
    async with ActorSystem(supervision=AT_ONCE) as system:
        life = variant(Life)
        ref = system.spawn(life, restart=restart)
        ref.tell(Do(what))
        await turns()
        if reason is None:
            assert await ref.ask(Ping(), timeout=1.0) == "pong"
            assert life.log == ["started", what, "stopped", "started"]
            ref.stop()
            reason = ExitReason.STOPPED
        assert (await ref.terminated()).reason is reason


async def test_an_actor_that_stops_itself_again_and_again_escalates():
    """G7."""

    async def run() -> None:
        never = Supervision(intensity=RestartIntensity(max_restarts=0))
        async with ActorSystem("s", supervision=never) as system:
            system.spawn(variant(Life), restart=Restart.PERMANENT, name="life").tell(Do("stop"))
            await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="s/life stops itself again and again"):
        await run()


async def test_a_factory_that_fails_or_gives_the_same_actor_again_at_the_restart_is_another_crash(recorded):
    """G7."""
    once = variant(Life)()
    made: list[int] = []

    def failing() -> Actor:
        made.append(1)
        if len(made) == 2:
            raise OSError("out of actors")
        return variant(Life)()

    async with ActorSystem(supervision=AT_ONCE) as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(failing)
        ref.tell(Do("crash"))
        assert await ref.ask(Ping(), timeout=1.0) == "pong"
        assert [str(one.error) for one in failures] == ["crash", "out of actors"]

    async def reuse() -> None:
        async with ActorSystem(supervision=AT_ONCE) as system:
            system.spawn(lambda: once).tell(Do("crash"))
            await asyncio.sleep(60)

    with pytest.raises(TypeError, match="gave an actor that runs already"):
        await reuse()


async def test_a_factory_that_stops_the_actor_it_makes_lets_it_end():
    """G7, G8: also if the new instance starts async, and is not there yet when it is told to stop."""
    life, made = variant(AsyncLife), []

    def make() -> Life:
        made.append(1)
        if len(made) == 2:
            ref.stop()
        return life()

    async with ActorSystem(supervision=AT_ONCE) as system:
        ref = system.spawn(make)
        ref.tell(Do("crash"))
        async with asyncio.timeout(60):
            assert (await ref.terminated()).reason is ExitReason.STOPPED
        assert life.log == ["started", "crash", "stopped", "started", "stopped"]


async def test_a_crash_in_started_is_restarted_like_any_other():
    """G7."""

    class Flaky(Life):
        log: list[str] = []  # noqa: RUF012

        async def started(self) -> None:
            self.log.append("started")
            await asyncio.sleep(1)
            if len(self.log) < 3:
                raise OSError

    async with ActorSystem(supervision=AT_ONCE) as system:
        ref = system.spawn(Flaky)
        assert await ref.ask(Ping(), timeout=9.0) == "pong"
        assert Flaky.log == ["started"] * 3, "nothing to stop if the start failed"


async def test_a_crash_while_the_actor_stops_does_not_restart_it(recorded):
    """G7, G8."""

    class Sore(Actor):
        @handles(Work)
        async def work(self, message: Work) -> None:
            await asyncio.sleep(1)
            raise OSError

    async with ActorSystem(supervision=AT_ONCE) as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Sore)
        ref.tell(Work(0.0))
        await turns()
        ref.stop()
        assert (await ref.terminated()).reason is ExitReason.STOPPED
        assert [type(one.error) for one in failures] == [OSError]


# Watching: G8.


class Watcher(Actor):
    def __init__(self, *targets: ActorRef[Any]) -> None:
        self.targets = targets
        self.seen: list[Any] = []

    def started(self) -> None:
        for target in self.targets:
            self.context.watch(target)

    @handles(Terminated)
    def terminated(self, message: Terminated) -> None:
        self.seen.append(message)

    @handles(Do)
    def do(self, message: Do) -> None:
        self.seen.append(message.what)
        if message.what == "crash":
            raise RuntimeError

    @handles(Ping)
    def ping(self, message: Ping) -> str:
        return "pong"


@pytest.mark.parametrize("how", ["stop", "kill", "crash"])
async def test_a_watcher_is_told_exactly_once(how: str):
    """G8: also if it watches twice."""
    async with ActorSystem() as system:
        target = system.spawn(variant(Life), restart=Restart.TEMPORARY)
        watcher = Watcher(target, target)
        system.spawn(lambda: watcher)
        await turns()
        target.tell(Do("crash")) if how == "crash" else getattr(target, how)()
        exit_ = await target.terminated()
        await turns()
        assert watcher.seen == [Terminated(target, exit_)]


async def test_who_watches_too_late_is_told_too():
    """G8."""
    async with ActorSystem() as system:
        target = system.spawn(Actor)
        target.stop()
        exit_ = await target.terminated()
        watcher = Watcher(target)
        system.spawn(lambda: watcher)
        await turns()
        assert watcher.seen == [Terminated(target, exit_)]


async def test_a_restart_is_no_end():
    """G7, G8."""
    async with ActorSystem(supervision=AT_ONCE) as system:
        target = system.spawn(variant(Life))
        watcher = Watcher(target)
        system.spawn(lambda: watcher)
        await turns()
        target.tell(Do("crash"))
        await target.ask(Ping(), timeout=1.0)
        assert watcher.seen == []
        target.stop()
        exit_ = await target.terminated()
        await turns()
        assert watcher.seen == [Terminated(target, exit_)]


async def test_a_watch_belongs_to_the_instance_and_a_fresh_one_watches_again():
    """G7, G8."""
    watchers: list[Watcher] = []
    async with ActorSystem(supervision=AT_ONCE) as system:
        target = system.spawn(Actor)

        def make() -> Watcher:
            watchers.append(Watcher(*[] if len(watchers) == 1 else [target]))
            return watchers[-1]

        ref = system.spawn(make)
        ref.tell(Do("crash"))
        await ref.ask(Ping(), timeout=1.0)
        target.stop()
        await target.terminated()
        await turns()
        assert [one.seen for one in watchers] == [["crash"], []], "the second did not watch"


async def test_terminated_comes_after_the_last_message_of_the_ended_actor_and_finds_room():
    """G2, G8: a full mailbox takes it all the same."""
    async with ActorSystem() as system:
        watcher = Watcher()
        ref = system.spawn(lambda: watcher, mailbox=Mailbox(capacity=1, overflow=Overflow.DROP_OLDEST))

        class Speaker(Actor):
            def started(self) -> None:
                ref.tell(Do("last words"))
                self.context.stop()

        await turns()
        target = system.spawn(Speaker)
        ref.recipient.watch(target)
        exit_ = await target.terminated()
        await turns()
        assert watcher.seen == ["last words", Terminated(target, exit_)]


async def test_terminated_is_not_dropped_as_the_oldest(recorded):
    """G8: exactly once means not zero times."""
    async with ActorSystem() as system:
        watcher = Watcher()
        ref = system.spawn(lambda: watcher, mailbox=Mailbox(capacity=1, overflow=Overflow.DROP_OLDEST))
        target = system.spawn(Actor)
        await turns()
        ref.recipient.watch(target)
        letters = recorded(system)
        target.kill()
        ref.tell(Do("a"))
        await turns()
        assert [type(one) for one in watcher.seen] == [Terminated]
        assert [(one.message, one.reason) for one in letters] == [(Do("a"), DeadReason.FULL)]


async def test_unwatch_undoes_watch():
    async with ActorSystem() as system:
        target, watcher = system.spawn(Actor), Watcher()
        ref = system.spawn(lambda: watcher)
        await turns()
        ref.recipient.watch(target)
        ref.recipient.unwatch(target)
        target.stop()
        await target.terminated()
        await turns()
        assert watcher.seen == []


# Names and paths.


async def test_actors_have_names_and_paths_and_a_name_is_free_again_after_the_end():
    class Parent(Actor):
        @handles(Ping)
        def ping(self, message: Ping) -> str:
            child = self.context.spawn(Actor, name="child")
            assert self.context.parent is None
            assert child.recipient.parent is self.context.ref
            return child.path

    async with ActorSystem("s") as system:
        ref = system.spawn(Parent, name="parent")
        assert await ref.ask(Ping(), timeout=1.0) == "s/parent/child"
        with pytest.raises(ActorCrashed, match="NameTaken: s/parent/child is already running"):
            await ref.ask(Ping(), timeout=1.0)
        with pytest.raises(NameTaken):
            system.spawn(Actor, name="parent")
        ref.stop()
        await ref.terminated()
        system.spawn(Actor, name="parent")


async def test_a_name_that_is_made_up_is_never_one_that_is_taken(leftovers):
    """G9: the first would be forgotten, and never stopped."""
    async with ActorSystem() as system:
        refs = [system.spawn(Actor, name="actor-1"), system.spawn(Actor)]
        assert [one.path for one in refs] == ["system/actor-1", "system/actor-2"]
        assert list(system.children.values()) == refs
    assert ["ended" in repr(one) for one in refs] == [True, True]
    assert leftovers() == []


@pytest.mark.parametrize("name", ["", "a/b"])
async def test_a_name_must_be_usable_in_a_path(name: str):
    async with ActorSystem() as system:
        with pytest.raises(ValueError, match="must not be empty or contain"):
            system.spawn(Actor, name=name)


async def test_what_spawn_cannot_use_is_refused_to_the_caller():
    async with ActorSystem() as system:
        with pytest.raises(TypeError, match="made 'no actor'"):
            system.spawn(lambda: "no actor")  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError):
            system.spawn(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(ValueError, match=r"stop_timeout must be > 0 seconds, got 0"):
            system.spawn(Actor, stop_timeout=0)
        with pytest.raises(TypeError, match=r"a function that makes one, got <.*Actor"):
            system.spawn(Actor())  # type: ignore[arg-type]
        for options, refusal in (
            ({"name": 3}, "an actor's name must be a str, got 3"),
            ({"mailbox": 3}, r"mailbox must be a Mailbox, such as Mailbox\(capacity=100\), got 3"),
            ({"restart": "always"}, "restart must be a Restart, got 'always'"),
        ):
            with pytest.raises(TypeError, match=refusal):
                system.spawn(Actor, **options)
        assert system.children == {}


async def test_a_factory_that_spawns_one_of_its_own_name_is_refused_its_own():
    async with ActorSystem() as system:

        def make() -> Actor:
            system.spawn(Actor, name="x")
            return Actor()

        with pytest.raises(NameTaken, match="system/x"):
            system.spawn(make, name="x")
        assert list(system.children) == ["x"]


async def test_an_actor_that_ends_cannot_spawn():
    """G9."""

    class Late(Actor):
        def stopped(self) -> None:
            self.context.spawn(Actor)

    async with ActorSystem() as system:
        failures: list[Any] = []
        system.events.subscribe(ActorFailed, failures.append)
        system.spawn(Late)
    assert [type(one.error) for one in failures] == [ActorStopped]


async def test_a_ref_shows_the_state_of_its_actor():
    async with ActorSystem("s", supervision=AT_ONCE) as system:
        ref = system.spawn(variant(Life), name="a")
        assert repr(ref) == "<ActorRef s/a starting>"
        ref.tell(Do("crash"))
        await ref.ask(Ping(), timeout=1.0)
        ref.tell(Do("x"))
        assert repr(ref) == "<ActorRef s/a running, 1 waiting, 1 restarts>"
        ref.stop()
        await turns()
        assert repr(ref) == "<ActorRef s/a ended, 1 restarts, stopped>"
