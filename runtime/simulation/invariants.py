"""Checks of what must hold in every run, whatever its scenario: some after each event, others at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.actor import Actor
from runtime.envelope import RUNNING, WAITING, Ask
from runtime.events import ActorEnded, ActorFailed, ActorRestarted
from runtime.simulation.tasks import place_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from runtime.events import Event
    from runtime.simulation.mail import Mail
    from runtime.simulation.world import World


class Witness:
    """Observes every event of a run, and reports what breaks an invariant."""

    def __init__(self, world: World, mail: Mail) -> None:
        self._world = world
        self._mail = mail
        self._instances: dict[int, Actor[Any]] = {}
        self._failed_at: dict[int, tuple[Exception, float]] = {}
        self._restarts: dict[int, tuple[Any, list[tuple[float, Any]]]] = {}
        """The restarts by each instance of a supervisor. The instance is kept, so that no other gets its address."""

    def observe(self, event: Event) -> None:
        """Record an event, and report it if it must not happen."""
        self._world.trace.add(type(event).__name__, getattr(event, "ref", ""), event)
        match event:
            case ActorFailed(ref, error):
                self._failed_at[id(error)] = error, self._world.now()
                self.remember(ref.recipient.home)
            case ActorEnded(ref):
                self.remember(ref.recipient.home)
            case ActorRestarted(ref, _, cause):
                self._count_restart(ref.recipient.home, cause)
            case _:
                pass

    def remember(self, cell: Any) -> None:
        """Keep the present instance of an actor, whose invariants are checked after the run."""
        actor: Actor[Any] = cell.actor
        if type(actor).broken_invariants is not Actor.broken_invariants:  # pyright: ignore[reportUnknownMemberType]
            self._instances[id(actor)] = actor

    def _count_restart(self, cell: Any, cause: Exception | None) -> None:
        """Count the restarts that are certain to lie within the time of their supervisor's restart intensity."""
        now, owner = self._world.now(), cell.owner
        failed = self._failed_at.get(id(cause))
        if owner is None or failed is None:
            return
        _, restarts = self._restarts.setdefault(id(owner.actor), (owner.actor, []))
        if all(one is not cause for _, one in restarts):  # A group that restarts together does so once.
            restarts.append((failed[1], cause))
        intensity = owner.supervision.intensity
        recent = [at for at, _ in restarts if now - at < intensity.within]
        if len(recent) > intensity.max_restarts:
            self._world.problem(
                f"{owner.path} restarted {len(recent)} children within {intensity.within:g} s, "
                f"and tolerates {intensity.max_restarts}"
            )

    def problems_at_end(self) -> Iterator[str]:
        """Yield a line for each thing that a run must not leave behind."""
        world = self._world
        for task in world.tasks():
            yield f"task {task.get_name()} was left running; it waits at {place_of(task)}"
        for task in world.loop.tasks.values():
            yield from unretrieved_exception(task)
        for timer in world.loop.pending_timers():
            yield f"a timer was left: {timer}"
        yield from self._left_in_systems()
        for actor in self._instances.values():
            for broken in actor.broken_invariants():
                yield f"{actor.context.ref.path}: {broken}"

    def _left_in_systems(self) -> Iterator[str]:
        for system in self._world.systems:
            if system.root is not None and system.root.exit is None:
                yield f"system {system.name} was not left"
            for entry in system.pending_deadlines:
                if isinstance(entry, Ask) and entry.progress in (WAITING, RUNNING):
                    yield f"{entry!r} was never ended"
        for queue in self._mail.queues:
            if queue:
                yield f"{len(queue)} messages were left with {queue.inbox.path}"

    def __repr__(self) -> str:
        return f"<Witness of {len(self._instances)} actors with invariants>"


def unretrieved_exception(task: Any) -> Iterator[str]:
    """Yield a line for a task that failed and whose exception was never retrieved."""
    failed: asyncio.Task[Any] = task
    if getattr(task, "_log_traceback", False):
        # asyncio reports this too, but for a task in a cycle of references only when the garbage is collected.
        task._log_traceback = False  # noqa: SLF001
        yield f"the exception of task {failed.get_name()} was never retrieved: {failed.exception()!r}"
