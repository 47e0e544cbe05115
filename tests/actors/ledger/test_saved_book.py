"""A book that was saved and restored is as it was, and goes on as it would have."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors.errors.families import CallFailed
from actors.ledger import commits as commits_module
from actors.ledger.book import Book
from actors.ledger.entries import MoneyReserved
from actors.ledger.errors import AlreadyPaid
from actors.ledger.messages import BookCall, Costing, GetHeld, Reserve
from actors.ledger.periods import Renewal
from actors.ledger.saved_book import MAX_OPEN, BookSaver, restore
from actors.money import Micros
from runtime import ActorSystem
from tests.actors.ledger.journalled import figures, reserve, spawn, store_of
from tests.proofs import repeated

if TYPE_CHECKING:
    from pathlib import Path


class Trade:
    """Steps of a book drawn by chance: reserve, pay, hold, release, expire, close, open, late charges, corrections."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.book = Book()
        self.at = 1.0
        self.calls: list[Any] = []
        for name in ("run", "risk"):
            self.book.open(name, cap=None, at=0.0)
        for name, renewal in (("hourly", Renewal("hour")), ("rolling", Renewal("hour", rolling=True))):
            self.book.open(name, cap=Micros(500), renewal=renewal, at=0.0)

    def step(self) -> None:
        dice, book = self.dice, self.book
        self.at += dice.choice([1.0, 1.0, 1.0, 100.0])
        for name in ("hourly", "rolling"):
            book.renew(name, at=self.at)
        match dice.randrange(11):
            case 0:
                name = f"batch {dice.randrange(3)}"
                if book.is_open(name):
                    book.close(name, at=self.at)
                else:
                    book.open(name, cap=Micros(10_000), parent=dice.choice([None, "run"]), at=self.at)
            case 1 | 2 | 3 | 4:
                accounts = ("run", *[one for one in book.open_accounts() if one.startswith("batch")][:1])
                accounts += dice.choice([(), ("hourly",), ("rolling",), ("hourly", "rolling")])
                held = tuple(one.number for one in book.postings.records.values() if one.is_held)
                wish = Reserve(
                    key=f"k{dice.randrange(30)}",
                    provider=dice.choice(["alder", "birch"]),
                    amount=Micros(dice.randrange(1, 100)),
                    accounts=accounts,
                    intent="again",
                    passes_over=held[:2],
                    risk_account="risk",
                    held_for=dice.choice([None, 5.0]),
                    fingerprint=dice.choice([None, b"x"]),
                )
                made = book.reserve(wish, at=self.at)
                if isinstance(made, MoneyReserved):
                    self.calls.append(book.reservation(made.reservation))
            case 5:
                held = [one for one in book.postings.records.values() if one.is_held]
                if held:
                    book.expire(dice.choice(held), at=self.at)
            case 6:
                self.change_cap(dice.choice(["hourly", "rolling"]))
            case _ if self.calls:
                call, charged = dice.choice(self.calls), dice.choice(["yes", "no", "held"])
                costing = dice.choice([None, Costing(basis="estimated"), Costing(basis="exact")])
                book.book(call, charged, Micros(dice.randrange(50)), costing=costing, at=self.at)
            case _:
                pass

    def change_cap(self, name: str) -> None:
        """Set a cap, perhaps one that renews otherwise, have its owner asked and answering, or pause or resume it."""
        dice, book = self.dice, self.book
        if dice.random() < 0.3:
            book.pause(name, is_paused=not book.accounts.states[name].is_paused, at=self.at)
            return
        if dice.random() < 0.5:
            if book.ask(name, Micros(5), at=self.at) is None or dice.random() < 0.5:
                book.answer(name, dice.choice([None, Micros(5_000)]), for_good=dice.random() < 0.5, at=self.at)
            return
        renewal = book.accounts.states[name].renewal
        renewal = dice.choice([renewal, renewal, renewal, Renewal("day"), None])
        cap = Micros(dice.randrange(900))
        book.set_cap(name, cap, renewal=renewal, only_now=dice.random() < 0.5, at=self.at)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            with suppress(CallFailed):
                self.step()


def saved(book: Book) -> bytes:
    saver = BookSaver(book.postings)
    while not saver.prepare(5):
        pass
    content = saver.save()
    assert content is not None
    return content


def restored(content: bytes, paid: dict[str, tuple[int, str]]) -> Book:
    book = Book()
    for _ in restore(book.postings, content):
        pass
    for key, (cost, provider) in paid.items():
        book.paid_keys.restore(key, cost, provider)
    return book


@pytest.mark.parametrize("seed", range(repeated(100)))
def test_whatever_happened_a_restored_book_is_equal_and_goes_on_alike(seed: int) -> None:
    trade = Trade(seed)
    for _ in range(4):
        trade.run(60)
        again = restored(saved(trade.book), trade.book.paid_keys.all())
        assert again.postings.figures() == trade.book.postings.figures()
        assert list(again.postings.released) == list(trade.book.postings.released)
        prints = [[one.fingerprint for one in book.postings.records.values()] for book in (again, trade.book)]
        assert prints[0] == prints[1]
        assert list(again.broken_invariants()) == list(trade.book.broken_invariants()) == []
        trade.book = again


def test_what_changed_after_it_was_prepared_is_saved_as_it_is() -> None:
    book = Book()
    book.open("run", cap=None, at=0.0)
    made = book.reserve(Reserve(key="k", provider="alder", amount=Micros(5), accounts=("run",)), at=1.0)
    assert isinstance(made, MoneyReserved)
    call = book.reservation(made.reservation)
    book.book(call, "no", at=2.0)
    saver = BookSaver(book.postings)
    assert (saver.prepare(0), saver.prepare(1)) == (False, True)
    for charged, at in (("yes", 3.0), ("held", 4.0)):
        if (entry := book.book(call, charged, Micros(3), at=at)) is not None:  # type: ignore[arg-type]
            saver.changed(entry.reservation)
    content = saver.save()
    assert content is not None
    assert restored(content, book.paid_keys.all()).postings.figures() == book.postings.figures()


def test_a_snapshot_is_put_off_while_too_many_calls_are_under_way() -> None:
    book = Book()
    book.open("run", cap=None, at=0.0)
    for number in range(MAX_OPEN + 1):
        book.reserve(Reserve(key=str(number), provider="alder", amount=Micros(1), accounts=("run",)), at=1.0)
    assert BookSaver(book.postings).save() is None


async def test_a_ledger_writes_snapshots_and_goes_on_from_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits_module, "MAX_UNSAVED", 40)
    monkeypatch.setattr(commits_module, "PREPARED", 3)
    path, settled = tmp_path / "l.db", 0
    for run in range(4):
        async with ActorSystem("bank") as system:
            ledger, made = spawn(system, path, accounts={"run": None, "batch": None})
            assert await figures(ledger) == (0, run, settled)
            assert list(made[0].broken_invariants()) == []
            for number in range(30):
                call = await reserve(ledger, f"{run}/{number}", 1)
                ledger.tell(BookCall(call, "held" if not number else "no" if number % 3 else "yes"))
                settled += bool(number) and not number % 3
                await asyncio.sleep(0.01)
            if run:
                snapshot = store_of(made[0]).snapshot()
                assert snapshot.number > 60 * run
                store_of(made[0]).compact(10_000, limit=10_000)
            for earlier in range(run + 1):
                with pytest.raises(AlreadyPaid):
                    await reserve(ledger, f"{earlier}/3", 1)
            assert len(await ledger.ask(GetHeld(), timeout=1)) == run + 1


def test_what_was_saved_otherwise_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        next(restore(Book().postings, b"\x90"))
