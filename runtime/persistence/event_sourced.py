"""Actors whose state is what their events have made of it: a restart, of the actor or of the program, replays them.

A handler decides which events follow from its message, and records them; only then does the state change. So what a
handler has answered is on disk, and what is on disk is all that the state rests on.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args, get_origin

import msgspec

from runtime.actor import Actor
from runtime.errors import Refusal
from runtime.persistence.codec import Codec
from runtime.persistence.errors import JournalError, JournalFenced
from runtime.persistence.group_commit import is_quick_enough, until_done
from runtime.persistence.sqlite import SqliteJournal

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from runtime.persistence.journal import Journal, JournalBatch

Q = TypeVar("Q")
E = TypeVar("E")
S = TypeVar("S")

SLICE = 0.002
"""Seconds of replaying after which others have their turn of the loop."""
COMPACT_LIMIT = 10_000
"""The entries that are removed at once after a snapshot."""


class NotRecorded(Refusal):
    """Events could not be written, so nothing has happened; the command may be sent again."""

    def __init__(self, actor: str, problem: str) -> None:
        super().__init__(f"{actor} changed nothing, because its events were not written: its journal {problem}")
        self.actor = actor
        self.problem = problem


class EventSourced(Actor[Q], Generic[Q, E, S]):
    """An actor whose state outlives it: `class Wallet(EventSourced[Pay | GetBalance, Paid | Earned, int])`.

    The parameters are the messages it takes, its events, and its state. Events are Structs that are tagged with their
    room (`tag=qualified("shop")`), and the state is whatever msgspec encodes.

    `name` stands for the actor in keys, and must be the same in every life of it. `journal` is the path of its file,
    which is its alone, or a function that opens a `Journal`. After every `snapshot_every` events the state is written
    too, so that a start reads no more than as many; None for never.

    Let a handler that records take one message at a time: then the state is as it was when its events are decided.

    >>> from runtime import ActorSystem, Request, handles
    >>> from runtime.persistence import MemoryDisk, MemoryJournal, qualified
    >>> class Earned(msgspec.Struct, frozen=True, tag=qualified("doctest")):
    ...     amount: int
    >>> class Earn(Request[int], frozen=True):
    ...     amount: int
    >>> class Wallet(EventSourced[Earn, Earned, int]):
    ...     def initial(self) -> int:
    ...         return 0
    ...
    ...     def evolve(self, state: int, event: Earned) -> int:
    ...         return state + event.amount
    ...
    ...     @handles(Earn)
    ...     async def earn(self, command: Earn) -> int:
    ...         return await self.record(Earned(command.amount))
    >>> disk = MemoryDisk()
    >>> async def earn_twice() -> int:
    ...     for _ in range(2):
    ...         async with ActorSystem("shop", log=False) as system:
    ...             wallet = system.spawn(lambda: Wallet("wallet", lambda: MemoryJournal(disk)))
    ...             balance = await wallet.ask(Earn(5), timeout=1.0)
    ...     return balance
    >>> asyncio.run(earn_twice())
    10
    """

    event_type: ClassVar[Any] = None
    state_type: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is EventSourced:
                _, cls.event_type, cls.state_type = get_args(base)

    def __init__(
        self, name: str, journal: str | os.PathLike[str] | Callable[[], Journal], *, snapshot_every: int | None = 1_000
    ) -> None:
        if self.event_type is None:
            raise TypeError(
                f"{type(self).__name__} does not say what it takes and records; write "
                f"class {type(self).__name__}(EventSourced[Messages, Events, State])"
            )
        if not name:
            raise ValueError("name must not be empty: it stands for the actor in keys, in every life of it")
        if snapshot_every is not None and snapshot_every < 1:
            raise ValueError(f"snapshot_every must be at least 1 event, or None for never, got {snapshot_every}")
        self.name = name
        self.journal_of = journal
        self.snapshot_every = snapshot_every
        self.state: S = self.initial()
        """What the recorded events have made of the initial state; changed by `record` alone."""
        self.number = 0
        """The number of the last event that the state rests on."""
        self._snapshot_number = 0
        self._turn = asyncio.Lock()
        self._events = Codec[E](self.event_type)

    def initial(self) -> S:
        """Return the state before the first event."""
        raise NotImplementedError(f"{type(self).__name__} needs a method initial() that returns its first state")

    def evolve(self, state: S, event: E) -> S:
        """Return the state after an event. Pure: it is called again for each event whenever the actor starts."""
        raise NotImplementedError(f"{type(self).__name__} needs a method evolve() that returns the state after {event}")

    def recovered(self) -> None:
        """Prepare, once the state is known and before the first message; override it.

        Set timers for what the state says is due, by `seconds_until`: what was due while the program was down is due
        at once, and fires once.
        """

    async def record(self, *events: E) -> S:
        """Write events, all or none, let the state evolve, and return it.

        Raises `NotRecorded` if they could not be written; then nothing has changed. A caller that is cancelled while
        they are being written waits until it is known whether they were.
        """
        async with self._turn:
            state = self.state
            for event in events:
                state = self.evolve(state, event)
            for event in events:
                self._journal.append(self._events.encode(event))
            was_cancelled = await self._write(self._journal.take())
            self.state, self.number = state, self._journal.number
            if self.snapshot_every is not None and self.number - self._snapshot_number >= self.snapshot_every:
                was_cancelled = await self._save() or was_cancelled
            if was_cancelled:
                raise asyncio.CancelledError
            return state

    def call_key(self, call: int = 0) -> str:
        """Return the idempotency key of a call that the present state asks for; `call` tells several apart.

        After a crash the same state asks under the same key, and is given the answer that was paid for. Once an event
        says what came of the call, the next has a key of its own.
        """
        return f"{self.name}/{self.number}/{call}"

    def seconds_until(self, at: float) -> float:
        """Return the seconds until a time, given in seconds since 1970; 0 if it is over."""
        return max(0.0, at - time.time())

    async def started(self) -> None:
        opened = self.journal_of
        self._journal = opened() if callable(opened) else SqliteJournal(opened)
        try:
            await self._replay()
            self.recovered()
        except BaseException:
            self._journal.close()  # `stopped` is not called for an instance that could not start.
            raise

    async def stopped(self) -> None:
        async with self._turn:
            self._journal.close()

    async def _replay(self) -> None:
        """Make the state of the newest snapshot and the events after it."""
        journal, loop = self._journal, asyncio.get_running_loop()
        snapshot = journal.snapshot()
        try:
            if snapshot is not None:
                self.state = msgspec.msgpack.decode(snapshot.content, type=self.state_type)
                self._snapshot_number = snapshot.number
            pause_at = loop.time() + SLICE
            for content in journal.replay(after=snapshot):
                self.state = self.evolve(self.state, self._events.decode(content))
                if loop.time() >= pause_at:
                    await asyncio.sleep(0)
                    pause_at = loop.time() + SLICE
        except msgspec.MsgspecError as error:
            raise JournalError(
                journal.path,
                f"has no events of {type(self).__name__} after entry {journal.number}: {error}",
                "give each actor a journal of its own, and give new fields of its events a default",
            ) from error
        self.number = journal.number

    async def _write(self, batch: JournalBatch) -> bool:
        """Write a batch, and tell whether the caller was cancelled meanwhile."""
        try:
            was_cancelled = await self._at_disk(batch.size, lambda: self._journal.write(batch))
        except JournalError as error:
            self._journal.discard(batch)
            if isinstance(error, JournalFenced):
                self.context.ref.stop()  # Its state is the later owner's.
            raise NotRecorded(self.context.ref.path, error.problem) from error
        self._journal.confirm(batch)
        return was_cancelled

    async def _save(self) -> bool:
        """Write the state and remove the entries before it, and tell whether the caller was cancelled meanwhile.

        If that fails, the entries are still there, so nothing is lost.
        """
        journal, number = self._journal, self.number
        self._snapshot_number = number
        journal.save(msgspec.msgpack.encode(self.state))
        batch = journal.take()

        def save() -> None:
            journal.write(batch)
            while journal.compact(number + 1, limit=COMPACT_LIMIT) == COMPACT_LIMIT:
                pass

        try:
            was_cancelled = await self._at_disk(batch.size, save)
        except JournalError as error:
            journal.discard(batch)
            self.context.log.warning("its state was not written, and the next start replays more: {}", error)
            return False
        journal.confirm(batch)
        return was_cancelled

    async def _at_disk(self, size: int, work: Callable[[], None]) -> bool:
        """Do what writes, in a thread if it takes long; tell whether the caller was cancelled while it waited."""
        loop = asyncio.get_running_loop()
        if is_quick_enough(self._journal, size, loop):
            work()
            return False
        writing = loop.run_in_executor(None, work)
        was_cancelled = await until_done(writing)
        writing.result()
        return was_cancelled
