"""Crashes between any two operations of the journal: what was paid is known or held, and never bought again.

A process that dies leaves what was committed. It goes on as a ghost, whose disk is a copy and whose providers are deaf,
so that nothing of it counts. The providers keep their own books.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, FunctionTransport, Listing, Market, Provider, Retry, Supervisor, Transient, smart_request
from actors.ledger import GetHeld, GetStatement, Ledger, LedgerConfig, provider_key
from actors.ledger import journal as journal_module
from actors.money import Micros
from runtime import ActorSystem
from runtime.persistence import MemoryDisk, MemoryJournal
from runtime.simulation import Simulation
from tests.proofs import repeated
from tests.slow_disk import slow_disk

if TYPE_CHECKING:
    import random

    from runtime.persistence.journal import JournalBatch

KEYS = [f"order {number}" for number in range(8)]
PRICES = {"alder": 70, "birch": 110}
HONOURS_KEYS = "alder"
LIVES = 4
FOREVER = 1e6


def copied(disk: MemoryDisk) -> MemoryDisk:
    copy = MemoryDisk()
    copy.entries, copy.kept, copy.snapshot = list(disk.entries), dict(disk.kept), disk.snapshot
    copy.secret = disk.secret
    return copy


class Machine:
    """What outlives the processes: the disk, the books of the providers, and what callers were given for good."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.disk = MemoryDisk()
        self.charges = Counter[tuple[str, str]]()
        self.given: dict[str, Any] = {}
        self.has_lost_commits = False


class Process:
    """One life of the program, which ends before the operation of this number, or after it has done all."""

    def __init__(self, machine: Machine, crash_at: float, *, loses: int) -> None:
        self.machine, self.crash_at, self.loses = machine, crash_at, loses
        self.disk = copied(machine.disk)
        self.before: list[MemoryDisk] = []
        """The disk before each of its last commits, which a power cut loses."""
        self.operations = 0
        self.died = asyncio.Event()

    def step(self) -> None:
        self.operations += 1
        if self.operations >= self.crash_at and not self.died.is_set():
            self.died.set()
            lost = self.before[-self.loses :] if self.loses else []
            self.machine.has_lost_commits |= bool(lost)
            self.machine.disk = copied(lost[0] if lost else self.disk)


class DyingJournal(MemoryJournal):
    """A journal of a process that may die before and after each thing that is done with it."""

    def __init__(self, process: Process, **options: Any) -> None:
        self.process = process
        super().__init__(process.disk, **options)
        self.waits_for_disk = True

    def append(self, content: bytes) -> int:
        self.process.step()
        return super().append(content)

    def put(self, *args: Any, **options: Any) -> None:
        self.process.step()
        super().put(*args, **options)

    def take(self) -> JournalBatch:
        self.process.step()
        return super().take()

    def write(self, batch: JournalBatch) -> None:
        self.process.step()
        if self.process.loses:
            self.process.before = [*self.process.before, copied(self.process.disk)][-self.process.loses :]
        super().write(batch)
        self.process.step()

    def confirm(self, batch: JournalBatch) -> None:
        self.process.step()
        super().confirm(batch)


def listing(process: Process, name: str) -> Listing:
    """Return a provider that charges once for a key if it honours keys, else each time; and fails in every way."""
    machine = process.machine
    rng, own = machine.rng, machine.charges

    async def serve(call: Any) -> Any:
        mood, account = rng.random(), (name, call.idempotency_key)
        await asyncio.sleep(rng.expovariate(2.0))
        if process.died.is_set():
            await asyncio.sleep(FOREVER)
        if mood < 0.15:
            raise Transient("busy", charged="no")
        if name != HONOURS_KEYS or not own[account]:
            own[account] += 1
        if mood < 0.25:
            raise ConnectionResetError
        if mood < 0.35:
            await asyncio.sleep(FOREVER)
        return {"of": name, "to": call.input}

    honours = name == HONOURS_KEYS
    return Listing(
        provider=Provider(name=name, services={"s"}, price=Micros(PRICES[name]), response_time=0.1),
        transport=lambda: FunctionTransport(
            serve, paid=True, idempotent="key" if honours else "no", ends_when_cancelled=True
        ),
        timeout=5.0,
    )


async def live(process: Process) -> None:
    """Run the program: it asks for all that it has no answer to yet, and checks what the life before has left."""
    machine, made = process.machine, list[Ledger]()

    def ledger() -> Ledger:
        made.append(Ledger(LedgerConfig(safety="process"), journal=":memory:"))
        return made[-1]

    async with ActorSystem("life", log=False) as system:
        ref = system.spawn(ledger)
        await check(machine, ref, made)
        market = Market(providers=[listing(process, name) for name in PRICES], retry=Retry(max_retries=2))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ref))

        async def ask(key: str) -> None:
            await asyncio.sleep(machine.rng.expovariate(1.0))
            with contextlib.suppress(CallFailed):
                result = await smart_request(supervisor, service="s", input=key, idempotency_key=key, timeout=30.0)
                # Its time may be over before a slow disk has the receipt, which is "lost" then.
                if not process.died.is_set() and result.receipt == "kept":
                    assert machine.has_lost_commits or machine.given.setdefault(key, result.output) == result.output

        asking = [asyncio.create_task(ask(key)) for key in KEYS]
        end = asyncio.create_task(process.died.wait())
        everything = asyncio.create_task(asyncio.wait(asking))
        await asyncio.wait([end, everything], return_when=asyncio.FIRST_COMPLETED)
        for task in (*asking, end, everything):
            task.cancel()
        results = await asyncio.gather(*asking, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
    if not process.died.is_set():
        machine.disk = copied(process.disk)


async def check(machine: Machine, ledger: Any, made: list[Ledger]) -> None:
    """Make sure that the books add up after a start, and agree with those of the providers."""
    statement = await ledger.ask(GetStatement(), timeout=1.0)
    held = await ledger.ask(GetHeld(), timeout=1.0)
    book, commits = made[-1].book, made[-1].bookkeeper.commits
    assert commits is not None
    assert list(made[-1].broken_invariants()) == []
    paid = {key: (commits.journal.paid(key) or (0, ""))[0] for key in KEYS}
    receipts = {key: book.receipts.find(key) for key in KEYS}
    assert statement.reserved == 0
    assert statement.settled == sum(paid.values())
    assert statement.settled == sum(int(one.cost) for one in receipts.values() if one is not None)
    if machine.has_lost_commits:
        return  # What was charged may be unknown then, and be bought again.
    of_key = Counter[str]()
    for one in held:
        of_key[one.key] += int(one.amount)
    for key in KEYS:
        charged = {name: machine.charges[name, provider_key(key)] for name in PRICES}
        assert sum(charged.values()) <= 1, f"{key} was bought {charged}"
        cost = sum(PRICES[name] * count for name, count in charged.items())
        assert paid[key] <= cost <= paid[key] + of_key[key], f"{key} was charged {charged}, {paid[key]} is known"
        receipt = receipts[key]
        if key in machine.given:
            assert receipt is not None
            assert receipt.answer is not None


def parts(loses: int, seeds: int) -> list[tuple[int, range]]:
    """Return what to run in tests of a thousand seeds at most, so that each has its time."""
    return [(loses, range(first, min(first + 1_000, seeds))) for first in range(0, seeds, 1_000)]


@pytest.mark.parametrize(
    ("loses", "seeds"),
    [
        *parts(0, repeated(10_000, part=1_250)),
        *parts(1, repeated(1_000, part=333)),
        *parts(3, repeated(1_000, part=333)),
    ],
)
def test_what_was_paid_is_known_or_held_whenever_the_program_dies(
    loses: int, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = list[Process]()
    slow_disk(monkeypatch, lambda: processes[-1].machine.rng.choice([0.01, 0.2, 2.0]))
    monkeypatch.setattr(journal_module, "MemoryJournal", lambda **options: DyingJournal(processes[-1], **options))

    async def lives(simulation: Simulation) -> None:
        rng = simulation.random
        machine = Machine(rng)
        for life in range(LIVES):
            crash_at = float(rng.randint(1, 90)) if life < LIVES - 1 else FOREVER
            processes.append(Process(machine, crash_at, loses=loses))
            await live(processes[-1])
            processes[-1].disk.owner = None
        assert len(machine.given) > 0 or machine.has_lost_commits or sum(machine.charges.values()) > 0

    for seed in seeds:
        Simulation(seed, logs=False).run(lives)
