"""Run one scenario once in virtual time, and check afterwards that nothing was left, lost or out of order."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec

from runtime.error_text import annotate
from runtime.simulation.alarm import Alarm
from runtime.simulation.engine import SimulatedEngine
from runtime.simulation.errors import InvariantBroken, NotSimulated, SimulationError
from runtime.simulation.injection import Injection
from runtime.simulation.invariants import Witness
from runtime.simulation.loop import VirtualTimeLoop, unfinished
from runtime.simulation.mail import Mail
from runtime.simulation.schedule import FifoSchedule, RecordedSchedule, SeededSchedule
from runtime.simulation.surroundings import surroundings
from runtime.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runtime.events import Event
    from runtime.ref import ActorRef
    from runtime.simulation.schedule import Deviation, Schedule
    from runtime.simulation.trace import Entry
    from runtime.simulation.world import Fault

T = TypeVar("T")

Scenario: TypeAlias = Callable[["Simulation"], Awaitable[T]] | Callable[[], Awaitable[T]]
"""An async function to be run in virtual time. If it takes a parameter, that is the simulation."""

Order: TypeAlias = "Literal['seeded', 'fifo'] | Sequence[Deviation]"
"""The order of what is ready at once: drawn from the seed, that of production, or that but for some deviations."""

MAX_STEPS = 20_000_000
COLLECT_EVERY = 500_000
"""The steps between two garbage collections, which are at the same places in every run."""
REMEMBERED = 10
"""So many errors are remembered with what preceded them, because the scenario may catch some."""
TURNS_TO_END = 10_000
TIME_TO_END = 3_600.0
"""Virtual seconds that cancelled tasks have to end after the scenario."""


class Run(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A run that passed: the scenario's `result`, and the record of what happened.

    The same seed has the same `digest` in every process. `seconds` are virtual. `steps` counts the turns of tasks and
    callbacks.
    """

    result: T
    seed: int
    digest: str
    trace: Trace
    faults: tuple[Fault, ...]
    steps: int
    seconds: float


class SimulatedLoop(VirtualTimeLoop):
    """The event loop of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self.schedule = simulation.choices
        self.actor_engine = partial(SimulatedEngine, simulation)
        self._trace = simulation.trace
        recorded = isinstance(self.schedule, RecordedSchedule)
        self.record_step = simulation.record_step if recorded else simulation.trace.step
        self.pause_at = COLLECT_EVERY
        self._report = simulation.refused

    def refused(self, error: NotSimulated) -> None:
        self._report(error)

    def pause(self) -> None:
        self.pause_at += COLLECT_EVERY
        self._trace.flush()
        gc.collect()


class Simulation:
    """Runs one scenario once, in virtual time, in an order that `seed` decides.

    `faults` are applied at their times; the scenario may `inject` more. With `order="fifo"`, tasks run in the order in
    which they became ready, as in production; given `Deviation`s, they do so but for these. `keep` names faults by
    their numbers, from 0 in the order of injection; all others are left out. `logs` says whether log lines are written.
    A run of more than `max_steps` steps fails as a `Livelock`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        faults: Sequence[Fault] = (),
        order: Order = "seeded",
        keep: Sequence[int] | None = None,
        logs: bool = True,
        max_steps: int = MAX_STEPS,
    ) -> None:
        self.seed = seed
        self.random = random.Random(f"{seed}/scenario")
        """Random numbers for the scenario's own choices; the seed decides them."""
        self.choices = schedule_of(order, seed)
        """Decides which of several ready tasks and actors runs first."""
        self.trace = Trace(self.now)
        self.observers: list[tuple[Callable[[Event], object], frozenset[type[Event]]]] = []
        """What is given events of every system, and of which kinds."""
        self.problems: list[str] = []
        self.refusals: list[NotSimulated] = []
        """The errors of refused calls; the first of them is what the run fails with."""
        self._preceding: deque[tuple[BaseException, list[Entry]]] = deque(maxlen=REMEMBERED)
        """Errors, and the last events before each; what follows an error is how the program ends, and says little."""
        self._before_problem: list[Entry] | None = None
        self._before_failure: list[Entry] | None = None
        self.mail = Mail(self)
        self.injection = Injection(self, self.mail, seed, keep)
        self.witness = Witness(self, self.mail)
        self.systems: list[SimulatedEngine] = []
        self.loop: SimulatedLoop
        """The event loop, which is made when the run begins."""
        self.main: asyncio.Task[Any] | None = None
        self.alarm = Alarm()
        self._has_begun = False
        self._planned = list(faults)
        self._logs = logs
        self._max_steps = max_steps
        self._is_over = False

    # For scenarios.

    def now(self) -> float:
        """Return the seconds since the run began."""
        return self.loop.now if self._has_begun else 0.0

    def note(self, text: str) -> None:
        """Put a line into the trace."""
        self.trace.add("note:", text)

    def observe(self, receive: Callable[[Event], object], kinds: Collection[type[Event]]) -> None:
        """Have `receive` called with each event of these kinds of every system, also if nothing subscribes to it.

        It must not change anything: the run, and its digest, are the same without it.
        """
        self.observers.append((receive, frozenset(kinds)))

    def inject(self, *faults: Fault) -> None:
        """Apply these faults, each at its time, or now if that is past."""
        if not self._has_begun:
            self._planned.extend(faults)
            return
        for fault in faults:
            self.injection.inject(fault)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Every fault of the run in the order of injection, those that are left out included."""
        return tuple(self.injection.plan)

    def declare(self, kind: str, name: str) -> None:
        """Say that the run has something that faults can strike: its kind, such as "provider", and its name."""
        self.injection.declared.setdefault(kind, {})[name] = None

    def active(self, kind: type[T]) -> list[T]:
        """Return the faults of a kind that last now, for simulated parts, such as a provider, that act on them."""
        return self.injection.active(kind)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """What ran in another order than in production, so far: only of a run that is given or records its order."""
        return tuple(self.choices.made) if isinstance(self.choices, RecordedSchedule) else ()

    def last_events(self, count: int) -> list[str]:
        """Return the last events as lines: those before the failure if the run has failed, and not those of its end."""
        events = list(self.trace) if self._before_failure is None else self._before_failure
        return [str(entry) for entry in events[max(0, len(events) - count) :]]

    def record_order(self) -> None:
        """Record the `deviations` of the run. Call it before the run, which takes longer for it."""
        if not isinstance(self.choices, RecordedSchedule):
            self.choices = RecordedSchedule(self.choices)

    def record_step(self, number: float) -> None:
        """Record a step of the task with this number, in a run whose order is recorded."""
        self.trace.step(number)
        cast("RecordedSchedule", self.choices).stepped(number)

    # For faults and checks, see `World`.

    def actors(self, pattern: str) -> list[ActorRef[Any]]:
        """Return the living actors whose path matches."""
        found: list[ActorRef[Any]] = []
        roots = [system.root for system in self.systems]
        below = [root for root in roots if root is not None and root.exit is None]
        while below:
            children: list[ActorRef[Any]] = list(below.pop(0).children.values())
            cells: list[Any] = [ref.recipient.home for ref in children]
            found.extend(
                ref
                for ref, cell in zip(children, cells, strict=True)
                if fnmatchcase(cell.path, pattern) and cell.is_alive
            )
            below.extend(cells)
        return found

    def tasks(self, pattern: str = "*") -> list[asyncio.Task[Any]]:
        """Return the unfinished tasks whose name matches, that of the scenario left out."""
        return [
            task for task in unfinished(self.loop) if task is not self.main and fnmatchcase(task.get_name(), pattern)
        ]

    def roll(self) -> float:
        """Return a number from [0, 1) for what faults leave to chance."""
        return self.injection.roll()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call something at a certain time, unless the scenario has ended by then."""
        self.injection.call_at(when, callback)

    def schedule(self, fault: Fault) -> None:
        """Apply a fault at its time, as a part of another."""
        self.injection.schedule(fault)

    def hold(self, ref: ActorRef[Any], until: float) -> None:
        """Let an actor have no turn before a certain time."""
        self.injection.hold(ref, until)

    def refused(self, error: NotSimulated) -> None:
        """Let the run fail because of a refused call, even if the program catches its error."""
        self.refusals.append(error)
        self.problem(str(error))
        self.failing(error)

    def problem(self, text: str) -> None:
        """Let the run fail with this line, as a broken invariant, once it is over."""
        self.trace.add("problem:", text)
        self.problems.append(text)
        if self._before_problem is None:
            self._before_problem = list(self.trace)

    def failing(self, error: BaseException) -> None:
        """Remember the last events before an error that may be what the run fails with."""
        if not any(known is error for known, _ in self._preceding):
            self._preceding.append((error, list(self.trace)))

    def _before(self, error: BaseException) -> list[Entry] | None:
        """Return the last events before an error or the first of what caused it; None if they are the last of all."""
        causes = causes_of(error)
        for known, events in self._preceding:
            if any(known is cause for cause in causes):
                return events
        return self._before_problem if isinstance(error, InvariantBroken) else None

    # Running.

    def run(self, scenario: Scenario[T]) -> Run[T]:
        """Run a scenario to its end, and check all invariants. Call it outside of any event loop, and once.

        Raises what the scenario raised, with a note that names the seed; `Deadlock` or `Livelock`; and
        `InvariantBroken` if the scenario ended well but something was left, lost or out of order.
        """
        if self._has_begun:
            raise SimulationError("this simulation has run already; make another one, with its seed to repeat the run")
        refuse_nested()
        self.loop = SimulatedLoop(self)
        self._has_begun = True
        self.loop.max_steps = self._max_steps
        self.loop.set_exception_handler(self._unhandled)
        collects = gc.isenabled()
        gc.disable()
        try:
            with (
                self.alarm,
                surroundings(self.now, seed=f"{self.seed}/surroundings", logs=self._logs, report=self.refused),
            ):
                result = self._run(scenario)
            if self.problems:
                raise InvariantBroken(self.problems)
        except BaseException as error:
            first = error
            if self.refusals and isinstance(error, Exception) and error is not self.alarm.error:
                # What followed from it says less, and is not its cause.
                first = self.refusals[0]
            self._before_failure = self._before(first)
            self._add_notes(first)
            if first is error:
                raise
            raise first from None
        finally:
            self.loop.close()
            (gc.enable if collects else gc.disable)()
        return Run(
            result=result,
            seed=self.seed,
            digest=self.trace.digest,
            trace=self.trace,
            faults=self.faults,
            steps=self.loop.steps,
            seconds=self.loop.now,
        )

    async def arun(self, scenario: Scenario[T]) -> Run[T]:
        """Run a scenario from an async context, such as a notebook: in a thread of its own, as `run` does.

        The event loop that runs goes on meanwhile. Whatever the scenario uses must be made in it. A caller that is
        cancelled leaves the run to end by itself, which real time may not limit, but `max_steps` does.
        """
        return await asyncio.to_thread(self.run, scenario)

    def _add_notes(self, error: BaseException) -> None:
        annotate(error, f"seed {self.seed}, after {self.loop.now:g} virtual seconds and {self.loop.steps:,} steps")
        if error is self.alarm.error:
            annotate(error, "a time limit cut this run off before its end; allow more time, or run fewer seeds")

    def _run(self, scenario: Scenario[T]) -> T:
        loop = self.loop
        self.main = loop.create_task(self._perform(scenario), name="scenario")
        try:
            result: T = loop.run_until_complete(self.main)
        except BaseException as error:
            self.failing(error)
            with suppress(SimulationError):  # The scenario's own error says more than what is stuck because of it.
                self._end(is_well=False)
            raise
        self._end(is_well=True)
        return result

    async def _perform(self, scenario: Scenario[T]) -> T:
        self.inject(*self._planned)
        call = cast("Callable[..., Any]", scenario)
        outcome = call(self) if takes_simulation(scenario) else call()
        if not inspect.isawaitable(outcome):
            name = getattr(scenario, "__qualname__", scenario)
            raise SimulationError(f"a scenario must be an async function; {name} is not, and returned {outcome!r}")
        return await outcome

    def _end(self, *, is_well: bool) -> None:
        """Check what is left, clean up, and close the loop."""
        loop = self.loop
        self.injection.stop()
        try:
            loop.run_until_complete(self._settle())
            if is_well:
                for problem in (*self.injection.missed(), *self.witness.problems_at_end()):
                    self.problem(problem)
            self._is_over = True
            left = unfinished(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=TIME_TO_END))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            self.main = None
            for task in unfinished(loop):
                # A task that is left has been reported already.
                setattr(task, "_log_destroy_pending", False)  # noqa: B010
            loop.close()

    async def _settle(self) -> None:
        """Give tasks that are about to end the turns they need, without letting time pass."""
        quiet = 0
        for _ in range(TURNS_TO_END):
            quiet = 0 if self.loop.is_busy else quiet + 1
            if quiet > 1:
                return
            await asyncio.sleep(0)

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self._is_over or error is None:
            what = f": {type(error).__name__}: {error}" if error is not None else ""
            task = context.get("task") or context.get("future")
            whose = f" ({task.get_name()})" if isinstance(task, asyncio.Task) else ""
            self.problem(f"{context.get('message')}{whose}{what}")

    def __repr__(self) -> str:
        return f"<Simulation seed {self.seed}, {self.loop.now:g} s, {self.loop.steps} steps, {len(self.faults)} faults>"


def schedule_of(order: Order, seed: int) -> Schedule:
    """Return the schedule of a run. Raises ValueError for an order that there is not."""
    if not isinstance(order, str):
        return RecordedSchedule(FifoSchedule(), order)
    if order not in {"seeded", "fifo"}:
        raise ValueError(f'order must be "seeded", "fifo" or deviations, got {order!r}')
    return SeededSchedule(random.Random(f"{seed}/order")) if order == "seeded" else FifoSchedule()


def causes_of(error: BaseException) -> list[BaseException]:
    """Return an error, what it was raised from, and the members of groups among these.

    >>> causes_of(ExceptionGroup("both", [ValueError("a")]))
    [ExceptionGroup('both', [ValueError('a')]), ValueError('a')]
    """
    found: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if not any(one is known for known in found):
            found.append(one)
            if isinstance(one, BaseExceptionGroup):
                left += cast("BaseExceptionGroup[BaseException]", one).exceptions
            if one.__cause__ is not None:
                left.append(one.__cause__)
    return found


def refuse_nested() -> None:
    """Raise SimulationError if an event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SimulationError(
        "a simulation brings its own event loop, and another one is running here; "
        "await Simulation(seed).arun(scenario), or asyncio.to_thread(explore, scenario)"
    )


def takes_simulation(scenario: Scenario[Any]) -> bool:
    """Tell whether a scenario takes the simulation: it has a positional parameter without a default."""
    return any(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        for one in inspect.signature(scenario).parameters.values()
    )
