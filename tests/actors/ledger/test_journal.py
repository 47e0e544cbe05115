"""A journal on disk: what is read back is what was written, and what cannot be relied on is refused."""

from __future__ import annotations

import sqlite3
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.ledger.book import Book
from actors.ledger.entries import AccountOpened, Entry, MoneyReserved, MoneySettled
from actors.ledger.journal import APPLICATION_ID, TABLES, MoneyJournal
from actors.ledger.messages import Costing, Reserve
from actors.money import Micros
from actors.tariffs import Usage
from runtime.persistence import JournalError
from tests.actors.ledger.journalled import entries_of, filled
from tests.proofs import repeated

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
    assert repr(journal).endswith(f"{len(made) + 1} entries, 1 unwritten>")
    journal.close()
    assert entries_of(tmp_path / "l.db") == made


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE entries SET entry = replace(entry, '\"cap\":30', '\"cap\":31')", "damaged at entry 31"),
        ("DELETE FROM entries WHERE number = 30", "damaged at entry 30"),
        ("UPDATE entries SET entry = '{}' WHERE number = 3", "damaged at entry 3"),
        ("PRAGMA application_id = 7", "is a database of something else"),
        ("PRAGMA user_version = 9", "is of format 9, and this program reads 2"),
    ],
)
def test_a_journal_that_was_changed_is_refused(tmp_path, damage: str, problem: str):
    filled(tmp_path / "l.db")
    with sqlite3.connect(tmp_path / "l.db") as file:
        file.execute(damage)
    file.close()
    with pytest.raises(JournalError, match=problem):
        entries_of(tmp_path / "l.db")


def test_a_file_of_another_program_and_a_directory_that_does_not_exist_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("These are notes, " * 100)
    with pytest.raises(JournalError, match="not a database"):
        MoneyJournal(tmp_path / "notes.txt")
    with pytest.raises(JournalError, match="make sure that its directory exists"):
        MoneyJournal(tmp_path / "nowhere" / "l.db")
    file = sqlite3.connect(tmp_path / "other.db")
    file.execute("CREATE TABLE t (x)")
    file.close()
    with pytest.raises(JournalError, match="something else"):
        MoneyJournal(tmp_path / "other.db")


def test_a_journal_belongs_to_one_ledger_at_a_time(tmp_path):
    journal = MoneyJournal(tmp_path / "l.db")
    with pytest.raises(JournalError, match="in use by another ledger"):
        MoneyJournal(tmp_path / "l.db")
    journal.close()
    MoneyJournal(tmp_path / "l.db").close()


def test_a_journal_that_lost_its_beginning_is_refused_and_an_empty_file_is_a_new_one(tmp_path):
    path = tmp_path / "l.db"
    path.touch()
    assert entries_of(path) == []
    path.write_bytes(b"")
    path.with_name("l.db-wal").write_bytes(b"x" * 100)
    with pytest.raises(JournalError, match="is empty, though entries were written"):
        MoneyJournal(path)


def crashed_files(path: Path) -> tuple[bytes, bytes, list[Entry]]:
    """Return the two files of a journal whose program was killed, and what it had written."""
    journal = MoneyJournal(path)
    list(journal.read())
    made: list[Entry] = [
        AccountOpened(account=f"account {number}", cap=Micros(number), at=1.0) for number in range(120)
    ]
    for entry in made:
        journal.append(entry)
        journal.commit()
    files = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    journal.close()
    return (*files, made)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory) -> tuple[bytes, bytes, list[Entry]]:
    return crashed_files(tmp_path_factory.mktemp("crashed") / "l.db")


@settings(max_examples=repeated(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans(), in_log=st.booleans())
def test_whatever_is_cut_off_or_flipped_a_journal_is_read_as_far_as_it_is_whole_or_refused(
    crashed,
    tmp_path,
    where: float,
    bit: int,
    cut: bool,  # noqa: FBT001
    in_log: bool,  # noqa: FBT001
):
    main, log, made = crashed
    content = bytearray(log if in_log else main)
    place = int(where * len(content))
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path = tmp_path / "l.db"
    path.write_bytes(main if in_log else content)
    path.with_name("l.db-wal").write_bytes(content if in_log else log)
    try:
        found = entries_of(path)
    except JournalError:
        return
    assert found == made[: len(found)]


def test_a_journal_of_the_format_before_is_read_and_goes_on_in_this_one(tmp_path):
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
    with sqlite3.connect(tmp_path / "l.db") as file:
        for statement in TABLES:
            file.execute(statement)
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
        checksum = 0
        for number, entry in enumerate(old, 1):
            checksum = zlib.crc32(entry, checksum)
            row = (number, "k" if b"Settled" in entry else None, 200, entry.decode(), checksum)
            file.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
    file.close()
    journal, book = MoneyJournal(tmp_path / "l.db"), Book()
    for entry in journal.read():
        book.postings.apply(entry)
    statement = book.statement("run")
    assert (statement.settled, statement.cap, statement.estimated, statement.overdraft) == (200, 6_000, 0, 0)
    journal.close()
    with sqlite3.connect(tmp_path / "l.db") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
    file.close()


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
    assert book.paid_keys["k"][0] == 120
    corrected = book.book(call, "yes", Micros(90), costing=exact, at=at)
    assert isinstance(corrected, MoneySettled)
    assert (corrected.cost, corrected.corrects) == (90, 120)
    assert (book.statement("run").settled, book.statement("run").estimated) == (90, 0)
    assert book.paid_keys["k"][0] == 90
    assert list(book.broken_invariants()) == []
    assert book.book(call, "yes", Micros(70), costing=exact, at=at) is None
