"""The states of a circuit breaker, and its two answers to a call: a permit, or a refusal. All are immutable values.

Every change of state begins a new epoch, and every admitted call carries a `Permit` of its epoch. A result whose epoch
has passed is stale and changes nothing. That one rule keeps late results and double reports from moving the breaker.
It has one exception: a good answer to a probe counts, however late, as long as neither a failure nor a hand has opened
the breaker since the probe was admitted. `earlier` says to how many epochs before its own a state extends that.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from actors.policies.breaker.window import FailureWindow


class Closed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are admitted. `failures` counts the failures in a row.

    If a probe closed the breaker, `since` is the time of that, and `reopened` counts the probes that had failed before.
    It `has_relapsed` if the provider did since it last outlived its probation.
    """

    epoch: int = 0
    failures: int = 0
    window: FailureWindow = FailureWindow()
    since: float | None = None
    reopened: int = 0
    has_relapsed: bool = False


class Open(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are refused until the time `until`; `reopened` probes have failed since the breaker was last closed."""

    epoch: int
    until: float
    reopened: int = 0
    earlier: int = 0
    has_relapsed: bool = False


class HalfOpen(msgspec.Struct, frozen=True, tag=True, gc=False):
    """One probe is under way, with the permit of this epoch; it counts as lost at the time `lease_ends`."""

    epoch: int
    lease_ends: float
    reopened: int = 0
    earlier: int = 0
    has_relapsed: bool = False


class Isolated(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are refused until the breaker is released by hand."""

    epoch: int


BreakerState: TypeAlias = Closed | Open | HalfOpen | Isolated


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Leave to make one call, to be given back with the result. `admitted` is the time at which it was given.

    `interval` is the mean seconds between two pieces of its answer, if that came as a stream.
    """

    epoch: int
    probe: bool
    admitted: float
    interval: float | None = None


class Refused(msgspec.Struct, frozen=True, gc=False):
    """No leave: nothing changes within `retry_after` seconds unless a probe reports earlier. None: isolated by hand."""

    retry_after: float | None
