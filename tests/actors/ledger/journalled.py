"""Ledgers with a journal, what is on disk while they run, and a disk that is full."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from actors.ledger.entries import AccountOpened, Entry
from actors.ledger.journal import MoneyJournal
from actors.ledger.ledger import Ledger
from actors.ledger.messages import GetStatement, Reservation, Reserve
from actors.money import Micros
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef, ActorSystem

ACCOUNTS = {"run": "0.001", "batch": None}


def spawn(system: ActorSystem, path: Path, **options: Any) -> tuple[ActorRef[Any], list[Ledger]]:
    made: list[Ledger] = []

    def make() -> Ledger:
        made.append(Ledger(**{"accounts": ACCOUNTS, "journal": path, **options}))
        return made[-1]

    return system.spawn(make, name="ledger"), made


async def reserve(ledger: ActorRef[Any], key: str, amount: int = 100, **more: Any) -> Reservation:
    wish = Reserve(**{"key": key, "provider": "alder", "amount": Micros(amount), "accounts": ("run", "batch"), **more})
    return await ledger.ask(wish, timeout=5)


async def figures(ledger: ActorRef[Any], account: str | None = "run") -> tuple[int, int, int]:
    statement = await ledger.ask(GetStatement(account), timeout=1)
    return statement.reserved, statement.held, statement.settled


def entries_of(path: Path) -> list[Entry]:
    journal = MoneyJournal(path)
    try:
        return list(journal.read())
    finally:
        journal.close()


def peek(path: Path) -> list[Entry]:
    """Read what is on disk while the ledger has it open: a copy of both files, as a crash would leave them."""
    copy = path.with_name("copy.db")
    copy_as_killed(path, copy)
    return entries_of(copy)


class FullDisk:
    """Stands for the file while nothing can be written to it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.is_full = True

    def execute(self, *args: Any) -> Any:
        if args[0] == "COMMIT" and self.is_full:
            self.file.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return self.file.execute(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def store_of(ledger: Ledger) -> Any:
    """Return the journal that a ledger writes to."""
    commits: Any = ledger.bookkeeper.commits
    return commits.journal.store


def fill_disk(ledger: Ledger) -> FullDisk:
    store = store_of(ledger)
    store._file = FullDisk(store._file)
    return store._file


def filled(path: Path, count: int = 60) -> list[Entry]:
    journal = MoneyJournal(path)
    list(journal.read())
    made: list[Entry] = [
        AccountOpened(account=f"account {number}", cap=Micros(number), at=1.0) for number in range(count)
    ]
    for start in range(0, count, 7):
        for entry in made[start : start + 7]:
            journal.append(entry)
        journal.commit()
    journal.close()
    return made
