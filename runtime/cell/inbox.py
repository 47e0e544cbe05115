"""How mail gets in: room, overflow, senders who wait for room, and askers who wait for an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from runtime.deadline import current_deadline, earlier
from runtime.envelope import RUNNING, SETTLED, WAITING, Ask, Told
from runtime.errors import ActorStopped, AskTimeout, MailboxFull
from runtime.events import DeadLetter, DeadReason, Terminated
from runtime.mailbox import Mailbox, Overflow
from runtime.messages import Message, name_of

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Sequence

    from runtime.engine import Engine
    from runtime.ref import ActorRef

LONGEST = 1e12
"""Seconds: whoever may wait that long waits for ever, and no clock could tell when that is over."""
NO_MAIL: deque[Any] = deque(maxlen=0)
"""Stands in for the queue of an actor that never had mail; an empty deque of its own would cost 760 bytes."""


NOT_NOW: Any = object()
"""Says that a request has to take its way through the mailbox."""
HERE: Any = object()
"""Says that the handler of a request runs in the task of its asker."""


class Unclaimed(Message, frozen=True):
    """Told by the runtime to an actor whose answer came too late for its asker."""

    request: Any
    answer: Any


class PendingSend:
    """A message whose sender waits for room."""

    __slots__ = ("deadline", "message", "tick", "waiter")

    def __init__(self, message: Any, deadline: float, waiter: asyncio.Future[bool]) -> None:
        self.message = message
        self.deadline = deadline
        self.tick = 0
        self.waiter = waiter

    def expire(self) -> None:
        """Give up, because the time to wait is over."""
        if not self.waiter.done():
            self.waiter.set_result(False)


class Inbox:
    """The mail side of a cell.

    `room` is what the queue may hold while mail is taken, and 0 before the first message and after the last, so that
    the fast path of `tell` needs one comparison only.
    """

    __slots__ = ("closed", "engine", "idle", "queue", "ref", "room", "senders")

    # Set by the constructor of a cell, which is one function for all three layers: spawning has to be quick.
    engine: Engine
    ref: ActorRef[Any]
    queue: deque[Any]
    room: int
    idle: bool
    closed: bool
    senders: OrderedDict[Ask | PendingSend, None] | None

    @property
    def path(self) -> str:
        """Where the actor stands in the tree."""
        raise NotImplementedError

    @property
    def mailbox(self) -> Mailbox:
        """What the mailbox holds, and what becomes of the rest."""
        raise NotImplementedError

    def schedule(self) -> None:
        """See that the mail is handled; called when mail comes in and nothing is under way."""
        self.idle = False
        self.engine.enqueue(self)

    def run(self, limit: int) -> int:
        raise NotImplementedError

    def request_stop(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    async def join(self) -> Any:
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError

    def unclaimed(self, request: Any, answer: Any) -> None:
        """Hand back an answer that nobody waits for."""
        raise NotImplementedError

    def answer_now(self, message: Any, deadline: float) -> Any:
        """Answer a request at once, return the `Ask` to wait for, `NOT_NOW` or `HERE`; called while at rest."""
        raise NotImplementedError

    async def answer_here(self, message: Any, deadline: float) -> Any:
        """Handle a request in the running task, which is its asker's; return its answer, or the `Ask` to wait for."""
        raise NotImplementedError

    def waits_for_itself(self) -> bool:
        """Tell whether the running task is the one that would have to answer."""
        raise NotImplementedError

    def tell_slowly(self, message: Any) -> None:
        """Take a message that found no room: the first ever, one too many, or one too late."""
        if self._take(message):
            return
        if self.closed:
            self.bury(message, DeadReason.STOPPED)
            return
        match self.mailbox.overflow:
            case Overflow.REJECT:
                raise MailboxFull(self.path, capacity=self.mailbox.capacity)
            case Overflow.DROP_NEWEST:
                self.bury(message, DeadReason.FULL)
            case Overflow.DROP_OLDEST:
                if self.drop_oldest():
                    self._put(message)
                else:
                    self.bury(message, DeadReason.FULL)

    def drop_oldest(self) -> bool:
        """Make the mail that has waited longest a dead letter; False where all there is comes from the runtime."""
        for place, item in enumerate(self.queue):
            if not isinstance(item, Terminated | Unclaimed):
                del self.queue[place]
                self.bury(item, DeadReason.FULL)
                return True
        return False

    def deliver_first(self, message: Any) -> None:
        """Take a message from the runtime itself that overtakes the mail."""
        if self.closed:
            self.bury(message, DeadReason.STOPPED)
            return
        if self.queue is NO_MAIL:
            self.open()
        self.queue.appendleft(message)
        if self.idle:
            self.schedule()

    def deliver(self, message: Any) -> None:
        """Take a message from the runtime itself, such as `Terminated`, whatever the room."""
        if self.closed:
            return
        if self.queue is NO_MAIL:
            self.open()
        self._put(message)

    def take_in_turn(self, ask: Ask) -> None:
        """Take a request as soon as there is room; its asker waits elsewhere, and has its deadline."""
        if not self._take(ask):
            self._line_up(ask)

    def deliver_or_bury(self, message: Any) -> None:
        """Take a message from a timer, which nobody could be told of otherwise: without room it is a dead letter."""
        if not self._take(message):
            self.bury(message, DeadReason.STOPPED if self.closed else DeadReason.FULL)

    async def send(self, message: Any, timeout: float | None) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
        """Take a message as soon as there is room; see `ActorRef.send`."""
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {timeout}")
        if self._take(message):
            return
        if self.closed:
            raise ActorStopped(self.path, name_of(message))
        loop = self.engine.loop
        now = loop.time()
        inherited = current_deadline.get()
        deadline = earlier(inf if timeout is None or timeout >= LONGEST else now + timeout, inherited)
        sending = PendingSend(message, deadline, loop.create_future())
        self._line_up(sending)
        if deadline < inf:
            self.engine.deadlines.add(sending)
        try:
            admitted = await sending.waiter
        finally:
            if deadline < inf:
                self.engine.deadlines.discard(sending)
            self._leave_line(sending)
        if not admitted:
            if self.closed:
                raise ActorStopped(self.path, name_of(message))
            raise AskTimeout(self.path, name_of(message), timeout=deadline - now)

    async def ask(self, message: Any, timeout: float) -> Any:  # noqa: ASYNC109, C901, PLR0912 - one coroutine is faster than two.
        """Take a request and wait for its answer; see `ActorRef.ask`."""
        if not 0 < timeout < LONGEST:
            raise ValueError(f"timeout must be a finite number of seconds > 0 (and < {LONGEST:g}), got {timeout}")
        engine = self.engine
        now = engine.loop.time()
        deadline = now + timeout
        inherited = current_deadline.get()
        if inherited is not None and inherited < deadline:
            deadline = inherited
            if deadline <= now:
                raise AskTimeout(self.path, name_of(message), timeout=0.0)
        ask = self.answer_now(message, deadline) if self.idle and engine.may_answer_now() else NOT_NOW
        if ask is HERE:
            ask = await self.answer_here(message, deadline)
            if not isinstance(ask, Ask):
                return ask
        elif ask is NOT_NOW:
            ask = Ask(message, deadline)
            if not self._take(ask):
                if self.closed:
                    raise ActorStopped(self.path, name_of(message))
                self._line_up(ask)
            engine.pump()
        elif not isinstance(ask, Ask):
            return ask
        if ask.progress is WAITING or ask.progress is RUNNING:
            if self.waits_for_itself():
                ask.cancel()
                raise asks_itself(self.path, message)
            ask.waiter = engine.loop.create_future()
            engine.deadlines.add(ask)
            try:
                await ask.waiter
            except asyncio.CancelledError:
                if not ask.cancel() and ask.error is None:
                    (ask.answerer or self).unclaimed(message, ask.value)
                raise
            finally:
                engine.deadlines.discard(ask)
                if self.senders:
                    self._leave_line(ask)
        if ask.progress is not SETTLED:
            raise AskTimeout(self.path, name_of(message), timeout=deadline - now)
        if ask.error is not None:
            raise ask.error
        return ask.value

    def admit(self) -> None:
        """Let in those who wait for room, in the order of their arrival."""
        senders = self.senders
        while senders and len(self.queue) < self.room:
            item, _ = senders.popitem(last=False)
            if isinstance(item, Ask):
                if item.progress is WAITING:
                    self.queue.append(item)
            elif not item.waiter.done():
                self.queue.append(item.message)
                item.waiter.set_result(True)

    def make_room(self, places: int) -> None:
        """Have that many places more; less (< 0) where mail leaves the queue but not the mailbox."""
        if not self.closed:
            self.room += places

    def close(self) -> None:
        """Take no more mail; what comes from now on is a dead letter."""
        self.closed = True
        self.room = 0

    def bury_all(self) -> None:
        """Turn what is left into dead letters, and tell those who wait for room that there will be none."""
        while self.queue:
            self.bury(self.queue.popleft(), DeadReason.STOPPED)
        self.queue = NO_MAIL
        senders, self.senders = self.senders, None
        for item in senders or ():
            if isinstance(item, Ask):
                item.fail(ActorStopped(self.path, name_of(item.message)))
            else:
                item.expire()

    def bury(self, message: Any, reason: DeadReason) -> None:
        """Make a message that no handler will see a dead letter; an asker is told."""
        if isinstance(message, Told):
            message = message.message
        elif isinstance(message, Ask):
            if reason is DeadReason.STOPPED:
                message.fail(ActorStopped(self.path, name_of(message.message)))
            elif reason is DeadReason.FULL:
                message.fail(MailboxFull(self.path, capacity=self.mailbox.capacity))
            message = message.message
        if not isinstance(message, DeadLetter):  # Otherwise one told to a stopped subscriber would breed for ever.
            self.engine.events.publish(DeadLetter(self.ref, message, reason))

    def _take(self, item: Any) -> bool:
        """Put an item in the queue where there is room for it."""
        if self.queue is NO_MAIL and not self.closed:
            self.open()
        if len(self.queue) >= self.room:
            return False
        self._put(item)
        return True

    def _put(self, item: Any) -> None:
        self.queue.append(item)
        if self.idle:
            self.schedule()

    def open(self) -> None:
        """Make the queue, for the first message."""
        self.queue = self.engine.new_queue(self)
        self.room = 0 if self.closed else self.mailbox.capacity

    def put_in_front(self, items: Sequence[Any]) -> None:
        """Put back mail that had left the queue, before the rest but for answers that came back."""
        if self.queue is NO_MAIL:
            self.open()
        queue = self.queue
        first: list[Any] = []
        while queue and isinstance(queue[0], Unclaimed):
            first.append(queue.popleft())
        queue.extendleft(reversed(items))
        queue.extendleft(reversed(first))

    def _line_up(self, item: Ask | PendingSend) -> None:
        if self.senders is None:
            self.senders = self.engine.new_line(self)
        self.senders[item] = None

    def _leave_line(self, item: Ask | PendingSend) -> None:
        if self.senders:
            self.senders.pop(item, None)


def asks_itself(path: str, message: Any) -> RuntimeError:
    """Make the error for an actor that would wait for its own answer."""
    return RuntimeError(
        f"{path} asks itself {name_of(message)} and would wait forever; "
        "call the method, `tell` it, or declare the handler concurrent"
    )
