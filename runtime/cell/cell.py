"""The one object behind an actor, over all its restarts: its mail goes the quick way here, and the slow way elsewhere.

A cell outlives the instances of its actor: mailbox, ref and watchers are the cell's; state, children and timers are
the instance's. To the actor itself the cell is its context.
"""

from __future__ import annotations

import asyncio
from threading import get_ident
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.cell.answers import answer_later, hand_back, take_outcome
from runtime.cell.children import Children
from runtime.cell.circles import register_wait
from runtime.cell.context import ActorContext
from runtime.cell.execution import after_activation, handle_in_task, handle_item, handler_raised
from runtime.cell.failures import wrong_answer
from runtime.cell.inbox import (
    LONGEST,
    accept_if_room,
    accept_rerouted,
    apply_overflow_rule,
    dead_letter,
    dequeue_waiter,
    enqueue_waiter,
    send,
)
from runtime.cell.inline import begin_inline, may_run_inline, running
from runtime.cell.inspection import describe, load, snapshot
from runtime.cell.life import end, fail, terminate, wait_until_ended, wait_until_instance_ended
from runtime.cell.options import DEFAULT_OPTIONS, SpawnOptions, options_of
from runtime.cell.phases import AWAITING_RESTART, IN_SERVICE, KILL, PAUSE, STARTING, STARTING_UP, STOP
from runtime.cell.rerouting import reroute_or_fail
from runtime.cell.starting import begin, made_by, never_again, restart_after
from runtime.cell.state import NO_MAIL, CellState
from runtime.deadline import current_deadline
from runtime.envelope import RUNNING, SETTLED, WAITING, Ask, Stashed
from runtime.error_text import annotate
from runtime.errors import ActorStopped, AskTimeout, NameTaken, Refusal
from runtime.events import ActorStarted, DeadReason
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.messages import name_of
from runtime.propagation import carried_to
from runtime.ref import ActorRef
from runtime.supervision import Restart

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.actor import Actor
    from runtime.engine import Engine

M = TypeVar("M")

# A global name is read faster than an attribute of an Enum.
TEMPORARY, TRANSIENT = Restart.TEMPORARY, Restart.TRANSIENT

USE_MAILBOX: Any = object()
"""Says that a request has to take its way through the mailbox."""
WAITS: Any = CoroutineType
"""What is returned for a handler that waits: it has to be awaited."""
RUN_INLINE: Any = object()
"""Says that the handler of a request runs in the task of its asker."""


class Cell(ActorContext):
    """One actor of a system.

    What is only named here, such as `send = send`, is a function over a cell, defined where its idea is.
    """

    __slots__ = ()

    def __init__(
        self,
        engine: Engine,
        owner: CellState | None,
        name: str,
        factory: Callable[[], Actor[Any]],
        actor: Actor[Any],
        options: SpawnOptions,
    ) -> None:
        self.engine = engine
        self.ref = ActorRef(self)
        self.queue = NO_MAIL
        self.room = 0
        self.closed = False
        self.wait_queue = None
        self.actor = actor
        self.busy = False
        self.current = None
        self.task = None
        self.until = None
        self.owner = owner
        self.name = name
        # A temporary actor is never restarted, so that what its factory holds need not be kept for it.
        self.factory = factory if options.restart is not TEMPORARY else never_again
        self.options = options
        self.exit = None
        self.supervised = None
        actor.bound_to = self
        if engine.interceptors is not None:
            engine.interceptors.intercept(actor)
        if actor.has_start_hook or engine.events.wants(ActorStarted):
            self.life = STARTING_UP
            self.begun = self.idle = False
            # It starts in the next turn at the latest, and no sooner than this one has begun.
            self.started_at = engine.turn_began
            engine.enqueue(self)
        else:
            self.life = IN_SERVICE
            self.begun = self.idle = True
            self.started_at = engine.time()

    # The quick way of the mail.

    def run(self, limit: int) -> int:  # noqa: C901 - in two functions each message would cost a call more.
        """Handle up to `limit` messages, or see to it that a task does; return how many were handled, at least 1."""
        if self.life is not IN_SERVICE:
            if self.phase is STARTING:
                begin(self)
            return 1
        if self.actor.is_async:
            if self.task is not None:
                return 1
            self.task = self.engine.create_task(handle_in_task(self), name=self.name)
            return 1
        queue, actor, direct = self.queue, self.actor, self.actor.direct
        handled = 0
        message: object = None
        self.busy = True
        try:
            while queue and handled < limit and self.life is IN_SERVICE:
                message = queue.popleft()
                handled += 1
                try:
                    handle = direct[type(message)]
                except KeyError:
                    handle = None
                if handle is None:  # Not within the `except`, whose KeyError would stand above each traceback.
                    handle_item(self, message)
                    self.current = None
                elif (outcome := handle(actor, message)) is not None:
                    take_outcome(self, message, outcome)
        except Refusal:
            dead_letter(self, message, DeadReason.REFUSED)
        except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
            handler_raised(self, error, message, None)
        finally:
            self.busy = False
            self.current = None
            after_activation(self)
        return handled

    async def ask(self, message: Any, timeout: float) -> Any:  # noqa: ASYNC109, C901, PLR0912 - one coroutine is faster than two.
        """Take a request and wait for its answer; see `ActorRef.ask`."""
        if not 0 < timeout < LONGEST:
            raise ValueError(f"timeout must be a finite number of seconds > 0 (and < {LONGEST:g}), got {timeout}")
        engine = self.engine
        if engine.thread != get_ident():
            engine.check_thread()
        deadline = (now := engine.time()) + timeout
        inherited = current_deadline.get()
        if inherited is not None and inherited < deadline:
            deadline = inherited
            if deadline <= now:
                raise AskTimeout(self.path, name_of(message), timeout=0.0)
        if self.queue and self.life is IN_SERVICE and not (self.idle or self.busy or self.actor.is_async):
            engine.pump()  # Once the mail before it is handled, it may be answered without the mailbox.
        ask = self.answer_now(message, deadline) if self.idle and engine.may_answer_now() else USE_MAILBOX
        if ask is RUN_INLINE:
            ask = begin_inline(self, message, deadline)
            ask = await ask if isinstance(ask, WAITS) else ask
        if ask is USE_MAILBOX:
            ask = Ask(message, deadline)
            if engine.propagation is not None or self.actor.take_along is not None:
                ask.carried = carried_to(self)
            if not accept_if_room(self, ask):
                if self.closed:
                    raise ActorStopped(self.path, name_of(message))
                enqueue_waiter(self, ask)
            engine.pump()
        elif not isinstance(ask, Ask):
            return ask
        if ask.progress is WAITING or ask.progress is RUNNING:
            asker, ask.answerer, ask.waiter = asyncio.current_task(), self, engine.loop.create_future()
            register_wait(self, ask, asker)
            engine.deadlines.add(ask)
            try:
                await ask.waiter
            except asyncio.CancelledError:
                if not ask.cancel() and ask.error is None:
                    hand_back(ask.answerer or self, message, ask.value)
                raise
            finally:
                del engine.asking[asker]
                engine.deadlines.discard(ask)
                if self.wait_queue:
                    dequeue_waiter(self, ask)
        if ask.progress is not SETTLED:
            raise AskTimeout(self.path, name_of(message), timeout=deadline - now)
        if ask.error is not None:
            raise ask.error
        return ask.value

    def answer_now(self, message: Any, deadline: float) -> Any:  # noqa: C901 - as `run`.
        """Handle a request while at rest: return its answer, the `Ask` to wait for, `USE_MAILBOX` or `RUN_INLINE`."""
        handler = self.actor.handlers[type(message)]
        if handler is None or self.queue:
            return USE_MAILBOX
        if handler.is_async:
            return RUN_INLINE if handler.inline and may_run_inline(self, handler) else USE_MAILBOX
        if self.engine.propagation is not None:
            return USE_MAILBOX  # What travels with the request is kept there, also if it is stashed or rerouted.
        self.busy = True
        self.idle = False
        self.until = deadline
        engine = self.engine
        engine.draining = True  # An eager task begins inside of the handler, and may ask another actor.
        try:
            answer = engine.context.run(handler.function, self.actor, message)
            if isinstance(answer, CoroutineType):
                raise wrong_answer(self.path, message, answer)
            if isinstance(answer, Stashed):
                answer.ask.message = message  # An interceptor may have replaced it, and will again.
                return answer.ask
            if not isinstance(answer, asyncio.Future):
                if self.current is not None:
                    self.current.cancel()  # It was stashed, but answered too: nothing waits for another answer.
                return answer
            ask = running(message, deadline)
            answer_later(self, ask, answer)  # pyright: ignore[reportUnknownArgumentType] - of the request's type.
            return ask  # noqa: TRY300
        except Refusal:
            raise
        except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
            # If it was stashed before the crash, it is one request all the same.
            ask = self.current or Ask(message, deadline)
            reroute_or_fail(self, ask, error)
            handler_raised(self, error, ask, None)
            return ask
        finally:
            engine.draining = False
            self.until = self.current = None
            self.busy = False
            if self.queue or self.wait_queue or self.life is not IN_SERVICE:
                after_activation(self)
            else:
                self.idle = True

    # As the recipient behind a ref: see `Recipient`.

    @property
    def home(self) -> Cell:
        return self

    @property
    def load(self) -> int:
        return load(self)

    def tell_slowly(self, message: Any) -> None:
        """Take a message that found no room: the first ever, one too many, or one too late."""
        self.engine.check_thread()
        if not accept_if_room(self, message):
            apply_overflow_rule(self, message)

    send = send
    take_over = accept_rerouted

    def request_stop(self) -> None:
        self.engine.check_thread()
        end(self, STOP)

    def kill(self) -> None:
        self.engine.check_thread()
        end(self, KILL)

    join = wait_until_ended
    describe = describe

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
        stop_timeout: float = 5.0,
    ) -> ActorRef[M]:
        self.engine.check_thread()
        if self.life is not IN_SERVICE and self.life is not STARTING_UP:
            raise ActorStopped(self.path, "spawn")
        if self.supervised is None:
            self.supervised = Children(self)
        children = self.supervised
        if name is not None:
            check_name(name, "an actor's")
            if name in children.by_name:
                raise NameTaken(f"{self.path}/{name}")
        actor = made_by(factory)
        if name is None:
            name = children.new_name(actor.kind)
        elif name in children.by_name:  # The factory has spawned one of that name itself.
            raise NameTaken(f"{self.path}/{name}")
        if mailbox is DEFAULT_MAILBOX and restart is TRANSIENT and stop_timeout == DEFAULT_OPTIONS.stop_timeout:
            options = DEFAULT_OPTIONS
        else:
            options = options_of(mailbox, restart, stop_timeout)
        child = Cell(self.engine, self, name, factory, actor, options)
        children.add(name, child)
        return child.ref

    # As a child of its supervisor, and the supervisor of its children: see `Child` and `Parent`.

    @property
    def is_waiting(self) -> bool:
        return self.phase is AWAITING_RESTART and self.restart_timer is None

    def pause(self) -> None:
        end(self, PAUSE)

    restart_after = restart_after
    terminate = terminate
    instance_ended = wait_until_instance_ended
    snapshot = snapshot
    failed = fail

    def child_escalated(self, error: Exception) -> None:
        annotate(error, f"escalated to {self.path}")
        self.failed(error, None)


def check_name(name: str, whose: str) -> None:
    """Raise for what cannot be a part of a path."""
    if not isinstance(name, str):
        raise TypeError(f"{whose} name must be a str, got {name!r}")
    if not name or "/" in name:
        raise ValueError(f"{whose} name must not be empty or contain '/', got {name!r}")
