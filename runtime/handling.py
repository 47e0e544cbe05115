"""How mail is handled: one message at a time, straight from the run queue or in a task, or several in a lane.

Handlers of an actor that is purely sync are called straight from the run queue; an actor with an async handler gets
one task for as long as it has mail, and none at rest; a concurrent handler gets a task for each message.
"""

from __future__ import annotations

import asyncio
from enum import Enum, IntEnum
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from runtime.actor import Actor
from runtime.deadline import current_deadline
from runtime.envelope import RUNNING, SETTLED, WAITING, Ask, Progress
from runtime.errors import ActorCrashed, Refusal, Unhandled
from runtime.events import CancellationIgnored, DeadReason
from runtime.inbox import Inbox
from runtime.lanes import Lane
from runtime.messages import Message, name_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runtime.actor import Handler
    from runtime.engine import Engine
    from runtime.mailbox import Mailbox

MESSAGES_PER_STEP = 64
"""The messages an actor's task handles before the event loop has its turn."""


class Phase(Enum):
    """Where a cell is in its life."""

    STARTING = "starting"
    ALIVE = "running"
    ENDING = "ending"
    AWAITING_RESTART = "awaiting restart"
    ENDED = "ended"


class Goal(IntEnum):
    """What follows once the present instance is gone; a higher goal overrules a lower one."""

    NONE = 0
    PAUSE = 1  # Its supervisor restarts it together with a sibling that failed.
    CRASH = 2
    RETIRE = 3  # It stopped itself.
    STOP = 4
    KILL = 5


STARTING, ALIVE, ENDING, ENDED = Phase.STARTING, Phase.ALIVE, Phase.ENDING, Phase.ENDED
AWAITING_RESTART = Phase.AWAITING_RESTART
NO_GOAL = Goal.NONE


class Unclaimed(Message, frozen=True):
    """Told by the runtime to an actor whose answer came too late for its asker."""

    request: Any
    answer: Any


class Handling(Inbox):
    """The working side of a cell: what runs now, and what becomes of its outcome."""

    __slots__ = ("actor", "busy", "current", "goal", "lanes", "later", "lifecycle", "phase", "task")

    def __init__(self, engine: Engine, mailbox: Mailbox, actor: Actor[Any]) -> None:
        super().__init__(engine, mailbox)
        self.actor = actor
        self.phase = STARTING
        self.goal = NO_GOAL
        self.busy = False
        self.current: Any = None
        self.task: asyncio.Task[None] | None = None
        self.lifecycle: asyncio.Task[None] | None = None
        self.lanes: dict[Handler, Lane] | None = None
        self.later: dict[asyncio.Future[Any], Ask] | None = None

    @property
    def name(self) -> str:
        """The actor's name among its siblings."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start the instance."""
        raise NotImplementedError

    def end(self, goal: Goal) -> None:
        """End the instance, and let `goal` follow."""
        raise NotImplementedError

    def failed(self, error: Exception, message: Any) -> None:
        """End the instance because a handler raised."""
        raise NotImplementedError

    def wind_down(self) -> None:
        """Clean up after an instance that handles nothing any more."""
        raise NotImplementedError

    def run(self, limit: int) -> int:
        """Handle up to `limit` messages, or see to it that a task does; return how many were handled, at least 1."""
        if self.phase is not ALIVE:
            if self.phase is STARTING:
                self.begin()
            return 1
        if self.actor.is_async:
            if self.task is not None:
                return 1
            self.task = self.engine.create_task(self._handle_in_task(), name=self.name)
            return 1
        queue, actor, direct = self.queue, self.actor, self.actor.direct
        handled = 0
        message: object = None
        self.busy = True
        try:
            while queue and handled < limit and not self.goal:
                message = queue.popleft()
                handled += 1
                handle = direct.get(type(message))
                if handle is None:
                    self._handle_specially(message)
                elif handle(actor, message) is not None:
                    raise wrong_answer(self.path, message)
        except Refusal:
            self.bury(message, DeadReason.REFUSED)
        except Exception as error:  # noqa: BLE001 - any exception that leaves a handler is the supervisor's to decide.
            self.failed(error, message)
        finally:
            self.busy = False
        self.rest()
        return handled

    async def _handle_in_task(self) -> None:
        task = self.task
        try:
            await self._handle_all()
        except asyncio.CancelledError:
            if not self.goal:
                self.cancelled(task)
        except Exception as error:  # noqa: BLE001 - any exception that leaves a handler is the supervisor's to decide.
            self.task = None
            self.failed(error, self.current)
        self.task = None
        self.current = None
        self.rest()

    async def _handle_all(self) -> None:
        queue, actor, direct = self.queue, self.actor, self.actor.direct
        handled = 0
        while queue and not self.goal:
            if handled == MESSAGES_PER_STEP:
                handled = 0
                self.admit()
                await asyncio.sleep(0)
                continue
            handled += 1
            message: object = queue.popleft()
            self.current = message
            handle = direct.get(type(message))
            try:
                outcome = self._handle_specially(message) if handle is None else handle(actor, message)
                if outcome is not None:
                    await outcome
            except Refusal:
                self.bury(message, DeadReason.REFUSED)

    def _handle_specially(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Handle what has no plain handler: a request, a concurrent handler's message, one nobody handles."""
        if isinstance(message, Ask):
            return self._handle_request(message)
        if isinstance(message, Unclaimed):
            self.actor.unclaimed(message.request, message.answer)
            return None
        handler = self.actor.handlers[type(message)]
        if handler is None:
            self.bury(message, DeadReason.UNHANDLED)
        elif handler.concurrent > 1:
            self._start_in_lane(handler, message)
        else:
            outcome = handler.function(self.actor, message)
            if self.actor.is_async:
                return outcome
            if outcome is not None:
                raise wrong_answer(self.path, message)
        return None

    def _handle_request(self, ask: Ask) -> Coroutine[Any, Any, None] | None:
        if ask.progress is not WAITING:
            self.bury(ask, DeadReason.EXPIRED if ask.progress is Progress.EXPIRED else DeadReason.CANCELLED)
            return None
        if ask.deadline < self.engine.loop.time():
            ask.expire()
            self.bury(ask, DeadReason.EXPIRED)
            return None
        handler = self.actor.handlers[type(ask.message)]
        if handler is None:
            handled = sorted(one.__name__ for one, found in self.actor.handlers.items() if found)
            ask.fail(Unhandled(self.path, name_of(ask.message), handled=handled))
            self.bury(ask, DeadReason.UNHANDLED)
            return None
        if handler.concurrent > 1:
            self._start_in_lane(handler, ask)
            return None
        ask.progress = RUNNING
        if handler.is_async:
            return self._answer_in_task(handler, ask)
        self.current = ask
        try:
            answer = handler.function(self.actor, ask.message)
        except Refusal as refusal:
            ask.fail(refusal)
        except Exception as error:
            ask.fail(self._crashed(ask, error))
            raise
        else:
            self._answer(ask, answer)
        return None

    async def _answer_in_task(self, handler: Handler, ask: Ask) -> None:
        task = self.task
        ask.handling = task
        current_deadline.set(ask.deadline)
        try:
            answer = await handler.function(self.actor, ask.message)
        except asyncio.CancelledError:
            if self.goal or ask.progress is RUNNING:
                ask.fail(self._crashed(ask, None))
                raise
        except Refusal as refusal:
            ask.fail(refusal)
        except Exception as error:
            ask.fail(self._crashed(ask, error))
            raise
        else:
            self._answer(ask, answer)
        finally:
            current_deadline.set(None)
            if task is not None and ask.progress is not SETTLED:
                # The asker gave up, which cancelled this handler and nothing else.
                task.uncancel()

    def _answer(self, ask: Ask, answer: Any) -> None:
        if asyncio.isfuture(answer):
            self._answer_later(ask, answer)
        elif isawaitable(answer):
            raise wrong_answer(self.path, ask.message)
        elif not ask.answer(answer):
            if ask.handling is not None:
                self.engine.events.publish(CancellationIgnored(self.ref, ask.message))
            self.unclaimed(ask.message, answer)

    def _answer_later(self, ask: Ask, future: asyncio.Future[Any]) -> None:
        """Answer when the future is done; the actor goes on, and the asker's giving up cancels the future."""
        if ask.progress is not RUNNING:
            future.cancel()
            return
        if self.later is None:
            self.later = {}
        later = self.later
        later[future] = ask
        ask.handling = future

        def settle(done: asyncio.Future[Any]) -> None:
            later.pop(done, None)
            if done.cancelled():
                ask.fail(self._crashed(ask, None))
            elif (error := done.exception()) is None:
                if not ask.answer(done.result()):
                    self.unclaimed(ask.message, done.result())
            elif isinstance(error, Refusal):
                ask.fail(error)
            else:
                ask.fail(self._crashed(ask, error))

        future.add_done_callback(settle, context=self.engine.context)

    def _start_in_lane(self, handler: Handler, item: Any) -> None:
        if self.lanes is None:
            self.lanes = {}
        lane = self.lanes.get(handler)
        if lane is None:
            lane = self.lanes[handler] = Lane(handler)
        if lane.is_full:
            lane.waiting.append(item)
            return
        ask = item if isinstance(item, Ask) else None
        task = self.engine.create_task(
            self._handle_in_lane(handler, item), name=f"{self.name} {handler.message.__name__}"
        )
        lane.running[task] = ask
        if ask is not None:
            ask.progress = RUNNING
            ask.handling = task
        # Not a `finally` of the task, whose body does not even begin where it is cancelled at once.
        task.add_done_callback(lambda _: self._leave_lane(lane, task), context=self.engine.context)

    async def _handle_in_lane(self, handler: Handler, item: Any) -> None:
        ask = item if isinstance(item, Ask) else None
        message = item.message if ask is not None else item
        if ask is not None:
            current_deadline.set(ask.deadline)
        try:
            answer = await handler.function(self.actor, message)
        except Refusal as refusal:
            if ask is not None:
                ask.fail(refusal)
            else:
                self.bury(message, DeadReason.REFUSED)
        except Exception as error:  # noqa: BLE001 - any exception that leaves a handler is the supervisor's to decide.
            if ask is not None:
                ask.fail(self._crashed(ask, error))
            self.failed(error, message)
        else:
            if ask is not None:
                self._answer(ask, answer)

    def _leave_lane(self, lane: Lane, task: asyncio.Task[None]) -> None:
        """See to the next message of the lane, and to a handler that ended by cancellation."""
        ask = lane.running.pop(task, None)
        if task.cancelled() and (ask is None or ask.progress is RUNNING):
            # Neither the asker nor, unless there is a goal, the runtime cancelled it.
            if ask is not None:
                ask.fail(self._crashed(ask, None))
            if not self.goal and self.phase is ALIVE:
                self.cancelled(task)
        while self.phase is ALIVE and not self.goal and lane.waiting and not lane.is_full:
            item = lane.waiting.popleft()
            if isinstance(item, Ask):
                self._handle_request(item)
            else:
                self._start_in_lane(lane.handler, item)

    def lane_tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks of concurrent handlers that run now."""
        return [task for lane in (self.lanes or {}).values() for task in lane.running]

    def unpark(self) -> None:
        """Put back into the mailbox what waited for a place in a lane; it survives a restart like other mail."""
        lanes, self.lanes = self.lanes, None
        for lane in (lanes or {}).values():
            self.queue.extendleft(reversed(lane.waiting))

    def rest(self) -> None:
        """After an activation: go on, end, or rest."""
        if self.senders:
            self.admit()
        if self.goal:
            if self.lifecycle is None and self.phase in (STARTING, ALIVE):
                self.wind_down()
        elif self.queue:
            self.engine.enqueue(self)
        else:
            self.idle = True

    def cancelled(self, task: asyncio.Task[None] | None) -> None:
        """A handler ended by a cancellation that is not the runtime's."""
        if task is not None and task.cancelling():
            # Somebody cancels the tasks of this loop one by one, as `asyncio.run` does at its end.
            self.end(Goal.KILL)
        else:
            error = RuntimeError("a handler let the CancelledError of something it awaited escape")
            self.failed(error, self.current)

    def _crashed(self, ask: Ask, error: BaseException | None) -> ActorCrashed:
        reason = f"{type(error).__name__}: {error}" if error is not None else "its handler was cancelled"
        crashed = ActorCrashed(self.path, name_of(ask.message), reason=reason)
        crashed.__cause__ = error
        return crashed

    def unclaimed(self, request: Any, answer: Any) -> None:
        if type(self.actor).unclaimed is not Actor.unclaimed:
            self.deliver_first(Unclaimed(request, answer))

    def waits_for_itself(self) -> bool:
        return self.task is not None and self.task is asyncio.current_task()


def wrong_answer(path: str, message: Any) -> TypeError:
    """Make the error for a sync handler that returned what it cannot."""
    return TypeError(
        f"the handler of {name_of(message)} in {path} returned something that cannot be an answer: a handler of a "
        "Message returns None, one that awaits is declared `async def`, one that answers later returns a Future"
    )
