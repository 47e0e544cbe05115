"""How mail is handled: one message at a time, straight from the run queue or in a task, or several in a lane.

Handlers of an actor that is purely sync are called straight from the run queue; an actor with an async handler gets
one task for as long as it has mail, and none at rest; a concurrent handler gets a task for each message.
"""

from __future__ import annotations

import asyncio
from enum import Enum, IntEnum
from inspect import CORO_CREATED, getcoroutinestate, isawaitable, iscoroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from runtime.actor import Actor
from runtime.cell.inbox import HERE, NOT_NOW, Inbox, Unclaimed
from runtime.cell.inline import InlineExecution, first_step, inline_calls_here, may_run_inline
from runtime.cell.lanes import Lane
from runtime.deadline import current_deadline
from runtime.engine import MESSAGES_PER_ACTIVATION
from runtime.envelope import RUNNING, WAITING, Ask, AskState, Stashed, deadline_of, told
from runtime.errors import ActorCrashed, Refusal, Unhandled
from runtime.events import ActorFailed, CancellationIgnored, DeadReason, Terminated
from runtime.messages import Request, name_of

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine

    from runtime.handlers import Handler


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


class Handling(Inbox):
    """The working side of a cell: what runs now, and what becomes of its outcome.

    What nearly every actor uses has a slot. The rest are class attributes with a default, which go into the cell's
    `__dict__` once they differ: the garbage collector visits every slot of every cell again and again, and most of
    the cost of many actors is its.
    """

    __slots__ = ("__dict__", "actor", "busy", "current", "goal", "phase", "task", "until")

    actor: Actor[Any]
    phase: Phase
    goal: Goal
    busy: bool
    current: Any
    task: asyncio.Task[None] | None
    until: float | None
    """The deadline of the request whose sync handler runs; for an async one a context variable has it."""
    lifecycle: asyncio.Task[None] | None = None
    lanes: dict[Handler, Lane] | None = None
    later: dict[asyncio.Future[Any], Ask] | None = None
    stashed: deque[Any] | None = None

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
                try:
                    handle = direct[type(message)]
                except KeyError:
                    self._handle_specially(message)
                    self.current = None
                    continue
                if (outcome := handle(actor, message)) is not None:
                    self._answer_nobody(message, outcome)
        except Refusal:
            self.bury(message, DeadReason.REFUSED)
        except BaseException as error:  # noqa: BLE001 - see there.
            self.broken_off(error, message, None)
        finally:
            self.busy = False
            self.current = None
            self.rest()
        return handled

    def answer_now(self, message: Any, deadline: float) -> Any:
        handler = self.actor.handlers[type(message)]
        if handler is None or self.queue:
            return NOT_NOW
        if handler.is_async:
            return HERE if handler.inline and self._may_borrow(handler) else NOT_NOW
        self.busy = True
        self.idle = False
        self.until = deadline
        engine = self.engine
        engine.draining = True  # An eager task begins inside of the handler, and may ask somebody else.
        try:
            answer = engine.context.run(handler.function, self.actor, message)
            if isinstance(answer, CoroutineType):
                raise wrong_answer(self.path, message, answer)
            if isinstance(answer, Stashed):
                answer.ask.message = message  # An interceptor may have replaced it, and will again.
                return answer.ask
            if not isinstance(answer, asyncio.Future):
                if self.current is not None:
                    self.current.cancel()  # It was stashed, but answered too: nobody waits for another answer.
                return answer
            ask = running(message, deadline)
            self._answer_later(ask, answer)  # pyright: ignore[reportUnknownArgumentType] - of the request's type.
            return ask  # noqa: TRY300
        except Refusal:
            raise
        except BaseException as error:  # noqa: BLE001 - see there.
            # Where it was stashed before the crash, it is one request all the same.
            ask = self.current or Ask(message, deadline)
            self._lose(ask, error)
            self.broken_off(error, ask, None)
            return ask
        finally:
            engine.draining = False
            self.until = self.current = None
            self.busy = False
            self.rest()

    def _may_borrow(self, handler: Handler) -> bool:
        """Tell whether a request may begin before any other turn: nothing that came earlier is still to begin."""
        if self.lanes is not None:
            for lane in self.lanes.values():
                newest = next(reversed(lane.running), None)
                if lane.waiting or (lane.is_full and lane.handler is handler) or has_not_begun(newest):
                    return False
        return may_run_inline(self.engine.loop)

    async def answer_here(self, message: Any, deadline: float) -> Any:
        handler = self.actor.handlers[type(message)]
        assert handler is not None  # noqa: S101 - it was found a moment ago.
        context = self.engine.context.copy()
        work: Any = handler.function(self.actor, message)
        ask: Ask | None = None
        self.busy = True
        self.idle = False
        try:
            waits_for = context.run(first_step, work, deadline, inline_calls_here.get())
            ask = running(message, deadline)
            lane, errand = self._set_out(handler, ask)
        except StopIteration as done:
            answer: Any = done.value
            if not isinstance(answer, asyncio.Future | CoroutineType | Stashed):
                return answer
            ask = running(message, deadline)
            self._conclude(ask, answer)
            return ask
        except Refusal:
            raise
        except BaseException as error:  # noqa: BLE001 - see there.
            ask = running(message, deadline)
            self._lose(ask, error)
            self.broken_off(error, ask, None)
            return ask
        finally:
            self.busy = False
            self.rest()
        return await self._wait_here(lane, errand, ask, errand.run(work, context, waits_for))

    def _set_out(self, handler: Handler, ask: Ask) -> tuple[Lane, InlineExecution]:
        """Take a place in the lane for a handler that waits in the running task."""
        task = asyncio.current_task(self.engine.loop)
        assert task is not None  # noqa: S101 - asyncio steps a coroutine nowhere else.
        lane = self._lane_of(handler)
        errand = ask.handling = InlineExecution(task)
        lane.running[errand] = ask
        return lane, errand

    async def _wait_here(self, lane: Lane, errand: InlineExecution, ask: Ask, work: Coroutine[Any, Any, Any]) -> Ask:
        """See an errand to its end, and settle its request as a task of a lane does."""
        deadlines = self.engine.deadlines
        deadlines.add(ask)
        cancelled: asyncio.CancelledError | None = None
        try:
            try:
                answer = await work
            finally:
                deadlines.discard(ask)
                cancelled = errand.asker_cancelled
                if cancelled is not None:
                    ask.cancel()
            self._answer(ask, answer)
        except asyncio.CancelledError:
            if ask.progress is RUNNING:
                ask.fail(self._crashed(ask.message, None))
                if not errand.was_called_off and not self.goal and self._is_current(lane):
                    self.cancelled(None, ask)
        except Refusal as refusal:
            ask.fail(refusal)
        except GeneratorExit:
            raise  # The loop is closed, and nobody is left to be told.
        except BaseException as error:  # noqa: BLE001 - see there.
            self._lose(ask, error)
            if self._is_current(lane):
                self.broken_off(error, ask, None)
        finally:
            self._leave_lane(lane, errand)
        if cancelled is not None:
            raise cancelled
        return ask

    def _conclude(self, ask: Ask, answer: Any) -> None:
        """Take an answer that is not one yet, or none at all."""
        try:
            self._answer(ask, answer)
        except TypeError as error:
            self._lose(ask, error)
            self.broken_off(error, ask, None)

    async def _handle_in_task(self) -> None:
        task, engine = self.task, self.engine
        engine.at_work += 1
        try:
            await self._handle_all()
        except BaseException as error:
            if self.task is not task:
                raise  # It was given up as stuck, and another instance may be at work by now.
            self.task = None
            self.broken_off(error, self.current, task)
        else:
            if self.task is task:
                self.task = None
                self.current = None
                self.rest()
        finally:
            engine.at_work -= 1

    async def _handle_all(self) -> None:
        queue, direct, actor = self.queue, self.actor.direct, self.actor
        # Others may begin in this very turn, and are not counted yet: nobody has more than an activation at first.
        limit = MESSAGES_PER_ACTIVATION
        while queue:
            for _ in range(limit):
                if not queue or self.goal:
                    return
                self.current = message = queue.popleft()
                try:
                    try:
                        handle = direct[type(message)]
                    except KeyError:
                        outcome = self._handle_specially(message)
                    else:
                        outcome = handle(actor, message)
                    if outcome is not None:
                        if self.senders:
                            self.admit()  # This message left room, and may take long.
                        answer = await outcome
                        if answer is not None:
                            self._answer_nobody(told(message), answer)
                except Refusal:
                    self.bury(message, DeadReason.REFUSED)
            self.admit()
            await asyncio.sleep(0)
            limit = self.engine.share_of_turn()

    def _handle_specially(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Handle what has no plain handler: a request, a concurrent handler's message, one nobody handles."""
        if isinstance(message, Ask):
            return self._handle_request(message)
        if isinstance(message, Unclaimed):
            self.actor.unclaimed(message.request, message.answer)
            return None
        item, message = message, told(message)
        deadline = deadline_of(item)
        handler = self.actor.handlers[type(message)]
        if deadline is not None and deadline < self.engine.loop.time():
            self.bury(message, DeadReason.EXPIRED)
        elif handler is None:
            self.bury(message, DeadReason.UNHANDLED)
        elif handler.concurrent > 1:
            self._start_in_lane(handler, item)
        elif handler.is_async:
            return self._handle_unasked(handler, message, deadline)
        else:
            self.until = deadline
            self.current = item
            try:
                self._answer_nobody(message, handler.function(self.actor, message))
            finally:
                self.until = None
        return None

    async def _handle_unasked(self, handler: Handler, message: Any, deadline: float | None) -> None:
        current_deadline.set(deadline)
        try:
            self._answer_nobody(message, await handler.function(self.actor, message))
        finally:
            current_deadline.set(None)

    def _answer_nobody(self, message: Any, answer: Any) -> None:
        """Treat the outcome of a message that was told: only a request has one, and nobody has asked for it."""
        if answer is None:
            return
        if not isinstance(message, Request) or isawaitable(answer) != asyncio.isfuture(answer):
            raise wrong_answer(self.path, message, answer)
        if not asyncio.isfuture(answer):
            self.unclaimed(message, answer)
            return

        def settle(done: asyncio.Future[Any]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is None:
                self.unclaimed(message, done.result())
            elif not isinstance(error, Refusal):
                self.engine.events.publish(ActorFailed(self.ref, as_failure(error), message))

        answer.add_done_callback(settle, context=self.engine.context)
        answer.cancel()

    def _handle_request(self, ask: Ask) -> Coroutine[Any, Any, None] | None:
        if ask.progress is not WAITING:
            self.bury(ask, DeadReason.EXPIRED if ask.progress is AskState.EXPIRED else DeadReason.CANCELLED)
            return None
        # The time of the turn stands still while a handler of this actor is awaited.
        if ask.deadline < (self.engine.turn_began if self.task is None else self.engine.loop.time()):
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
        self.until = ask.deadline
        self.current = ask
        try:
            self._answer(ask, handler.function(self.actor, ask.message))
        except Refusal as refusal:
            ask.fail(refusal)
        except BaseException as error:
            self._lose(ask, error)
            raise
        finally:
            self.until = None
        return None

    async def _answer_in_task(self, handler: Handler, ask: Ask) -> None:
        task = self.task
        ask.handling = task
        current_deadline.set(ask.deadline)
        try:
            self._answer(ask, await handler.function(self.actor, ask.message))
        except asyncio.CancelledError:
            if self.goal or ask.progress is RUNNING:
                ask.fail(self._crashed(ask.message, None))
                raise
        except Refusal as refusal:
            ask.fail(refusal)
        except BaseException as error:
            self._lose(ask, error)
            raise
        finally:
            current_deadline.set(None)
            if task is not None and ask.handling is task:
                # The asker gave up, which cancelled this handler and nothing else.
                task.uncancel()

    def _answer(self, ask: Ask, answer: Any) -> None:
        if isinstance(answer, asyncio.Future):
            self._answer_later(ask, answer)  # pyright: ignore[reportUnknownArgumentType] - of the request's type.
        elif isinstance(answer, CoroutineType):
            raise wrong_answer(self.path, ask.message, answer)
        elif isinstance(answer, Stashed):
            ask.put_back()
        else:
            ask.answerer = self
            if ask.answer(answer):
                return
            if ask.handling is not None:
                self.engine.events.publish(CancellationIgnored(self.ref, ask.message))
            self.unclaimed(ask.message, answer)

    def _answer_later(self, ask: Ask, future: asyncio.Future[Any]) -> None:
        """Answer when the future is done; the actor goes on, and the asker's giving up cancels the future."""
        if self.later is None:
            self.later = {}
        later = self.later
        later[future] = ask
        if ask.progress is RUNNING:
            ask.handling = future

        def settle(done: asyncio.Future[Any]) -> None:
            later.pop(done, None)
            if done.cancelled():
                ask.fail(self._crashed(ask.message, None))
            elif (error := done.exception()) is None:
                ask.answerer = self
                if not ask.answer(done.result()):
                    self.unclaimed(ask.message, done.result())
            elif isinstance(error, Refusal):
                ask.fail(error)
            else:
                if ask.progress is not RUNNING:
                    # Nobody waits for it, but somebody should know.
                    self.engine.events.publish(ActorFailed(self.ref, as_failure(error), ask.message))
                ask.fail(self._crashed(ask.message, error))

        future.add_done_callback(settle, context=self.engine.context)
        if ask.progress is not RUNNING or self.phase is not ALIVE:
            future.cancel()  # Nobody waits for it, or it would be answered by an instance that is no more.

    def _start_in_lane(self, handler: Handler, item: Any) -> None:
        lane = self._lane_of(handler)
        if lane.is_full:
            lane.waiting.append(item)
            self.make_room(-1)  # It still takes up a place of the mailbox.
            return
        task = self.engine.create_task(
            self._handle_in_lane(lane, handler, item), name=f"{self.name} {handler.message.__name__}"
        )
        lane.running[task] = item
        if isinstance(item, Ask):
            item.progress = RUNNING
            item.handling = task
        # Not a `finally` of the task, whose body does not even begin where it is cancelled at once.
        task.add_done_callback(lambda _: self._leave_lane(lane, task), context=self.engine.context)

    def _lane_of(self, handler: Handler) -> Lane:
        if self.lanes is None:
            self.lanes = {}
        lane = self.lanes.get(handler)
        if lane is None:
            lane = self.lanes[handler] = Lane(handler)
        return lane

    async def _handle_in_lane(self, lane: Lane, handler: Handler, item: Any) -> None:
        ask = item if isinstance(item, Ask) else None
        message = told(item)
        current_deadline.set(deadline_of(item))
        try:
            answer = await handler.function(self.actor, message)
            if ask is not None:
                self._answer(ask, answer)
            else:
                self._answer_nobody(message, answer)
        except asyncio.CancelledError:
            raise
        except Refusal as refusal:
            if ask is not None:
                ask.fail(refusal)
            else:
                self.bury(message, DeadReason.REFUSED)
        except BaseException as error:
            if ask is not None:
                self._lose(ask, error)
            if not self._is_current(lane):
                raise
            self.broken_off(error, item, None)

    def _is_current(self, lane: Lane) -> bool:
        """Tell whether a lane belongs to the present instance, and not to one whose handlers would not end."""
        return self.lanes is not None and self.lanes.get(lane.handler) is lane

    def _leave_lane(self, lane: Lane, task: asyncio.Future[None]) -> None:
        """See to the next message of the lane, and to a handler that ended by cancellation."""
        item = lane.running.pop(task, None)
        ask = item if isinstance(item, Ask) else None
        if task.cancelled() and (ask is None or ask.progress is RUNNING):
            # Neither the asker nor, unless there is a goal, the runtime cancelled it.
            if ask is not None:
                ask.fail(self._crashed(ask.message, None))
            if not self.goal and self._is_current(lane):
                self.cancelled(task, item)
        while not self.goal and self._is_current(lane) and lane.waiting and not lane.is_full:
            item = lane.waiting.popleft()
            self.make_room(1)
            self._handle_specially(item)
        if self.senders:
            self.admit()
            if self.queue and self.idle:
                self.schedule()

    def lane_tasks(self) -> list[asyncio.Future[None]]:
        """Return the tasks and errands of concurrent handlers that run now."""
        return [task for lane in (self.lanes or {}).values() for task in lane.running]

    def cancel_handlers(self) -> None:
        """Cancel every handler that runs; one that has not begun goes back to the mail, and survives a restart."""
        if self.task is not None:
            self.task.cancel()
        for lane in (self.lanes or {}).values():
            for task in lane.running:
                task.cancel()
            unbegun = [task for task in lane.running if has_not_begun(task)]
            for task in reversed(unbegun):
                item = lane.running.pop(task)
                lane.waiting.appendleft(item)
                self.make_room(-1)
                if isinstance(item, Ask) and item.progress is RUNNING:
                    item.progress = WAITING
                    item.handling = None

    def unpark(self) -> None:
        """Put back into the mailbox what waited for a place in a lane; it survives a restart like other mail."""
        lanes = self.lanes
        if lanes is None:
            return
        self.lanes = None
        for lane in lanes.values():
            self.put_in_front(lane.waiting)
            self.make_room(len(lane.waiting))

    def drop_oldest(self) -> bool:
        """Drop from a lane first: what waits there left the mailbox before the rest."""
        lane = max((self.lanes or {}).values(), key=lambda one: len(one.waiting), default=None)
        if lane is None or not lane.waiting:
            return super().drop_oldest()
        self.make_room(1)
        self.bury(lane.waiting.popleft(), DeadReason.FULL)
        return True

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

    def broken_off(self, error: BaseException, message: Any, task: asyncio.Task[None] | None) -> None:
        """End the instance as the exception that left one of its handlers demands."""
        if isinstance(error, asyncio.CancelledError):
            if not self.goal:
                self.cancelled(task, message)
        else:
            self.failed(as_failure(error), told(message))
            if message is not None and not isinstance(message, Ask | Unclaimed | Terminated):
                # An asker is seen to elsewhere, and what the runtime tells an actor concerns no other.
                self.reroute(message, error)
            if not isinstance(error, Exception):
                raise error  # It ends the program; those who clean up must not find an actor that is stuck.

    def cancelled(self, task: asyncio.Future[None] | None, message: Any) -> None:
        """A handler ended by a cancellation that is not the runtime's."""
        if isinstance(task, asyncio.Task) and task.cancelling():
            # Somebody cancels the tasks of this loop one by one, as `asyncio.run` does at its end.
            self.end(Goal.KILL)
        else:
            self.failed(as_failure(asyncio.CancelledError()), message)

    def reroute(self, item: Any, error: BaseException) -> bool:
        """Hand on an item whose handler crashed, where the supervisor says to whom; False where it is lost here."""
        raise NotImplementedError

    def _lose(self, ask: Ask, error: BaseException) -> None:
        """See to a request whose handler crashed: somebody else handles it, or the asker is told."""
        if not self.reroute(ask, error):
            ask.fail(self._crashed(ask.message, error))

    def _crashed(self, message: Any, error: BaseException | None) -> ActorCrashed:
        reason = f"{type(error).__name__}: {error}" if error is not None else "its handler was cancelled"
        crashed = ActorCrashed(self.path, name_of(message), reason=reason)
        crashed.__cause__ = error
        return crashed

    def unclaimed(self, request: Any, answer: Any) -> None:
        if type(self.actor).unclaimed is not Actor.unclaimed:
            self.deliver_first(Unclaimed(request, answer))

    def waits_for_itself(self) -> bool:
        return self.task is not None and self.task is asyncio.current_task()


def running(message: Any, deadline: float) -> Ask:
    """Make the envelope of a request whose handler has begun without one."""
    ask = Ask(message, deadline)
    ask.progress = RUNNING
    return ask


def has_not_begun(task: asyncio.Future[None] | None) -> bool:
    """Tell whether a task has not had its first turn, so that nothing of its work is done."""
    if not isinstance(task, asyncio.Task):
        return False
    work = task.get_coro()
    return iscoroutine(work) and getcoroutinestate(work) == CORO_CREATED


def as_failure(error: BaseException) -> Exception:
    """Return what a supervisor is told where something left a handler or hook that concerns more than its actor."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return RuntimeError("a handler let the CancelledError of something it awaited escape")
    return RuntimeError(f"interrupted by {type(error).__name__}")


def wrong_answer(path: str, message: Any, answer: Any) -> TypeError:
    """Make the error for a handler that returned what it cannot."""
    if iscoroutine(answer):
        answer.close()
    return TypeError(
        f"the handler of {name_of(message)} in {path} returned something that cannot be an answer: a handler of a "
        "Message returns None, one that awaits is declared `async def`, one that answers later returns a Future"
    )
