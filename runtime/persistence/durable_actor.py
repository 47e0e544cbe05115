"""Actors whose `context.kept` outlives the program: what is in it is written before the handler's answer is given.

After each handler, what has changed in it is written, and the asker is answered once it is. The next life of the
actor begins with what was written last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from runtime.actor import Actor
from runtime.envelope import Stashed
from runtime.errors import Refusal
from runtime.handlers import Handler, Handlers, direct_of
from runtime.messages import Request
from runtime.persistence.errors import JournalError, JournalFenced
from runtime.persistence.group_commit import GroupCommit
from runtime.persistence.retention import Retention
from runtime.persistence.sqlite import SqliteJournal

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from runtime.persistence.journal import Journal

M = TypeVar("M")

SAVE_EVERY = 1_000
"""The changes after which all values are written, so that a start reads no more changes than as many."""
MAX_OLD_BYTES = 1_000_000
"""The bytes of older changes that stay in the file."""


class NotKept(Refusal):
    """What an actor keeps could not be written, so its answer is not given: the program would forget what it rests on.

    The actor itself has the new values. They are written as soon as they can be, which is tried each second.
    """

    def __init__(self, actor: str, problem: str) -> None:
        super().__init__(
            f"what {actor} keeps is not written, because its journal {problem}; that is tried again each second: "
            "make room for it, and ask again"
        )
        self.actor = actor
        self.problem = problem


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What one handler has changed: the new values as bytes, and the names that it has dropped."""

    kept: dict[str, bytes]
    dropped: tuple[str, ...] = ()


CHANGES = msgspec.msgpack.Decoder(Change)


class DurableActor(Actor[M]):
    """An actor whose `context.kept` outlives the program: `class Agent(DurableActor[Step | Show])`.

    `journal` is the path of its file, which is its alone, or a function that opens a `Journal`. What is kept must be
    plain data, or of the type that `kept_types` has under its name; any other value is refused with TypeError, which
    names it, and what was kept there before stays. Every value is encoded after every message: keep little.

    If what has changed cannot be written, the asker is refused with `NotKept`. A crash undoes no change.

    >>> from runtime import ActorSystem, Request, handles
    >>> from runtime.persistence import MemoryDisk, MemoryJournal
    >>> class Step(Request[int], frozen=True): ...
    >>> class Agent(DurableActor[Step]):
    ...     @handles(Step)
    ...     def step(self, _: Step) -> int:
    ...         self.context.kept["step"] = self.context.kept.get("step", 0) + 1
    ...         return self.context.kept["step"]
    >>> disk = MemoryDisk()
    >>> async def step_twice() -> int:
    ...     for _ in range(2):
    ...         async with ActorSystem("town", log=False) as system:
    ...             agent = system.spawn(lambda: Agent(lambda: MemoryJournal(disk)))
    ...             step = await agent.ask(Step(), timeout=1.0)
    ...     return step
    >>> asyncio.run(step_twice())
    2
    """

    kept_types: ClassVar[Mapping[str, Any]] = {}
    """The types of the values that are no plain data, by their names, such as `{"plan": Plan}`."""

    def __init__(self, journal: str | os.PathLike[str] | Callable[[], Journal]) -> None:
        self.journal_of = journal
        self._written: dict[str, bytes] = {}
        """What is kept, as it was encoded last."""
        self._unsaved = 0

    def recovered(self) -> None:
        """Prepare, once `context.kept` is as it was and before the first message; override it."""

    async def started(self) -> None:
        opened = self.journal_of
        journal = (
            opened() if callable(opened) else SqliteJournal(opened, retention=Retention(entries_bytes=MAX_OLD_BYTES))
        )
        try:
            self._read(journal)
            kept = self.context.kept
            if not kept:  # Otherwise it is of an instance before in this program, and newer than what is written.
                kept.update({name: self._decoded(name, content) for name, content in self._written.items()})
            self._commits = GroupCommit(
                journal,
                refusal=lambda error: NotKept(self.context.ref.path, error.problem),
                on_refused=lambda _: None,
                on_abandoned=lambda _: None,
                on_failure=self._not_written,
            )
            self._note_changes()
            self._handle_durably()
            self.recovered()
        except BaseException:
            journal.close()  # `stopped` is not called for an instance that could not start.
            raise

    async def stopped(self) -> None:
        try:
            self._note_changes()
        finally:
            try:
                await self._commits.close()
            except JournalError as error:
                self.context.log.warning("what it keeps is not written: {}", error)

    def _not_written(self, error: JournalError) -> None:
        self.context.log.warning("what it keeps is not written: {}", error)
        if isinstance(error, JournalFenced):  # It is the later owner's.
            self.context.ref.stop()

    def _read(self, journal: Journal) -> None:
        """Read what was written: all values of the newest snapshot, and the changes since."""
        snapshot = journal.snapshot()
        try:
            if snapshot is not None:
                self._written = dict(CHANGES.decode(snapshot.content).kept)
            for content in journal.replay(after=snapshot):
                change = CHANGES.decode(content)
                self._written.update(change.kept)
                for name in change.dropped:
                    self._written.pop(name, None)
        except msgspec.MsgspecError as error:
            raise JournalError(
                journal.path,
                f"is not of a DurableActor at entry {journal.number}: {error}",
                "give each actor a journal of its own",
            ) from error

    def _handle_durably(self) -> None:
        """Let every handler of this instance be followed by the writing of what it has changed."""
        handlers = Handlers()
        for message_type, handler in self.handlers.items():
            if handler is not None and handler.message is message_type:
                function = self._after_async(handler) if handler.is_async else self._after_sync(handler)
                handlers[message_type] = Handler(
                    handler.message, function, handler.is_async, handler.concurrent, handler.inline
                )
        # The attributes of the instance shadow those of its class.
        self.direct, self.handlers = direct_of(handlers), handlers  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    def _note_changes(self) -> bool:
        """Have written what has changed; tell whether anything is still to be written.

        Raises TypeError for a value that would not come back, after putting back what was kept under its name before.
        """
        kept, before = self.context.kept, self._written
        encoded = {name: self._encoded(name, value) for name, value in tuple(kept.items())}
        changed = {name: content for name, content in encoded.items() if before.get(name) != content}
        dropped = tuple(before.keys() - encoded.keys())
        journal = self._commits.journal
        if changed or dropped:
            self._written = encoded
            journal.append(msgspec.msgpack.encode(Change(changed, dropped)))
            self._unsaved += 1
            if self._unsaved >= SAVE_EVERY:
                self._unsaved = 0
                journal.save(msgspec.msgpack.encode(Change(encoded)))
            self._commits.schedule()
        return self._commits.has_unwritten

    def _encoded(self, name: str, value: Any) -> bytes:
        try:
            content = msgspec.msgpack.encode(value)
            if content == self._written.get(name):
                return content
            came_back = self._decoded(name, content)
            if type(came_back) is type(value) and came_back == value:
                return content
            why = f"it would come back as {came_back!r:.100}"
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            why = str(error)
        if name in self._written:
            self.context.kept[name] = self._decoded(name, self._written[name])
        else:
            del self.context.kept[name]
        raise TypeError(
            f"context.kept[{name!r}] of {self.context.ref.path} cannot be written: {why}; keep plain data there (text, "
            f"numbers, lists, dicts with text as keys), or name its type in {type(self).__name__}.kept_types"
        )

    def _decoded(self, name: str, content: bytes) -> Any:
        return msgspec.msgpack.decode(content, type=self.kept_types.get(name, Any))

    def _once_written(self, message: Any, answer: Any) -> Any:
        """Return an answer, or a future that has it once what has changed is written."""
        is_unwritten = self._note_changes()
        if not is_unwritten or not isinstance(message, Request) or isinstance(answer, Stashed):
            return answer
        return self._commits.once_written(answer)

    def _after_sync(self, handler: Handler) -> Callable[[Any, Any], Any]:
        def handle(actor: Any, message: Any) -> Any:
            try:
                answer = handler.function(actor, message)
            except BaseException:
                self._note_changes()
                raise
            if asyncio.isfuture(answer):
                return asyncio.ensure_future(self._answered_later(message, answer))
            return self._once_written(message, answer)

        return handle

    def _after_async(self, handler: Handler) -> Callable[[Any, Any], Any]:
        async def handle(actor: Any, message: Any) -> Any:
            try:
                answer = await handler.function(actor, message)
            except BaseException:
                self._note_changes()
                raise
            return await self._answered_later(message, answer)

        return handle

    async def _answered_later(self, message: Any, answer: Any) -> Any:
        """Return an answer, which may be a future of one, once what has changed is written."""
        if asyncio.isfuture(answer):
            answer = await answer
        answer = self._once_written(message, answer)
        return await answer if asyncio.isfuture(answer) else answer
