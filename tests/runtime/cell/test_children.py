"""A supervisor restarts one, all or the rest, in order, within limits, and otherwise escalates: G7."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorEnded,
    ActorFailed,
    ActorRef,
    ActorRestarted,
    ActorSystem,
    Backoff,
    Directive,
    ExitReason,
    Message,
    Request,
    Restart,
    RestartIntensity,
    Strategy,
    Supervision,
    Terminated,
    handles,
)


class Do(Message):
    what: str


class Ping(Request[int]):
    """Answered with the number of the instance, from 1."""


class Spawn(Message):
    name: str
    restart: Restart = Restart.TRANSIENT


class Member(Actor):
    """Writes its starts and stops into the log of its group; its hooks and handlers take as long as they are told."""

    def __init__(self, name: str, log: list[str], stop_for: float = 0.0) -> None:
        self.name = name
        self.log = log
        self.stop_for = stop_for

    def started(self) -> None:
        self.log.append(f"+{self.name}")

    async def stopped(self) -> None:
        await asyncio.sleep(self.stop_for)
        self.log.append(f"-{self.name}")

    @handles(Do)
    def do(self, message: Do) -> None:
        if message.what == "stop":
            self.context.stop()
        else:
            raise RuntimeError(f"{self.name}: {message.what}")

    @handles(Ping)
    def ping(self, message: Ping) -> int:
        return self.log.count(f"+{self.name}")


def supervision(strategy: Strategy, **options: Any) -> Supervision:
    return Supervision(strategy=strategy, **{"backoff": IMMEDIATELY, **options})


def group(system: ActorSystem, names: str, log: list[str], **options: Any) -> dict[str, ActorRef[Any]]:
    return {name: system.spawn(lambda name=name: Member(name, log), name=name, **options) for name in names}


async def settle(members: dict[str, ActorRef[Any]]) -> dict[str, int]:
    """Return which instance of each member is at work."""
    await asyncio.sleep(0.5)
    return {name: await ref.ask(Ping(), timeout=60.0) for name, ref in members.items()}


@pytest.mark.parametrize(
    ("strategy", "log"),
    [
        (Strategy.ONE_FOR_ONE, "+a +b +c +d -b +b"),
        (Strategy.ONE_FOR_ALL, "+a +b +c +d -b -d -c -a +a +b +c +d"),
        (Strategy.REST_FOR_ONE, "+a +b +c +d -b -d -c +b +c +d"),
    ],
)
@pytest.mark.parametrize("backoff", [IMMEDIATELY, Backoff(initial=2.0, jitter=0.0)])
async def test_the_group_stops_in_reverse_start_order_and_starts_in_start_order(
    strategy: Strategy, log: str, backoff: Backoff
):
    """G7: also after a wait, when all of them are due together."""
    events: list[str] = []
    async with ActorSystem(supervision=supervision(strategy, backoff=backoff)) as system:
        members = group(system, "abcd", events)
        await settle(members)
        members["b"].tell(Do("crash"))
        await settle(members)
        assert " ".join(events) == log


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_a_temporary_member_of_the_group_stops_for_good(strategy: Strategy):
    """G7: never restarted, not even with the others."""
    log: list[str] = []
    async with ActorSystem(supervision=supervision(strategy)) as system:
        members = group(system, "a", log) | group(system, "t", log, restart=Restart.TEMPORARY) | group(system, "c", log)
        await settle(members)
        members["a"].tell(Do("crash"))
        assert (await members.pop("t").terminated()).reason is ExitReason.STOPPED
        assert await settle(members) == {"a": 2, "c": 2}
        assert list(system.children) == ["a", "c"]


class Replacing(Actor):
    """Replaces its temporary child `t` as soon as that has ended, which it does while `stop_for` seconds go by."""

    def __init__(self, strategy: Strategy, log: list[str], *, delay: float, stop_for: float) -> None:
        self.supervision = supervision(strategy, backoff=Backoff(initial=delay, cap=delay))  # type: ignore[misc]
        self.log = log
        self.stop_for = stop_for

    def started(self) -> None:
        for name in "ab":
            self.context.spawn(lambda name=name: Member(name, self.log, self.stop_for), name=name)
        self.replace()

    def replace(self) -> None:
        assert len(self.log) < 100, "it is replaced for ever"
        ref = self.context.spawn(lambda: Member("t", self.log), name="t", restart=Restart.TEMPORARY)
        self.context.watch(ref)

    @handles(Terminated)
    def at_end(self, message: Terminated) -> None:
        self.replace()

    @handles(Do)
    def do(self, message: Do) -> None:
        self.context.children[message.what].tell(Do("crash"))


@pytest.mark.parametrize("delay", [0.0, 3.0])
@pytest.mark.parametrize("stop_for", [0.0, 1.0])
@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
async def test_a_group_restart_ends_although_a_parent_replaces_what_it_ended(
    strategy: Strategy, stop_for: float, delay: float
):
    """G7."""
    log: list[str] = []
    async with ActorSystem() as system:
        parent = system.spawn(lambda: Replacing(strategy, log, delay=delay, stop_for=stop_for), name="p")
        await asyncio.sleep(0.1)
        parent.tell(Do("a"))
        await asyncio.sleep(20.0)
        assert [log.count(f"+{name}") for name in "abt"] == [2, 2, 2]
        assert [log.count(f"-{name}") for name in "abt"] == [1, 1, 1]
        parent.tell(Do("b"))
        await asyncio.sleep(20.0)
        assert [log.count(f"+{name}") - log.count(f"-{name}") for name in "abt"] == [1, 1, 1]


async def test_a_second_crash_while_the_group_stops_restarts_the_group_once():
    """G7."""
    log: list[str] = []
    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ALL)) as system:
        members = {n: system.spawn(lambda n=n: Member(n, log, stop_for=1.0), name=n) for n in "abc"}
        await settle(members)
        for member in "bca":
            members[member].tell(Do("crash"))
        await asyncio.sleep(5)
        assert await settle(members) == {"a": 2, "b": 2, "c": 2}
        assert log[-3:] == ["+a", "+b", "+c"]


async def test_a_crash_of_an_earlier_one_meanwhile_takes_along_those_that_depend_on_it():
    """G7: `d` fails; while it stops, so does `b`; then `c`, which started after `b`, restarts too."""
    log: list[str] = []
    async with ActorSystem(supervision=supervision(Strategy.REST_FOR_ONE)) as system:
        members = {n: system.spawn(lambda n=n: Member(n, log, stop_for=n != "b"), name=n) for n in "abcde"}
        await settle(members)
        members["d"].tell(Do("crash"))
        await asyncio.sleep(1.5)
        members["b"].tell(Do("crash"))
        await asyncio.sleep(9)
        assert await settle(members) == {"a": 1, "b": 2, "c": 2, "d": 2, "e": 2}
        assert " ".join(log) == "+a +b +c +d +e -d -b -e -c +b +c +d +e"


async def test_one_that_is_added_while_the_group_stops_is_the_next_to_stop():
    """G7: the last started first."""
    log: list[str] = []
    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ALL)) as system:
        members = {n: system.spawn(lambda n=n: Member(n, log, stop_for=1.0), name=n) for n in "abc"}
        await settle(members)
        members["b"].tell(Do("crash"))
        await asyncio.sleep(1.5)
        members |= group(system, "d", log)
        await asyncio.sleep(9)
        assert await settle(members) == {"a": 2, "b": 2, "c": 2, "d": 2}
        assert " ".join(log) == "+a +b +c -b +d -c -d -a +a +b +c +d"


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("member", "abc")
async def test_one_that_is_ended_while_the_group_restarts_stays_ended(end: str, member: str):
    """G7, G8: before, while and after it is paused."""
    log: list[str] = []
    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ALL)) as system:
        members = {n: system.spawn(lambda n=n: Member(n, log, stop_for=1.0), name=n) for n in "abc"}
        await settle(members)
        members["b"].tell(Do("crash"))
        await asyncio.sleep(1.5)
        getattr(members[member], end)()
        reason = ExitReason.STOPPED if end == "stop" else ExitReason.KILLED
        assert (await members.pop(member).terminated()).reason is reason
        await asyncio.sleep(5)
        assert set((await settle(members)).values()) == {2}
        assert log.count(f"+{member}") == 1


async def test_leaving_the_system_while_a_group_restarts_ends_it_all(leftovers):
    """G7, G9."""
    log: list[str] = []
    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ALL, backoff=Backoff(initial=9.0))) as system:
        members = {n: system.spawn(lambda n=n: Member(n, log, stop_for=1.0), name=n) for n in "abc"}
        await settle(members)
        members["b"].tell(Do("crash"))
        await asyncio.sleep(2.2)
    assert leftovers() == []
    assert sorted(log[3:]) == ["-a", "-b", "-c"]


async def test_a_pause_lets_the_current_message_end_and_a_self_stop_in_it_is_final():
    """G7."""

    class Busy(Actor):
        @handles(Do)
        async def do(self, message: Do) -> None:
            await asyncio.sleep(2)
            self.context.stop()

    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ALL)) as system:
        members = group(system, "ab", [])
        busy = system.spawn(Busy)
        busy.tell(Do("it"))
        await asyncio.sleep(1)
        members["a"].tell(Do("crash"))
        assert (await busy.terminated()).reason is ExitReason.STOPPED
        assert asyncio.get_running_loop().time() == 2.0
        assert await settle(members) == {"a": 2, "b": 2}


# Directives, intensity, escalation.


async def test_decide_chooses_by_the_error(recorded):
    """G7."""

    def decide(error: Exception) -> Directive:
        return Directive.STOP if "stop" in str(error) else Directive.RESTART

    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ONE, decide=decide)) as system:
        ends = recorded(system, ActorEnded)
        members = group(system, "ab", [])
        members["a"].tell(Do("crash"))
        members["b"].tell(Do("stop it"))
        exit_ = await members.pop("b").terminated()
        assert (exit_.reason, str(exit_.error)) == (ExitReason.CRASHED, "b: stop it")
        assert await settle(members) == {"a": 2}
        assert len(ends) == 1


@pytest.mark.parametrize("directive", [Directive.ESCALATE, None])
async def test_a_supervisor_that_escalates_or_cannot_decide_fails_itself(directive: Directive | None):
    """G7, G3: an error in `decide` neither hides nor hangs anything."""

    def decide(error: Exception) -> Directive:
        if directive is None:
            raise LookupError("undecided") from error
        return directive

    async def run() -> None:
        async with ActorSystem("s", supervision=supervision(Strategy.ONE_FOR_ONE, decide=decide)) as system:
            group(system, "a", [])["a"].tell(Do("crash"))
            await asyncio.sleep(3600)

    with pytest.raises(RuntimeError if directive else LookupError) as failure:
        await run()
    assert failure.value.__notes__ == ["not handled by any supervisor of system 's'"]


class Boss(Actor):
    """A supervisor of one member, or of a boss below it."""

    def __init__(self, levels: int, log: list[str]) -> None:
        self.levels = levels
        self.log = log

    supervision = supervision(Strategy.ONE_FOR_ONE, intensity=RestartIntensity(max_restarts=2, within=60.0))

    def started(self) -> None:
        self.log.append(f"+boss{self.levels}")
        if self.levels > 1:
            self.context.spawn(lambda: Boss(self.levels - 1, self.log), name="boss")
        else:
            self.context.spawn(lambda: Member("m", self.log), name="member")


async def test_a_failure_beyond_the_intensity_climbs_level_by_level_and_ends_the_system(recorded):
    """G3, G7: each level has its own, fresh tolerance; what leaves `async with` is the exception itself."""
    log: list[str] = []
    failures: list[Any] = []

    async def run() -> None:
        tolerance = supervision(Strategy.ONE_FOR_ONE, intensity=RestartIntensity(max_restarts=2, within=60.0))
        async with ActorSystem("s", supervision=tolerance) as system:
            failures.extend([recorded(system, ActorFailed)])
            top = system.spawn(lambda: Boss(2, log), name="boss")
            while True:
                await asyncio.sleep(0.1)
                boss = top.recipient.children["boss"]
                boss.recipient.children["member"].tell(Do("crash"))

    with pytest.raises(RuntimeError, match="m: crash") as failure:
        await run()
    # Two restarts are tolerated at each of three levels; the crash after them climbs: 3 x 3 x 3.
    assert log.count("+m") == 27
    assert log.count("+boss1") == 9
    assert log.count("+boss2") == 3
    assert failure.value.__notes__ == [
        "escalated to s/boss/boss",
        "escalated to s/boss",
        "not handled by any supervisor of system 's'",
    ]
    assert failures[0][-1].error is failure.value


async def test_the_intensity_forgets_restarts_that_are_long_past(recorded):
    """G7."""
    tolerance = supervision(Strategy.ONE_FOR_ONE, intensity=RestartIntensity(max_restarts=1, within=5.0))
    async with ActorSystem(supervision=tolerance) as system:
        restarts = recorded(system, ActorRestarted)
        members = group(system, "a", [])
        for _ in range(4):
            members["a"].tell(Do("crash"))
            await asyncio.sleep(6)
        assert len(restarts) == 4


async def test_the_wait_grows_from_crash_to_crash_and_is_forgotten_after_a_quiet_spell(recorded):
    """G7."""
    backoff = Backoff(initial=1.0, cap=4.0, jitter=0.0, reset_after=10.0)
    patient = supervision(Strategy.ONE_FOR_ONE, backoff=backoff, intensity=RestartIntensity(max_restarts=99))
    async with ActorSystem(supervision=patient) as system:
        restarts = recorded(system, ActorRestarted)
        members = group(system, "a", [])
        waits: list[float] = []
        for quiet in (0.0, 0.0, 0.0, 9.0, 11.0):
            await asyncio.sleep(quiet)
            before = asyncio.get_running_loop().time()
            members["a"].tell(Do("crash"))
            await members["a"].ask(Ping(), timeout=60.0)
            waits.append(asyncio.get_running_loop().time() - before)
        assert waits == [1.0, 2.0, 4.0, 4.0, 1.0]
        assert [one.attempt for one in restarts] == [1, 2, 3, 4, 1]


async def test_a_wait_is_no_quiet_spell(recorded):
    """G7: with waits as long as `reset_after`, the attempts still add up."""
    backoff = Backoff(initial=20.0, cap=80.0, jitter=0.0, reset_after=10.0)
    async with ActorSystem(supervision=supervision(Strategy.ONE_FOR_ONE, backoff=backoff)) as system:
        restarts = recorded(system, ActorRestarted)
        members = group(system, "a", [])
        for _ in range(3):
            members["a"].tell(Do("crash"))
            await members["a"].ask(Ping(), timeout=600.0)
        assert [one.attempt for one in restarts] == [1, 2, 3]


async def test_children_end_in_reverse_start_order_each_before_its_parent():
    """G8."""
    log: list[str] = []

    class Parent(Member):
        def started(self) -> None:
            super().started()
            for name in "xy":
                self.context.spawn(lambda name=name: Member(name, log, stop_for=1.0), name=name)

    async with ActorSystem() as system:
        for name in "ab":
            system.spawn(lambda name=name: Parent(name, log), name=name)
        await asyncio.sleep(1)
    assert " ".join(log) == "+a +b +x +y +x +y -y -x -b -y -x -a"


async def test_killing_a_parent_kills_its_children_at_once():
    """G8."""
    exits: list[ExitReason] = []

    class Endless(Actor):
        @handles(Do)
        async def do(self, message: Do) -> None:
            await asyncio.sleep(3600)

    class Parent(Actor):
        def started(self) -> None:
            for _ in range(3):
                self.context.spawn(Endless).tell(Do("it"))

    async with ActorSystem() as system:
        system.events.subscribe(ActorEnded, lambda one: exits.append(one.exit.reason))
        parent = system.spawn(Parent)
        await asyncio.sleep(1)
        parent.kill()
        await parent.terminated()
        assert exits == [ExitReason.KILLED] * 4
        assert asyncio.get_running_loop().time() == 1.0


async def test_a_kill_reaches_the_children_although_their_parent_takes_its_time_to_end():
    """G8."""
    ended: dict[str, float] = {}

    class Tidy(Actor):
        @handles(Do)
        async def do(self, message: Do) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                if message.what == "slowly":
                    await asyncio.sleep(2.0)
                ended[self.context.path] = self.context.now()

    class Parent(Tidy):
        def started(self) -> None:
            self.context.spawn(Tidy, name="child").tell(Do("at once"))

    async with ActorSystem("s") as system:
        parent = system.spawn(Parent, name="parent")
        parent.tell(Do("slowly"))
        await asyncio.sleep(1.0)
        parent.kill()
        await parent.terminated()
    assert ended == {"s/parent/child": 1.0, "s/parent": 3.0}


async def test_a_child_that_ends_late_leaves_the_new_child_of_its_name_to_its_parent():
    """G8, G9: an end that is cancelled from outside does not wait for the children."""

    class Lingering(Actor):
        async def stopped(self) -> None:
            await asyncio.sleep(2)

    class Parent(Actor):
        def started(self) -> None:
            self.context.spawn(Lingering, name="child")

        @handles(Do)
        def do(self, message: Do) -> None:
            raise RuntimeError(message.what)

    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY), log=False) as system:
        parent = system.spawn(Parent, name="parent")
        await asyncio.sleep(1)
        old = parent.recipient.children["child"]
        parent.tell(Do("crash"))
        await asyncio.sleep(1)
        (ending,) = [task for task in asyncio.all_tasks() if task.get_name() == "parent ends"]
        ending.cancel()
        await asyncio.sleep(0.5)
        new = parent.recipient.children["child"]
        assert new is not old
        await old.terminated()
        assert parent.recipient.children == {"child": new}
    assert "ended" in repr(new)
