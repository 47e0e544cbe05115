"""The engine of simulated systems: the same, with its order permuted by the seed and its facts taken down."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from runtime.deadline import DeadlineWatch
from runtime.engine import MESSAGES_PER_ACTIVATION, Engine
from runtime.errors import ActorStopped
from runtime.event_stream import EventStream
from runtime.events import ActorFailed, ActorRestarted
from runtime.messages import name_of
from runtime.registry import ActorRegistry
from runtime.simulation.mail import RecordedLine, system_at_work
from runtime.simulation.world import World

if TYPE_CHECKING:
    import asyncio
    from collections import OrderedDict, deque
    from collections.abc import Callable, Coroutine, Sequence

    from runtime.deadline import Expiring
    from runtime.envelope import Ask
    from runtime.events import Event
    from runtime.interceptor import Interceptor
    from runtime.simulation.injection import Injection
    from runtime.simulation.invariants import Witness
    from runtime.simulation.mail import Mail

SHORTCUTS = 0.75
"""The part of the requests that may be answered without the mailbox, where they can: it is quicker, and hides less."""
WATCHED = (ActorFailed, ActorRestarted)
"""What is made even if no program wants it: a simulation does."""


class SimulatedRun(World, Protocol):
    """What an engine needs of the run it is a part of, beyond what faults see."""

    seed: int
    rng: random.Random | None
    mail: Mail
    injection: Injection
    witness: Witness

    @property
    def systems(self) -> list[SimulatedEngine]: ...


class RecordedEvents(EventStream):
    """The facts of one system, taken down as they are published."""

    def __init__(self, take_down: Callable[[Event], None]) -> None:
        super().__init__()
        self._take_down = take_down

    def wants(self, event_type: type[Event]) -> bool:
        return event_type in WATCHED or super().wants(event_type)

    def publish(self, event: Event) -> None:
        self._take_down(event)
        super().publish(event)


class RecordedDeadlines(DeadlineWatch):
    """The deadlines of one system, of which the unfinished are remembered at its end."""

    __slots__ = ("_lost", "left")

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Sequence[tuple[Ask, Any]]) -> None:
        super().__init__(loop)
        self.left: list[Expiring] = []
        self._lost = lost

    def close(self) -> None:
        for ask, inbox in self._lost:
            if inbox.engine.deadlines is self:
                # It is in no mailbox whose end would tell the asker, and from now on nobody sees to its deadline.
                ask.fail(ActorStopped(inbox.path, name_of(ask.message)))
        self.left = [entry for group in self._waiting.values() for entry in group]
        super().close()


class SimulatedEngine(Engine):
    """One system of a run."""

    __slots__ = ("_numbers", "_rng", "_watched_deadlines", "run")

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
        self.events = RecordedEvents(run.witness.observe)
        self.registry = ActorRegistry(self.events)
        self.deadlines = self._watched_deadlines = RecordedDeadlines(loop, run.mail.lost)
        if seed is None:
            self.random = random.Random(f"{run.seed}/{name}/{len(run.systems)}")
        self._rng = run.rng
        self._numbers: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self.context.run(system_at_work.set, self)
        run.systems.append(self)

    @property
    def pending_deadlines(self) -> Sequence[Expiring]:
        """What still waited for a deadline when the system was left."""
        return self._watched_deadlines.left

    def enqueue(self, runnable: Any) -> None:
        """Let it run soon; one that is to be restarted still has the instance that was before."""
        if runnable.stale:
            self.run.witness.remember(runnable)
        super().enqueue(runnable)

    def may_answer_now(self) -> bool:
        """Let some requests take the way through the mailbox although they need not; all, while faults strike mail."""
        if not self.run.injection.has_shortcuts or (self._rng is not None and self._rng.random() >= SHORTCUTS):
            return False
        return super().may_answer_now()

    def pump(self) -> None:
        """Let some requests wait for the next turn."""
        if self._rng is None or self._rng.random() < SHORTCUTS:
            super().pump()

    def create_task(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task; those of one system begin in the order of their birth, which concurrent handlers rely on."""
        task = self.run.loop.make_task(coroutine, name=name, context=self.context.copy())
        self.run.loop.unbegun.add(task)
        return task

    def new_queue(self, inbox: Any) -> deque[Any]:
        return self.run.mail.new_queue(inbox)

    def new_line(self, inbox: Any) -> OrderedDict[Any, None]:
        return RecordedLine(inbox, self.run.mail.origins)

    def number_of(self, runnable: Any) -> float:
        """Return the number by which the digest knows an actor: that of its first turn."""
        return self._numbers.setdefault(runnable.ref, len(self._numbers) + 0.25)

    def _drain(self, budget: int) -> None:
        ready, rng, origins = self._ready, self._rng, self.run.mail.origins
        outer = origins.running
        self.draining = True
        try:
            while ready and budget > 0:
                limit = min(budget, MESSAGES_PER_ACTIVATION)
                if rng is not None:
                    ready.rotate(-rng.randrange(len(ready)))
                    limit = min(limit, rng.choice((1, 2, MESSAGES_PER_ACTIVATION)))
                runnable = ready.popleft()
                if self.run.injection.is_held(runnable, self):
                    continue
                origins.running = runnable
                # Told by its number, because a path may be long and is made anew each time.
                self.run.trace.step(self.number_of(runnable))
                budget -= runnable.run(limit)
                origins.running = None
        finally:
            origins.running = outer
            self.draining = False
            if ready and not self._armed:
                self._arm()
