"""One run of a scenario in virtual time: what happens in it, and whether what must always hold did."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
from collections import defaultdict
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from runtime.actor import Actor
from runtime.envelope import RUNNING, WAITING, Ask
from runtime.events import ActorEnded, ActorFailed, ActorRestarted
from runtime.simulation.engine import SimulatedEngine
from runtime.simulation.errors import InvariantBroken, SimulationError
from runtime.simulation.faults import Fault, Spell
from runtime.simulation.loop import VirtualTimeLoop, unfinished, where
from runtime.simulation.mail import Origins
from runtime.simulation.surroundings import surroundings
from runtime.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from runtime.events import Event
    from runtime.simulation.mail import RecordedQueue

T = TypeVar("T")
F = TypeVar("F", bound=Fault)

Scenario: TypeAlias = "Callable[[Simulation], Awaitable[T]] | Callable[[], Awaitable[T]]"
"""An async function to be run in virtual time. One that takes a parameter gets the simulation."""

MAX_STEPS = 20_000_000
COLLECTED_EVERY = 500_000
"""The steps between two garbage collections: at the same places in every run."""
TURNS_TO_END = 10_000
TIME_TO_END = 3_600.0
"""Seconds, virtual ones, that cancelled tasks have to end after the scenario."""


class Run(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What came of a run: the scenario's `result`, and what was seen of it.

    One seed has one `digest`, in every process. `seconds` are virtual; `steps` are turns of tasks and callbacks.
    """

    result: T
    seed: int
    digest: str
    trace: Trace
    faults: tuple[Fault, ...]
    steps: int
    seconds: float


class SimulatedLoop(VirtualTimeLoop):
    """The loop of one simulation."""

    def __init__(self, simulation: Simulation, dice: random.Random | None) -> None:
        super().__init__(dice)
        self.actor_engine = partial(SimulatedEngine, simulation)
        self._step_down = simulation.trace.step

    def took_a_step(self, who: Any) -> None:
        self._step_down(0.0 if who is None else getattr(who, "number", -1.0))
        if self.steps % COLLECTED_EVERY == COLLECTED_EVERY - 1:
            gc.collect()


class Simulation:
    """Runs one scenario once, in virtual time, in an order that `seed` decides.

    `faults` strike as planned; the scenario may `inject` more. With `order="fifo"` tasks go in the order in which they
    became ready, as in production. `keep` (numbers from 0 up, in the order of injection) leaves out all other faults.
    `logs` says whether log lines are written. A run of more than `max_steps` turns fails as a `Livelock`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        faults: Sequence[Fault] = (),
        order: Literal["seeded", "fifo"] = "seeded",
        keep: Sequence[int] | None = None,
        logs: bool = True,
        max_steps: int = MAX_STEPS,
    ) -> None:
        self.seed = seed
        self.random = random.Random(f"{seed}/scenario")
        """For the scenario's own choices: what it draws from here, the seed decides."""
        self.dice = random.Random(f"{seed}/order") if order == "seeded" else None
        self.trace = Trace(self.now)
        self.problems: list[str] = []
        self.faults: list[Fault] = []
        """Every fault of the run, the left out ones included, in the order of their injection."""
        self.engines: list[SimulatedEngine] = []
        self.queues: list[RecordedQueue] = []
        self.mail_faults: list[Any] = []
        self.origins = Origins()
        self.loop: SimulatedLoop
        """Made when the run begins."""
        self.main: asyncio.Task[Any] | None = None
        self._has_begun = False
        self._planned = list(faults)
        self._keep = None if keep is None else frozenset(keep)
        self._luck = random.Random(f"{seed}/faults")
        self._logs = logs
        self._max_steps = max_steps
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: dict[Any, float] = {}
        self._active: list[Fault] = []
        self._instances: dict[int, Actor[Any]] = {}
        self._failed_at: dict[int, tuple[Exception, float]] = {}
        self._restarts: dict[int, list[tuple[float, Any]]] = defaultdict(list)
        self._is_over = False

    # What a scenario uses.

    def now(self) -> float:
        """Return the seconds since the run began."""
        return self.loop.now if self._has_begun else 0.0

    def note(self, text: str) -> None:
        """Put a line of your own into the trace."""
        self.trace.add("note:", text)

    def inject(self, *faults: Fault) -> None:
        """Let these faults strike, each at its time, or now where that is over."""
        if not self._has_begun:
            self._planned.extend(faults)
            return
        for fault in faults:
            number = len(self.faults)
            self.faults.append(fault)
            if self._keep is None or number in self._keep:
                self.schedule(fault)

    def active(self, kind: type[F]) -> list[F]:
        """Return the faults of a kind that last now: for whoever simulates what they concern."""
        now = self.loop.now
        return [
            fault
            for fault in self._active
            if isinstance(fault, kind) and (not isinstance(fault, Spell) or fault.is_active(now))
        ]

    def roll(self) -> float:
        """Return a number from [0, 1) for what faults leave to chance."""
        return self._luck.random()

    def problem(self, text: str) -> None:
        """Let the run fail, once it is over, as a broken invariant with this line."""
        self.trace.add("problem:", text)
        self.problems.append(text)

    # Running.

    def run(self, scenario: Scenario[T]) -> Run[T]:
        """Run a scenario to its end, and see that all invariants hold; call it from outside of any event loop.

        Raises what the scenario raised, with a note that names the seed; `Deadlock` and `Livelock`; and
        `InvariantBroken` where the scenario ended well but something was left, lost, or out of order.
        """
        if self._has_begun:
            raise SimulationError("this simulation has run; make another one, with the same seed if it is to be repeated")
        self.loop = SimulatedLoop(self, self.dice)
        self._has_begun = True
        self.loop.max_steps = self._max_steps
        self.loop.set_exception_handler(self._unhandled)
        collects = gc.isenabled()
        gc.disable()
        try:
            with surroundings(
                self.now,
                seed=f"{self.seed}/surroundings",
                logs=self._logs,
                report=lambda error: self.problem(str(error)),
            ):
                result = self._run(scenario)
        except Exception as error:
            error.add_note(f"seed {self.seed}, after {self.loop.now:g} virtual seconds and {self.loop.steps:,} steps")
            raise
        finally:
            if collects:
                gc.enable()
        if self.problems:
            broken = InvariantBroken(self.problems)
            broken.add_note(f"seed {self.seed}, after {self.loop.now:g} virtual seconds and {self.loop.steps:,} steps")
            raise broken
        return Run(
            result=result,
            seed=self.seed,
            digest=self.trace.digest,
            trace=self.trace,
            faults=tuple(self.faults),
            steps=self.loop.steps,
            seconds=self.loop.now,
        )

    def _run(self, scenario: Scenario[T]) -> T:
        loop = self.loop
        self.main = loop.create_task(self._perform(scenario), name="scenario")
        is_well = False
        try:
            result: T = loop.run_until_complete(self.main)
            is_well = True
        finally:
            for timer in self._timers:
                timer.cancel()
            self._end(is_well=is_well)
        return result

    async def _perform(self, scenario: Scenario[T]) -> T:
        self.inject(*self._planned)
        takes = inspect.signature(scenario).parameters
        return await (scenario(self) if takes else scenario())  # type: ignore[call-arg]  # pyright: ignore

    def _end(self, *, is_well: bool) -> None:
        """See what is left, clean up, and close the loop."""
        loop = self.loop
        try:
            loop.run_until_complete(self._settle())
            if is_well:
                self._check()
            self._is_over = True
            left = unfinished(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=TIME_TO_END))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            for task in unfinished(loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - it is reported already. # pyright: ignore
            loop.close()

    async def _settle(self) -> None:
        """Give those who have said their last word the turns they need, without letting time pass."""
        quiet = 0
        for _ in range(TURNS_TO_END):
            quiet = 0 if self.loop._ready else quiet + 1  # noqa: SLF001
            if quiet > 1:
                return
            await asyncio.sleep(0)

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self._is_over or error is None:
            what = f": {type(error).__name__}: {error}" if error is not None else ""
            self.problem(f"{context.get('message')}{what}")

    # Invariants.

    def _check(self) -> None:
        """Look for what a run must not leave behind."""
        own = asyncio.current_task(self.loop) if self.loop.is_running() else None
        for task in unfinished(self.loop):
            if task is not own:
                self.problem(f"task {task.get_name()} was left running; it waits at {where(task)}")
        for timer in self.loop.pending_timers():
            self.problem(f"a timer was left: {timer}")
        for engine in self.engines:
            if engine.root is not None and engine.root.exit is None:
                self.problem(f"system {engine.name} was not left")
            for entry in engine.deadlines.left:
                if isinstance(entry, Ask) and entry.progress in (WAITING, RUNNING):
                    self.problem(f"{entry!r} was never ended")
        for queue in self.queues:
            if queue:
                self.problem(f"{len(queue)} messages were left with {queue.inbox.path}")
        for actor in self._instances.values():
            for broken in actor.broken_invariants():
                self.problem(f"{actor.context.ref.path}: {broken}")

    def happened(self, event: Event) -> None:
        """Take down an event, and see whether it may be."""
        self.trace.add(type(event).__name__, getattr(event, "ref", ""), event)
        match event:
            case ActorFailed(ref, error):
                self._failed_at[id(error)] = error, self.loop.now
                self._remember(ref.recipient)
            case ActorEnded(ref):
                self._remember(ref.recipient)
            case ActorRestarted(ref, _, cause):
                self._restarted(ref.recipient, cause)
            case _:
                pass

    def _remember(self, cell: Any) -> None:
        actor = cell.actor
        if type(actor).broken_invariants is not Actor.broken_invariants:
            self._instances[id(actor)] = actor

    def _restarted(self, cell: Any, cause: Exception | None) -> None:
        """Count the restarts that surely lie within the time that their supervisor looks at."""
        now, owner = self.loop.now, cell.owner
        failed = self._failed_at.get(id(cause))
        if owner is None or failed is None:
            return
        restarts = self._restarts[id(owner.actor)]
        if all(one is not cause for _, one in restarts):  # A group that restarts together does so once.
            restarts.append((failed[1], cause))
        intensity = owner.supervision.intensity
        recent = [at for at, _ in restarts if now - at < intensity.within]
        if len(recent) > intensity.max_restarts:
            self.problem(
                f"{owner.path} restarted {len(recent)} children within {intensity.within:g} s, "
                f"and tolerates {intensity.max_restarts}"
            )

    # What faults use.

    def schedule(self, fault: Fault) -> None:
        """Let a fault strike at its time."""
        if fault.at <= self.loop.now:
            self._strike(fault)
        else:
            self.call_at(fault.at, partial(self._strike, fault))

    def _strike(self, fault: Fault) -> None:
        self._active.append(fault)
        fault.strike(self)
        if isinstance(fault, Spell):
            self.call_at(fault.at + fault.lasts, partial(self._relent, fault))

    def _relent(self, fault: Spell) -> None:
        self._active.remove(fault)
        fault.end(self)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Do something at a certain time, unless the scenario has ended by then."""

        def call() -> None:
            self._timers.discard(timer)
            callback()

        if when != float("inf"):
            timer = self.loop.call_at(when, call)
            self._timers.add(timer)

    def actors(self, pattern: str) -> list[Any]:
        """Return the cells of living actors whose path matches."""
        found: list[Any] = []
        below = [engine.root for engine in self.engines if engine.root is not None and engine.root.exit is None]
        while below:
            cell = below.pop(0)
            children = [ref.recipient for ref in cell.children.values()]
            found.extend(one for one in children if fnmatchcase(one.path, pattern) and one.is_alive)
            below.extend(children)
        return found

    def pick(self, found: Sequence[T]) -> T:
        """Return one of those that a fault may strike."""
        return found[int(self.roll() * len(found))]

    def hold(self, cell: Any, until: float) -> None:
        """Let an actor have no turn before a certain time."""
        self._held[cell] = until
        for task in unfinished(self.loop):
            if task is cell.task or task in cell.lane_tasks():
                self.loop.held[task] = until

    @property
    def has_shortcuts(self) -> bool:
        """Tell whether requests may be answered without the mailbox: not while a fault strikes there."""
        return not self.mail_faults and not self._held

    def is_held(self, runnable: Any, engine: SimulatedEngine) -> bool:
        """Tell whether an actor has to stand still, and if so let it come back later."""
        if not self._held:
            return False
        until = self._held.get(runnable, 0.0)
        if until <= self.loop.now:
            self._held.pop(runnable, None)
            return False
        self.call_at(until, partial(engine.enqueue, runnable))
        return True

    def __repr__(self) -> str:
        return f"<Simulation seed {self.seed}, {self.loop.now:g} s, {self.loop.steps} steps, {len(self.faults)} faults>"
