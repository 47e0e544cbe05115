"""Answers that are given once what they rest on is written: what comes together shares one commit.

There are three ways to commit:
1. On the loop, once in each turn of it: if a commit is quick, because nothing waits for the disk, and small.
2. On the loop but for the wait for the disk, which one thread does: if it is small, and the journal can do that.
3. In that thread, if it is neither. What comes while the thread is busy goes into the next, which begins then.

A thread waits for the interpreter's lock beside a busy loop, after each statement of SQLite, so it is used only for
what takes longer than that, or did so for the last commit. The upkeep has the thread while nothing waits for a commit.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runtime.persistence.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from runtime.persistence.journal import Journal, JournalBatch

MAX_ON_LOOP = 1_000_000
"""The bytes that are written on the loop in one turn of it: about a millisecond's work."""
MAX_PACKED_ON_LOOP = 64_000
"""The same if values are compressed or encrypted, which takes ten times as long and more."""
SLOW = 0.1
"""Seconds of a commit that should not wait for the disk, and has done so. A busy machine takes some ten ms."""
LATEST = 0.01
"""Seconds after which what nothing waits for is written, if nothing else is before."""
TEND_EVERY = 3600.0
"""Seconds after which a journal is tended also if little was written."""
TEND_PAUSE = 0.01
"""Seconds between two steps of the upkeep, in which commits have the disk for themselves."""
TEND_LATER = 0.1
"""Seconds after which the upkeep looks again whether anything waits for a commit."""
MAX_BEHIND = 8.0
"""The arrears of a journal's upkeep at which it waits no more."""
RETRY_AFTER = 1.0
"""Seconds after which a commit that failed is tried again."""


class GroupCommit:
    """The commits of one journal.

    If a commit fails, the answers that waited fail with what `refusal` makes of the error; `on_refused` gets each of
    them. Nothing that was appended is lost: it is tried again each second, and until it is written, the commits are
    down; `on_failure` is called with the error when that begins. `on_abandoned` gets an answer that was written
    although its asker had given up by then.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        refusal: Callable[[JournalError], BaseException],
        on_refused: Callable[[Any], None],
        on_abandoned: Callable[[Any], None],
        on_failure: Callable[[JournalError], None],
    ) -> None:
        self.journal = journal
        self.error: JournalError | None = None
        """Why the last commit failed; None if it did not."""
        self._refusal = refusal
        self._on_refused = on_refused
        self._on_abandoned = on_abandoned
        self._on_failure = on_failure
        self._unanswered: list[tuple[asyncio.Future[Any], Any, bool]] = []
        self._in_flight: list[tuple[asyncio.Future[Any], Any, bool]] = []
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.Handle | None = None
        self._due_late: asyncio.Handle | None = None
        """When what nothing waits for is written at the latest."""
        self._is_due_next = False
        """Whether a commit is due as soon as the one before has ended."""
        self._threads: ThreadPoolExecutor | None = None
        if has_threads(self._loop):
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._writing: asyncio.Future[None] | None = None
        self._tending: asyncio.Handle | None = None
        """The next step of the upkeep."""
        self._is_tended = False
        """Whether such a step is under way in the thread, so that nothing can be written on the loop."""
        self._tended_at = self._loop.time()
        self._is_slow = journal.can_sync_later
        """Whether the next commit may be slow on the loop.

        That is so if the last one was, on the loop or in the thread, and if the log may begin anew, which waits for the
        disk however a commit is made.
        """
        self._is_closed = False

    @property
    def is_down(self) -> bool:
        """Whether the last commit failed, and what was appended is not written yet."""
        return self.error is not None

    @property
    def has_unwritten(self) -> bool:
        """Whether anything is still to be written, so that an answer that rests on it has to wait."""
        return self._writing is not None or self.journal.has_unwritten or self.journal.is_unsynced

    def schedule(self) -> None:
        """Have what was appended written, in this turn of the loop or as soon as the commit before has ended."""
        if self._writing is not None:
            self._is_due_next = True
        elif self._due is None:
            self._due = self._loop.call_soon(self._begin)

    def schedule_late(self) -> None:
        """Have what was appended written with what is scheduled next, or in 10 ms: nothing waits for it.

        So what a call has cost needs no commit of its own, for which the next reservation would have to wait.
        """
        if self._due_late is None and self._due is None:
            self._due_late = self._loop.call_later(LATEST, self._begin_late)

    def _begin_late(self) -> None:
        self._due_late = None
        if self.journal.has_unwritten:
            self.schedule()

    def once_written(
        self, answer: Any, future: asyncio.Future[Any] | None = None, *, or_wait: bool = False
    ) -> asyncio.Future[Any]:
        """Return a future, the given one or a new one, that has this answer once all that was appended is written.

        If that fails, so does the future; with `or_wait`, it waits until it is written after all.
        """
        if future is None:
            future = self._loop.create_future()
        self._unanswered.append((future, answer, or_wait))
        return future

    def abandon(self) -> list[Any]:
        """Give no answer any more, and return the answers that were still to be given."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        abandoned = self._in_flight + self._unanswered
        self._in_flight, self._unanswered = [], []
        for future, _, _ in abandoned:
            future.cancel()
        return [answer for _, answer, _ in abandoned]

    async def close(self) -> None:
        """Write what is left, and let go of the journal; raises `JournalError` if that could not be written.

        A caller that is cancelled waits all the same, so that the journal is free when this has ended.
        """
        for handle in (self._due, self._due_late, self._tending):
            if handle is not None:
                handle.cancel()
        self._due, self._is_closed = None, True
        if self._threads is None:
            self._commit_and_close()
            return
        was_cancelled = False
        while self._writing is not None:  # What was written is waited for apart.
            was_cancelled = await until_done(self._writing) or was_cancelled
        if self._due is not None:  # The commit that has just ended has left more to write.
            self._due.cancel()
            self._due = None
        closing = asyncio.wrap_future(self._threads.submit(self._commit_and_close))
        was_cancelled = await until_done(closing) or was_cancelled
        self._threads.shutdown(wait=False)
        if was_cancelled:
            closing.exception()
            raise asyncio.CancelledError
        closing.result()

    def _commit_and_close(self) -> None:
        try:
            self.journal.commit()
            if self.journal.is_unsynced:
                self.journal.sync()
        finally:
            self.journal.close()

    def _begin(self) -> None:
        """Write what was appended: on the loop, or in the thread."""
        self._due = None
        journal = self.journal
        self._in_flight, self._unanswered = self._unanswered, []
        if not (journal.has_unwritten or journal.is_unsynced):
            self._written()
        elif not self._may_write_on_loop():
            batch = journal.take()
            self._in_thread(lambda: self._write(batch), lambda error: self._thread_done(batch, error))
        elif self._committed_on_loop():
            self._once_synced()

    def _may_write_on_loop(self) -> bool:
        if self._threads is None:
            return True
        journal = self.journal
        waits = journal.waits_for_disk and not journal.can_sync_later
        return is_small(journal, journal.unwritten_size) and not (waits or self._is_tended or self._is_slow)

    def _committed_on_loop(self) -> bool:
        began, journal = self._loop.time(), self.journal
        try:
            if self._threads is None:
                journal.commit()
            else:
                journal.commit_early()
        except JournalError as error:
            self._failed(error)
            return False
        self._is_slow = self._loop.time() > began + SLOW
        return True

    def _in_thread(self, work: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Do work in the thread; `then` gets its error, or None, on the loop."""
        assert self._threads is not None  # noqa: S101 - the caller has looked.
        self._writing = self._loop.create_future()
        self._threads.submit(work).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._work_done, then, done)
        )

    def _write(self, batch: JournalBatch) -> None:
        began = self._loop.time()
        if batch:
            self.journal.write(batch)
        self._is_slow = self._loop.time() > began + SLOW

    def _work_done(self, then: Callable[[BaseException | None], None], done: Future[None]) -> None:
        writing, self._writing = self._writing, None
        is_due_next, self._is_due_next = self._is_due_next, False
        then(done.exception())
        if self._due is None and (is_due_next or self._unanswered):
            self.schedule()  # An answer may have waited for what was being written, with nothing more to write.
        if writing is not None:
            writing.set_result(None)

    def _thread_done(self, batch: JournalBatch, error: BaseException | None) -> None:
        if error is None:
            self.journal.confirm(batch)
            self._once_synced()
        else:
            self.journal.put_back(batch)
            self._failed(self._known(error))

    def _once_synced(self) -> None:
        """Give the answers that waited, once the disk has what was written."""
        if self.journal.is_unsynced:
            self._in_thread(self.journal.sync, self._synced)
        else:
            self._written()

    def _synced(self, error: BaseException | None) -> None:
        if error is None:
            self._written()
        else:
            self._failed(self._known(error))

    def _known(self, error: BaseException) -> JournalError:
        return error if isinstance(error, JournalError) else _unexpected(self.journal, error)

    def _written(self) -> None:
        self.error = None
        answered, self._in_flight = self._in_flight, []
        for future, answer, _ in answered:
            if not future.done():
                future.set_result(answer)
            else:
                self._on_abandoned(answer)
        is_due = self.journal.arrears >= 1.0 or self._loop.time() >= self._tended_at + TEND_EVERY
        if is_due and self._tending is None and not (self._is_tended or self._is_closed):
            self._tending = self._loop.call_soon(self._tend)

    def _tend(self) -> None:
        """Do one step of the journal's upkeep, in the thread if there is one."""
        self._tending = None
        self._tended_at = self._loop.time()
        if self._threads is None:
            with suppress(JournalError):
                if self.journal.tend():
                    self._tending = self._loop.call_later(TEND_PAUSE, self._tend)
            return
        if self.has_unwritten and self.journal.arrears < MAX_BEHIND:
            self._tending = self._loop.call_later(TEND_LATER, self._tend)
            return
        self._is_tended = True
        self._threads.submit(self.journal.tend).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._tended, done)
        )

    def _tended(self, done: Future[bool]) -> None:
        """Go on with the upkeep; what could not be done, because the disk is full perhaps, is due again later."""
        self._is_tended, self._is_slow = False, True
        error = done.exception()
        if error is not None and not isinstance(error, JournalError):
            raise error
        if error is None and done.result() and not self._is_closed:
            self._tending = self._loop.call_later(TEND_PAUSE, self._tend)

    def _failed(self, error: JournalError) -> None:
        """Refuse what waited, and try again later."""
        was_down, self.error = self.is_down, error
        self._is_slow = True  # The log is written anew if the disk has failed.
        unanswered, self._in_flight = self._in_flight, []
        self._due = self._loop.call_later(RETRY_AFTER, self._begin)
        for future, answer, or_wait in unanswered:
            if future.done():
                self._on_abandoned(answer)
            elif or_wait:
                self._unanswered.append((future, answer, True))
            else:
                future.set_exception(self._refusal(error))
                self._on_refused(answer)
        if not was_down:
            self._on_failure(error)

    def __repr__(self) -> str:
        return f"<GroupCommit of {self.journal!r}, {len(self._unanswered) + len(self._in_flight)} answers wait>"


async def until_done(work: asyncio.Future[Any] | None) -> bool:
    """Wait for work that cannot be cancelled; tell whether the caller was cancelled meanwhile."""
    was_cancelled = False
    while work is not None and not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            was_cancelled = True
    return was_cancelled


def is_quick_enough(journal: Journal, size: int, loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether so many bytes are written on the loop: nothing waits for the disk, and they are few.

    In a loop that has no threads, all are.
    """
    return not has_threads(loop) or (not journal.waits_for_disk and is_small(journal, size))


def is_small(journal: Journal, size: int) -> bool:
    """Tell whether so many bytes are few enough to be written on the loop."""
    return size <= (MAX_PACKED_ON_LOOP if journal.packing.takes_time else MAX_ON_LOOP)


def has_threads(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop can wait for threads; one in virtual time cannot, and does at once what needs one."""
    return bool(getattr(loop, "has_threads", True))


def _unexpected(journal: Journal, error: BaseException) -> JournalError:
    fault = JournalError(journal.path, f"cannot be written: {error!r}", "restart the program")
    fault.__cause__ = error
    return fault
