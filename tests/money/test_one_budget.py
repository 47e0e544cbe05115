"""A hundred workers race for one budget, and everything goes wrong: it is never exceeded, leaked, or paid from twice.

The providers keep the true side of the books: what they charged, for which key, by which reservation.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded, CallFailed
from actors.events import Overcharged
from actors.ledger.book import Book
from actors.ledger.entries import MoneyReserved
from actors.ledger.ledger import Ledger
from actors.ledger.messages import (
    BookCall,
    CloseAccount,
    GetHeld,
    GetStatement,
    MarkSent,
    Reservation,
    Reserve,
    Resolve,
)
from actors.money import Micros
from runtime import Actor, ActorSystem, Request, RestartIntensity, RuntimeFault, Supervision, handles
from runtime.simulation import Crash, random_faults
from tests.proofs import repeated

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from runtime import ActorRef
    from runtime.simulation import Simulation

WORKERS = 100
HOLDERS = 5
PRICES = {"alder": 70, "birch": 110}
HONOURS_KEYS = "alder"
BATCHES = ("batch-1", "batch-2")


class Timeout(Exception):
    """It is unknown whether the call was charged."""


class NotCharged(Exception):
    """The provider failed, and says that it charged nothing."""


class World:
    """What is true: the prices, and how much each provider charged for what."""

    def __init__(self, dice: random.Random, *, is_sent: bool) -> None:
        self.dice = dice
        self.is_sent = is_sent
        self.prices = dict(PRICES)
        # Of prices that rise between the quote and the call, no ledger can know; each such charge is told of.
        self.may_rise = dice.random() < 0.3
        self.charges: dict[str, list[tuple[str, int]]] = defaultdict(list)
        """By key: each charge, with its provider."""
        self.by_reservation: Counter[int] = Counter()
        self.paid_keys: dict[str, int] = {}
        self.caps = {
            "run": dice.choice([3_000, 5_000, 12_000]),
            "alder": dice.choice([2_000, 4_000, 12_000]),
            "birch": dice.choice([1_000, 12_000]),
            "batch-1": dice.choice([1_500, 12_000]),
            "batch-2": dice.choice([1_500, 12_000]),
        }
        self.overcharged = 0

    async def change_prices(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.1, 0.5))
            name = self.dice.choice(tuple(PRICES))
            factor = self.dice.choice([0.5, 0.9, 1.3] if self.may_rise else [0.5, 0.9])
            self.prices[name] = max(1, int(PRICES[name] * factor))

    async def call(self, reservation: Reservation) -> int:
        """Make a call; return what it cost."""
        dice, name, key = self.dice, reservation.provider, reservation.key
        await asyncio.sleep(dice.uniform(0.0, 0.2))
        fate = dice.random()
        if fate < 0.1:
            raise NotCharged
        is_charged = fate > 0.2
        cost = min(self.prices[name], reservation.amount) if not self.may_rise else self.prices[name]
        if is_charged:
            if name == HONOURS_KEYS and key in self.paid_keys:
                cost = self.paid_keys[key]
            else:
                self.charges[key].append((name, cost))
                self.by_reservation[reservation.number] += cost
                if name == HONOURS_KEYS:
                    self.paid_keys[key] = cost
        if fate < 0.3:
            await asyncio.sleep(dice.uniform(0.0, 0.3))
            raise Timeout
        await asyncio.sleep(dice.uniform(0.0, 0.2))
        return cost


class Work(Request[int | None], frozen=True):
    """Serve one logical request, and learn what it cost; None if it was not served."""

    number: int


class Worker(Actor[Work]):
    """Answers for the calls of many requests at a time; some of them end without telling what became of theirs."""

    def __init__(self, world: World, ledger: ActorRef[Any]) -> None:
        self.world = world
        self.ledger = ledger

    @handles(Work, concurrent=WORKERS)
    async def serve(self, message: Work) -> int | None:
        key, held_at, tells = f"request {message.number}", None, self.world.dice.random() < 0.5
        for _ in range(3):
            reservation = await self.reserve(key, message.number, held_at)
            if reservation is None:
                return None
            charged, cost = await self.call(reservation, tells=tells)
            self.book(reservation, charged, cost)
            if charged == "yes":
                return cost
            if charged == "held":
                held_at = reservation.provider
            if held_at is not None and held_at != HONOURS_KEYS:
                return None
        return None

    async def reserve(self, key: str, number: int, held_at: str | None) -> Reservation | None:
        world, dice = self.world, self.world.dice
        provider = held_at or dice.choice(tuple(PRICES))
        wish = Reserve(
            key=key,
            provider=provider,
            # What it costs now, or was said to cost at most before it became cheaper.
            amount=Micros(world.prices[provider] if world.may_rise else PRICES[provider]),
            accounts=("run", provider, BATCHES[number % 2]),
            budget=Micros(150),
            intent="repeat" if held_at else "first",
            wait=dice.random() < 0.7,
            holder=self.context.ref,
            is_sent=world.is_sent,
        )
        try:
            return await self.ledger.ask(wish, timeout=dice.choice([0.3, 3.0]))
        except (CallFailed, RuntimeFault):
            return None

    async def call(self, reservation: Reservation, *, tells: bool) -> tuple[str, int | None]:
        dice, sent = self.world.dice, False
        try:
            if dice.random() < 0.2:
                await asyncio.sleep(dice.uniform(0.0, 0.1))
            if not self.world.is_sent:
                self.ledger.tell(MarkSent(reservation))
            sent = True
            return "yes", await self.world.call(reservation)
        except Timeout:
            return "held", None
        except NotCharged:
            return "no", None
        except asyncio.CancelledError:
            # If its actor lives on, no other will tell; if it does not, some tell all the same.
            if tells or not self.is_ending():
                self.book(reservation, "held" if sent else "no", None)
            raise

    def is_ending(self) -> bool:
        cell: Any = self.context.ref.recipient
        return bool(cell.goal)

    def book(self, reservation: Reservation, charged: Any, cost: int | None) -> None:
        message = BookCall(reservation, charged, None if cost is None else Micros(cost))
        self.ledger.tell(message)
        if self.world.dice.random() < 0.05:
            self.ledger.tell(message)


class Race:
    """The ledger, its workers, and what is checked at every step."""

    def __init__(
        self, simulation: Simulation, system: ActorSystem, *, is_sent: bool = False, journal: Path | None = None
    ) -> None:
        self.world = world = World(simulation.random, is_sent=is_sent)
        self.kept = Book()
        self.journal = journal
        self.ledgers: list[Ledger] = []
        self.accounts: dict[int, tuple[str, ...]] = {}
        self.over: list[str] = []
        self.overcharges: Counter[str] = Counter()
        self.ledger: ActorRef[Any] = system.spawn(self.make_ledger, name="ledger")
        self.workers = [
            system.spawn(lambda: Worker(world, self.ledger), name=f"worker-{number}") for number in range(HOLDERS)
        ]
        system.events.subscribe(MoneyReserved, self.look)
        system.events.subscribe(Overcharged, self.note)

    def make_ledger(self) -> Ledger:
        caps = {name: Micros(cap) for name, cap in self.world.caps.items()}
        book = self.kept if self.journal is None else None
        self.ledgers.append(Ledger(accounts=caps, book=book, journal=self.journal))
        return self.ledgers[-1]

    @property
    def book(self) -> Book:
        return self.ledgers[-1].book

    def look(self, entry: MoneyReserved) -> None:
        self.accounts[entry.reservation] = entry.accounts
        for name in entry.accounts:
            statement = self.book.statement(name)
            if entry.amount and statement.used > self.world.caps[name]:
                self.over.append(f"{entry} although {statement}")

    def note(self, event: Overcharged) -> None:
        for name in event.accounts:
            self.overcharges[name] += event.charged - event.quoted

    async def serve(self, number: int) -> int | None:
        dice = self.world.dice
        await asyncio.sleep(dice.uniform(0.0, 1.0))
        try:
            return await dice.choice(self.workers).ask(Work(number), timeout=dice.choice([0.5, 5.0]))
        except RuntimeFault:
            return None

    async def serve_all(self) -> None:
        """Let all requests be served, cancel some, and serve some again, as a program does that resumes."""
        dice = self.world.dice
        tasks = [asyncio.create_task(self.serve(number)) for number in range(WORKERS)]
        for task in dice.sample(tasks, 15):
            await asyncio.sleep(dice.choice([0.0, 0.05]))
            task.cancel()
        dice.choice(self.workers).kill()
        await asyncio.wait(tasks)
        await asyncio.gather(*(self.serve(number) for number in dice.sample(range(WORKERS), 25)))
        await asyncio.sleep(10.0)

    async def resolve(self, part: float) -> None:
        """Look up at the providers what became of calls, as a person does that reconciles."""
        for held in await self.ledger.ask(GetHeld(), timeout=1):
            if self.world.dice.random() < part:
                cost = self.world.by_reservation[held.reservation]
                charged = "yes" if cost else "no"
                await self.ledger.ask(Resolve(held.reservation, charged, Micros(cost) if cost else None), timeout=1)

    async def spend_the_rest(self) -> None:
        """Let a last worker spend what is left of the run."""
        number = 0
        while True:
            number += 1
            wish = Reserve(
                key=f"last {number}", provider="alder", amount=Micros(PRICES["alder"]), accounts=("run",), wait=True
            )
            try:
                reservation = await self.ledger.ask(wish, timeout=1)
            except BudgetExceeded:
                return
            self.ledger.tell(BookCall(reservation))

    def charged(self, account: str) -> int:
        """Return what was really charged to an account until now."""
        return sum(cost for number, cost in self.world.by_reservation.items() if account in self.accounts[number])

    async def statement(self, name: str | None) -> Any:
        return await self.ledger.ask(GetStatement(name), timeout=1)


@pytest.mark.simulate(seeds=repeated(200))
async def test_a_hundred_workers_never_exceed_leak_or_pay_twice_from_one_budget(simulation):
    for _ in range(3):
        simulation.inject(Crash(at=simulation.random.uniform(0.2, 1.5), actor="race/worker-*"))
    async with ActorSystem("race") as system:
        race = Race(simulation, system)
        world = race.world
        prices = asyncio.create_task(world.change_prices())
        await race.serve_all()
        prices.cancel()

        # Nothing leaks: what no actor answers for any more is held, and the rest is settled or free.
        for name in world.caps:
            statement = await race.statement(name)
            assert statement.reserved == 0, statement
            assert statement.settled <= race.charged(name)
            assert world.may_rise or race.charged(name) <= statement.settled + statement.held
        await race.resolve(0.5)
        closed = await race.ledger.ask(CloseAccount(name="batch-2"), timeout=1)
        assert closed.reserved == 0
        await race.resolve(1.0)
        for name in ("run", "alder", "birch", "batch-1"):
            statement = await race.statement(name)
            assert (statement.reserved, statement.held, statement.settled) == (0, 0, race.charged(name))
        await race.spend_the_rest()

        # Never over a cap, but by what was charged beyond the quote, and then nothing more is allowed.
        assert race.over == []
        run = await race.statement("run")
        assert run.settled <= world.caps["run"] + race.overcharges["run"]
        assert world.may_rise or race.overcharges.total() == 0
        # All of it could be used.
        assert run.cap - run.settled < PRICES["alder"]
    # No logical request was paid twice, and the two sides of the books agree to the micro-unit.
    for key, charges in world.charges.items():
        assert len(charges) == 1, f"{key} was paid {charges}"
    total = race.book.statement()
    last = sum(1 for key in race.book.paid_keys if key.startswith("last"))
    assert total.settled == sum(world.by_reservation.values()) + last * PRICES["alder"]


@pytest.mark.simulate(seeds=repeated(200))
async def test_nor_does_it_happen_if_the_ledger_crashes_and_its_mail_is_lost_late_doubled_or_out_of_order(
    simulation, tmp_path
):
    dice = simulation.random
    simulation.inject(*random_faults(dice, actors=["race/ledger", "race/worker-*"], within=2.0))
    path = tmp_path / f"{simulation.seed}.db" if simulation.seed % 2 else None
    tolerant = Supervision(intensity=RestartIntensity(max_restarts=100))
    async with ActorSystem("race", supervision=tolerant) as system:
        race = Race(simulation, system, is_sent=True, journal=path)
        world = race.world
        prices = asyncio.create_task(world.change_prices())
        await race.serve_all()
        prices.cancel()
        # What was told of a call may have been lost, and then its holder has to end before it is known.
        for worker in race.workers:
            worker.stop()
            await worker.terminated()
        await asyncio.sleep(1.0)
        for name in world.caps:
            assert (await race.statement(name)).reserved == 0
        await race.resolve(1.0)
        for name in world.caps:
            statement = await race.statement(name)
            assert (statement.held, statement.settled) == (0, race.charged(name))
        await race.spend_the_rest()
        run = await race.statement("run")
        assert race.over == []
        assert run.settled <= world.caps["run"] + race.overcharges["run"]
        assert run.cap - run.settled < PRICES["alder"]
    for key, charges in world.charges.items():
        assert len(charges) == 1, f"{key} was paid {charges}"
    for file in tmp_path.glob(f"{simulation.seed}.db*"):
        file.unlink()
