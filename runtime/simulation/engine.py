"""The engine of a simulated actor system: the seed decides the order of its actors, and its events are recorded."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from runtime.deadline import DeadlineWatch
from runtime.engine import Engine
from runtime.errors import ActorStopped
from runtime.event_stream import EventStream
from runtime.events import ActorFailed, ActorRestarted
from runtime.messages import name_of
from runtime.registry import ActorRegistry
from runtime.simulation.mail import RecordedWaitQueue, system_at_work
from runtime.simulation.world import World
from runtime.supervision import Strategy

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable, Coroutine, Sequence

    from runtime.deadline import Expiring
    from runtime.envelope import Ask
    from runtime.events import Event
    from runtime.interceptor import Interceptor
    from runtime.simulation.injection import Injection
    from runtime.simulation.invariants import Witness
    from runtime.simulation.mail import Mail
    from runtime.simulation.schedule import Schedule

Observers: TypeAlias = "list[tuple[Callable[[Event], object], frozenset[type[Event]]]]"

WATCHED = (ActorFailed, ActorRestarted)
"""Events that are made even without a subscriber, because every simulation checks them."""


class SimulatedRun(World, Protocol):
    """What an engine needs of the run it is a part of, beyond what faults see."""

    seed: int
    choices: Schedule
    mail: Mail
    injection: Injection
    witness: Witness
    observers: Observers

    @property
    def systems(self) -> list[SimulatedEngine]: ...

    def failing(self, error: BaseException) -> None:
        """Remember the last events before an error."""


class RecordedEvents(EventStream):
    """The event stream of one system, which records each event as it is published."""

    def __init__(self, record: Callable[[Event], None], observers: Observers) -> None:
        super().__init__()
        self._record = record
        self._observers = observers

    def wants(self, event_type: type[Event]) -> bool:
        observed = any(event_type in kinds for _, kinds in self._observers)
        return observed or event_type in WATCHED or super().wants(event_type)

    def publish(self, event: Event) -> None:
        kind, is_observed = type(event), False
        for observe, kinds in self._observers:
            if kind in kinds:
                is_observed = True
                observe(event)
        # What may be made for observers alone is recorded only if it is made without them too.
        if not is_observed or kind in WATCHED or super().wants(kind):
            self._record(event)
        super().publish(event)


class RecordedDeadlines(DeadlineWatch):
    """The deadlines of one system; those still pending when it is left are kept for the checks."""

    __slots__ = ("_lost", "left")

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Sequence[tuple[Ask, Any]]) -> None:
        super().__init__(loop)
        self.left: list[Expiring] = []
        self._lost = lost

    def close(self) -> None:
        for ask, inbox in self._lost:
            if inbox.engine.deadlines is self:
                # No mailbox holds it, whose end would fail it; and from now on nothing watches its deadline.
                ask.fail(ActorStopped(inbox.path, name_of(ask.message)))
        self.left = [entry for group in self._waiting.values() for entry in group]
        super().close()


class SimulatedEngine(Engine):
    """One system of a run."""

    __slots__ = ("_numbers", "_restarting", "_schedule", "_watched_deadlines", "run")

    def __init__(
        self,
        run: SimulatedRun,
        name: str,
        loop: asyncio.AbstractEventLoop,
        seed: int | None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        super().__init__(name, loop, seed, interceptors)
        self.run = run
        self.events = RecordedEvents(run.witness.observe, run.observers)
        self.registry = ActorRegistry(self.events)
        self.deadlines = self._watched_deadlines = RecordedDeadlines(loop, run.mail.lost)
        if seed is None:
            self.random = random.Random(f"{run.seed}/{name}/{len(run.systems)}")
        self._schedule = run.choices
        self._restarting: dict[Any, OrderedDict[Any, None]] = {}
        """The actors that restart as a group and wait for their turn, in start order, by their supervisor."""
        self._numbers: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self.context.run(system_at_work.set, self)
        run.systems.append(self)
        run.declare("system", name)

    @property
    def pending_deadlines(self) -> Sequence[Expiring]:
        """What still waited for its deadline when the system was left."""
        return self._watched_deadlines.left

    def failing(self, error: BaseException) -> None:
        """Let the run remember what preceded an error with which the system ends."""
        self.run.failing(error)

    def enqueue(self, runnable: Any) -> None:
        """Let an actor run soon; if it is to be restarted, keep its old instance for the checks."""
        if runnable.stale:
            self.run.witness.remember(runnable)
            supervisor = runnable.owner
            if supervisor is not None and supervisor.supervision.strategy is not Strategy.ONE_FOR_ONE:
                self._restarting.setdefault(supervisor, OrderedDict())[runnable] = None
        super().enqueue(runnable)

    def may_answer_now(self) -> bool:
        """Tell if a request may be answered without the mailbox: not all may, and none while a fault acts on mail."""
        if not self.run.injection.has_shortcuts or not self._schedule.takes_shortcut(self.name):
            return False
        return super().may_answer_now()

    def pump(self) -> None:
        """Drain the run queue now for most requests; let the others wait for the next turn of the loop."""
        if self._schedule.drains_now(self.name):
            super().pump()

    def deliver_and_drain(self, deliver: Callable[[Any], object], item: Any) -> None:
        """Deliver the mail of a timer; the schedule decides when it is handled."""
        deliver(item)

    def create_task(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task; those of one system begin in the order they were made in, which concurrent handlers rely on."""
        task = self.run.loop.make_task(coroutine, name=name, context=self.context.copy())
        self.run.loop.unstarted.add(task)
        return task

    def new_queue(self, inbox: Any) -> deque[Any]:
        return self.run.mail.new_queue(inbox)

    def new_wait_queue(self, inbox: Any) -> OrderedDict[Any, None]:
        return RecordedWaitQueue(inbox, self.run.mail.origins)

    def number_of(self, runnable: Any) -> float:
        """Return the number that stands for an actor in the digest: that of its first turn."""
        return self._numbers.setdefault(runnable.ref, len(self._numbers) + 0.25)

    def _keep_start_order(self, runnable: Any) -> Any:
        """Return what takes the turn of `runnable`: of a group that restarts, the one that is first in start order."""
        group = self._restarting.get(runnable.owner)
        if group is None or runnable not in group:
            return runnable
        first, _ = group.popitem(last=False)
        if not group:
            del self._restarting[runnable.owner]
        if first is not runnable:
            self._ready[self._ready.index(first)] = runnable
        return first

    def _drain(self, budget: int) -> None:
        ready, schedule, origins = self._ready, self._schedule, self.run.mail.origins
        outer = origins.running
        self.draining = True
        try:
            while ready and budget > 0:
                index, messages = schedule.choose(ready)
                limit = min(budget, messages)
                runnable = ready[index]
                del ready[index]
                if self._restarting:
                    runnable = self._keep_start_order(runnable)
                if self.run.injection.is_held(runnable, self):
                    continue
                origins.running = runnable
                # A number, because a path may be long and is built anew each time.
                self.run.trace.step(self.number_of(runnable))
                budget -= runnable.run(limit)
                origins.running = None
        finally:
            origins.running = outer
            self.draining = False
            if ready and not self._armed:
                self._arm()
