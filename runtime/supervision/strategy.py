"""Which children restart when one fails. Pure: no clock, no tasks, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence  # noqa: TC003 - msgspec resolves the annotations below.
from enum import Enum
from typing import Any, TypeVar

import msgspec

from runtime.backoff import Backoff
from runtime.supervision.intensity import RestartIntensity

Child = TypeVar("Child")


class Strategy(Enum):
    """Which children are restarted together."""

    ONE_FOR_ONE = "one_for_one"
    """Only the child that failed."""
    ONE_FOR_ALL = "one_for_all"
    """All children, which depend on each other."""
    REST_FOR_ONE = "rest_for_one"
    """The child that failed and those started after it, which depend on it."""


class Directive(Enum):
    """What a supervisor does about a crash."""

    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"


def restart_always(_error: Exception) -> Directive:
    """Restart after every crash: the default of `Supervision.decide`."""
    return Directive.RESTART


def always(_error: Exception) -> bool:
    """Reroute after every error: the default of `Reroute.when`."""
    return True


class Reroute(msgspec.Struct, frozen=True, kw_only=True):
    """The destination of a message whose handler crashed: the child named `to`, or the actor or router of that ref.

    A message is rerouted at most `max_times`; after that it is a dead letter ("poison"), and its asker, if any, gets
    the crash as `ActorCrashed`. `when` says after which errors.
    """

    to: str | Any
    max_times: int = 1
    when: Callable[[Exception], bool] = always

    def __post_init__(self) -> None:
        if type(self.max_times) is not int or self.max_times < 1:
            raise ValueError(f"max_times must be >= 1, got {self.max_times!r}")
        if not (isinstance(self.to, str) or hasattr(self.to, "recipient")):
            raise TypeError(f"to must be the name of a child or the ref of an actor, got {self.to!r:.100}")
        if not callable(self.when):
            raise TypeError(f"when must be a function of the error, got {self.when!r:.100}")


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """How an actor supervises its children.

    `decide` maps the error of a crashed child to a directive; a restart is then bound by `intensity` and delayed
    by `backoff`. With `reroute`, the message whose handler crashed is handled elsewhere instead of being lost.
    """

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: RestartIntensity = RestartIntensity()
    backoff: Backoff = Backoff()
    decide: Callable[[Exception], Directive] = restart_always
    reroute: Reroute | None = None

    def __post_init__(self) -> None:
        for name, kind in (("strategy", Strategy), ("intensity", RestartIntensity), ("backoff", Backoff)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {getattr(self, name)!r:.100}")
        if not callable(self.decide):
            raise TypeError(f"decide must be a function of the error, got {self.decide!r:.100}")
        if self.reroute is not None and not isinstance(self.reroute, Reroute):
            raise TypeError(f"reroute must be a Reroute or None, got {self.reroute!r:.100}")


DEFAULT_SUPERVISION = Supervision()


def restart_set(strategy: Strategy, children: Sequence[Child], failed: Child) -> Sequence[Child]:
    """Return the children to restart, in start order.

    >>> restart_set(Strategy.REST_FOR_ONE, ["db", "cache", "api"], failed="cache")
    ['cache', 'api']
    """
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return [failed]
        case Strategy.ONE_FOR_ALL:
            return list(children)
        case Strategy.REST_FOR_ONE:
            return list(children[children.index(failed) :])
