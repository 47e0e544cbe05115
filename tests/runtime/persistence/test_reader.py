"""A journal that is read by others: as it is at one moment, whatever its owner does, and without a trace."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.persistence import JournalError, SqliteJournal, owner_of, reading
from tests.runtime.persistence.disks import copy_as_killed, old_journal

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRIES = [f"entry {number}".encode() for number in range(40)]
SCOPE = "shop"


def filled(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path)
    for number, content in enumerate(ENTRIES):
        journal.append(content)
        journal.put(SCOPE, f"key {number % 10}", content, b"body", at=1.0)
        journal.put("other", "key", b"head", at=1.0)
        journal.commit()
        if number == 20:
            journal.checkpoint(is_whole=True)
            journal.save(b"the state")
    return journal


@pytest.fixture(params=["owned", "owned, its log empty", "killed", "copied", "copied without its log", "ended"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return where a journal is that was filled, in each state in which it can be met."""
    path = tmp_path / "a folder #1?" / "run.journal"
    path.parent.mkdir()
    journal = filled(path)
    if request.param == "owned":
        yield path
    elif request.param == "owned, its log empty":
        assert journal.checkpoint(is_whole=True) == 0
        yield path
    elif request.param == "ended":
        journal.close()
        yield path
    else:
        copy = path.with_name("copy.journal")
        if request.param == "copied without its log":
            journal.checkpoint(is_whole=True)
        copy_as_killed(path, copy)
        if request.param == "killed":
            index = path.with_name("run.journal-shm")
            copy.with_name("copy.journal-shm").write_bytes(index.read_bytes())
        yield copy
    journal.close()


def traces(path: Path) -> dict[str, tuple[bytes, int]]:
    return {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in path.parent.iterdir()}


def test_all_of_it_is_read_and_nothing_is_left_behind(path: Path) -> None:
    # The files of an owner in this process are not opened here, because closing them would end its locks.
    def seen() -> object:
        return traces(path) if path.name == "copy.journal" else sorted(path.parent.iterdir())

    before = seen()
    for _ in range(2):
        with reading(path) as journal:
            snapshot = journal.snapshot()
            assert snapshot is not None
            assert (snapshot.number, snapshot.content) == (21, b"the state")
            assert list(journal.replay(after=snapshot)) == ENTRIES[21:]
            assert list(journal.replay()) == ENTRIES
            found = journal.find(SCOPE, "key 7")
            assert found is not None
            assert (found.head, found.body, len(journal.secret)) == (ENTRIES[37], b"body", 32)
            assert sorted(row.head for row in journal.kept(SCOPE)) == sorted(ENTRIES[30:])
            assert [row.body for row in journal.kept("other")] == [None]
            assert list(journal.kept("none")) == []
    assert seen() == before


def test_its_owner_goes_on_meanwhile_and_the_reader_sees_one_moment(tmp_path: Path) -> None:
    owner = filled(tmp_path / "run.journal")
    with reading(tmp_path / "run.journal") as journal:
        rows = journal.replay()
        first = next(rows)
        owner.append(b"later")
        owner.commit()
        assert owner.compact(15, limit=1_000) == 14
        owner.checkpoint()
        assert [first, *rows] == ENTRIES
        with pytest.raises(JournalError, match="is being read by another program"):
            owner.forget(SCOPE)
    assert owner.forget(SCOPE) == 0  # That was done; now the log is emptied, too.
    assert not (tmp_path / "run.journal-wal").stat().st_size
    owner.close()


@pytest.mark.parametrize("removed", [1, 7, 21])
def test_entries_that_a_snapshot_stands_for_may_be_gone(tmp_path: Path, removed: int) -> None:
    owner = filled(tmp_path / "run.journal")
    assert owner.compact(100, limit=removed) == removed
    with reading(tmp_path / "run.journal") as journal:
        assert list(journal.replay()) == ENTRIES[removed:]
        assert journal.number == len(ENTRIES)
    owner._file.execute("DELETE FROM snapshot")
    owner.close()
    with pytest.raises(JournalError, match="is damaged at entry 1"), reading(tmp_path / "run.journal") as journal:
        list(journal.replay())


def test_one_that_ends_while_it_is_read_leaves_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    owner = filled(path)
    with reading(path) as journal:
        rows = journal.replay()
        first = next(rows)
        owner.close()
        assert [first, *rows] == ENTRIES
    again = SqliteJournal(path)
    assert list(again.replay()) == ENTRIES
    again.close()


def test_what_may_be_of_two_moments_is_not_given_as_of_one(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    filled(path).close()

    def read_while_it_is_changed() -> None:
        with reading(path) as journal:
            rows = journal.replay()
            next(rows)
            owner = SqliteJournal(path)
            list(owner.replay())
            owner.append(b"x" * 100_000)
            owner.commit()
            owner.checkpoint(is_whole=True)
            owner.close()
            list(rows)

    with pytest.raises(JournalError, match="was changed while it was read; read it again"):
        read_while_it_is_changed()
    with reading(path) as journal:
        assert len(list(journal.replay())) == len(ENTRIES) + 1


def test_it_cannot_be_written(tmp_path: Path) -> None:
    filled(tmp_path / "run.journal").close()
    with reading(tmp_path / "run.journal") as journal:
        list(journal.replay())
        journal.append(b"more")
        for change in (
            journal.commit,
            journal.tend,
            lambda: journal.forget(SCOPE),
            lambda: journal.compact(9, limit=1),
        ):
            with pytest.raises(JournalError, match="is open to be read only"):
                change()
    with reading(tmp_path / "run.journal") as journal:
        assert list(journal.replay()) == ENTRIES


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    filled(path).close()
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("UPDATE entries SET content = CAST('x' AS BLOB) WHERE number = 3")
    file.close()
    with pytest.raises(JournalError, match="is damaged at entry 3"), reading(path) as journal:
        list(journal.replay())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist; give the path of a journal"),
        (b"", "has nothing in it yet"),
        (b"not one " * 1_000, "cannot be read: file is not a database"),
        (1, "is of format 1; open it with the program that keeps it first"),
        (7, "is a database of something else"),
    ],
)
def test_what_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path, content: object, problem: str) -> None:
    path = tmp_path / "run.journal"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        old_journal(path, [b"{}"], 1)
        if content == 7:
            file = sqlite3.connect(path)
            file.execute("PRAGMA application_id = 7")
            file.close()
    before = traces(path)
    with pytest.raises(JournalError, match=problem), reading(path):
        pass
    assert traces(path) == before


OWNER = """
import sys
import tempfile
from runtime.persistence import SqliteJournal
journal = SqliteJournal(sys.argv[1])
for number in range(50):
    journal.append(b"entry %d" % number)
    journal.commit()
print("ready", flush=True)
sys.stdin.read()
journal.close()
"""
READER = """
import os, sys
from runtime.persistence import owner_of, reading
if os.geteuid() == 0:
    os.setuid(65534)
with reading(sys.argv[1]) as journal:
    print(len(list(journal.replay())), owner_of(sys.argv[1]))
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that another user can come to; pytest closes its own to others."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.skipif(sys.platform == "win32", reason="permissions of folders are others there")
def test_another_process_reads_it_in_a_folder_that_may_only_be_read(public_folder: Path) -> None:
    path = public_folder / "run.journal"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

    def read() -> str:
        public_folder.chmod(0o555)
        for one in public_folder.iterdir():
            one.chmod(0o444)
        before = traces(path)
        try:
            done = subprocess.run(
                [sys.executable, "-c", READER, path], env=environment, capture_output=True, text=True, check=False
            )
        finally:
            public_folder.chmod(0o755)
        assert done.returncode == 0, done.stderr
        assert traces(path) == before
        return done.stdout

    with subprocess.Popen(
        [sys.executable, "-c", OWNER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert read() == f"50 {owner_of(path)}\n"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert read() == "50 None\n"
    (public_folder / "run.journal-shm").unlink()
    assert read() == "50 None\n"
