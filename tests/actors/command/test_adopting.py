"""`understudy cluster adopt`: a journal that was moved goes on at its new home, and what is none is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.command import adopting
from actors.command.app import run_app
from runtime.cluster import journals
from runtime.persistence import JournalFenced, SqliteJournal, reading

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note what is waited for, instead of waiting."""
    waits: list[float] = []
    monkeypatch.setattr(adopting.time, "sleep", waits.append)
    return waits


def journal_at(path: Path) -> Path:
    journal = SqliteJournal(path)
    journal.claim()
    journal.append(b"an entry")
    journal.commit()
    journal.close()
    return path


def test_every_journal_is_adopted_with_what_is_in_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], waited: list[float]
) -> None:
    paths = [journal_at(tmp_path / f"{name}.journal") for name in ("alice", "bob")]
    for times in (1, 2):
        assert run_app(["cluster", "adopt", *map(str, paths)]) == 0
        told = capfd.readouterr()
        assert told.out.splitlines() == [f"{path} is adopted with epoch {times}000000000" for path in paths]
        assert told.err == ""
    assert waited == [1.5, 1.5]
    for path in paths:
        with reading(path) as journal:
            assert list(journal.replay()) == [b"an entry"]
        after = SqliteJournal(path)
        with pytest.raises(JournalFenced):
            after.keep_to(1)
        after.close()


def test_what_cannot_be_adopted_is_refused_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_app(["cluster", "adopt", str(tmp_path / "alice.journal")]) == 2
    assert "there is no such file; move the journal into the folder of its new home first" in capfd.readouterr().err
    text = tmp_path / "notes.txt"
    text.write_text("no journal, but " * 100, encoding="utf-8")
    assert run_app(["cluster", "adopt", str(text)]) == 2
    assert "cannot be read: file is not a database" in capfd.readouterr().err
    owned = SqliteJournal(tmp_path / "owned.journal")
    assert run_app(["cluster", "adopt", owned.path]) == 2
    assert "is in use by process" in capfd.readouterr().err
    owned.close()


def test_a_journal_on_a_shared_file_system_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = journal_at(tmp_path / "alice.journal")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nstore:/runs {tmp_path.resolve()} nfs4 rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr(journals, "MOUNTS", mounts)
    assert run_app(["cluster", "adopt", str(path)]) == 2
    assert "is on a file system that machines share (nfs4); state a folder on a disk of this machine" in (
        capfd.readouterr().err
    )
