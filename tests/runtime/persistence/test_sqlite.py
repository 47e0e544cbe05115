"""A journal in a file: its permissions, its owner, its readers, earlier formats, and files that cannot be relied on."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.persistence import JournalError, Owner, Retention, SqliteJournal, disk_log, owner_of
from runtime.persistence.sqlite import MAX_LOG_BYTES, VERSION
from tests.proofs import repeated
from tests.runtime.persistence.disks import copy_as_killed, modes, old_journal

if TYPE_CHECKING:
    from collections.abc import Callable


def made_at(path: Path, count: int = 120) -> list[bytes]:
    journal = SqliteJournal(path)
    made = [f"entry {number}".encode() * 5 for number in range(count)]
    for content in made:
        journal.append(content)
        journal.commit()
    journal.close()
    return made


def entries_of(path: Path) -> list[bytes]:
    journal = SqliteJournal(path)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def test_all_its_files_can_be_read_by_its_user_alone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "run.journal")
    journal.append(b"x")
    journal.commit()
    assert {one.name for one in tmp_path.iterdir()} == {f"run.journal{end}" for end in ("", "-wal", "-shm", ".lock")}
    assert modes(tmp_path / "run.journal") == {0o600}
    journal.close()


@pytest.mark.parametrize(("safety", "level"), [("process", 1), ("power", 2)])
def test_power_waits_for_the_disk_and_no_commit_moves_the_log(tmp_path: Path, safety: str, level: int) -> None:
    journal = SqliteJournal(tmp_path / "run.journal", safety=safety)  # type: ignore[arg-type]
    assert journal._file.execute("PRAGMA synchronous").fetchone() == (level,)
    assert journal._file.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    journal.append(b"x" * 10_000)
    journal.commit()
    assert journal.checkpoint() == 0
    assert journal.checkpoint(is_whole=True) == 0
    assert not (tmp_path / "run.journal-wal").stat().st_size
    journal.close()


def test_what_is_written_early_outlives_the_process_and_is_waited_for_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, journal = list[int](), SqliteJournal(tmp_path / "run.journal", safety="power")
    monkeypatch.setattr(disk_log, "synced", waited.append)
    for number in range(3):
        journal.append(f"entry {number}".encode())
        journal.commit_early()
        assert (journal.is_unsynced, len(waited)) == (True, number)
        copy_as_killed(tmp_path / "run.journal", tmp_path / f"after {number}.journal")
        assert len(entries_of(tmp_path / f"after {number}.journal")) == number + 1
        journal.sync()
        assert (journal.is_unsynced, len(waited)) == (False, number + 1)
    assert {Path(f"/proc/self/fd/{one}").readlink() for one in waited} == {tmp_path / "run.journal-wal"}
    journal.close()


class FailingDisk:
    """The disk below a journal's log: a wait that fails loses all that was written since the last, for good.

    What a journal has written anew by then, and what is written after, arrives with the next wait.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = path.with_name(path.name + "-wal")
        self.path = path
        self.has = self.counts_as_written = b""
        self.fails = False
        self.rewritten: list[tuple[int, bytes]] = []
        self._pwrite = os.pwrite
        monkeypatch.setattr(disk_log, "synced", self.wait)
        monkeypatch.setattr(os, "pwrite", self.write)

    def write(self, file: int, content: bytes, at: int) -> int:
        if os.path.samestat(os.fstat(file), self.log.stat()):
            self.rewritten.append((at, content))
        return self._pwrite(file, content, at)

    def wait(self, _: int) -> None:
        memory = self.log.read_bytes()
        before, self.counts_as_written = self.counts_as_written, memory
        if self.fails:
            raise OSError(5, "Input/output error")
        disk = bytearray(self.has.ljust(len(memory), b"\0"))
        for at in range(0, len(memory), 512):
            if memory[at : at + 512] != before[at : at + 512]:
                disk[at : at + 512] = memory[at : at + 512]
        for at, content in self.rewritten:
            disk[at : at + len(content)] = content
        self.rewritten.clear()
        self.has = bytes(disk)

    def after_power_cut(self, copy: Path) -> list[bytes]:
        copy.write_bytes(self.path.read_bytes())
        copy.with_name(copy.name + "-wal").write_bytes(self.has)
        return entries_of(copy)


def append_early(journal: SqliteJournal, *contents: bytes) -> None:
    for content in contents:
        journal.append(content)
        journal.commit_early()


def test_after_a_failed_wait_for_the_disk_a_power_cut_loses_nothing_that_was_told_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(tmp_path / "run.journal", safety="power")
    disk = FailingDisk(tmp_path / "run.journal", monkeypatch)
    append_early(journal, b"one")
    journal.sync()
    disk.fails = True
    append_early(journal, b"two" * 5_000)
    for _ in range(2):
        with pytest.raises(JournalError, match="Input/output error; make room"):
            journal.sync()
    with pytest.raises(JournalError, match="Input/output error"):
        journal.checkpoint()  # The file must not be ahead of its log.
    journal.append(b"three")
    with pytest.raises(JournalError, match="Input/output error"):
        journal.commit()
    assert journal.is_unsynced
    assert disk.after_power_cut(tmp_path / "told.journal") == [b"one"]
    disk.fails = False
    journal.commit()
    told = [b"one", b"two" * 5_000, b"three"]
    journal.sync()
    assert disk.after_power_cut(tmp_path / "after.journal") == told
    journal.checkpoint()
    append_early(journal, b"four")
    journal.sync()
    assert disk.after_power_cut(tmp_path / "later.journal") == [*told, b"four"]
    journal.close()


def test_what_the_system_has_dropped_as_well_is_never_told_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(tmp_path / "run.journal", safety="power")
    disk = FailingDisk(tmp_path / "run.journal", monkeypatch)
    append_early(journal, b"one")
    journal.sync()
    disk.fails = True
    append_early(journal, b"two")
    with pytest.raises(JournalError, match="Input/output error"):
        journal.sync()
    disk.fails = False
    disk.log.write_bytes(disk.has)  # What is read back is what the disk has.
    for write in (journal.sync, journal.checkpoint, lambda: append_early(journal, b"three")):
        with pytest.raises(JournalError, match="lost what was not told yet; restart the program"):
            write()
    journal.close()
    assert entries_of(tmp_path / "run.journal") == [b"one"]


@pytest.mark.parametrize("safety", ["process", "power"])
def test_if_sqlite_meets_the_failure_the_log_is_written_anew_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safety: str
) -> None:
    journal = SqliteJournal(tmp_path / "run.journal", safety=safety)  # type: ignore[arg-type]
    append_early(journal, b"one")
    rewritten = list[int]()
    monkeypatch.setattr(disk_log, "rewrite", rewritten.append)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    file, journal._file = journal._file, BrokenConnection(error)  # type: ignore[assignment]
    with pytest.raises(JournalError, match="disk I/O error"):
        journal.checkpoint()
    journal._file = file
    assert not rewritten
    assert journal.checkpoint() == 0
    assert len(rewritten) == 1
    journal.close()


class BrokenConnection:
    """A connection whose statements all fail."""

    def __init__(self, error: sqlite3.Error) -> None:
        self.error = error

    def execute(self, statement: str) -> None:
        raise self.error


def test_what_an_ended_program_left_in_the_log_is_written_anew_before_anything_rests_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, killed = tmp_path / "run.journal", tmp_path / "killed.journal"
    journal = SqliteJournal(path, safety="power")
    append_early(journal, b"one")
    copy_as_killed(path, killed)
    journal.close()
    left = killed.with_name("killed.journal-wal").read_bytes()
    disk = FailingDisk(killed, monkeypatch)
    disk.counts_as_written = left  # The last program waited for it in vain.
    journal = SqliteJournal(killed, safety="power")
    assert (disk.has, list(journal.replay())) == (left, [b"one"])
    append_early(journal, b"two")
    journal.sync()
    assert disk.after_power_cut(tmp_path / "after.journal") == [b"one", b"two"]
    journal.close()


def test_a_second_owner_is_refused_with_the_name_of_the_first_which_others_can_ask_for(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    assert owner_of(path) is None
    journal = SqliteJournal(path)
    me = Owner(os.getpid(), socket.gethostname())
    assert owner_of(path) == me
    with pytest.raises(JournalError, match=rf"in use by process {os.getpid()} on .*; end that one"):
        SqliteJournal(path)
    journal.close()
    assert owner_of(path) is None
    SqliteJournal(path).close()


OWNER = """
import sys, time
from runtime.persistence import SqliteJournal
journal = SqliteJournal(sys.argv[1])
journal.append(b"theirs")
journal.commit()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.real_time
def test_the_lock_of_a_process_that_was_killed_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert owner_of(path) == Owner(process.pid, socket.gethostname())
        with pytest.raises(JournalError, match=f"in use by process {process.pid} on"):
            SqliteJournal(path)
        os.kill(process.pid, signal.SIGKILL)
    assert (path.with_name("run.journal.lock")).read_bytes()
    assert owner_of(path) is None
    assert entries_of(path) == [b"theirs"]


def test_others_can_read_a_journal_that_is_in_use(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "run.journal")
    journal.append(b"x")
    journal.commit()
    reader = sqlite3.connect(f"file:{tmp_path / 'run.journal'}?mode=ro", uri=True)
    assert reader.execute("SELECT content FROM entries").fetchall() == [(b"x",)]
    journal.append(b"y")
    journal.commit()
    assert len(reader.execute("SELECT content FROM entries").fetchall()) == 2
    reader.close()
    journal.close()


def test_a_lock_file_that_says_nothing_is_refused_all_the_same(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "run.journal")
    (tmp_path / "run.journal.lock").write_bytes(b"")
    with pytest.raises(JournalError, match="in use by another process"):
        SqliteJournal(tmp_path / "run.journal")
    journal.close()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("PRAGMA application_id = 7", "is a database of something else; use another file"),
        ("PRAGMA user_version = 9", f"is of format 9, and this program reads {VERSION}"),
        ("PRAGMA user_version = 2", "is of format 2; open it with the program that keeps it first"),
    ],
)
def test_what_it_cannot_read_is_refused(tmp_path: Path, statement: str, problem: str) -> None:
    made_at(tmp_path / "run.journal", 3)
    file = sqlite3.connect(tmp_path / "run.journal", isolation_level=None)
    file.execute(statement)
    file.close()
    with pytest.raises(JournalError, match=problem):
        SqliteJournal(tmp_path / "run.journal")
    assert owner_of(tmp_path / "run.journal") is None


def test_a_file_of_another_program_a_directory_and_one_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are notes, " * 100)
    with pytest.raises(JournalError, match="not a database"):
        SqliteJournal(tmp_path / "notes.txt")
    with pytest.raises(JournalError, match="make sure that its directory exists"):
        SqliteJournal(tmp_path / "nowhere" / "run.journal")
    (tmp_path / "folder").mkdir()
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "folder")
    file = sqlite3.connect(tmp_path / "other.db")
    file.execute("CREATE TABLE t (x)")
    file.close()
    with pytest.raises(JournalError, match="something else"):
        SqliteJournal(tmp_path / "other.db")


def test_an_empty_file_is_a_new_journal_but_not_if_entries_were_written_to_it(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    path.touch()
    assert entries_of(path) == []
    path.write_bytes(b"")
    path.with_name("run.journal-wal").write_bytes(b"x" * 100)
    with pytest.raises(JournalError, match="is empty, though entries were written to it"):
        SqliteJournal(path)


@pytest.mark.parametrize("what", ["body", "snapshot"])
def test_a_body_and_a_snapshot_that_were_changed_count_as_missing(tmp_path: Path, what: str) -> None:
    path = tmp_path / "run.journal"
    journal = SqliteJournal(path)
    journal.append(b"entry")
    journal.put("shop", "order", b"head", b"body", at=1.0)
    journal.commit()
    journal.save(b"state")
    journal.commit()
    journal.close()
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("UPDATE bodies SET body = 'other'" if what == "body" else "UPDATE snapshot SET content = 'other'")
    file.close()
    again = SqliteJournal(path)
    found = again.find("shop", "order")
    assert found is not None
    assert found.body == (None if what == "body" else b"body")
    assert (again.snapshot() is None) is (what == "snapshot")
    again.close()


def test_the_log_stays_small_and_entries_that_a_snapshot_stands_for_go(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    journal = SqliteJournal(path, retention=Retention(entries_bytes=200_000))
    sizes = list[int]()
    for number in range(60):
        for _ in range(200):
            journal.append(b"%4d" % number * 250)
        journal.commit()
        if number % 10 == 9:
            journal.save(b"state")
            journal.commit()
        while journal.arrears >= 1.0 and journal.tend():
            pass
        sizes.append(path.with_name("run.journal-wal").stat().st_size)
    assert max(sizes) < 10_000_000
    (count,) = journal._file.execute("SELECT COUNT(*) FROM entries").fetchone()
    assert count < 4_000
    assert path.stat().st_size < 8_000_000
    journal.close()
    again = SqliteJournal(path)
    assert again.snapshot() is not None
    assert list(again.replay(after=again.snapshot())) == []
    again.close()


def test_what_was_forgotten_is_in_none_of_its_files(tmp_path: Path) -> None:
    path, secret = tmp_path / "run.journal", b"a secret answer that must go"
    journal = SqliteJournal(path)
    for number in range(50):
        journal.put("shop", f"order {number}", b"head", secret * 20, at=1.0)
        journal.commit()
    assert journal.forget("shop") == 50
    for one in tmp_path.iterdir():
        assert secret not in one.read_bytes(), one
    journal.close()


class Crashed:
    """The two files of a journal whose program was killed, and what it had written."""

    def __init__(self, main: bytes, log: bytes, made: list[bytes]) -> None:
        self.main, self.log, self.made = main, log, made

    def __repr__(self) -> str:
        return f"<Crashed, {len(self.made)} entries>"


def crashed_at(path: Path) -> Crashed:
    journal = SqliteJournal(path)
    made = [f"entry {number}".encode() for number in range(120)]
    for number, content in enumerate(made):
        journal.append(content)
        journal.commit()
        if number == 60:
            journal.checkpoint(is_whole=True)
    files = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    journal.close()
    return Crashed(*files, made)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    return crashed_at(tmp_path_factory.mktemp("crashed") / "run.journal")


@settings(max_examples=repeated(250), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans(), in_log=st.booleans())
def test_whatever_is_cut_off_or_flipped_it_is_read_as_far_as_it_is_whole_or_refused(
    crashed: Crashed,
    tmp_path: Path,
    where: float,
    bit: int,
    cut: bool,  # noqa: FBT001
    in_log: bool,  # noqa: FBT001
) -> None:
    main, log, made = crashed.main, crashed.log, crashed.made
    content = bytearray(log if in_log else main)
    place = int(where * len(content))
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path = tmp_path / "run.journal"
    path.write_bytes(main if in_log else content)
    path.with_name("run.journal-wal").write_bytes(content if in_log else log)
    read = list[bytes]()
    try:
        journal = SqliteJournal(path)
        try:
            read.extend(journal.replay())
        finally:
            journal.close()
    except JournalError:
        pass
    assert read == made[: len(read)]


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.skipif(sys.platform == "win32", reason="the size of a file cannot be limited there")
def test_a_disk_that_is_really_full_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from runtime.persistence import JournalError, SqliteJournal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = SqliteJournal(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
count = 0
try:
    while True:
        journal.append(b"x" * 1_000)
        count += 1
        journal.commit()
except JournalError as error:
    assert "cannot be written" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
journal.commit()
print(count)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run.journal"], env=environment, capture_output=True, check=True
    )
    count = int(ran.stdout)
    assert 10 < count < 200
    assert entries_of(tmp_path / "run.journal") == [b"x" * 1_000] * count


def test_a_file_of_an_earlier_format_is_brought_to_this_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    old_journal(path, [b"one", b"two"], 1)

    def failing(version: int, text: str) -> bytes:
        if (version, text) == (1, "two"):
            raise JournalError(str(path), "holds what cannot be read", "restore a copy")
        return text.encode()

    with pytest.raises(JournalError, match="holds what cannot be read"):
        SqliteJournal(path, migrate=failing)
    seen: list[tuple[int, str]] = []

    def migrated(version: int, text: str) -> bytes:
        seen.append((version, text))
        return text.upper().encode()

    migrate: Callable[[int, str], bytes] = migrated
    journal = SqliteJournal(path, migrate=migrate)
    assert list(journal.replay()) == [b"ONE", b"TWO"]
    assert seen == [(1, "one"), (1, "two")]
    journal.append(b"THREE")
    journal.commit()
    journal.close()
    assert entries_of(path) == [b"ONE", b"TWO", b"THREE"]


def test_a_file_of_an_earlier_format_that_is_damaged_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    old_journal(path, [b"one", b"two", b"three"], 2)
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("UPDATE entries SET entry = 'owt' WHERE number = 2")
    file.close()
    with pytest.raises(JournalError, match="is damaged at entry 2"):
        SqliteJournal(path, migrate=lambda _, text: text.encode())
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA user_version").fetchone() == (2,)
    assert file.execute("SELECT COUNT(*) FROM entries WHERE entry IS NOT NULL").fetchone() == (3,)
    file.close()


def filled_log(path: Path, *, commits: int, entries: int, keys: int, is_tended: bool) -> tuple[SqliteJournal, int]:
    """Write so many commits, and return the journal and the most that its log had."""
    journal, most = SqliteJournal(path), 0
    log = path.with_name(f"{path.name}-wal")
    for commit in range(commits):
        for entry in range(entries):
            journal.append(b"entry %d of %d" % (entry, commit) + b"x" * 100)
        for key in range(keys):
            journal.put("shop", f"{commit} {key}", b"paid", b"an answer" * 20, at=0.0)
        journal.commit()
        while is_tended and journal.arrears >= 1.0 and journal.tend():
            pass
        most = max(most, log.stat().st_size)
    return journal, most


def test_the_log_stays_small_if_little_is_written_with_each_commit(tmp_path: Path) -> None:
    journal, most = filled_log(tmp_path / "small.journal", commits=1_500, entries=1, keys=1, is_tended=True)
    assert most < 3 * MAX_LOG_BYTES
    journal.close()
    assert [file.name for file in tmp_path.iterdir() if file.stat().st_size > 1_000] == ["small.journal"]
    untended, most = filled_log(tmp_path / "untended.journal", commits=1_500, entries=1, keys=1, is_tended=False)
    assert most > 5 * MAX_LOG_BYTES
    untended.close()


@pytest.mark.parametrize(("commits", "entries", "keys"), [(300, 1, 0), (300, 1, 1), (10, 1_000, 0), (10, 0, 300)])
def test_what_a_commit_takes_in_the_log_is_about_known(tmp_path: Path, commits: int, entries: int, keys: int) -> None:
    journal, most = filled_log(tmp_path / "l.journal", commits=commits, entries=entries, keys=keys, is_tended=False)
    assert 0.3 < journal._in_log / most < 3.0
    journal.close()
