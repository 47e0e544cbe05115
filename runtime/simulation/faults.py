"""Faults of actors, messages, tasks and systems, as plain values that say when they begin and what they affect.

A fault plan is a list of them. Other faults, such as the outage of a provider, do nothing by themselves: the simulated
provider looks them up, see `Simulation.active`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runtime.envelope import Ask, told
from runtime.simulation.injection import miss
from runtime.simulation.mail import Duplicate, MailFault, system_at_work
from runtime.simulation.world import Fault, TimedFault

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from runtime.simulation.mail import Origin, RecordedQueue
    from runtime.simulation.world import World

T = TypeVar("T")


class InjectedCrash(Exception):
    """The error with which a `Crash` makes an actor fail."""


def note_no_match(fault: Fault, kind: str, pattern: str, there: Sequence[str], world: World) -> None:
    """Record that a fault matches nothing; unless it may miss, the run fails."""
    world.trace.add("fault: matches nothing", pattern, type(fault).__name__)
    if not fault.may_miss:
        world.problem(miss(fault, kind, pattern, there, now=world.now()))


def paths(world: World) -> list[str]:
    """Return the paths of the actors that live now."""
    return [ref.path for ref in world.actors("*")]


def pick(found: Sequence[T], world: World) -> T:
    """Return one of the actors or tasks that a fault may affect, drawn by chance."""
    return found[int(world.roll() * len(found))]


# Actors.


class Crash(Fault, frozen=True, kw_only=True):
    """An actor crashes, `times` times, `every` so many seconds. If several match, one is drawn by chance each time.

    `actor` is a path, such as `bank/alice`, or a pattern, such as `bank/*`.
    """

    actor: str
    times: int = 1
    every: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times < 1:
            raise ValueError(f"times must be >= 1, got {self.times}")
        if not 0 < self.every < math.inf:
            raise ValueError(f"every must be > 0 seconds and finite, got {self.every}")

    def apply(self, world: World) -> None:
        found = world.actors(self.actor)
        if found:
            ref = pick(found, world)
            world.trace.add("fault: crash", ref)
            cell: Any = ref.recipient.home
            crash = partial(cell.failed, InjectedCrash(f"{cell.path} was made to crash"), None)
            # A handler that injects the fault runs in that context already.
            crash() if cell.engine.draining else cell.engine.context.run(crash)
        else:
            note_no_match(self, "actor", self.actor, paths(world), world)
        if self.times > 1:
            again = msgspec.structs.replace(self, at=world.now() + self.every, times=self.times - 1, may_miss=True)
            world.schedule(again)


class Hang(TimedFault, frozen=True, kw_only=True):
    """An actor stands still: whatever it does takes that much longer, and a cancellation reaches it only afterwards."""

    actor: str

    def apply(self, world: World) -> None:
        found = world.actors(self.actor)
        for ref in found:
            world.trace.add("fault: hang", ref, self.lasts)
            world.hold(ref, self.at + self.lasts)
        if not found:
            note_no_match(self, "actor", self.actor, paths(world), world)


# Mail.


class DropMail(MailFault, frozen=True, kw_only=True):
    """Messages are lost on their way. A request among them gets no answer before its deadline."""

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        world.trace.add("fault: drop", queue.inbox.ref, told(item))
        queue.lose(item)
        return True


class DelayMail(MailFault, frozen=True, kw_only=True):
    """Messages arrive `delay` seconds later; those sent after them arrive after them, so the order stays."""

    delay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delay < math.inf:
            raise ValueError(f"delay must be > 0 seconds and finite, got {self.delay}")

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        world.trace.add("fault: delay", queue.inbox.ref, told(item))
        queue.delay(item, self.delay, origin)
        return True


class DuplicateMail(MailFault, frozen=True, kw_only=True):
    """Messages arrive twice."""

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        world.trace.add("fault: duplicate", queue.inbox.ref, told(item))
        queue.arrive(item, origin)
        queue.arrive(Duplicate(item.message, item.deadline) if isinstance(item, Ask) else item, None)
        return True


class ReorderMail(MailFault, frozen=True, kw_only=True):
    """Messages overtake others that wait before them."""

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        world.trace.add("fault: reorder", queue.inbox.ref, told(item))
        queue.insert(int(world.roll() * (len(queue) + 1)), item)
        return True


class CutOff(MailFault, frozen=True, kw_only=True):
    """An actor system is cut off, like a node whose network is down: messages from outside of it are lost.

    `system` is its name. Messages between its own actors arrive, and so do those sent before the fault begins.
    """

    actor: str = ""
    system: str

    @property
    def target(self) -> tuple[str, str]:
        return "system", self.system

    def affects(self, inbox: Any, message: Any, world: World) -> bool:
        return inbox.engine.name == self.system and system_at_work.get() is not inbox.engine

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        world.trace.add("fault: cut off", queue.inbox.ref, told(item))
        queue.lose(item)
        return True


# Tasks and systems.


class SlowSystem(TimedFault, frozen=True, kw_only=True):
    """Each step of each task takes `step` seconds, as on an overloaded machine."""

    step: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < math.inf:
            raise ValueError(f"step must be > 0 seconds and finite, got {self.step}")

    def apply(self, world: World) -> None:
        world.trace.add("fault: slow system", "", self.step)
        world.loop.step_cost += self.step

    def revert(self, world: World) -> None:
        # The sum is built anew, because subtraction would leave rounding errors.
        world.loop.step_cost = sum(fault.step for fault in world.active(SlowSystem))


class CancelTask(Fault, frozen=True, kw_only=True):
    """A task whose name matches `task` (a pattern) is cancelled, drawn by chance; never that of the scenario."""

    task: str = "*"

    def apply(self, world: World) -> None:
        found = world.tasks(self.task)
        if found:
            task = pick(found, world)
            world.trace.add("fault: cancel", task.get_name())
            task.cancel()
        else:
            note_no_match(self, "task", self.task, [task.get_name() for task in world.tasks()], world)


def random_faults(
    random: random.Random,
    *,
    actors: Sequence[str] = (),
    tasks: Sequence[str] = (),
    systems: Sequence[str] = (),
    within: float = 60.0,
    max_faults: int = 5,
) -> list[Fault]:
    """Draw up to `max_faults` faults that begin in the first `within` seconds, in the order of their times.

    They may miss. They affect the given `actors` and `tasks` (names, paths or patterns), the given `systems` (names),
    and the process as a whole. Pass `Simulation.random` as `random`, so that the seed decides.
    """
    if not 0 <= within < math.inf:
        raise ValueError(f"within must be >= 0 seconds and finite, got {within}")
    if max_faults < 0:
        raise ValueError(f"max_faults must be >= 0, got {max_faults}")
    plan: list[Fault] = []
    for _ in range(random.randint(0, max_faults)):
        at, lasts = random.uniform(0, within), random.uniform(0, within / 4) + 0.001
        rate = random.choice((1.0, 0.5, 0.1))
        plans: list[Fault] = [SlowSystem(at=at, lasts=lasts, step=random.choice((1e-6, 1e-4, 0.01)))]
        if actors:
            actor = random.choice(actors)
            plans += [
                Crash(at=at, actor=actor, times=random.choice((1, 1, 2))),
                Hang(at=at, lasts=lasts, actor=actor),
                DropMail(at=at, lasts=lasts, actor=actor, rate=rate),
                DelayMail(at=at, lasts=lasts, actor=actor, rate=rate, delay=random.choice((0.001, 0.1, 5.0))),
                DuplicateMail(at=at, lasts=lasts, actor=actor, rate=rate),
                ReorderMail(at=at, lasts=lasts, actor=actor, rate=rate),
            ]
        if tasks:
            plans.append(CancelTask(at=at, task=random.choice(tasks)))
        if systems:
            plans.append(CutOff(at=at, lasts=lasts, system=random.choice(systems)))
        plan.append(msgspec.structs.replace(random.choice(plans), may_miss=True))
    return sorted(plan, key=lambda fault: fault.at)
