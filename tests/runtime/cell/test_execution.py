"""One message at a time, answers that reach their asker or come back, crashes that reach both: G1, G5, G6, G12."""

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
    ActorStopped,
    ActorSystem,
    AskTimeout,
    CancellationIgnored,
    DeadLetter,
    DeadReason,
    ExitReason,
    Mailbox,
    MailboxFull,
    Message,
    Overflow,
    Refusal,
    Request,
    Reroute,
    Restart,
    Supervision,
    Unhandled,
    handles,
)
from runtime.engine import ANSWERS_PER_TURN, PUMPS_PER_TURN

AT_ONCE = Supervision(backoff=IMMEDIATELY)


class Note(Message):
    text: str = ""


class Boom(Message):
    pass


class Get(Request[str]):
    text: str = ""
    seconds: float = 0.0


class Lease(Request[int]):
    """Ask for something that must come back if no asker takes it."""

    seconds: float = 0.0


class No(Refusal):
    pass


IN_ONE_TURN = ANSWERS_PER_TURN + PUMPS_PER_TURN
"""The asks of one turn that are answered without waiting for the next."""


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Journal(Actor):
    """Writes down what happens to it; each test adds the handlers it is about."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @handles(Note)
    def note(self, message: Note) -> None:
        self.log.append(message.text)

    @handles(Boom)
    def boom(self, message: Boom) -> None:
        raise RuntimeError("boom")


class Slow(Journal):
    """Its handler takes as long as the request says."""

    @handles(Get)
    async def get(self, message: Get) -> str:
        self.log.append(f"begins {message.text}")
        try:
            await asyncio.sleep(message.seconds)
        except asyncio.CancelledError:
            self.log.append(f"cancelled {message.text}")
            raise
        self.log.append(f"ends {message.text}")
        return message.text


class Wide(Journal):
    """As `Slow`, for two at a time."""

    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> str:
        return await Slow.get(self, message)  # type: ignore[arg-type]


class Later(Journal):
    """Answers from outside of its handler."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[asyncio.Future[str]] = []

    @handles(Get)
    def get(self, message: Get) -> asyncio.Future[str]:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        if message.seconds:
            asyncio.get_running_loop().call_later(message.seconds, lambda: answer.done() or answer.set_result("late"))
        return answer


def spawn(system: ActorSystem, actor: Any, **options: Any) -> tuple[Any, ActorRef[Any]]:
    """Spawn this very instance, for the test to look at; a restart makes another one of its class."""
    instances = iter([actor])
    return actor, system.spawn(lambda: next(instances, None) or type(actor)(), **options)


# One at a time: G1.


async def test_an_async_handler_holds_the_next_message_until_it_returns():
    """G1, G2."""
    async with ActorSystem() as system:
        actor, ref = spawn(system, Slow())
        answers = asyncio.gather(*(ref.ask(Get(text, seconds=1.0), timeout=9.0) for text in "ab"))
        await turns()
        ref.tell(Note("c"))
        assert await answers == ["a", "b"]
        await ref.ask(Get("d"), timeout=1.0)
        assert actor.log == ["begins a", "ends a", "begins b", "ends b", "c", "begins d", "ends d"]


async def test_a_concurrent_handler_runs_as_many_as_it_declares_and_others_go_on():
    """G1."""
    async with ActorSystem() as system:
        actor, ref = spawn(system, Wide())
        answers = asyncio.gather(*(ref.ask(Get(text, seconds=1.0), timeout=9.0) for text in "abc"))
        await turns()
        ref.tell(Note("between"))
        await turns()
        assert actor.log == ["begins a", "begins b", "between"]
        assert await answers == ["a", "b", "c"]
        assert asyncio.get_running_loop().time() == 2.0


async def test_mail_that_waits_for_a_concurrent_handler_still_counts_against_the_mailbox():
    """G4: the bound holds for what is parked beside the queue, too."""
    async with ActorSystem() as system:
        _, ref = spawn(system, Wide(), mailbox=Mailbox(capacity=3))
        asks = [asyncio.create_task(ref.ask(Get(str(n), seconds=1.0), timeout=99.0)) for n in range(20)]
        await turns()
        with pytest.raises(MailboxFull):
            ref.tell(Note())
        assert await asyncio.gather(*asks) == [str(n) for n in range(20)]
        assert asyncio.get_running_loop().time() == 10.0
        ref.tell(Note())


async def test_mail_parked_the_longest_is_the_oldest_to_be_dropped(recorded):
    """G4."""
    async with ActorSystem() as system:
        letters = recorded(system)
        actor, ref = spawn(system, Wide(), mailbox=Mailbox(capacity=2, overflow=Overflow.DROP_OLDEST))
        for text in "abcd":
            ref.tell(Get(text, seconds=1.0))
            await turns(2)
        ref.tell(Note("new"))
        assert [(one.message.text, one.reason) for one in letters] == [("c", DeadReason.FULL)]
        await asyncio.sleep(5)
        assert actor.log == ["begins a", "begins b", "new", "ends a", "ends b", "begins d", "ends d"]


# Answers: G5, G6, G12.


async def test_a_refusal_is_an_answer_and_the_actor_lives_on(recorded):
    """G6."""

    class Refusing(Journal):
        @handles(Get)
        def get(self, message: Get) -> str:
            raise No(message.text)

    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        actor, ref = spawn(system, Refusing())
        with pytest.raises(No, match="today"):
            await ref.ask(Get("today"), timeout=1.0)
        ref.tell(Note("alive"))
        await turns()
        assert (actor.log, failures) == (["alive"], [])


@pytest.mark.parametrize("concurrent", [1, 2])
async def test_a_refusal_of_a_told_message_is_a_dead_letter(concurrent: int, recorded):
    """G3, G6."""

    class Refusing(Actor):
        @handles(Note, concurrent=concurrent)
        async def note(self, message: Note) -> None:
            raise No

    async with ActorSystem() as system:
        letters, failures = recorded(system), recorded(system, ActorFailed)
        system.spawn(Refusing).tell(Note("x"))
        await turns()
        assert [(one.message, one.reason) for one in letters] == [(Note("x"), DeadReason.REFUSED)]
        assert failures == []


class Crashing(Journal):
    @handles(Get)
    def get(self, message: Get) -> str:
        raise KeyError(message.text)


class CrashingInTask(Journal):
    @handles(Get)
    async def get(self, message: Get) -> str:
        await asyncio.sleep(1)
        raise KeyError(message.text)


class CrashingInLane(Journal):
    @handles(Get, concurrent=3)
    async def get(self, message: Get) -> str:
        await asyncio.sleep(1)
        raise KeyError(message.text)


class CrashingLater(Journal):
    @handles(Get)
    def get(self, message: Get) -> asyncio.Future[str]:
        return asyncio.ensure_future(CrashingInTask.get(self, message))  # type: ignore[arg-type]


@pytest.mark.parametrize("actor", [Crashing, CrashingInTask, CrashingInLane])
async def test_a_crash_reaches_the_asker_and_the_supervisor(actor: type[Journal], recorded):
    """G6: the event tells the request, not the envelope it came in."""
    async with ActorSystem("s") as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(actor, name="a", restart=Restart.TEMPORARY)
        with pytest.raises(ActorCrashed, match=r"s/a ended while handling Get: KeyError: 'x'") as crashed:
            await ref.ask(Get("x"), timeout=9.0)
        assert isinstance(crashed.value.__cause__, KeyError)
        exit_ = await ref.terminated()
        assert (exit_.reason, exit_.error) == (ExitReason.CRASHED, crashed.value.__cause__)
        assert [(one.ref, one.error, one.message) for one in failures] == [(ref, exit_.error, Get("x"))]


async def test_the_exception_of_a_future_reaches_the_asker_and_the_actor_lives_on(recorded):
    """G6: what is answered later is not the actor's own step."""
    async with ActorSystem("s") as system:
        failures = recorded(system, ActorFailed)
        actor, ref = spawn(system, CrashingLater())
        with pytest.raises(ActorCrashed, match="KeyError: 'x'"):
            await ref.ask(Get("x"), timeout=9.0)
        ref.tell(Note("alive"))
        await turns()
        assert (actor.log, failures) == (["alive"], [])


async def test_the_exception_of_a_future_whose_asker_gave_up_is_an_event(recorded):
    """G3, G6: no asker would hear of it."""

    class Untidy(Journal):
        async def work(self) -> str:
            try:
                await asyncio.sleep(9)
            finally:
                raise OSError("cleanup")

        @handles(Get)
        def get(self, message: Get) -> asyncio.Future[str]:
            return asyncio.ensure_future(self.work())

    async with ActorSystem("s") as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Untidy)
        with pytest.raises(AskTimeout):
            await ref.ask(Get("x"), timeout=1.0)
        await turns()
        assert [(one.ref, str(one.error), one.message) for one in failures] == [(ref, "cleanup", Get("x"))]


async def test_the_asker_of_a_request_without_a_handler_is_told(recorded):
    """G3."""
    async with ActorSystem("s") as system:
        letters = recorded(system)
        ref = system.spawn(Slow, name="a")
        with pytest.raises(Unhandled, match=r"s/a has no handler for Lease; it handles Boom, Get, Note") as unhandled:
            await ref.ask(Lease(), timeout=1.0)
        assert unhandled.value.handled == ["Boom", "Get", "Note"]
        assert [one.reason for one in letters] == [DeadReason.UNHANDLED]


async def test_an_answer_that_cannot_be_one_is_a_crash_of_which_the_asker_hears_at_once():
    """G6: an async helper called without await, in each kind of handler."""

    async def helper() -> str:
        return "never awaited"

    class Forgetful(Actor):
        @handles(Get)
        def get(self, message: Get) -> Any:
            return helper()

    class ForgetfulInTask(Actor):
        @handles(Get)
        async def get(self, message: Get) -> Any:
            return helper()

    class ForgetfulInLane(Actor):
        @handles(Get, concurrent=2)
        async def get(self, message: Get) -> Any:
            return helper()

    async with ActorSystem() as system:
        for actor in (Forgetful, ForgetfulInTask, ForgetfulInLane):
            ref = system.spawn(actor, restart=Restart.TEMPORARY)
            with pytest.raises(ActorCrashed, match="cannot be an answer"):
                await ref.ask(Get(), timeout=9.0)
            await ref.terminated()
        assert asyncio.get_running_loop().time() == 0.0


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_handler_of_what_is_told_that_returns_something_has_crashed(is_async: bool, recorded):  # noqa: FBT001
    """G6: a handler that returns an answer takes the message for a request."""

    class Chatty(Actor):
        @handles(Boom)
        def boom(self, message: Boom) -> Any:
            return 5

    class ChattyInTask(Actor):
        @handles(Boom)
        async def boom(self, message: Boom) -> Any:
            return 5

    async with ActorSystem(log=False) as system:
        failures = recorded(system, ActorFailed)
        system.spawn(ChattyInTask if is_async else Chatty, restart=Restart.TEMPORARY).tell(Boom())
        await asyncio.sleep(1)
        (failure,) = failures
        assert "cannot be an answer" in str(failure.error)


@pytest.mark.parametrize("actor", [Slow, Wide])
async def test_a_handler_whose_asker_gives_up_is_cancelled_and_the_actor_goes_on(actor: type[Journal], recorded):
    """G5, G12."""
    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        instance, ref = spawn(system, actor())
        with pytest.raises(AskTimeout, match=r"did not answer Get within 2 s"):
            await ref.ask(Get("timed out", seconds=9.0), timeout=2.0)
        asking = asyncio.create_task(ref.ask(Get("given up", seconds=9.0), timeout=20.0))
        await turns()
        asking.cancel()
        await turns()
        assert await ref.ask(Get("next"), timeout=1.0) == "next"
        assert instance.log == [
            *("begins timed out", "cancelled timed out", "begins given up", "cancelled given up"),
            *("begins next", "ends next"),
        ]
        assert failures == []


async def test_a_cancelled_handler_may_still_use_timeouts_and_task_groups_for_the_next_message():
    """G5: the cancellation of an abandoned request leaves no trace in the actor's task."""

    class Scoped(Journal):
        @handles(Get)
        async def get(self, message: Get) -> str:
            try:
                async with asyncio.timeout(message.seconds), asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(3600))
            except TimeoutError:
                return "timed out"
            return "never"

    async with ActorSystem() as system:
        ref = system.spawn(Scoped)
        for _ in range(3):
            with pytest.raises(AskTimeout):
                await ref.ask(Get(seconds=60.0), timeout=1.0)
        assert await ref.ask(Get(seconds=60.0), timeout=90.0) == "timed out"


async def test_a_future_whose_asker_gives_up_is_cancelled():
    """G5, G12."""
    async with ActorSystem() as system:
        actor, ref = spawn(system, Later())
        with pytest.raises(AskTimeout):
            await ref.ask(Get(), timeout=1.0)
        assert actor.answers[0].cancelled()


async def test_a_concurrent_handler_that_has_not_begun_never_does_when_its_asker_gives_up():
    """G5."""

    class Patient(Wide):
        @handles(Lease)
        def lease(self, message: Lease) -> int:
            return 1

    async with ActorSystem() as system:
        actor, ref = spawn(system, Patient())

        async def ask_in_the_next_turn() -> None:
            for _ in range(IN_ONE_TURN):
                await ref.ask(Lease(), timeout=1.0)
            await ref.ask(Get("x"), timeout=1.0)

        asking = asyncio.create_task(ask_in_the_next_turn())
        await asyncio.sleep(0)
        asking.cancel()
        await turns()
        assert asking.cancelled()
        await ref.ask(Get("y"), timeout=1.0)
        assert actor.log == ["begins y", "ends y"]


class Lender(Actor):
    """Lends numbers in each of the four ways, and counts those that came back."""

    def __init__(self) -> None:
        self.lent = 0
        self.back: list[tuple[Any, int]] = []

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        self.back.append((request, answer))

    def lend(self) -> int:
        self.lent += 1
        return self.lent


class SyncLender(Lender):
    @handles(Lease)
    def lease(self, message: Lease) -> int:
        return self.lend()


class StubbornLender(Lender):
    """Answers although it is cancelled."""

    @handles(Lease)
    async def lease(self, message: Lease) -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(message.seconds)
        return self.lend()


class StubbornLaneLender(Lender):
    @handles(Lease, concurrent=2)
    async def lease(self, message: Lease) -> int:
        return await StubbornLender.lease(self, message)  # type: ignore[arg-type]


@pytest.mark.parametrize("actor", [StubbornLender, StubbornLaneLender])
@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_an_answer_that_comes_too_late_goes_back_once(actor: type[Lender], how: str, recorded):
    """G5, G12."""
    async with ActorSystem() as system:
        ignored = recorded(system, CancellationIgnored)
        instance, ref = spawn(system, actor())
        asking = asyncio.create_task(ref.ask(Lease(9.0), timeout=2.0 if how == "timeout" else 99.0))
        await asyncio.sleep(1)
        if how == "cancel":
            asking.cancel()
        with pytest.raises((AskTimeout, asyncio.CancelledError)):
            await asking
        await turns()
        assert instance.back == [(Lease(9.0), 1)]
        assert [one.message for one in ignored] == [Lease(9.0)]


@pytest.mark.parametrize("order", ["answer first", "cancel first"])
async def test_an_answer_given_in_the_turn_in_which_its_asker_is_cancelled_goes_back_once(order: str):
    """G12."""
    async with ActorSystem() as system:
        instance, ref = spawn(system, SyncLender())

        async def ask_until_it_has_to_wait() -> None:
            for _ in range(IN_ONE_TURN + 1):
                await ref.ask(Lease(), timeout=1.0)

        asking = asyncio.create_task(ask_until_it_has_to_wait())
        await asyncio.sleep(0)
        if order == "cancel first":
            asking.cancel()
        else:
            asyncio.get_running_loop().call_soon(asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking
        await turns()
        assert instance.back == [(Lease(), IN_ONE_TURN + 1)]


async def test_a_future_answered_in_the_turn_in_which_its_asker_is_cancelled_goes_back_once():
    """G12: a permit that came back twice would be given to two."""

    class LaterLender(Lender):
        def __init__(self) -> None:
            super().__init__()
            self.waiting: list[asyncio.Future[int]] = []

        @handles(Lease)
        def lease(self, message: Lease) -> asyncio.Future[int]:
            self.waiting.append(asyncio.get_running_loop().create_future())
            return self.waiting[-1]

    for answer_first in (True, False):
        async with ActorSystem() as system:
            instance, ref = spawn(system, LaterLender())
            asking = asyncio.create_task(ref.ask(Lease(), timeout=1.0))
            await turns()
            if answer_first:
                instance.waiting[0].set_result(7)
                asking.cancel()
            else:
                asking.cancel()
                instance.waiting[0].set_result(7)
            with pytest.raises(asyncio.CancelledError):
                await asking
            await turns()
            assert instance.back == [(Lease(), 7)]


async def test_an_answer_that_comes_back_to_an_actor_that_has_ended_is_a_dead_letter(recorded):
    """G3."""
    async with ActorSystem() as system:
        letters = recorded(system)
        instance, ref = spawn(system, StubbornLaneLender(), stop_timeout=1.0)
        asking = asyncio.create_task(ref.ask(Lease(9.0), timeout=5.0))
        await turns()
        ref.stop()
        asking.cancel()
        await ref.terminated()
        assert (instance.lent, instance.back) == (1, [])
        assert [one.reason for one in letters] == [DeadReason.STOPPED]
        assert (letters[0].message.request, letters[0].message.answer) == (Lease(9.0), 1)


@pytest.mark.parametrize("actor", [SyncLender, StubbornLender, StubbornLaneLender])
async def test_a_request_that_is_told_is_handled_and_its_answer_goes_back(actor: type[Lender], recorded):
    """G12: the sender's mistake must not crash the actor, nor lose what it lends."""
    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        instance, ref = spawn(system, actor())
        ref.tell(Lease())
        await asyncio.sleep(1)
        assert instance.back == [(Lease(), 1)]
        assert failures == []


async def test_a_future_for_a_request_that_was_told_runs_to_its_end():
    """G5: no asker can give up. G9: its actor's end cancels it, as it cancels a handler."""
    async with ActorSystem() as system:
        actor, ref = spawn(system, Later())
        ref.tell(Get())
        ref.tell(Get())
        await turns()
        first, second = actor.answers
        await asyncio.sleep(3600.0)
        assert not first.done()
        first.set_result("late")
        await turns()
        ref.stop()
        await ref.terminated()
        assert second.cancelled()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_crash_shows_no_error_of_the_runtime_above_its_own(is_async: bool):  # noqa: FBT001
    """G6: what the author of an actor reads is their own traceback."""

    class Failing(Lender):
        @handles(Lease)
        def lease(self, message: Lease) -> int:
            raise OSError("own")

    class FailingAsync(Failing):
        @handles(Get)
        async def get(self, message: Get) -> str:
            return ""

    async with ActorSystem(log=False) as system:
        ref = system.spawn(FailingAsync if is_async else Failing)
        ref.tell(Get())  # It is at work, so that the request goes through the mailbox.
        asked = ref.ask(Lease(0.0), timeout=1.0)
        with pytest.raises(ActorCrashed) as caught:
            await asked
        cause = caught.value.__cause__
        assert isinstance(cause, OSError)
        assert cause.__context__ is None


# Whose deadline: G5.


class Chain(Actor):
    """Passes a request down a chain of actors, each with an hour's patience, and tells the deadlines it saw."""

    def __init__(self, below: ActorRef[Any] | None) -> None:
        self.below = below

    @handles(Get)
    async def get(self, message: Get) -> str:
        return await self.descend(message)

    async def descend(self, message: Get) -> str:
        seen = f"{self.context.deadline:g}"
        if self.below is None:
            await asyncio.sleep(message.seconds)
            return seen
        return f"{seen} {await self.below.ask(message, timeout=3600.0)}"


class WideChain(Chain):
    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> str:
        return await self.descend(message)


class SyncEnd(Actor):
    @handles(Get)
    def get(self, message: Get) -> str:
        return f"{self.context.deadline:g}"

    @handles(Note)
    async def note(self, message: Note) -> None:
        """Make this an actor that handles its mail in a task."""


@pytest.mark.parametrize("kind", [Chain, WideChain])
async def test_a_nested_ask_has_the_smallest_of_the_deadlines_above_it(kind: type[Chain]):
    """G5: three levels down."""
    async with ActorSystem() as system:
        bottom = system.spawn(lambda: kind(None))
        middle = system.spawn(lambda: kind(bottom))
        top = system.spawn(lambda: kind(middle))
        assert await top.ask(Get(seconds=1.0), timeout=8.0) == "8 8 8"
        with pytest.raises(AskTimeout):
            await top.ask(Get(seconds=60.0), timeout=8.0)
        assert asyncio.get_running_loop().time() == pytest.approx(9.0, abs=0.001)
        assert await bottom.ask(Get(), timeout=2.0) == "11", "the bottom is free again"


async def test_a_sync_handler_sees_the_deadline_of_its_request_and_a_told_message_has_none():
    """G5: a purely sync actor, and one that handles its mail in a task."""
    seen: list[float | None] = []

    class Both(SyncEnd):
        @handles(Boom)
        def boom(self, message: Boom) -> None:
            seen.append(self.context.deadline)

    class Sync(Actor):
        @handles(Get)
        def get(self, message: Get) -> str:
            return f"{self.context.deadline:g}"

        @handles(Boom)
        def boom(self, message: Boom) -> None:
            seen.append(self.context.deadline)

    async with ActorSystem() as system:
        for kind in (Both, Sync):
            ref = system.spawn(kind)
            asking = ref.ask(Get(), timeout=8.0)
            assert await asking == "8"
            ref.tell(Boom())
            await turns()
            first = asyncio.create_task(ref.ask(Get(), timeout=8.0))
            asyncio.get_running_loop().call_soon(ref.tell, Boom())
            await first
            await turns()
        assert seen == [None] * 4


async def test_an_ask_whose_time_is_up_before_it_begins_is_not_sent():
    """G5."""

    class Dawdling(Actor):
        def __init__(self, below: ActorRef[Any]) -> None:
            self.below = below

        @handles(Get)
        async def get(self, message: Get) -> str:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(9)
            with pytest.raises(AskTimeout, match="within 0 s"):
                await self.below.ask(Get(), timeout=5.0)
            return "too late"

    async with ActorSystem() as system:
        actor, below = spawn(system, Slow())
        ref = system.spawn(lambda: Dawdling(below))
        with pytest.raises(AskTimeout):
            await ref.ask(Get(), timeout=1.0)
        await turns()
        assert actor.log == []


@pytest.mark.parametrize("asked", [True, False])
async def test_an_actor_that_asks_itself_is_told_so(asked: bool, recorded):  # noqa: FBT001
    class Narcissus(Actor):
        @handles(Get)
        async def get(self, message: Get) -> str:
            return await self.context.ref.ask(Get(), timeout=5.0)

    async with ActorSystem("s") as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Narcissus, name="n", restart=Restart.TEMPORARY)
        if asked:
            with pytest.raises(ActorCrashed, match="s/n asks itself Get and would wait forever"):
                await ref.ask(Get(), timeout=9.0)
        else:
            ref.tell(Get())
        await ref.terminated()
        assert [type(one.error) for one in failures] == [RuntimeError]
        assert asyncio.get_running_loop().time() == 0.0


class Passing(Actor):
    """Passes a request on to the next actor, in one of several ways."""

    following: ActorRef[Any]

    @handles(Get)
    async def get(self, message: Get) -> str:
        return await self.following.ask(Get(message.text, seconds=message.seconds), timeout=60.0)

    @handles(Lease)
    def lease(self, message: Lease) -> int:
        return 1


class PassingAside(Passing):
    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> str:
        if not message.text:
            return "free"
        return await self.following.ask(Get(), timeout=60.0)


class PassingLater(Passing):
    @handles(Get)
    def get(self, message: Get) -> asyncio.Future[str]:
        if not message.text:
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            done.set_result("free")
            return done
        return asyncio.ensure_future(self.following.ask(Get(), timeout=60.0))


def ring(system: ActorSystem, *kinds: type[Passing]) -> list[ActorRef[Any]]:
    """Spawn actors of which each asks the next, and the last the first."""
    actors = [kind() for kind in kinds]
    refs = [
        system.spawn(lambda actor=actor: actor, name=f"a{number}", restart=Restart.TEMPORARY)
        for number, actor in enumerate(actors)
    ]
    for actor, following in zip(actors, refs[1:] + refs[:1], strict=True):
        actor.following = following
    return refs


@pytest.mark.parametrize("length", [2, 3, 50])
async def test_a_circle_of_asks_is_refused_at_once_with_its_path(length: int, recorded):
    """G5."""
    async with ActorSystem("s") as system:
        failures = recorded(system, ActorFailed)
        refs = ring(system, *[Passing] * length)
        with pytest.raises(ActorCrashed):
            await refs[0].ask(Get("x"), timeout=9.0)
        assert asyncio.get_running_loop().time() == 0.0
        path = " -> ".join(f"s/a{number % length}" for number in range(-1, length)).replace("s/a-1", f"s/a{length - 1}")
        assert path in str(failures[0].error)


@pytest.mark.parametrize("free", [PassingAside, PassingLater])
async def test_a_circle_with_an_actor_that_is_free_is_none(free: type[Passing]):
    """G5: its own turn comes while it waits."""
    async with ActorSystem("s") as system:
        refs = ring(system, free, Passing, Passing)
        assert await refs[0].ask(Get("x"), timeout=9.0) == "free"


async def test_a_request_that_was_rerouted_makes_no_circle():
    """G5: it waits for another actor than the one it was sent to."""

    class Unsteady(Passing):
        @handles(Get)
        async def get(self, message: Get) -> str:
            if message.text == "crash":
                await asyncio.sleep(1.0)
                raise OSError("unsteady")
            await asyncio.sleep(2.0)
            return str(await self.following.ask(Lease(), timeout=60.0))

    class Reserve(Actor):
        @handles(Get)
        async def get(self, message: Get) -> str:
            await asyncio.sleep(10.0)
            return "reserve"

    supervision = Supervision(reroute=Reroute(to="reserve"), backoff=IMMEDIATELY)
    async with ActorSystem("s", supervision=supervision, log=False) as system:
        asker = Passing()
        first = system.spawn(lambda: asker, name="asker")
        system.spawn(Reserve, name="reserve")

        def make() -> Unsteady:
            unsteady = Unsteady()
            unsteady.following = first
            return unsteady

        asker.following = system.spawn(make, name="unsteady")
        asking = asyncio.create_task(first.ask(Get("crash"), timeout=60.0))
        await asyncio.sleep(1.5)
        back = asyncio.create_task(asker.following.ask(Get(), timeout=60.0))
        assert await asking == "reserve"
        assert await back == "1"


async def test_an_actor_may_ask_itself_from_a_concurrent_handler():
    class Twin(Slow):
        @handles(Lease, concurrent=2)
        async def lease(self, message: Lease) -> int:
            return len(await self.context.ref.ask(Get("four"), timeout=5.0))

    async with ActorSystem() as system:
        assert await system.spawn(Twin).ask(Lease(), timeout=9.0) == 4


# Cancellation by neither asker nor runtime: a crash, not a silent end.


class Orphan(Journal):
    """Awaits something that is cancelled from elsewhere."""

    @handles(Get)
    async def get(self, message: Get) -> str:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1.0, future.cancel)
        return await future


class OrphanInLane(Journal):
    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> str:
        return await Orphan.get(self, message)  # type: ignore[arg-type]


class SyncOrphan(Journal):
    @handles(Get)
    def get(self, message: Get) -> str:
        raise asyncio.CancelledError


@pytest.mark.parametrize("actor", [Orphan, OrphanInLane, SyncOrphan])
async def test_a_cancelled_error_that_escapes_a_handler_is_a_crash(actor: type[Journal], recorded):
    """G6: it must not cancel the asker, nor end the actor without a word."""
    async with ActorSystem(supervision=AT_ONCE) as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(actor)
        with pytest.raises(ActorCrashed):
            await ref.ask(Get(), timeout=9.0)
        await asyncio.sleep(1)
        assert [type(one.error) for one in failures] == [RuntimeError]
        with pytest.raises(ActorCrashed):
            await ref.ask(Get(), timeout=9.0)


async def test_an_actor_whose_task_is_cancelled_from_outside_is_killed(recorded):
    """As `asyncio.run` does at its end with every task it finds."""
    async with ActorSystem() as system:
        ends = recorded(system, ActorEnded)
        _, ref = spawn(system, Slow())
        asking = asyncio.create_task(ref.ask(Get(seconds=5.0), timeout=9.0))
        await turns()
        next(task for task in asyncio.all_tasks() if task.get_name() == "slow-1").cancel()
        with pytest.raises(ActorCrashed):
            await asking
        assert [(one.ref, one.exit.reason) for one in ends] == [(ref, ExitReason.KILLED)]


# Crashes, and the handlers at work beside them: G1, G3, G7.


async def test_a_crash_cancels_the_concurrent_handlers_beside_it_and_their_askers_hear_of_it():
    """G6."""
    async with ActorSystem(supervision=AT_ONCE) as system:
        actor, ref = spawn(system, Wide())
        asks = [asyncio.create_task(ref.ask(Get(text, seconds=9.0), timeout=99.0)) for text in "abc"]
        await turns()
        ref.tell(Boom())
        outcomes = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(one) for one in outcomes] == [ActorCrashed, ActorCrashed, str]
        assert actor.log == ["begins a", "begins b", "cancelled a", "cancelled b"]
        assert asyncio.get_running_loop().time() == 9.0, "at once; what waited is handled by the next instance"


async def test_a_message_whose_concurrent_handler_has_not_begun_survives_the_crash():
    """G3, G7: it was taken from the mailbox, but nothing has been done about it."""
    instances: list[Wide] = []

    class Kept(Wide):
        def __init__(self) -> None:
            super().__init__()
            instances.append(self)

    async with ActorSystem(supervision=AT_ONCE) as system:
        ref = system.spawn(Kept)
        for text in "abc":
            ref.tell(Get(text))
        ref.tell(Boom())
        assert await ref.ask(Get("d"), timeout=1.0) == "d"
        assert [one.log for one in instances] == [
            [],
            [f"{did} {text}" for pair in ("ab", "cd") for did in ("begins", "ends") for text in pair],
        ]


class Deaf(Journal):
    """Its handler does not heed cancellation."""

    at_work = 0

    @handles(Get)
    async def get(self, message: Get) -> str:
        Deaf.at_work += 1
        assert Deaf.at_work == 1 or message.text == "beside"
        ends = asyncio.get_running_loop().time() + message.seconds
        while (left := ends - asyncio.get_running_loop().time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(left)
        Deaf.at_work -= 1
        self.log.append(message.text)
        return message.text


class DeafLane(Deaf):
    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> str:
        return await super().get(message)


@pytest.mark.parametrize("actor", [Deaf, DeafLane])
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_handler_that_ignores_cancellation_is_reported_and_left_behind(
    actor: type[Deaf], end: str, recorded, leftovers
):
    """G8: the limit, then cancellation, then the limit once more; the asker hears of it."""
    async with ActorSystem() as system:
        ignored, ends = recorded(system, CancellationIgnored), recorded(system, ActorEnded)
        ref = system.spawn(actor, stop_timeout=5.0)
        asking = asyncio.create_task(ref.ask(Get("x", seconds=60.0), timeout=999.0))
        await turns()
        getattr(ref, end)()
        with pytest.raises(ActorCrashed, match="does not end"):
            await asking
        await turns()
        assert asyncio.get_running_loop().time() == 10.0
        assert [one.message for one in ignored] == [Get("x", seconds=60.0)]
        assert [one.ref for one in ends] == [ref]
        await asyncio.sleep(60)
        assert len(ends) == 1
    assert leftovers() == []


@pytest.mark.parametrize("actor", [Deaf, DeafLane])
async def test_a_handler_left_behind_does_not_touch_the_instance_after_it(actor: type[Deaf], recorded):
    """G1, G7: it ends while the next instance is at work, takes none of its mail, and changes nothing of its state."""
    instances: list[Deaf] = []

    class Tracked(actor):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            instances.append(self)

        @handles(Lease, concurrent=2)
        async def crash(self, message: Lease) -> int:
            await asyncio.sleep(message.seconds)
            raise RuntimeError("boom")

    async with ActorSystem(supervision=AT_ONCE) as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Tracked, stop_timeout=5.0)
        crashing = asyncio.create_task(ref.ask(Lease(1.0), timeout=9.0))
        await turns()
        old = asyncio.create_task(ref.ask(Get("old", seconds=61.0), timeout=999.0))
        with pytest.raises(ActorCrashed, match="boom"):
            await crashing
        ref.tell(Note("mail"))
        with pytest.raises(ActorCrashed):
            await old
        assert await ref.ask(Get("beside", seconds=90.0), timeout=999.0) == "beside"
        assert asyncio.get_running_loop().time() == 101.0
        assert [one.log for one in instances] == [["old"], ["mail", "beside"]]
        assert len(failures) == 1


class Promising(Lender):
    """Returns its answers as futures, in various ways."""

    @handles(Lease)
    async def lease(self, message: Lease) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(abs(message.seconds))
        if message.seconds >= 0:
            future.set_result(self.lend())
        return future  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("told", [True, False])
async def test_an_answer_in_a_future_that_is_done_goes_back_if_no_asker_waits_for_it(told: bool):  # noqa: FBT001
    """G12."""
    async with ActorSystem() as system:
        instance, ref = spawn(system, Promising())
        if told:
            ref.tell(Lease(1.0))
        else:
            with pytest.raises(AskTimeout):
                await ref.ask(Lease(9.0), timeout=1.0)
        await asyncio.sleep(2.0)
        assert [answer for _, answer in instance.back] == [1]


@pytest.mark.parametrize("end", ["stop", "crash"])
async def test_a_future_that_an_actor_gives_while_it_ends_keeps_no_asker_waiting(end: str):
    """G8: what is asked is answered or fails, also by the last message of an instance."""
    async with ActorSystem(log=False) as system:
        _, ref = spawn(system, Promising())
        asking = asyncio.create_task(ref.ask(Lease(-0.5), timeout=60.0))
        await asyncio.sleep(0.1)
        if end == "stop":
            ref.stop()
        else:
            cell: Any = ref.recipient
            cell.failed(RuntimeError("made to crash"), None)
        with pytest.raises((ActorCrashed, ActorStopped)):
            await asking
        assert asyncio.get_running_loop().time() < 5.0


async def test_mail_that_is_overdue_is_not_handled_however_long_the_handler_before_it_took(recorded):
    """G5."""
    async with ActorSystem() as system:
        dead = recorded(system, DeadLetter)
        instance, ref = spawn(system, StubbornLender())
        asking = asyncio.create_task(ref.ask(Lease(1.0), timeout=9.0))
        await asyncio.sleep(0.1)
        late = asyncio.create_task(ref.ask(Lease(0.0), timeout=0.85))
        assert await asking == 1
        with pytest.raises(AskTimeout):
            await late
        await turns()
        assert instance.lent == 1
        assert [one.reason for one in dead] == [DeadReason.EXPIRED]


async def test_an_answer_that_will_not_end_keeps_no_asker_waiting_beyond_the_limit_of_its_actor(recorded):
    """G8."""

    class Stubborn(Actor):
        @handles(Lease)
        async def lease(self, message: Lease) -> int:
            async def work() -> int:
                for _ in range(30):
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(0.1)
                return 1

            self.work = asyncio.ensure_future(work())
            await asyncio.sleep(0.5)
            return self.work  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async with ActorSystem(log=False) as system:
        ignored = recorded(system, CancellationIgnored)
        ref = system.spawn(Stubborn, stop_timeout=0.2)
        asking = asyncio.create_task(ref.ask(Lease(1.0), timeout=60.0))
        await asyncio.sleep(0.4)
        ref.stop()
        with pytest.raises(ActorCrashed, match="does not end"):
            await asking
        assert asyncio.get_running_loop().time() < 1.5
        assert [one.message for one in ignored] == [Lease(1.0)]
        await asyncio.sleep(5.0)


async def test_what_goes_wrong_in_an_answer_that_no_asker_waits_for_is_told_of(recorded):
    """G6."""

    class Failing(Actor):
        @handles(Lease)
        async def lease(self, message: Lease) -> int:
            async def work() -> int:
                try:
                    return await asyncio.sleep(60.0, 1)
                except asyncio.CancelledError:
                    raise OSError("while it cleaned up") from None

            self.work = asyncio.ensure_future(work())
            await asyncio.sleep(0.1)
            return self.work  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async with ActorSystem(log=False) as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Failing)
        ref.tell(Lease(1.0))
        await asyncio.sleep(1.0)
        ref.stop()
        await ref.terminated()
        (failure,) = failures
        assert str(failure.error) == "while it cleaned up"
