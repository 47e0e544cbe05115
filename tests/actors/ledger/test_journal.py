"""A journal on disk: what is read back is what was written, and what cannot be relied on is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from actors.ledger.book import Book, InsufficientFunds
from actors.ledger.entries import AccountOpened, MoneyReserved, MoneySettled
from actors.ledger.journal import MoneyJournal
from actors.ledger.keys import own_id, scoped_key
from actors.ledger.messages import Costing, Reservation, Reserve
from actors.money import Micros
from actors.tariffs import Usage
from runtime.persistence import JournalError, SqliteJournal
from tests.actors.ledger.journalled import entries_of, filled
from tests.runtime.persistence.disks import old_journal

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read_back(tmp_path):
    made = filled(tmp_path / "l.db")
    assert entries_of(tmp_path / "l.db") == made


def test_what_was_not_committed_was_never_written(tmp_path):
    made = filled(tmp_path / "l.db")
    journal = MoneyJournal(tmp_path / "l.db")
    list(journal.read())
    journal.append(AccountOpened(account="lost", cap=Micros(1), at=1.0))
    assert repr(journal).endswith(f"{len(made) + 1} entries, 1 unwritten>>")
    journal.close()
    assert entries_of(tmp_path / "l.db") == made


def test_an_entry_of_an_unknown_kind_is_refused(tmp_path):
    filled(tmp_path / "l.db")
    store = SqliteJournal(tmp_path / "l.db")
    list(store.replay())
    store.append(msgspec.msgpack.encode({"type": "actors.ledger.MoneyBurnt"}))
    store.commit()
    store.close()
    with pytest.raises(JournalError, match="is damaged at entry 61: Invalid value"):
        entries_of(tmp_path / "l.db")


def test_entries_are_named_in_full_and_say_only_what_there_is_to_say(tmp_path):
    filled(tmp_path / "l.db", 1)
    store = SqliteJournal(tmp_path / "l.db")
    (content,) = store.replay()
    store.close()
    fields = {"type": "actors.ledger.AccountOpened", "account": "account 0", "cap": 0, "at": 1.0}
    assert msgspec.msgpack.decode(content) == fields


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_a_format_before_is_read_and_goes_on_in_this_one(tmp_path, version: int):
    old = [
        b'{"type":"AccountOpened","account":"run","cap":5000,"at":1.0}',
        (
            b'{"type":"MoneyReserved","reservation":7,"key":"k","provider":"alder","accounts":["run"],"amount":300,'
            b'"from_held":0,"passes_over":[],"risk_account":null,"must_hold":false,"held_for":null,"at":2.0}'
        ),
        (
            b'{"type":"MoneySettled","reservation":7,"key":"k","provider":"alder","accounts":["run"],"cost":200,'
            b'"released":100,"overcharged":0,"is_late":false,"is_expired":false,"corrects":0,"at":3.0}'
        ),
        b'{"type":"CapChanged","account":"run","cap":6000,"at":4.0}',
    ]
    old_journal(tmp_path / "l.db", old, version)
    for _ in range(2):  # What was paid is counted once.
        journal, book = MoneyJournal(tmp_path / "l.db"), Book()
        for entry in journal.read():
            book.postings.apply(entry)
        statement = book.statement("run")
        assert (statement.settled, statement.cap, statement.estimated, statement.overdraft) == (200, 6_000, 0, 0)
        assert (journal.paid("k"), journal.paid("other")) == ((200, "alder"), None)
        journal.append(AccountOpened(account=f"new {book.accounts.states.keys()}", cap=None, at=5.0))
        journal.commit()
        journal.close()


def test_what_is_estimated_counts_once_until_it_is_known():
    book, at = Book(), 1.0
    book.open("run", cap=Micros(1_000), at=at)
    entry = book.reserve(Reserve(key="k", provider="alder", amount=Micros(300), accounts=("run",)), at=at)
    assert isinstance(entry, MoneyReserved)
    call = book.reservation(entry.reservation)
    estimated, exact = Costing(basis="estimated"), Costing(basis="exact", usage=Usage(input=9))
    assert book.book(call, "yes", Micros(120), costing=estimated, at=at) is not None
    for charged, cost, costing in (
        ("yes", 120, estimated),
        ("yes", 90, estimated),
        ("yes", 5, None),
        ("no", None, None),
    ):
        given = None if cost is None else Micros(cost)
        assert book.book(call, charged, given, costing=costing, at=at) is None  # type: ignore[arg-type]
    assert (book.statement("run").settled, book.statement("run").estimated) == (120, 120)
    assert book.paid_keys.paid("k") == (120, "alder")
    corrected = book.book(call, "yes", Micros(90), costing=exact, at=at)
    assert isinstance(corrected, MoneySettled)
    assert (corrected.cost, corrected.corrects) == (90, 120)
    assert (book.statement("run").settled, book.statement("run").estimated) == (90, 0)
    assert book.paid_keys.paid("k") == (90, "alder")
    assert list(book.broken_invariants()) == []
    assert book.book(call, "yes", Micros(70), costing=exact, at=at) is None


def written(book: Book, wish: Reserve, ends: str, journal: MoneyJournal) -> None:
    """Reserve under a key, and settle that, or hold it and settle it then."""
    reserved = book.reserve(wish, at=1.0)
    assert isinstance(reserved, MoneyReserved)
    journal.append(reserved)
    made = Reservation(reserved.reservation, wish.key, wish.provider, wish.amount)
    if ends == "held":
        held = book.book(made, "held", at=1.0)
        assert held is not None
        journal.append(held)
    settled = book.book(made, "yes", at=2.0)
    assert settled is not None
    journal.append(settled)
    journal.commit()


@pytest.mark.parametrize("scope", [{}, {"tenant": "acme"}, {"account": "a"}])
@pytest.mark.parametrize(
    ("key", "fingerprint", "ends", "is_kept"),
    [
        (own_id(7), None, "settled", False),
        (own_id(7), None, "held", True),  # Its caller was told of it.
        (own_id(7), b"of a caller", "settled", True),
        ("order 17", None, "settled", True),
        (f"order {own_id(7)}", None, "settled", True),
    ],
)
def test_what_was_paid_is_kept_under_keys_that_may_be_asked_again(
    tmp_path: Path,
    scope: dict[str, str],
    key: str,
    fingerprint: bytes | None,
    ends: str,
    is_kept: bool,  # noqa: FBT001
):
    book, journal = Book(), MoneyJournal(tmp_path / "l.db")
    list(journal.read())
    paid_as = scoped_key(key, **scope)
    wish = Reserve(key=paid_as, provider="alder", amount="0.01", fingerprint=fingerprint)
    written(book, wish, ends, journal)
    assert journal.paid(paid_as) == ((10_000, "alder") if is_kept else None)
    assert book.paid_keys.paid(paid_as) == (10_000, "alder")
    journal.close()


def test_a_journal_of_requests_without_keys_keeps_its_entries_alone(tmp_path: Path):
    book, journal = Book(), MoneyJournal(tmp_path / "l.db")
    list(journal.read())
    for number in range(100):
        written(book, Reserve(key=own_id(number), provider="alder", amount="0.01"), "settled", journal)
    journal.close()
    with closing(sqlite3.connect(tmp_path / "l.db")) as file:
        assert file.execute("SELECT COUNT(*) FROM kept").fetchone() == (1,)  # That all entries are counted.
        assert file.execute("SELECT COUNT(*) FROM entries").fetchone() == (200,)


def test_the_budget_of_a_request_holds_though_the_ledger_has_forgotten_what_it_paid():
    book = Book(max_paid_keys=8)

    def pay(key: str, spent: str = "0") -> object:
        wish = Reserve(key=key, provider="alder", amount="0.01", budget="0.015", intent="again", spent=spent)
        reserved = book.reserve(wish, at=1.0)
        if isinstance(reserved, MoneyReserved):
            book.book(Reservation(reserved.reservation, key, "alder", wish.amount), "yes", at=1.0)
        return reserved

    assert isinstance(pay(own_id(0)), MoneyReserved)
    refused = pay(own_id(0), spent="0.01")
    assert isinstance(refused, InsufficientFunds)
    for number in range(1, 20):
        pay(own_id(number))
    assert book.paid_keys.paid(own_id(0)) is None
    assert pay(own_id(0), spent="0.01") == refused
