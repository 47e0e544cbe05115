"""The life of one actor over all its restarts, and to the actor itself, its context.

A cell outlives the instances of its actor: mailbox, ref and watchers are the cell's; state, children and timers are
the instance's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import isawaitable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.actor import Actor
from runtime.cell.children import Children
from runtime.cell.handling import ALIVE, AWAITING_RESTART, ENDED, ENDING, NO_GOAL, STARTING, Goal, Handling, as_failure
from runtime.cell.inbox import NO_MAIL
from runtime.cell.options import DEFAULT_OPTIONS, SpawnOptions, options_of
from runtime.deadline import current_deadline
from runtime.envelope import Ask, Stashed, Told, deadline_of, told
from runtime.errors import ActorCrashed, ActorStopped, MailboxFull, NameTaken
from runtime.events import (
    ActorEnded,
    ActorFailed,
    ActorRestarted,
    ActorStarted,
    CancellationIgnored,
    DeadReason,
    Terminated,
)
from runtime.log import logger_for
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.messages import name_of
from runtime.ref import ActorRef
from runtime.snapshot import ActorSnapshot
from runtime.supervision import KILLED, STOPPED, Exit, Restart, Supervision, ended_by
from runtime.timers import Timers

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from runtime.engine import Engine
    from runtime.event_stream import EventStream
    from runtime.log import Logger
    from runtime.registry import ActorRegistry

M = TypeVar("M")

# A global name is read faster than an attribute of an Enum.
TEMPORARY, TRANSIENT = Restart.TEMPORARY, Restart.TRANSIENT


class Cell(Handling):
    """One actor of a system."""

    __slots__ = (
        "_children",
        "_name",
        "begun",
        "exit",
        "factory",
        "options",
        "owner",
        "started_at",
    )

    # Not slots: see `Handling`.
    cause: Exception | None = None
    stale: bool = False
    attempt: int = 0
    restarted_at: float = 0.0
    restart_timer: asyncio.TimerHandle | None = None
    waiters: list[asyncio.Future[None]] | None = None
    watchers: dict[Cell, None] | None = None
    watching: dict[Cell, None] | None = None
    _timers: Timers | None = None
    _kept: dict[str, Any] | None = None

    def __init__(
        self,
        engine: Engine,
        owner: Cell | None,
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
        self.senders = None
        self.actor = actor
        self.goal = NO_GOAL
        self.busy = False
        self.current = None
        self.task = None
        self.until = None
        self.owner = owner
        self._name = name
        # A temporary actor is never restarted, so that what its factory holds need not be kept for it.
        self.factory = factory if options.restart is not TEMPORARY else never_again
        self.options = options
        self.exit: Exit | None = None
        self._children: Children | None = None
        actor.bound_to = self
        if engine.interceptors is not None:
            engine.interceptors.intercept(actor)
        if actor.has_start_hook or engine.events.wants(ActorStarted):
            self.phase = STARTING
            self.begun = self.idle = False
            # It starts in the next turn at the latest, and no sooner than this one has begun.
            self.started_at = engine.turn_began
            engine.enqueue(self)
        else:
            self.phase = ALIVE
            self.begun = self.idle = True
            self.started_at = engine.loop.time()

    # What the actor sees of it: see `Context`.

    @property
    def name(self) -> str:
        return self._name

    @property
    def path(self) -> str:
        return self.name if self.owner is None else f"{self.owner.path}/{self.name}"

    @property
    def parent(self) -> ActorRef[Any] | None:
        return None if self.owner is None or self.owner.owner is None else self.owner.ref

    @property
    def children(self) -> Mapping[str, ActorRef[Any]]:
        children = self._children.by_name if self._children is not None else {}
        return MappingProxyType({name: child.ref for name, child in children.items()})

    @property
    def timers(self) -> Timers:
        if self.phase in (AWAITING_RESTART, ENDED):
            raise ActorStopped(self.path, "a timer")
        if self._timers is None:
            self._timers = Timers(self.engine.loop, self.engine.context, self.deliver_or_bury)
        return self._timers

    @property
    def deadline(self) -> float | None:
        # A sync handler is called without setting the context variable, which would cost it dearly.
        return self.until if self.until is not None else current_deadline.get()

    @property
    def random(self) -> random.Random:
        return self.engine.random

    @property
    def events(self) -> EventStream:
        return self.engine.events

    @property
    def kept(self) -> dict[str, Any]:
        if self._kept is None:
            self._kept = {}
        return self._kept

    @property
    def registry(self) -> ActorRegistry:
        return self.engine.registry

    @property
    def log(self) -> Logger:
        return logger_for(self.path)

    def now(self) -> float:
        return self.engine.loop.time()

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
        stop_timeout: float = 5.0,
    ) -> ActorRef[M]:
        if self.phase not in (STARTING, ALIVE) or self.goal:
            raise ActorStopped(self.path, "spawn")
        if self._children is None:
            self._children = Children(self)
        children = self._children
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
        children.by_name[name] = child
        return child.ref

    def watch(self, ref: ActorRef[Any]) -> None:
        target = ref.recipient.home
        if not isinstance(target, Cell):
            raise TypeError(f"{ref!r} cannot be watched")
        if target.exit is not None:
            self.deliver(Terminated(ref, target.exit))
            return
        if target.watchers is None:
            target.watchers = {}
        if self.watching is None:
            self.watching = {}
        target.watchers[self] = self.watching[target] = None

    def unwatch(self, ref: ActorRef[Any]) -> None:
        target = ref.recipient.home
        if isinstance(target, Cell) and target.watchers is not None and self.watching is not None:
            target.watchers.pop(self, None)
            self.watching.pop(target, None)

    def stop(self) -> None:
        self.end(Goal.RETIRE)

    # What others may ask of it: see `ActorRef` and `Child`.

    def request_stop(self) -> None:
        self.end(Goal.STOP)

    def kill(self) -> None:
        self.end(Goal.KILL)

    async def join(self) -> Exit:
        while self.exit is None:
            await self._change()
        return self.exit

    def describe(self) -> str:
        facts = [f"{self.path} {self.phase.value}"]
        if self.queue:
            facts.append(f"{len(self.queue)} waiting")
        if self.attempt:
            facts.append(f"{self.attempt} restarts")
        if self.exit is not None:
            facts.append(self.exit.reason.value)
        return ", ".join(facts)

    @property
    def mailbox(self) -> Mailbox:
        return self.options.mailbox

    @property
    def home(self) -> Cell:
        return self

    @property
    def waiting(self) -> int:
        """The messages in the mailbox, those that wait for a place in a lane included."""
        return len(self.queue) + sum(len(lane.waiting) for lane in (self.lanes or {}).values())

    @property
    def working(self) -> int:
        """The handlers under way, and the answers that are still to come from a future."""
        at_work = self.busy or (self.task is not None and self.current is not None)
        return at_work + len(self.lane_tasks()) + len(self.later or ())

    @property
    def load(self) -> int:
        return self.waiting + len(self.senders or ()) + self.working

    def snapshot(self) -> ActorSnapshot:
        """Describe this actor and all below it as plain values."""
        children = self._children.by_name if self._children is not None else {}
        working = self.working
        return ActorSnapshot(
            path=self.path,
            actor=type(self.actor).__name__,
            phase=self.phase.value,
            waiting=self.waiting,
            capacity=self.mailbox.capacity,
            working=working,
            idle=self.idle and self.phase is ALIVE and not self.goal and not working,
            restarts=self.attempt,
            age=self.now() - self.started_at,
            children=tuple(child.snapshot() for child in children.values()),
        )

    # As a child of its supervisor, and the supervisor of its children.

    @property
    def is_alive(self) -> bool:
        return self.phase in (STARTING, ALIVE) and not self.goal

    @property
    def siblings(self) -> Mapping[str, ActorRef[Any]]:
        """The living children of the same parent, this one included."""
        return self.owner.children if self.owner is not None else {}

    @property
    def is_waiting(self) -> bool:
        return self.phase is AWAITING_RESTART and self.restart_timer is None

    @property
    def restart(self) -> Restart:
        return self.options.restart

    @property
    def supervision(self) -> Supervision:
        return self.actor.supervision

    def pause(self) -> None:
        if self.phase is AWAITING_RESTART:
            self._cancel_restart()
        else:
            self.end(Goal.PAUSE)

    async def instance_gone(self) -> None:
        while self.phase not in (AWAITING_RESTART, ENDED):
            await self._change()

    def restart_after(self, delay: float, cause: Exception | None) -> None:
        self.attempt += 1
        self.cause = cause
        if delay > 0:
            engine = self.engine
            self.restart_timer = engine.loop.call_later(delay, self._restart, context=engine.context)
        else:
            self._restart()

    def child_escalated(self, error: Exception) -> None:
        error.add_note(f"escalated to {self.path}")
        self.failed(error, None)

    # Beginning.

    def begin(self) -> None:
        if self.task is not None:
            return  # Its `started` hook is still running.
        self.busy = True
        if not self.stale:
            self.started_at = self.engine.turn_began
        try:
            actor = self.actor
            if self.stale:
                self.actor = actor = made_by(self.factory)
                actor.bound_to = self
                if self.engine.interceptors is not None:
                    self.engine.interceptors.intercept(actor)
            if actor.starts_async:
                self.task = self.engine.create_task(self._begin_in_task(), name=f"{self.name} starts")
                self.task.add_done_callback(self._never_begun, context=self.engine.context)
                return
            actor.started()
            self.begun = True
        except BaseException as error:  # noqa: BLE001 - see there.
            self.broken_off(error, None, None)
        finally:
            self.busy = False
            if self.begun and not self.goal:
                self._begun()
            elif self.task is None:
                self.rest()

    def _never_begun(self, starting: asyncio.Task[None]) -> None:
        """End an instance whose start was cancelled before its first step."""
        if self.task is starting:
            self.task = None
            self.broken_off(asyncio.CancelledError(), None, starting)

    async def _begin_in_task(self) -> None:
        task = self.task
        try:
            await self.actor.started()
        except BaseException as error:
            if self.task is not task:
                raise  # It was given up as stuck.
            self.task = None
            self.broken_off(error, None, task)
        else:
            if self.task is task:
                self.task = None
                self.begun = True
                if not self.goal:
                    self._begun()

    def _begun(self) -> None:
        self.phase = ALIVE
        events = self.engine.events
        if self.stale:
            self.stale = False
            if events.wants(ActorRestarted):
                events.publish(ActorRestarted(self.ref, self.attempt, self.cause))
            self.cause = None
        elif events.wants(ActorStarted):
            events.publish(ActorStarted(self.ref))
        if self.queue or self.senders:
            self.rest()
        else:
            self.idle = True

    def _restart(self) -> None:
        self.restart_timer = None
        self.phase = STARTING
        self.stale = True
        self.engine.enqueue(self)

    def reroute(self, item: Any, error: BaseException) -> bool:
        plan = self.owner.supervision.reroute if self.owner is not None else None
        if self.owner is None or plan is None or not isinstance(error, Exception):
            return False
        try:
            if not plan.when(error):
                return False
        except Exception as broken:  # noqa: BLE001 - the event tells; the crash itself has to be seen to.
            self.engine.events.publish(ActorFailed(self.owner.ref, broken, told(item)))
            return False
        times = (item.reroutes if isinstance(item, Ask | Told) else 0) + 1
        target: ActorRef[Any] | None = self.siblings.get(plan.to) if isinstance(plan.to, str) else plan.to
        if times > plan.max_times or target is None or target is self.ref:
            self.bury(item, DeadReason.POISON)
            return False
        if isinstance(item, Ask):
            item.reroutes = times
            item.put_back()
        else:
            item = Told(told(item), deadline=deadline_of(item), reroutes=times)
        target.recipient.take_over(item)
        return True

    def take_over(self, item: Any) -> None:
        if isinstance(item, Ask) and not self.closed:
            self.take_in_turn(item)
        else:
            self.deliver_or_bury(item)

    # Putting mail aside.

    def stash(self, message: Any) -> Any:
        if self.phase is ENDED:
            raise ActorStopped(self.path, name_of(message))
        item: Any = self.current
        in_lanes = {task: told(one) for lane in (self.lanes or {}).values() for task, one in lane.running.items()}
        if (not self.busy and asyncio.current_task() in in_lanes) or any(one is message for one in in_lanes.values()):
            raise RuntimeError(f"{self.path} cannot stash {name_of(message)}, whose handler is concurrent")
        if item is None and self.until is not None:
            # It came without an envelope, because the actor was at rest.
            self.current = item = Ask(message, self.until)
        elif item is None or (told(item) is not message and self.engine.interceptors is None):
            item = message  # A plain message in the run queue; an interceptor may have replaced what is in `item`.
        if self.stashed is None:
            self.stashed = deque()
        if len(self.stashed) >= self.mailbox.capacity:
            raise MailboxFull(self.path, capacity=self.mailbox.capacity)
        self.stashed.append(item)
        return Stashed(item) if isinstance(item, Ask) else None

    def unstash_all(self) -> None:
        stashed = self.stashed
        if stashed is not None:
            self.stashed = None
            self.put_in_front(stashed)
            if self.idle:
                self.schedule()

    # Ending.

    def failed(self, error: Exception, message: Any) -> None:
        events = self.engine.events
        if events.wants(ActorFailed):
            events.publish(ActorFailed(self.ref, error, told(message)))
        self.cause = error
        self.end(Goal.CRASH)

    def end(self, goal: Goal) -> None:
        if self.phase is ENDED or goal <= self.goal:
            return
        self.goal = goal
        if goal >= Goal.STOP or (goal is Goal.RETIRE and self.restart is not Restart.PERMANENT):
            self.close()
        if self.phase is AWAITING_RESTART:
            self._cancel_restart()
            self._gone()
        elif self.phase is ENDING:
            if goal is Goal.KILL:
                self.cancel_handlers()
                if self._children is not None:
                    self._children.kill_all()
        elif not self.busy:  # Otherwise the activation that is under way comes to it.
            self.wind_down()

    def wind_down(self) -> None:
        self.phase = ENDING
        self.idle = False
        self._drop_timers()
        goal = self.goal
        if (goal is Goal.CRASH or goal is Goal.KILL) and (self.task is not None or self.lanes is not None):
            self.cancel_handlers()
        if self.watching is not None:
            self._unwatch_all()
        if self.later:
            for future in tuple(self.later):
                future.cancel()
        hook = self.actor.stopped
        children = self._children is not None and self._children.by_name
        lanes = self.lanes is not None and self.lane_tasks()
        if self.task is not None or lanes or self.later or children or self.actor.stops_async:
            ending = self.lifecycle = self.engine.create_task(self._wind_down_in_task(), name=f"{self.name} ends")
            # Who cancels all tasks, as `asyncio.run` does after a `sys.exit`, may come before its first step.
            ending.add_done_callback(self._never_wound_down, context=self.engine.context)
            return
        try:
            if self.begun:
                hook()
        except BaseException as error:
            # It ends all the same; the event tells why it was not clean.
            self.engine.events.publish(ActorFailed(self.ref, as_failure(error)))
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        finally:
            self._gone()

    def _unwatch_all(self) -> None:
        for target in self.watching or ():
            if target.watchers is not None:
                target.watchers.pop(self, None)
        self.watching = None

    async def _wind_down_in_task(self) -> None:
        try:
            await self._finish_handlers()
            if self._children is not None:
                if self.goal is Goal.KILL:
                    self._children.kill_all()
                await self._children.stop_all()
            if self.begun:
                hook = self.engine.create_task(self._run_stopped(), name=f"{self.name} stopped")
                await self._finish({hook: None})
        finally:
            self.lifecycle = None
            if self._children is not None:
                self._children.kill_all()
            self._gone()

    def _never_wound_down(self, ending: asyncio.Task[None]) -> None:
        """End at once an instance whose orderly end was cancelled before it began."""
        if self.lifecycle is ending:
            self.lifecycle = None
            if self._children is not None:
                self._children.kill_all()
            self._gone()

    async def _run_stopped(self) -> None:
        try:
            outcome = self.actor.stopped()
            if isawaitable(outcome):
                await outcome
        except asyncio.CancelledError:
            late = TimeoutError(f"its `stopped` hook was cancelled; it has {self.options.stop_timeout:g} s")
            self.engine.events.publish(ActorFailed(self.ref, late))
        except Exception as error:  # noqa: BLE001 - it ends all the same; the event tells why it was not clean.
            self.engine.events.publish(ActorFailed(self.ref, error))

    async def _finish_handlers(self) -> None:
        work: dict[asyncio.Future[Any], Any] = dict(self.later or {})
        for lane in (self.lanes or {}).values():
            work.update(lane.running.items())
        if self.task is not None:
            work[self.task] = self.current
        await self._finish(work)
        await self._finish(dict(self.later or {}))

    async def _finish(self, work: Mapping[asyncio.Future[Any], Any]) -> None:
        """Wait for the handlers that still run, cancel them at the limit, and report those that will not end."""
        if not work:
            return
        limit = self.options.stop_timeout
        await asyncio.wait(work, timeout=limit)
        # In their order: a set of futures has none that could be repeated.
        late = [future for future in work if not future.done()]
        if not late:
            return
        for future in late:
            future.cancel()
        await asyncio.wait(late, timeout=limit)
        stuck = [future for future in late if not future.done()]
        for future in stuck:
            message = work[future]
            if isinstance(message, Ask):
                message.fail(ActorCrashed(self.path, name_of(message.message), reason="its handler does not end"))
                message = message.message
            self.engine.events.publish(CancellationIgnored(self.ref, message))
        if self.task in stuck and self.queue is not NO_MAIL:
            # It still goes through the mail; what is left belongs to the next instance.
            left, self.queue = self.queue, self.engine.new_queue(self)
            self.queue.extend(left)
            left.clear()

    def _gone(self) -> None:
        """Let what was to follow this instance follow."""
        goal, self.goal = self.goal, NO_GOAL
        cause = self.cause
        if cause is not None:
            self.cause = None
        self.begun = False
        self.task = None
        self.current = None
        if self.later is not None:
            self.later = None
        self.phase = AWAITING_RESTART
        if self._children is not None:
            self._children.forget_group()
            self._children = None
        self._drop_timers()
        self.unpark()
        if self.stashed is not None:
            self.unstash_all()
        if goal is Goal.CRASH or (goal is Goal.RETIRE and self.restart is Restart.PERMANENT):
            siblings = self.owner._children if self.owner is not None else None  # noqa: SLF001 - of its own class.
            if siblings is not None:
                siblings.failed(self, cause)
            else:
                self.terminate(ended_by(cause))
        elif goal is not Goal.PAUSE:
            self.terminate(KILLED if goal is Goal.KILL else STOPPED)
        self._changed()

    def terminate(self, exit: Exit) -> None:  # noqa: A002 - the field's word for how a process ended.
        if self.phase is ENDED:
            return
        self.phase = ENDED
        self.exit = exit
        if self._kept is not None:
            self._kept = None
        self.close()
        self.bury_all()
        if self.owner is not None and self.owner._children is not None:  # noqa: SLF001 - of its own class.
            self.owner._children.by_name.pop(self.name, None)  # noqa: SLF001
        watchers = self.watchers
        if watchers is not None:
            self.watchers = None
            for watcher in watchers:
                if watcher.watching is not None:
                    watcher.watching.pop(self, None)
                watcher.deliver(Terminated(self.ref, exit))
        self.engine.events.publish(ActorEnded(self.ref, exit))
        self._changed()

    def _cancel_restart(self) -> None:
        if self.restart_timer is not None:
            self.restart_timer.cancel()
            self.restart_timer = None

    def _drop_timers(self) -> None:
        if self._timers is not None:
            self._timers.cancel_all()
            self._timers = None

    async def _change(self) -> None:
        """Wait until this instance is gone, or the actor has ended."""
        future: asyncio.Future[None] = self.engine.loop.create_future()
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(future)
        try:
            await future
        finally:
            if self.waiters is not None and future in self.waiters:
                self.waiters.remove(future)

    def _changed(self) -> None:
        waiters = self.waiters
        if waiters is not None:
            self.waiters = None
            for future in waiters:
                if not future.done():
                    future.set_result(None)


def never_again() -> Actor[Any]:
    """Stand in for the factory of a temporary actor."""
    raise RuntimeError("a temporary actor is not restarted")


def check_name(name: str, whose: str) -> None:
    """Raise for what cannot be a part of a path."""
    if not isinstance(name, str):
        raise TypeError(f"{whose} name must be a str, got {name!r}")
    if not name or "/" in name:
        raise ValueError(f"{whose} name must not be empty or contain '/', got {name!r}")


def made_by(factory: Callable[[], Any]) -> Actor[Any]:
    """Return a new actor; raise `TypeError` for a factory that does not give one each time it is called."""
    try:
        made = factory()
    except TypeError:
        if callable(factory):
            raise
        raise TypeError(f"spawn takes an Actor class or a function that makes one, got {factory!r}") from None
    if not isinstance(made, Actor):
        raise TypeError(f"spawn takes an Actor class or a function that makes one; {factory!r} made {made!r}")
    if made.bound_to is not None:
        raise TypeError(f"{factory!r} gave an actor that runs already; it must make a new one each time it is called")
    return made  # pyright: ignore[reportUnknownVariableType] - of whatever it handles.
