"""Answers come once they are written: on the loop if that is quick, in one thread if it is not."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

from runtime.persistence import (
    GroupCommit,
    Journal,
    JournalError,
    MemoryDisk,
    MemoryJournal,
    SqliteJournal,
    disk_log,
    group_commit,
)
from runtime.persistence.group_commit import LATEST, MAX_ON_LOOP
from tests.runtime.persistence.disks import MemoryPlace, SqlitePlace
from tests.slow_disk import slow_disk

if TYPE_CHECKING:
    from pathlib import Path


class Till:
    """A journal with its commits, and what became of the answers."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.undone: list[Any] = []
        self.failures: list[JournalError] = []
        self.commits = GroupCommit(
            journal,
            refusal=lambda error: RuntimeError(str(error)),
            on_refused=self.undone.append,
            on_abandoned=self.undone.append,
            on_failure=self.failures.append,
        )

    async def sell(self, item: str, *, size: int = 0, or_wait: bool = False) -> str:
        self.journal.append(item.encode() + bytes(size))
        self.commits.schedule()
        return await self.commits.once_written(item, or_wait=or_wait)


def entries_of(path: Path) -> list[bytes]:
    journal = SqliteJournal(path)
    try:
        return list(journal.replay())
    finally:
        journal.close()


async def test_what_comes_in_one_turn_shares_a_commit() -> None:
    till = Till(MemoryJournal())
    assert await asyncio.gather(*(till.sell(str(number)) for number in range(50))) == list(map(str, range(50)))
    assert till.journal.commits == 1
    await till.commits.close()


@pytest.mark.parametrize("more", [0, 1])
async def test_what_nothing_waits_for_is_written_with_the_next_or_soon(more: int) -> None:
    disk = MemoryDisk()
    till = Till(MemoryJournal(disk))
    for number in range(3):
        till.journal.append(b"%d" % number)
        till.commits.schedule_late()
        await asyncio.sleep(0.002)
    assert (till.journal.commits, till.commits.has_unwritten) == (0, True)
    if more:
        await till.sell("3")
    else:
        await asyncio.sleep(LATEST)
    assert (till.journal.commits, len(disk.entries)) == (1, 3 + more)
    await asyncio.sleep(1.0)
    assert till.journal.commits == 1
    till.journal.append(b"the last")
    till.commits.schedule_late()
    await till.commits.close()
    assert disk.entries[-1].content == b"the last"


@pytest.mark.real_time
async def test_what_is_scheduled_while_the_disk_is_waited_for_is_written_after(tmp_path: Path) -> None:
    till = Till(SqliteJournal(tmp_path / "run.journal", safety="power"))
    write, may_write = till.journal.write, threading.Event()

    def slow(batch: Any) -> None:
        may_write.wait(30)
        write(batch)

    till.journal.write = slow  # type: ignore[method-assign]
    sold = asyncio.create_task(till.sell("a cup"))
    for _ in range(3):
        await asyncio.sleep(0)
    till.journal.append(b"nothing waits for it")
    till.commits.schedule()
    may_write.set()
    await asyncio.wait_for(sold, 30)
    assert till.commits.has_unwritten  # The next commit is under way.
    await till.commits.close()
    assert till.journal.commits == 2
    assert len(entries_of(tmp_path / "run.journal")) == 2


async def test_what_fails_is_refused_and_written_later_and_what_waits_is_answered_then() -> None:
    disk = MemoryDisk()
    till = Till(MemoryJournal(disk))
    disk.is_full = True
    refused, waiting = (asyncio.create_task(till.sell(name, or_wait=name == "b")) for name in "ab")
    with pytest.raises(RuntimeError, match="its disk is full"):
        await refused
    for _ in range(5):
        await asyncio.sleep(1.0)
        assert (till.commits.is_down, waiting.done(), till.undone, len(till.failures)) == (True, False, ["a"], 1)
    disk.is_full = False
    assert await waiting == "b"
    assert not till.commits.is_down
    assert [row.content for row in disk.entries] == [b"a", b"b"]
    await till.commits.close()


async def test_an_asker_that_has_gone_is_told_of_also_if_the_write_fails() -> None:
    disk = MemoryDisk()
    till = Till(MemoryJournal(disk))
    for disk.is_full in (False, True):
        asking = asyncio.create_task(till.sell("a", or_wait=disk.is_full))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(0.1)
    assert till.undone == ["a", "a"]
    await asyncio.gather(till.commits.close(), return_exceptions=True)


@pytest.mark.real_time
@pytest.mark.parametrize(("safety", "size"), [("power", 0), ("process", MAX_ON_LOOP)])
async def test_what_waits_for_the_disk_is_written_in_a_thread_and_shares_commits(
    tmp_path: Path, safety: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, threads = Till(SqliteJournal(tmp_path / "run.journal", safety=safety)), set[str]()
    write, first = till.journal.write, threading.Event()

    def watched(batch: Any) -> None:
        threads.add(threading.current_thread().name)
        assert first.wait(10.0)
        write(batch)

    monkeypatch.setattr(till.journal, "write", watched)
    one = asyncio.create_task(till.sell("one", size=size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(till.sell(str(number), size=size // 10)) for number in range(20)]
    await asyncio.sleep(0)
    assert till.commits.has_unwritten
    first.set()
    await asyncio.gather(one, *others)
    assert till.journal.commits == 2
    assert threads == {"journal_0"}
    assert not till.commits.has_unwritten
    await till.commits.close()
    assert len(entries_of(tmp_path / "run.journal")) == 21


@pytest.mark.real_time
async def test_a_small_commit_is_written_on_the_loop_and_only_the_disk_is_waited_for_in_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = Till(SqliteJournal(tmp_path / "run.journal", safety="power"))
    monkeypatch.setattr(group_commit, "SLOW", math.inf)
    till.journal.untended = 0
    await till.sell("the first, which begins the log")
    written, synced = list[str](), list[str]()
    write_early, sync = till.journal.write_early, till.journal.sync

    def watched_write(batch: Any) -> None:
        written.append(threading.current_thread().name)
        write_early(batch)

    def watched_sync() -> None:
        synced.append(threading.current_thread().name)
        sync()

    monkeypatch.setattr(till.journal, "write_early", watched_write)
    monkeypatch.setattr(till.journal, "sync", watched_sync)
    for turn in range(3):
        await asyncio.gather(*(till.sell(f"{turn} {number}") for number in range(20)))
    assert written == ["MainThread"] * 3
    assert synced == ["journal_0"] * 3
    await till.commits.close()
    assert len(entries_of(tmp_path / "run.journal")) == 61


@pytest.mark.real_time
@pytest.mark.parametrize("failures", [1, 2])
async def test_answers_are_refused_if_the_disk_fails_and_given_again_once_it_has_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    monkeypatch.setattr(group_commit, "RETRY_AFTER", 0.01)
    till, left = Till(SqliteJournal(tmp_path / "run.journal", safety="power")), [failures]
    await till.sell("before")
    synced = disk_log.synced

    def failing_sync(file: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(5, "Input/output error")
        synced(file)

    monkeypatch.setattr(disk_log, "synced", failing_sync)
    waiting = asyncio.create_task(till.sell("waits", or_wait=True))
    with pytest.raises(RuntimeError, match="Input/output error"):
        await till.sell("refused")
    assert till.commits.is_down
    assert await waiting == "waits"
    assert (till.undone, len(till.failures), till.commits.is_down) == (["refused"], 1, False)
    assert await till.sell("after") == "after"
    await till.commits.close()
    assert sorted(entries_of(tmp_path / "run.journal")) == [b"after", b"before", b"refused", b"waits"]


@pytest.mark.real_time
async def test_closing_writes_what_is_left_also_if_it_is_cancelled(tmp_path: Path) -> None:
    for number in range(4):
        till = Till(SqliteJournal(tmp_path / "run.journal", safety="power"))
        list(till.journal.replay())
        asking = [asyncio.create_task(till.sell(f"{number} {one}")) for one in range(2)]
        for _ in range(number):
            await asyncio.sleep(0)
        closing = asyncio.create_task(till.commits.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert len(entries_of(tmp_path / "run.journal")) >= 2 * number  # And it is free for the next owner.


@pytest.mark.real_time
@pytest.mark.parametrize("safety", ["process", "power"])
async def test_the_upkeep_runs_beside_the_commits(tmp_path: Path, safety: Any) -> None:
    path = tmp_path / "run.journal"
    till = Till(SqliteJournal(path, safety=safety))
    for number in range(120):
        await till.sell(str(number), size=100_000)
    await till.commits.close()
    assert len(entries_of(path)) == 120
    assert not path.with_name("run.journal-wal").exists()
    assert path.stat().st_size > 12_000_000


async def test_the_upkeep_is_done_in_virtual_time_too(tmp_path: Path) -> None:
    till = Till(SqliteJournal(tmp_path / "run.journal"))
    await till.sell("a", size=3_000_000)
    await asyncio.sleep(1.0)
    assert till.journal.untended == 0
    await till.commits.close()


# A slow disk.


@pytest.mark.parametrize("seconds", [0.2, 5.0])
@pytest.mark.parametrize("kind", [MemoryPlace, SqlitePlace], ids=["memory", "sqlite"])
async def test_on_a_slow_disk_an_answer_waits_for_its_own_commit_and_the_one_before(
    tmp_path: Path, kind: Any, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, lambda: seconds)
    place, loop, waited = kind(tmp_path), asyncio.get_running_loop(), list[float]()
    journal = place.open()
    journal.waits_for_disk = True
    till = Till(journal)

    async def sell(number: int) -> None:
        await asyncio.sleep(number * 0.01)
        began = loop.time()
        assert await till.sell(str(number)) == str(number)
        waited.append(loop.time() - began)

    ended = await asyncio.gather(*(sell(number) for number in range(1_000)))
    assert len(ended) == 1_000
    assert seconds - 1e-6 <= min(waited) <= max(waited) <= 2 * seconds + 1e-6
    assert journal.commits <= 10.0 / seconds + 2
    await till.commits.close()
    again = place.open()
    assert sorted(int(content) for content in again.replay()) == list(range(1_000))
    again.close()


async def test_commits_are_written_in_the_thread_after_a_slow_one_on_the_loop_until_one_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow_disk(monkeypatch, lambda: 0.0)
    loop, till = asyncio.get_running_loop(), Till(MemoryJournal())
    write, on_loop, times = till.journal.write, list[bool](), [0.05, 0.3, 0.3, 0.05, 0.3, 0.0, 0.0]

    def slow(batch: Any) -> None:
        on_loop.append(till.commits._writing is None)
        loop.now += times.pop(0)  # type: ignore[attr-defined]
        write(batch)

    monkeypatch.setattr(till.journal, "write", slow)
    for _ in range(len(times)):
        await till.sell("one")
    assert on_loop == [True, True, False, False, True, False, True]
    await till.commits.close()


@pytest.mark.real_time
async def test_an_answer_that_waits_for_the_write_that_goes_on_needs_no_other(tmp_path: Path) -> None:
    till = Till(SqliteJournal(tmp_path / "run.journal", safety="power"))
    write, may_write = till.journal.write, threading.Event()

    def slow(batch: Any) -> None:
        may_write.wait(30)
        write(batch)

    till.journal.write = slow  # type: ignore[method-assign]
    sold = asyncio.create_task(till.sell("a cup"))
    for _ in range(3):  # It asks, the commit begins in the next turn, and its thread has what was appended.
        await asyncio.sleep(0)
    assert till.commits.has_unwritten
    assert not till.journal.has_unwritten
    closing_time = till.commits.once_written("no more")  # Nothing is appended for it.
    may_write.set()
    assert await asyncio.wait_for(asyncio.gather(sold, closing_time), 30) == ["a cup", "no more"]
    await till.commits.close()
