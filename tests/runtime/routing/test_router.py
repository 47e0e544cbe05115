"""Several actors behind one ref."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    ActorSystem,
    Backoff,
    ConsistentHash,
    DeadLetter,
    DeadReason,
    LeastBusy,
    Mailbox,
    MailboxFull,
    Message,
    Refusal,
    Request,
    RestartIntensity,
    RoundRobin,
    Supervision,
    Terminated,
    ask_first,
    handles,
    pool,
)
from runtime.routing import router

PATIENT = Supervision(backoff=Backoff(initial=10.0, jitter=0.0), intensity=RestartIntensity(max_restarts=9))


class Who(Request[str]):
    key: str = ""


class Slowly(Request[str]):
    seconds: float


class Fail(Request[str]):
    error: type[Exception]


class Note(Message):
    pass


class Crash(Message):
    pass


class Leave(Message):
    pass


class No(Refusal):
    pass


class Worker(Actor):
    @handles(Who)
    def who(self, message: Who) -> str:
        return self.context.ref.path.rpartition("/")[2]

    @handles(Slowly)
    async def slowly(self, message: Slowly) -> str:
        await asyncio.sleep(message.seconds)
        return self.context.ref.path.rpartition("/")[2]

    @handles(Fail)
    def fail(self, message: Fail) -> str:
        raise message.error("no")

    @handles(Note)
    async def note(self, message: Note) -> None:
        await asyncio.sleep(1)

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise OSError("crash")

    @handles(Leave)
    def leave(self, message: Leave) -> None:
        self.context.stop()


async def test_a_pool_answers_also_before_its_workers_exist():
    async with ActorSystem("s") as system:
        workers = pool(system, Worker, size=2, name="pool")
        workers.tell(Note())
        assert await workers.ask(Slowly(1.0), timeout=5.0) == "worker-2"
        assert workers.path == "s/pool"
        assert repr(workers) == "<ActorRef s/pool running, LeastBusy() over 2>"
        assert system.children["pool"] is workers


async def test_what_a_worker_refuses_or_raises_reaches_the_asker_as_it_is():
    async with ActorSystem() as system:
        workers = pool(system, Worker, size=2, supervision=PATIENT)
        for _ in range(2):  # Once by way of the mailbox of the home, once straight.
            with pytest.raises(No):
                await workers.ask(Fail(No), timeout=1.0)
        with pytest.raises(ActorCrashed, match="worker-1") as crashed:
            await workers.ask(Fail(ValueError), timeout=1.0)
        assert isinstance(crashed.value.__cause__, ValueError)
        full = pool(system, Worker, size=1, mailbox=Mailbox(capacity=1))
        await asyncio.sleep(0)
        full.tell(Note())
        await asyncio.sleep(0.1)
        full.tell(Note())
        with pytest.raises(MailboxFull, match="worker-1"):
            full.tell(Note())


async def test_the_deadline_of_an_ask_through_a_pool_stops_the_worker():
    async with ActorSystem() as system:
        workers = pool(system, Worker, size=1)
        with pytest.raises(TimeoutError):
            await workers.ask(Slowly(3600.0), timeout=1.0)
        assert await workers.ask(Who(), timeout=1.0) == "worker-1"


async def test_round_robin_takes_turns_and_passes_over_who_has_ended():
    async with ActorSystem() as system:
        workers = pool(system, Worker, size=3, routing=RoundRobin())
        assert [await workers.ask(Who(), timeout=1.0) for _ in range(4)] == [f"worker-{n}" for n in (1, 2, 3, 1)]
        workers.tell(Leave())
        await asyncio.sleep(1)
        assert Counter([await workers.ask(Who(), timeout=1.0) for _ in range(8)]) == {"worker-1": 4, "worker-3": 4}


async def test_a_worker_that_crashes_keeps_its_place_and_its_mail():
    async with ActorSystem() as system:
        workers = pool(system, Worker, size=2, routing=RoundRobin(), supervision=PATIENT)
        workers.tell(Crash())
        await asyncio.sleep(1)
        assert await workers.ask(Who(), timeout=1.0) == "worker-2"
        assert await workers.ask(Who(), timeout=60.0) == "worker-1"
        assert asyncio.get_running_loop().time() >= 10.0


async def test_a_pool_whose_workers_have_all_ended_is_as_a_stopped_actor(recorded):
    async with ActorSystem() as system:
        dead = recorded(system)
        workers = pool(system, Worker, size=2, routing=RoundRobin())
        for _ in range(2):
            workers.tell(Leave())
        await asyncio.sleep(1)
        with pytest.raises(ActorStopped):
            await workers.ask(Who(), timeout=1.0)
        with pytest.raises(ActorStopped):
            await workers.send(Note())
        workers.tell(Note())
        assert [(one.recipient, one.message, one.reason) for one in dead] == [(workers, Note(), DeadReason.STOPPED)]
        assert system.snapshot().children[0].phase == "running"


async def test_mail_for_a_pool_waits_while_it_restarts():
    fragile = Supervision(intensity=RestartIntensity(max_restarts=0))
    async with ActorSystem(supervision=PATIENT) as system:
        workers = pool(system, Worker, size=2, supervision=fragile)
        workers.tell(Crash())
        await asyncio.sleep(1)
        assert system.snapshot().children[0].phase == "awaiting restart"
        workers.tell(Note())
        asking = asyncio.create_task(workers.ask(Who(), timeout=60.0))
        await asyncio.sleep(1)
        assert system.snapshot().children[0].waiting == 2
        assert await asking == "worker-2"
        assert system.snapshot().children[0].waiting == 0


async def test_stopping_a_pool_stops_its_workers_and_its_watcher_is_told_once_of_the_very_ref():
    told: list[Terminated] = []

    class Watcher(Actor):
        @handles(Terminated)
        def ended(self, message: Terminated) -> None:
            told.append(message)

        @handles(Note)
        def watch(self, message: Note) -> None:
            self.context.watch(workers)

    async with ActorSystem() as system:
        workers = pool(system, Worker, size=2)
        watcher = system.spawn(Watcher)
        for _ in range(2):
            watcher.tell(Note())
        await asyncio.sleep(1)
        workers.stop()
        await workers.terminated()
        await asyncio.sleep(0)
        assert [one.ref for one in told] == [workers]
        assert [one.path for one in system.snapshot().walk()] == ["system", watcher.path]
        with pytest.raises(ActorStopped):
            await workers.ask(Who(), timeout=1.0)


async def test_least_busy_prefers_the_one_with_the_least_mail_and_work():
    async with ActorSystem() as system:
        workers = pool(system, Worker, size=3, routing=LeastBusy())
        asks = [asyncio.create_task(workers.ask(Slowly(5.0), timeout=60.0)) for _ in range(6)]
        await asyncio.sleep(1)
        assert workers.recipient.load == 6
        assert Counter(await asyncio.gather(*asks)) == {f"worker-{number}": 2 for number in (1, 2, 3)}


async def test_a_consistent_hash_keeps_keys_together_and_moves_few_when_an_actor_goes():
    keys = [f"key-{number}" for number in range(300)]
    async with ActorSystem() as system:
        actors = [system.spawn(Worker) for _ in range(5)]
        spread = router(system, actors, routing=ConsistentHash(lambda message: message.key))
        before = {key: await spread.ask(Who(key), timeout=1.0) for key in keys}
        assert before == {key: await spread.ask(Who(key), timeout=1.0) for key in keys}
        assert all(count > 30 for count in Counter(before.values()).values())
        actors[0].stop()
        await actors[0].terminated()
        after = {key: await spread.ask(Who(key), timeout=1.0) for key in keys}
        assert all(before[key] == "worker-1" for key in keys if after[key] != before[key])


async def test_stopping_a_router_leaves_its_routees_alone_and_routers_nest():
    async with ActorSystem() as system:
        workers = pool(system, Worker, size=2)
        outer = router(system, [workers, system.spawn(Worker, name="single")], name="outer")
        answers = {await outer.ask(Slowly(1.0), timeout=5.0) for _ in range(4)}
        assert answers == {"worker-1", "single"}
        outer.kill()
        await outer.terminated()
        assert await workers.ask(Who(), timeout=1.0) == "worker-1"
        assert "outer ended" in repr(outer)


async def test_a_pool_belongs_to_the_actor_that_spawned_it_and_leaves_nothing(leftovers):
    """G9."""

    class Owner(Actor):
        def started(self) -> None:
            self.workers = pool(self.context, Worker, size=2, name="pool")

        @handles(Who)
        async def who(self, message: Who) -> str:
            return await self.workers.ask(message, timeout=5.0)

        @handles(Crash)
        def crash(self, message: Crash) -> None:
            raise OSError("crash")

    async with ActorSystem("s", supervision=PATIENT) as system:
        owner = system.spawn(Owner, name="owner")
        assert await owner.ask(Who(), timeout=5.0) == "worker-1"
        owner.tell(Crash())
        assert await owner.ask(Who(), timeout=60.0) == "worker-1"
        assert [one.path for one in system.snapshot().walk()][2:] == [
            "s/owner/pool",
            "s/owner/pool/worker-1",
            "s/owner/pool/worker-2",
        ]
        pending = asyncio.create_task(owner.ask(Slowly(1.0), timeout=60.0))
        with pytest.raises(Exception, match="no handler for Slowly"):
            await pending
    assert leftovers() == []


async def test_a_worker_that_is_handed_its_own_request_is_told_so_at_once():
    """G5."""

    class Recursive(Actor):
        @handles(Who)
        async def who(self, message: Who) -> str:
            return await workers.ask(message, timeout=5.0)

    async with ActorSystem(supervision=PATIENT) as system:
        workers = pool(system, Recursive, size=1)
        with pytest.raises(ActorCrashed, match="asks itself"):
            await workers.ask(Who(), timeout=5.0)


async def test_mail_sent_before_the_workers_exist_finds_them_in_order(recorded):
    """G3, G4: what was told and finds no room there is a dead letter; an asker waits for room."""
    async with ActorSystem() as system:
        dead = recorded(system)
        workers = pool(system, Worker, size=2, mailbox=Mailbox(capacity=1))
        for _ in range(5):
            workers.tell(Note())
        assert "worker-" in await workers.ask(Who(), timeout=5.0)
        assert [one.reason for one in dead] == [DeadReason.FULL] * 3


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="size must be a whole number of workers >= 1, got 0"):
        pool(ActorSystem(), Worker, size=0)


# Scatter-gather.


class Lender(Actor):
    """Lends something with each answer, and takes it back."""

    def __init__(self, delay: float, log: list[str]) -> None:
        self.delay = delay
        self.log = log

    @handles(Who)
    async def who(self, message: Who) -> str:
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.log.append(f"cancelled {self.delay:g}")
            raise
        return f"{self.delay:g}"

    def unclaimed(self, request: Request, answer: object) -> None:
        self.log.append(f"back {answer}")


async def test_the_first_answer_wins_and_the_other_handlers_are_cancelled():
    log: list[str] = []
    async with ActorSystem() as system:
        lenders = [system.spawn(lambda delay=delay: Lender(delay, log)) for delay in (3.0, 1.0, 2.0)]
        assert await ask_first(lenders, Who(), timeout=10.0) == "1"
        await asyncio.sleep(5)
    assert sorted(log) == ["cancelled 2", "cancelled 3"]


async def test_answers_given_in_the_same_moment_go_back(leftovers):
    """G12."""
    log: list[str] = []

    class Prompt(Lender):
        @handles(Who)
        def who(self, message: Who) -> str:  # type: ignore[override]
            return "now"

    async with ActorSystem() as system:
        lenders = [system.spawn(lambda: Prompt(0.0, log)) for _ in range(3)]
        behind = pool(system, lambda: Prompt(0.0, log), size=1)
        assert await ask_first([*lenders, behind], Who(), timeout=10.0) == "now"
        await asyncio.sleep(0)
        assert log == ["back now"] * 3
        cancelled = 0
        for turns in range(8):
            log.clear()
            asking = asyncio.create_task(ask_first(lenders, Who(), timeout=10.0))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            (outcome,) = await asyncio.gather(asking, return_exceptions=True)
            await asyncio.sleep(1)
            if outcome == "now":
                assert log == ["back now"] * 2
            else:
                # Before the tasks begin no actor has been asked.
                assert log in ([], ["back now"] * 3)
                cancelled += bool(log)
        assert cancelled >= 2
    assert leftovers() == []


async def test_an_error_matters_only_if_no_actor_answers():
    async with ActorSystem(supervision=PATIENT) as system:
        failing, fine = system.spawn(Worker), system.spawn(Worker)
        failing.stop()
        assert await ask_first([failing, fine], Slowly(1.0), timeout=5.0) == "worker-2"
        with pytest.raises(ActorStopped):
            await ask_first([failing, failing], Who(), timeout=1.0)
        with pytest.raises(ValueError, match="at least one actor"):
            await ask_first([], Who(), timeout=1.0)


async def test_what_could_not_be_a_pool_is_refused_where_it_is_made():
    async with ActorSystem() as system:
        for terms, problem in (
            ({"size": 2.5}, "size must be a whole number of workers"),
            ({"size": 1, "mailbox": "x"}, "mailbox must be a Mailbox"),
            ({"size": 1, "supervision": "x"}, "supervision must be a Supervision"),
            ({"size": 1, "routing": "x"}, "routing must have a choose"),
            ({"size": 1, "routing": RoundRobin}, "routing must have a choose"),
        ):
            with pytest.raises((TypeError, ValueError), match=problem):
                pool(system, Actor, **terms)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="routing must have a choose"):
            router(system, [system.spawn(Actor)], routing="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_mail_for_which_the_routing_raises_is_a_dead_letter_and_its_asker_is_told(recorded):
    """G3: also what came before the pool was up."""
    async with ActorSystem(log=False) as system:
        dead = recorded(system, DeadLetter)
        ref = pool(system, Worker, size=2, routing=ConsistentHash(lambda message: message.missing))
        asking = asyncio.create_task(ref.ask(Who(), timeout=5.0))
        ref.tell(Who())
        with pytest.raises(AttributeError, match="missing"):
            await asking
        assert [one.reason for one in dead] == [DeadReason.POISON]  # What was told, when the pool was not up yet.


async def test_so_it_is_where_the_routing_of_a_router_behind_it_raises():
    async with ActorSystem(log=False) as system:
        inner = router(system, [system.spawn(Worker)], routing=ConsistentHash(lambda message: message.missing))
        await asyncio.sleep(1)
        outer = router(system, [inner], name="outer")
        with pytest.raises(AttributeError, match="missing"):
            await outer.ask(Who(), timeout=5.0)
        assert "running" in repr(outer)
