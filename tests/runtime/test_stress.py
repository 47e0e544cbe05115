"""Whatever happens in whatever order, the guarantees hold: random lives of random actors, replayable by seed.

Each seed makes a system of sync, async, concurrent and deferring actors, and clients that tell, send, ask, cancel,
stop, kill and restart them. Afterwards the books must balance.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from runtime import (
    Actor,
    ActorCrashed,
    ActorRef,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    Backoff,
    Context,
    DeadLetter,
    DeadReason,
    Mailbox,
    MailboxFull,
    Message,
    Overflow,
    Refusal,
    Request,
    Restart,
    RestartIntensity,
    Strategy,
    Supervision,
    SystemClosed,
    Terminated,
    handles,
)
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

if TYPE_CHECKING:
    import random

DEEDS = (*("work",) * 9, *("wait",) * 4, *("crash", "refuse", "nest") * 2, "stop", "linger", "deaf", "spawn", "watch")
CLIENT_DEEDS = (*("tell",) * 8, *("send",) * 2, *("ask",) * 3, *("give up",) * 3, "pause", "end")


class Told(Message):
    number: int
    sender: str
    deed: str
    seconds: float


class Asked(Request[int]):
    number: int
    sender: str
    deed: str
    seconds: float


class Declined(Refusal):
    pass


class Books:
    """What was sent, begun, answered, claimed and given back over one run."""

    def __init__(self, dice: random.Random) -> None:
        self.random = dice
        self.numbers = count(1)
        self.accepted: set[int] = set()
        self.begun: list[tuple[Any, Any]] = []
        self.dead: list[DeadLetter] = []
        self.given: list[int] = []
        self.claimed: list[int] = []
        self.back: list[int] = []
        self.refs: list[ActorRef[Any]] = []
        self.watches: Counter[tuple[Any, Any]] = Counter()
        self.ends: Counter[tuple[Any, Any]] = Counter()
        self.at_work: Counter[Any] = Counter()

    def spawn(self, system: ActorSystem | Context) -> ActorRef[Any]:
        """Spawn an actor of any kind, with a mailbox that is often too small."""
        random_ = self.random
        kind = random_.choice((SyncSubject, AsyncSubject, LaneSubject, InlineSubject, InlineAloneSubject, MixedSubject))
        mailbox = Mailbox(capacity=random_.choice((1, 2, 5, 100)), overflow=random_.choice(list(Overflow)))
        restart = random_.choice(list(Restart))
        return system.spawn(lambda: kind(self), mailbox=mailbox, restart=restart, stop_timeout=1.0)


class Subject(Actor):
    """Does as the message says."""

    supervision = Supervision(
        strategy=Strategy.REST_FOR_ONE,
        intensity=RestartIntensity(max_restarts=2, within=60.0),
        backoff=Backoff(initial=0.05, cap=0.1),
    )

    def __init__(self, books: Books) -> None:
        self.books = books

    def begin(self, message: Told | Asked) -> None:
        self.books.begun.append((self.context.ref, message))
        match message.deed:
            case "crash":
                raise OSError(message.number)
            case "refuse":
                raise Declined(message.number)
            case "stop":
                self.context.stop()
            case "spawn" if len(self.context.children) < 3:
                # It would be refused to an actor that is to end.
                with suppress(ActorStopped):
                    self.books.refs.append(self.books.spawn(self.context))
            case "watch":
                target = self.books.random.choice(self.books.refs)
                self.books.watches[self.context.ref, target] += 1
                self.context.watch(target)
            case _:
                pass

    @handles(Terminated)
    def ended(self, message: Terminated) -> None:
        self.books.ends[self.context.ref, message.ref] += 1

    async def perform(self, message: Told | Asked) -> None:
        self.begin(message)
        match message.deed:
            case "wait" | "stop":
                await asyncio.sleep(message.seconds)
            case "linger":
                try:
                    await asyncio.sleep(message.seconds)
                except asyncio.CancelledError:
                    await asyncio.sleep(message.seconds)
            case "deaf":
                for _ in range(4):
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(message.seconds)
            case "nest":
                other = self.books.refs[message.number % len(self.books.refs)]
                inner = Asked(next(self.books.numbers), f"nested {message.number}", "wait", message.seconds)
                self.books.claimed.append(await other.ask(inner, timeout=5.0))
            case _:
                pass

    def give(self, message: Asked) -> int:
        self.books.given.append(message.number)
        return message.number

    def unclaimed(self, request: Any, answer: Any) -> None:
        self.books.back.append(answer)


class SyncSubject(Subject):
    @handles(Told)
    def told(self, message: Told) -> None:
        self.begin(message)

    @handles(Asked)
    def asked(self, message: Asked) -> int:
        self.begin(message)
        return self.give(message)


class AsyncSubject(Subject):
    """Takes its time, also to start and to stop."""

    async def started(self) -> None:
        await asyncio.sleep(0.1)

    async def stopped(self) -> None:
        assert self.books.at_work[self] == 0 or self.deaf, "stopped while a handler ran"
        await asyncio.sleep(0.1)

    deaf = False

    async def alone(self, message: Told | Asked) -> None:
        assert self.books.at_work[self] == 0, "two messages at a time"
        self.books.at_work[self] += 1
        self.deaf = message.deed == "deaf"
        try:
            await self.perform(message)
        finally:
            self.books.at_work[self] -= 1

    @handles(Told)
    async def told(self, message: Told) -> None:
        await self.alone(message)

    @handles(Asked)
    async def asked(self, message: Asked) -> int:
        await self.alone(message)
        return self.give(message)


class LaneSubject(Subject):
    @handles(Told, concurrent=2)
    async def told(self, message: Told) -> None:
        await self.perform(message)

    @handles(Asked, concurrent=3)
    async def asked(self, message: Asked) -> int:
        await self.perform(message)
        return self.give(message)


class InlineSubject(LaneSubject):
    """Works in the task of its asker, and therefore ends as soon as it is cancelled."""

    @handles(Asked, concurrent=3, inline=True)
    async def asked(self, message: Asked) -> int:
        if message.deed in {"linger", "deaf"}:
            message = msgspec.structs.replace(message, deed="wait")
        await self.perform(message)
        return self.give(message)


class InlineAloneSubject(AsyncSubject):
    """Handles one message at a time, and requests in the task of their asker."""

    @handles(Asked, inline=True)
    async def asked(self, message: Asked) -> int:
        if message.deed in {"linger", "deaf"}:
            message = msgspec.structs.replace(message, deed="wait")
        await self.alone(message)
        return self.give(message)


class MixedSubject(Subject):
    """Sync and async handlers in one actor; answers come later, from a task or a timer."""

    @handles(Told)
    async def told(self, message: Told) -> None:
        await self.perform(message)

    @handles(Asked)
    def asked(self, message: Asked) -> asyncio.Future[int]:
        self.begin(message)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(self.give(message))

        handle = loop.call_later(message.seconds, settle)
        future.add_done_callback(lambda _: handle.cancel())
        return future


class Client:
    """Sends one message after the other, and keeps the books."""

    def __init__(self, name: str, books: Books, system: ActorSystem) -> None:
        self.name = name
        self.books = books
        self.system = system

    def make(self, kind: Any, sender: str) -> Any:
        random_ = self.books.random
        deed = random_.choice(DEEDS)
        return kind(next(self.books.numbers), sender, deed, random_.choice((0.0, 0.01, 0.3, 2.0)))

    async def run(self, steps: int) -> None:
        random_ = self.books.random
        background: list[asyncio.Task[None]] = []
        for step in range(steps):
            place = random_.randrange(len(self.books.refs))
            ref = self.books.refs[place]
            if "ended" in repr(ref) and random_.random() < 0.7:
                with suppress(SystemClosed):
                    ref = self.books.refs[place] = self.books.spawn(self.system)
            match random_.choice(CLIENT_DEEDS):
                case "tell":
                    self.tell(ref)
                case "send":
                    await self.send(ref)
                case "ask":
                    await self.ask(ref, self.name)
                case "give up":
                    background.append(asyncio.create_task(self.ask(ref, f"{self.name}/{step}")))
                    delay = random_.choice((0.0, 0.0, 0.01, 0.5))
                    asyncio.get_running_loop().call_later(delay, background[-1].cancel)
                case "end" if random_.random() < 0.2:
                    random_.choice((ref.stop, ref.kill))()
                case _:
                    await asyncio.sleep(random_.choice((0.0, 0.1, 1.0)))
        await asyncio.gather(*background, return_exceptions=True)

    def tell(self, ref: ActorRef[Any]) -> None:
        message = self.make(Told, self.name)
        try:
            ref.tell(message)
        except MailboxFull:
            return
        self.books.accepted.add(message.number)

    async def send(self, ref: ActorRef[Any]) -> None:
        message = self.make(Told, self.name)
        try:
            await ref.send(message, timeout=self.books.random.choice((0.1, 5.0)))
        except (AskTimeout, ActorStopped):
            return
        self.books.accepted.add(message.number)

    async def ask(self, ref: ActorRef[Any], sender: str) -> None:
        message = self.make(Asked, sender)
        timeout = self.books.random.choice((0.005, 0.3, 1.0, 20.0))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            self.books.claimed.append(await ref.ask(message, timeout=timeout))
        except (AskTimeout, ActorStopped, ActorCrashed, MailboxFull, Declined):
            pass
        finally:
            assert loop.time() <= deadline + 0.001, "an ask outlived its deadline"


async def live(books: Books) -> None:
    random_ = books.random
    supervision = Supervision(
        strategy=random_.choice(list(Strategy)),
        intensity=RestartIntensity(max_restarts=1_000_000),
        backoff=random_.choice((Backoff(initial=0.0, cap=0.0), Backoff(initial=0.2, cap=1.0))),
    )
    async with ActorSystem(supervision=supervision, seed=random_.getrandbits(32)) as system:
        system.events.subscribe(DeadLetter, books.dead.append)
        for _ in range(random_.randint(1, 4)):
            books.refs.append(books.spawn(system))
        clients = [Client(f"client {n}", books, system) for n in range(random_.randint(1, 5))]
        running = asyncio.gather(*(client.run(random_.randint(5, 80)) for client in clients))
        if random_.random() < 0.3:
            # Leave in the middle of it.
            await asyncio.sleep(random_.random() * 3)
        else:
            await running
    await running


def check(books: Books) -> None:
    begun = Counter(message.number for _, message in books.begun)
    twice = [number for number, times in begun.items() if times > 1]
    assert not twice, f"handled twice: {twice}"

    dead = Counter(one.message.number for one in books.dead if isinstance(one.message, Told))
    for one in books.dead:
        if one.reason is DeadReason.REFUSED:
            dead[one.message.number] -= 1
    lost = {number: (begun[number], dead[number]) for number in books.accepted if begun[number] + dead[number] != 1}
    assert not lost, f"neither handled nor a dead letter, or both: {lost}"

    last: dict[Any, int] = {}
    for ref, message in books.begun:
        line = (ref, message.sender, type(message))
        assert last.get(line, 0) < message.number, f"overtaken: {message}"
        last[line] = message.number

    assert all(books.ends[pair] <= watches for pair, watches in books.watches.items()), "told twice of one end"

    returned = [*books.back, *(one.message.answer for one in books.dead if hasattr(one.message, "answer"))]
    assert sorted(books.given) == sorted(books.claimed + returned), "an answer was lost, or had twice"


async def life(simulation: Simulation) -> Books:
    books = Books(simulation.random)
    await live(books)
    await asyncio.sleep(60)  # A deferred answer is cancelled with its instance; nothing else may be left.
    check(books)
    return books


def run(seed: int) -> Books:
    return Simulation(seed, logs=False).run(life).result


def test_the_books_balance_after_any_life_in_any_order():
    """G1, G2, G3, G4, G5, G9, G12."""
    assert explore(life, seeds=range(repeated(1_000))).runs == repeated(1_000)


def test_the_books_balance_after_any_life_in_the_order_of_production():
    """G1, G2, G3, G4, G5, G9, G12."""
    assert explore(life, seeds=range(repeated(400)), order="fifo").runs == repeated(400)


def test_one_seed_is_one_life():
    """G10: to the last message."""
    first, second = run(7), run(7)
    assert [message for _, message in first.begun] == [message for _, message in second.begun]
    assert (first.given, first.claimed, first.back) == (second.given, second.claimed, second.back)


def test_the_lives_are_eventful_enough_to_prove_something():
    lives = [run(seed) for seed in range(60)]
    assert sum(len(books.begun) for books in lives) > 2000
    assert sum(len(books.claimed) for books in lives) > 300
    assert sum(len(books.back) for books in lives) > 10
    reasons = Counter(one.reason for books in lives for one in books.dead)
    assert set(reasons) == set(DeadReason) - {DeadReason.UNHANDLED, DeadReason.POISON, DeadReason.LOST}
