"""What stands behind the ref of a keyed actor: each message goes to its activation, which is found or made first."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from runtime.cell.far_target import FarTarget
from runtime.cell.inbox import LONGEST
from runtime.cell.state import NO_MAIL
from runtime.cell.watching import tell_watchers
from runtime.cluster.errors import CannotActivate, NeverDelivered
from runtime.cluster.remote import MAX_WAITING
from runtime.deadline import current_deadline, earlier
from runtime.envelope import RUNNING, Ask, told
from runtime.errors import ActorStopped, AskTimeout, MailboxFull
from runtime.events import DeadLetter, DeadReason
from runtime.messages import name_of
from runtime.ref import ActorRef
from runtime.routing.gather import ask_to_return
from runtime.supervision import Exit, ExitReason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from runtime.cluster.homes import Keyed
    from runtime.engine import Engine

LEFT = "this node has left the cluster"
MAX_TRIES = 3
"""Activations that a request tries which end before it is handled."""


class Activates(Protocol):
    """What a keyed actor needs of the node from which it is seen."""

    @property
    def engine(self) -> Engine: ...
    @property
    def is_closed(self) -> bool: ...

    async def activated(self, name: Keyed) -> ActorRef[Any]:
        """Return the activation, which is made if there is none. Raises `CannotActivate`."""
        ...

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]: ...


class InLine:
    """What waits for the activation: a request that goes on by itself, or a message."""

    def __init__(self, turn: asyncio.Future[ActorRef[Any]] | None = None, message: Any = None) -> None:
        self.turn = turn
        self.message = message


class KeyedActor(FarTarget):
    """The recipient behind the ref of a keyed actor; as seen from one node."""

    queue: deque[Any] = NO_MAIL
    room = 0
    idle = False
    load = 0
    closed = False
    """It can always be activated again."""

    def __init__(self, node: Activates, name: Keyed) -> None:
        self.node = node
        self.name = name
        self.ref: ActorRef[Any] = ActorRef(self)
        self._active: ActorRef[Any] | None = None
        self._waiting: deque[InLine] = deque()
        self._activating: asyncio.Task[None] | None = None
        self._observing: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        return self.name.path

    @property
    def actor(self) -> KeyedActor:
        """What log lines name its class after."""
        return self

    @property
    def home(self) -> KeyedActor:
        return self

    @property
    def engine(self) -> Engine:
        """The engine of this node."""
        return self.node.engine

    def schedule(self) -> None:
        """Nothing is ever scheduled: its mailbox is elsewhere."""

    # What is sent.

    def tell_slowly(self, message: Any) -> None:
        self.engine.check_thread()
        active = self._known()
        if active is not None:
            active.tell(message)
        elif len(self._waiting) >= MAX_WAITING:
            raise MailboxFull(self.path, capacity=MAX_WAITING)
        else:
            self._wait(InLine(message=message))

    async def send(self, message: Any, timeout: float | None) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
        given = LONGEST if timeout is None or timeout >= LONGEST else timeout
        await self._deliver(message, given, lambda ref, left: ref.send(message, timeout=left))

    async def ask(self, message: Any, timeout: float) -> Any:  # noqa: ASYNC109 - a deadline, not a scope.
        return await self._deliver(message, timeout, lambda ref, left: ref.ask(message, timeout=left))

    async def ask_to_return(self, message: Any, timeout: float) -> tuple[Any, Callable[[], None]]:  # noqa: ASYNC109 - a deadline, not a scope.
        return await self._deliver(message, timeout, lambda ref, left: ask_to_return(ref.recipient, message, left))

    def take_over(self, item: Any) -> None:
        if not isinstance(item, Ask):
            self.tell_slowly(told(item))
            return
        task = self.node.create_task(self.ask(item.message, max(item.deadline - self.engine.time(), 1e-3)))
        item.execution = task
        item.progress = RUNNING

        def settle(done: asyncio.Task[Any]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is None:
                item.answer(done.result())
            else:
                item.fail(error)

        task.add_done_callback(settle)

    async def _deliver(
        self,
        message: Any,
        timeout: float,  # noqa: ASYNC109 - a deadline, not a scope.
        send: Callable[[ActorRef[Any], float], Awaitable[Any]],
    ) -> Any:
        """Send a request to the activation; one that ends before the request is handled is followed by another."""
        if not 0 < timeout <= LONGEST:
            raise ValueError(f"timeout must be a number of seconds > 0, got {timeout}")
        self.engine.check_thread()
        time = self.engine.time
        given = inf if timeout == LONGEST else time() + timeout
        deadline = earlier(given, current_deadline.get())
        for tries_left in reversed(range(MAX_TRIES)):
            left = deadline - time()
            if left <= 0:
                break
            ref = self._known() or await self._turn(message, left)
            try:
                return await send(ref, min(max(deadline - time(), 1e-3), LONGEST / 2))
            except ActorStopped:  # It was never handled.
                if not tries_left:
                    raise
                self._forget(ref)
        raise AskTimeout(self.path, name_of(message), timeout=timeout)

    async def _turn(self, message: Any, left: float) -> ActorRef[Any]:
        turn: asyncio.Future[ActorRef[Any]] = self.engine.loop.create_future()
        self._wait(InLine(turn))
        try:
            async with asyncio.timeout(None if left == inf else left):
                return await turn
        except TimeoutError:
            raise AskTimeout(self.path, name_of(message), timeout=left) from None
        except CannotActivate as error:
            raise NeverDelivered(self.path, name_of(message), why=error.why) from None

    # The activation.

    def _known(self) -> ActorRef[Any] | None:
        """Return the activation if mail may go straight to it."""
        active = self._active
        if active is None or self._activating is not None or active.recipient.closed:
            return None
        return active

    def _forget(self, active: ActorRef[Any]) -> None:
        if self._active is active:
            self._active = None

    def _wait(self, item: InLine) -> None:
        self._waiting.append(item)
        if self.node.is_closed:
            self._fail(CannotActivate(self.path, LEFT))
        elif self._activating is None:
            self._activating = self.node.create_task(self._activate())

    async def _activate(self) -> None:
        """Find the activation or have it made, and let what waits go to it, in its order."""
        try:
            self._active = active = await self.node.activated(self.name)
            while self._waiting:
                item = self._waiting.popleft()
                if item.turn is None:
                    self._tell(active, item.message)
                elif not item.turn.done():
                    item.turn.set_result(active)
                    await asyncio.sleep(0)  # It is sent before what waits behind it.
        except CannotActivate as error:
            self._fail(error)
        finally:
            self._activating = None
            self._fail(CannotActivate(self.path, LEFT))

    def _tell(self, active: ActorRef[Any], message: Any) -> None:
        try:
            active.tell(message)
        except MailboxFull:
            self._dead_letter(message, DeadReason.FULL)

    def _fail(self, error: CannotActivate) -> None:
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            if item.turn is None:
                self._dead_letter(item.message, DeadReason.STOPPED)
            elif not item.turn.done():
                item.turn.set_exception(error)

    def _dead_letter(self, message: Any, reason: DeadReason) -> None:
        if not isinstance(message, DeadLetter):
            self.engine.events.publish(DeadLetter(self.ref, message, reason))

    # Its ends.

    def request_stop(self) -> None:
        """Stop the activation, if this node knows one; the next message makes another."""
        if self._active is not None:
            self._active.stop()

    def kill(self) -> None:
        if self._active is not None:
            self._active.kill()

    async def join(self) -> Exit:
        """Wait for the end of the activation that there is now."""
        active = self._known()
        if active is None:
            turn: asyncio.Future[ActorRef[Any]] = self.engine.loop.create_future()
            self._wait(InLine(turn))
            try:
                active = await turn
            except CannotActivate as error:
                return Exit(ExitReason.CRASHED, error)
        return await active.terminated()

    def observe(self) -> None:
        """Tell the watchers of the end of the activation that there is now, or that none can be made."""
        if self._observing is None:
            self._observing = self.node.create_task(self._tell_of_end())

    async def _tell_of_end(self) -> None:
        try:
            end = await self.join()
        finally:
            self._observing = None
        tell_watchers(self, tuple(self.watchers or ()), end)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def describe(self) -> str:
        return f"{self.path} {'active' if self._known() is not None else 'not activated'}"

    def __repr__(self) -> str:
        return f"<KeyedActor {self.describe()}>"
