"""What stands behind the ref of an actor on another node."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from runtime.cell.far_target import FarTarget
from runtime.cell.inbox import LONGEST
from runtime.cell.state import NO_MAIL
from runtime.cell.watching import tell_watchers
from runtime.cluster.codec import answer_type, error_from_wire, kind_of, tag_of
from runtime.cluster.errors import AnswerLost, NeverDelivered, NotSendable, RemoteCrash
from runtime.cluster.frames import AskFrame, CancelFrame, EndFrame, TellFrame, WatchFrame, WireError
from runtime.deadline import current_deadline, earlier
from runtime.envelope import RUNNING, SETTLED, WAITING, Ask, Envelope, told
from runtime.errors import ActorStopped, AskTimeout, MailboxFull
from runtime.events import DeadLetter, DeadReason
from runtime.messages import name_of
from runtime.ref import ActorRef

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine

    from runtime.cluster.codec import MessageCodec, WireRef
    from runtime.engine import Engine
    from runtime.supervision import Exit

NONE = type(None)
MAX_WAITING = 100_000
"""Frames that may wait for a node; what is told beyond them is refused."""


class NodeLink(Protocol):
    """What an actor of another node needs of the conversation with that node."""

    engine: Engine
    codec: MessageCodec
    why_lost: str | None

    @property
    def is_full(self) -> bool: ...

    pending: dict[int, PendingAnswer]

    def post(self, frame: Any, lost: Callable[[bool], None] | None = None, *, alone: bool = False) -> None: ...
    def new_number(self) -> int: ...
    def carried(self) -> dict[str, Any]: ...
    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]: ...
    async def change(self) -> None: ...


class RemoteActor(FarTarget):
    """The recipient behind a ref: what is told or asked becomes a frame to the node where the actor lives."""

    queue: deque[Any] = NO_MAIL
    room = 0
    idle = False
    load = 0

    def __init__(self, peer: NodeLink, name: WireRef) -> None:
        self.peer = peer
        self.name = name
        self.ref: ActorRef[Any] = ActorRef(self)
        self.exit: Exit | None = None
        self._is_observed = False

    @property
    def path(self) -> str:
        return f"{self.name.node}:{self.name.path}"

    @property
    def actor(self) -> RemoteActor:
        """What log lines name its class after."""
        return self

    @property
    def engine(self) -> Engine:
        """The engine of this node."""
        return self.peer.engine

    @property
    def closed(self) -> bool:
        return self.exit is not None or self.peer.why_lost is not None

    @property
    def home(self) -> RemoteActor:
        return self

    def schedule(self) -> None:
        """Nothing is ever scheduled: its mailbox is elsewhere."""

    def tell_slowly(self, message: Any) -> None:
        self.peer.engine.check_thread()
        if self.closed:
            self._dead_letter(message, DeadReason.STOPPED)
            return
        if self.peer.is_full:
            raise MailboxFull(self.path, capacity=MAX_WAITING)
        kind = kind_of(message)
        frame = TellFrame(self.name.number, tag_of(kind), self.peer.codec.encode(message))

        def lost(had_left: bool) -> None:  # noqa: FBT001 - called by position, as all of its kind.
            self._dead_letter(message, DeadReason.LOST if had_left else DeadReason.STOPPED)

        self.peer.post(frame, lost)

    def take_over(self, item: Any) -> None:
        if not isinstance(item, Ask):
            self.tell_slowly(told(item))
            return
        if item.progress is not WAITING:
            return  # Its asker has given up.
        if self.closed:
            item.fail(self._gone(item.message))
            return
        try:
            frame = self._frame(item.message, self.peer.engine.time(), item.deadline, awaits=True)
            of = answer_type(kind_of(item.message))
        except NotSendable as error:
            item.fail(error)
            return
        # At once, so that what is told next cannot overtake it.
        self._post(frame, PendingAnswer(self, item, of, self.peer.new_number()))

    async def send(self, message: Any, timeout: float | None) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {timeout}")
        self.peer.engine.check_thread()
        now = self.peer.engine.time()
        given = inf if timeout is None or timeout >= LONGEST else now + timeout
        await self._request(message, now, earlier(given, current_deadline.get()), awaits=False)

    async def ask(self, message: Any, timeout: float) -> Any:  # noqa: ASYNC109 - a deadline, not a scope.
        return (await self._ask(message, timeout))[0]

    async def ask_to_return(self, message: Any, timeout: float) -> tuple[Any, Callable[[], None]]:  # noqa: ASYNC109 - a deadline, not a scope.
        answer, number = await self._ask(message, timeout)
        return answer, lambda: self.peer.post(CancelFrame(number))

    async def _ask(self, message: Any, timeout: float) -> tuple[Any, int]:  # noqa: ASYNC109 - a deadline, not a scope.
        if not 0 < timeout < LONGEST:
            raise ValueError(f"timeout must be a finite number of seconds > 0 (and < {LONGEST:g}), got {timeout}")
        self.peer.engine.check_thread()
        now = self.peer.engine.time()
        deadline = earlier(now + timeout, current_deadline.get())
        if deadline <= now:
            raise AskTimeout(self.path, name_of(message), timeout=0.0)
        return await self._request(message, now, deadline, awaits=True)

    async def _request(self, message: Any, now: float, deadline: float, *, awaits: bool) -> tuple[Any, int]:
        if self.closed:
            raise self._gone(message)
        frame = self._frame(message, now, deadline, awaits=awaits)
        of = answer_type(kind_of(message)) if awaits else NONE
        return await self.exchange(message, frame, of, now=now, deadline=deadline)

    def _frame(self, message: Any, now: float, deadline: float, *, awaits: bool) -> Callable[[int], AskFrame]:
        peer, kind = self.peer, tag_of(kind_of(message))
        body = peer.codec.encode(message)
        left = None if deadline == inf else deadline - now
        return lambda number: AskFrame(number, self.name.number, kind, body, left, peer.carried(), awaits)

    def _post(self, frame: Callable[[int], Any], pending: PendingAnswer) -> None:
        self.peer.pending[pending.number] = pending
        self.peer.post(frame(pending.number), pending.lost, alone=True)

    async def exchange(
        self, message: Any, frame: Callable[[int], Any], of: Any, *, now: float, deadline: float
    ) -> tuple[Any, int]:
        """Send the frame of a request, which is made with its number; return its answer as the type `of`, and that."""
        peer, engine = self.peer, self.peer.engine
        ask = Ask(message, deadline)
        ask.waiter = engine.loop.create_future()
        number = peer.new_number()
        self._post(frame, PendingAnswer(self, ask, of, number))
        if deadline < inf:
            engine.deadlines.add(ask)
        try:
            await ask.waiter
        except asyncio.CancelledError:
            if not ask.cancel() and ask.error is None:
                peer.post(CancelFrame(number))  # The answer has come, and is not taken.
            raise
        finally:
            if deadline < inf:
                engine.deadlines.discard(ask)
            peer.pending.pop(number, None)
        if ask.progress is not SETTLED:
            raise AskTimeout(self.path, name_of(message), timeout=deadline - now)
        if ask.error is not None:
            raise ask.error
        return ask.value, number

    def request_stop(self) -> None:
        self._end(kill=False)

    def kill(self) -> None:
        self._end(kill=True)

    async def join(self) -> Exit:
        self.observe()
        while self.exit is None:
            await self.peer.change()
        return self.exit

    def describe(self) -> str:
        state = "stopped" if self.exit is not None else self.peer.why_lost or "remote"
        return f"{self.path} {state}"

    def observe(self) -> None:
        """Have its node say when it ends, from the first watcher on."""
        if not self._is_observed and not self.closed:
            self._is_observed = True
            self.peer.post(WatchFrame(self.name.number))

    def ended(self, exit: Exit) -> None:  # noqa: A002 - the field's word for how a process ended.
        """Take note of its end, once, and tell its watchers."""
        if self.exit is None:
            self.exit = exit
            tell_watchers(self, tuple(self.watchers or ()), exit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def _end(self, *, kill: bool) -> None:
        self.peer.engine.check_thread()
        if not self.closed:
            self.peer.post(EndFrame(self.name.number, kill))

    def _gone(self, message: Any) -> ActorStopped:
        if self.peer.why_lost is not None:
            return NeverDelivered(self.path, name_of(message), why=self.peer.why_lost)
        return ActorStopped(self.path, name_of(message))

    def _dead_letter(self, message: Any, reason: DeadReason) -> None:
        message = message.message if isinstance(message, Envelope) else message
        if not isinstance(message, DeadLetter):  # Otherwise one told to a lost subscriber would breed for ever.
            self.peer.engine.events.publish(DeadLetter(self.ref, message, reason))

    def __repr__(self) -> str:
        return f"<RemoteActor {self.describe()}>"


class PendingAnswer:
    """A request that another node has, and the asker that waits here."""

    __slots__ = ("ask", "number", "of", "target")

    def __init__(self, target: RemoteActor, ask: Ask, of: Any, number: int) -> None:
        self.target = target
        self.ask = ask
        self.of = of
        self.number = number
        ask.progress = RUNNING
        ask.execution = self

    def cancel(self) -> None:
        """Tell the node that the answer is not wanted any more; the asker calls it by giving up."""
        self.target.peer.pending.pop(self.number, None)
        self.target.peer.post(CancelFrame(self.number))

    def answered(self, decode: Callable[[Any], Any]) -> bool:
        """Give the asker the answer; False if it has given up."""
        try:
            value = decode(self.of)
        except Exception as error:  # noqa: BLE001 - a body that is not of the declared type, or a ref in it.
            self.ask.fail(error)
            return True
        return self.ask.answer(value)

    def failed(self, error: WireError) -> None:
        """Raise at the asker what the node says."""
        target = self.target
        timeout = max(0.0, self.ask.deadline - target.peer.engine.time())
        try:
            found = error_from_wire(error, actor=target.path, request=self.ask.message, timeout=timeout)
        except Exception:  # noqa: BLE001 - of an error whose state is not what its type needs.
            found = RemoteCrash(error.kind, error.text)
        self.ask.fail(found)

    def lost(self, had_left: bool) -> None:  # noqa: FBT001 - called by position.
        """End the request because its node is gone."""
        named, why = name_of(self.ask.message), self.target.peer.why_lost or "its node is gone"
        path = self.target.path
        self.ask.fail(AnswerLost(path, named, why=why) if had_left else NeverDelivered(path, named, why=why))
