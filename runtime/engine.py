"""The run queue of an actor system, drained in bounded turns of the event loop, and the services its actors share.

A message from one actor to another never touches the event loop: the receiver joins the run queue, and the turn that
drains the queue reaches it too. Each turn is bounded, so that a flood of messages starves neither other actors nor the
rest of the program.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections import OrderedDict, deque
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from runtime.deadline import DeadlineWatch
from runtime.errors import WrongThread
from runtime.event_stream import EventStream
from runtime.interceptor import InterceptedHandlers
from runtime.registry import ActorRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from runtime.envelope import Ask
    from runtime.interceptor import Interceptor
    from runtime.log import Logger
    from runtime.propagation import Propagation

MESSAGES_PER_ACTIVATION = 64
MESSAGES_PER_TURN = 512
PUMPS_PER_TURN = 64
ANSWERS_PER_TURN = 1024


class Runnable(Protocol):
    """Something with messages to handle."""

    def run(self, limit: int) -> int:
        """Handle up to `limit` messages and return how many it handled."""
        ...


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of a loop: for one of asyncio's own what its `time` calls, which is a call less."""
    return time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time


class Engine:
    """The run queue and the shared services of one actor system."""

    __slots__ = (
        "_answers",
        "_armed",
        "_pumps",
        "_ready",
        "asking",
        "at_work",
        "context",
        "deadlines",
        "draining",
        "events",
        "interceptors",
        "logger",
        "logs",
        "loop",
        "name",
        "propagation",
        "random",
        "registry",
        "root",
        "thread",
        "time",
        "turn_began",
    )

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, seed: int | None, interceptors: Sequence[Interceptor] = ()
    ) -> None:
        self.name = name
        self.loop = loop
        self.time = clock_of(loop)
        """Returns the time of the loop, in seconds."""
        self.thread = get_ident()
        self.root: Any = None
        """The cell at the root of the tree; None before there is one."""
        self.random = random.Random(seed)
        self.events = EventStream()
        self.registry = ActorRegistry(self.events)
        self.logs = True
        """Whether log lines are wanted (`ActorSystem(log=)`)."""
        self.logger: Logger | None = None
        """Where they go, if not where the lines of loguru go."""
        self.propagation: Propagation | None = None
        """Which context variables travel with requests; None if none do."""
        self.interceptors = InterceptedHandlers(interceptors) if interceptors else None
        self.deadlines = DeadlineWatch(loop)
        self.asking: dict[asyncio.Task[Any] | None, Ask] = {}
        """The request that each task waits for, to find those that wait for each other."""
        # Handlers run in the context of the system, not in that of the code that caused them to run.
        self.context = contextvars.copy_context()
        self._ready: deque[Runnable] = deque()
        self._armed = False
        self.draining = False
        """True while handlers are called, because the context of the system cannot be entered twice."""
        self._pumps = self._answers = 0
        self.at_work = 0
        """The number of tasks of async actors that are handling mail."""
        self.turn_began = loop.time()

    def enqueue(self, runnable: Runnable) -> None:
        """Queue `runnable` to run in this turn of the loop or the next."""
        if not self._armed and not self.draining:
            self._arm()
        self._ready.append(runnable)

    def pump(self) -> None:
        """Drain the run queue now, in the caller's task, so that a request answered without waiting needs no turn.

        At most `PUMPS_PER_TURN` times in a turn, so that a caller in a tight loop leaves the event loop its share.
        """
        if self.draining or self._pumps >= PUMPS_PER_TURN:
            return
        self._pumps += 1
        if not self._armed:
            self._arm()
        self.context.run(self._drain, MESSAGES_PER_ACTIVATION)

    def deliver_and_drain(self, deliver: Callable[[Any], object], item: Any) -> None:
        """Deliver mail from a callback of the loop, and drain the run queue in the same turn, within the same bounds.

        The loop runs the callback in the context of the system. Otherwise the mail would wait for one turn more.
        """
        if self.draining or self._pumps >= PUMPS_PER_TURN:
            deliver(item)
            return
        self._pumps += 1
        if not self._armed:
            self._arm()
        deliver(item)
        self._drain(MESSAGES_PER_ACTIVATION)

    def may_answer_now(self) -> bool:
        """Tell whether one more request may be answered in this turn without the run queue, and count it."""
        if self.draining or self._answers >= ANSWERS_PER_TURN:
            return False
        self._answers += 1
        if not self._armed:
            self._arm()
        return True

    def new_queue(self, inbox: Any) -> deque[Any]:
        """Return an empty queue for the mail of one actor."""
        return deque()

    def new_wait_queue(self, inbox: Any) -> OrderedDict[Any, None]:
        """Return an empty wait queue for senders that wait for room in a mailbox."""
        return OrderedDict()

    def share_of_turn(self) -> int:
        """Return how many messages the task of an actor may handle before the event loop has its turn.

        A turn costs as much as many messages. So the tasks at work share the number that the run queue may handle in
        one turn, and each has one activation at least, as in the run queue.
        """
        return max(MESSAGES_PER_ACTIVATION, MESSAGES_PER_TURN // self.at_work)

    def failing(self, error: BaseException) -> None:
        """Take note that the system is about to end with an error; here there is nothing to do."""

    def create_task(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task in the context of the system, not in that of the code that is running."""
        if self.loop.get_task_factory() is None:
            return self.loop.create_task(coroutine, name=name, context=self.context.copy())
        # A task factory of the program may begin its tasks inside of this call (`asyncio.eager_task_factory`); the
        # engine relies on its tasks beginning in a later turn.
        return asyncio.Task(coroutine, loop=self.loop, name=name, context=self.context.copy())

    def check_thread(self) -> None:
        """Raise `WrongThread` in another thread than that of the loop, which would wake it too late or not at all."""
        if self.thread != get_ident():
            raise WrongThread(self.name)

    def _arm(self) -> None:
        self.check_thread()
        self._armed = True
        self.loop.call_soon(self._turn, context=self.context)

    def _turn(self) -> None:
        self._armed = False
        self._pumps = self._answers = 0
        self.turn_began = self.time()
        self._drain(MESSAGES_PER_TURN)

    def _drain(self, budget: int) -> None:
        ready = self._ready
        self.draining = True
        try:
            while ready and budget > 0:
                limit = MESSAGES_PER_ACTIVATION if budget > MESSAGES_PER_ACTIVATION else budget  # noqa: FURB136 - a call less.
                budget -= ready.popleft().run(limit)
        finally:
            self.draining = False
            if ready and not self._armed:
                self._arm()
