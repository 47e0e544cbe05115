"""What can go wrong, as plain values: a fault plan is a list of them, and each says when it strikes, and whom.

Those here strike actors, their mail, tasks, and the system as a whole. Others, such as the outage of a provider, are
looked up by whoever simulates what they concern: see `Simulation.active`.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.envelope import Ask, told
from runtime.messages import name_of
from runtime.simulation.engine import system_at_work
from runtime.simulation.loop import unfinished
from runtime.simulation.mail import Duplicate

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from runtime.simulation.mail import Origin, RecordedQueue
    from runtime.simulation.simulation import Simulation


class InjectedCrash(Exception):
    """What a crashed actor is told to have raised."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that goes wrong `at` seconds after the run began."""

    at: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.at < math.inf:
            raise ValueError(f"at must be >= 0 seconds and finite, got {self.at}")

    def apply(self, simulation: Simulation) -> None:
        """Do it. Here nothing: the fault is one of those that are looked up."""


class TimedFault(Fault, frozen=True, kw_only=True):
    """Something that is wrong for a while: from `at` on for `lasts` seconds, by default to the end of the run."""

    lasts: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lasts > 0:
            raise ValueError(f"lasts must be > 0 seconds, got {self.lasts}")

    def is_active(self, now: float) -> bool:
        """Tell whether it lasts at `now`."""
        return self.at <= now < self.at + self.lasts

    def end(self, simulation: Simulation) -> None:
        """Undo what `strike` did; called when its time is over."""


def matched_none(fault: Fault, pattern: str, simulation: Simulation) -> None:
    """Take down that a fault found nobody, as it does where its pattern is misspelt."""
    simulation.trace.add("fault: found nobody", pattern, type(fault).__name__)


# Actors.


class Crash(Fault, frozen=True, kw_only=True):
    """An actor crashes, `times` times, `every` so many seconds. Where several match, the dice choose.

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

    def apply(self, simulation: Simulation) -> None:
        found = simulation.injection.actors(self.actor)
        if found:
            cell = simulation.injection.pick(found)
            simulation.trace.add("fault: crash", cell.ref)
            crash = partial(cell.failed, InjectedCrash(f"{cell.path} was made to crash"), None)
            # A handler that injects it is in that context already.
            crash() if cell.engine.draining else cell.engine.context.run(crash)
        else:
            matched_none(self, self.actor, simulation)
        if self.times > 1:
            again = msgspec.structs.replace(self, at=simulation.now() + self.every, times=self.times - 1)
            simulation.injection.schedule(again)


class Hang(TimedFault, frozen=True, kw_only=True):
    """An actor stands still: what it does takes as much longer, and it does not even notice a cancellation."""

    actor: str

    def apply(self, simulation: Simulation) -> None:
        found = simulation.injection.actors(self.actor)
        for cell in found:
            simulation.trace.add("fault: hang", cell.ref, self.lasts)
            simulation.injection.hold(cell, self.at + self.lasts)
        if not found:
            matched_none(self, self.actor, simulation)


# Mail.


class MailFault(TimedFault, frozen=True, kw_only=True):
    """Something is wrong with the mail of `actor` (a path or a pattern).

    `message` limits it to messages of types so named (a pattern), `rate` to so large a part of them, drawn by dice.
    """

    actor: str
    message: str = "*"
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {self.rate}")

    def apply(self, simulation: Simulation) -> None:
        simulation.injection.mail_faults.append(self)

    def end(self, simulation: Simulation) -> None:
        simulation.injection.mail_faults.remove(self)

    def hits(self, inbox: Any, message: Any, simulation: Simulation) -> bool:
        """Tell whether this message is struck."""
        return (
            fnmatchcase(inbox.path, self.actor)
            and fnmatchcase(name_of(message), self.message)
            and (self.rate >= 1 or simulation.injection.roll() < self.rate)
        )

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, simulation: Simulation) -> bool:
        """Do it; True where the message does not arrive in the usual way."""
        raise NotImplementedError


class DropMail(MailFault, frozen=True, kw_only=True):
    """Messages are lost on their way. Whoever asked gets no answer before the deadline."""

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, simulation: Simulation) -> bool:
        simulation.trace.add("fault: drop", queue.inbox.ref, told(item))
        queue.lose(item)
        return True


class DelayMail(MailFault, frozen=True, kw_only=True):
    """Messages arrive `delay` seconds later, and those sent after them not before them: the order stays."""

    delay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delay < math.inf:
            raise ValueError(f"delay must be > 0 seconds and finite, got {self.delay}")

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, simulation: Simulation) -> bool:
        simulation.trace.add("fault: delay", queue.inbox.ref, told(item))
        queue.delay(item, self.delay, origin)
        return True


class DuplicateMail(MailFault, frozen=True, kw_only=True):
    """Messages arrive twice."""

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, simulation: Simulation) -> bool:
        simulation.trace.add("fault: duplicate", queue.inbox.ref, told(item))
        queue.arrive(item, origin)
        queue.arrive(Duplicate(item.message, item.deadline) if isinstance(item, Ask) else item, None)
        return True


class ReorderMail(MailFault, frozen=True, kw_only=True):
    """Messages overtake others that wait before them."""

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, simulation: Simulation) -> bool:
        simulation.trace.add("fault: reorder", queue.inbox.ref, told(item))
        queue.insert(int(simulation.injection.roll() * (len(queue) + 1)), item)
        return True


class CutOff(MailFault, frozen=True, kw_only=True):
    """A system is cut off, as a node whose network is down: no mail reaches its actors but their own.

    `system` is its name. Messages from outside are lost; those under way when it begins have arrived.
    """

    actor: str = ""
    system: str

    def hits(self, inbox: Any, message: Any, simulation: Simulation) -> bool:
        return inbox.engine.name == self.system and system_at_work.get() is not inbox.engine

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, simulation: Simulation) -> bool:
        simulation.trace.add("fault: cut off", queue.inbox.ref, told(item))
        queue.lose(item)
        return True


# The rest of the world.


class SlowSystem(TimedFault, frozen=True, kw_only=True):
    """Each step of each task takes `step` seconds, as on a machine that is overloaded."""

    step: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < math.inf:
            raise ValueError(f"step must be > 0 seconds and finite, got {self.step}")

    def apply(self, simulation: Simulation) -> None:
        simulation.trace.add("fault: slow system", "", self.step)
        simulation.loop.step_cost += self.step

    def end(self, simulation: Simulation) -> None:
        # Added up anew, because what is taken away leaves a rest of rounding errors.
        simulation.loop.step_cost = sum(fault.step for fault in simulation.active(SlowSystem))


class CancelTask(Fault, frozen=True, kw_only=True):
    """One of the tasks whose names match `task` (a pattern) is cancelled, as the dice choose; never the scenario."""

    task: str = "*"

    def apply(self, simulation: Simulation) -> None:
        found = [
            task
            for task in unfinished(simulation.loop)
            if task is not simulation.main and fnmatchcase(task.get_name(), self.task)
        ]
        if found:
            task = simulation.injection.pick(found)
            simulation.trace.add("fault: cancel", task.get_name())
            task.cancel()
        else:
            matched_none(self, self.task, simulation)


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

    They strike the `actors` and `tasks` (paths and patterns) and the `systems` named, and the process as a whole. Draw
    from `Simulation.random`, and the seed decides.
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
        plan.append(random.choice(plans))
    return sorted(plan, key=lambda fault: fault.at)
