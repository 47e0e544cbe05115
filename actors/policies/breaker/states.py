"""The states of a circuit breaker, and what a call gets that asks to be admitted; all are values that can be sent.

Every change of state begins a new epoch, and every admitted call carries a `Permit` of its epoch: a result
whose epoch has passed is stale and changes nothing. That one rule is what keeps late results, lost probes
and double reports from moving the breaker.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from actors.policies.breaker.window import FailureWindow


class Closed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls pass. `failures` counts those in a row.

    Where a probe closed it, `since` is when, and `reopened` the probes that had failed before.
    """

    epoch: int = 0
    failures: int = 0
    window: FailureWindow = FailureWindow()
    since: float | None = None
    reopened: int = 0


class Open(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are refused until `until`; `reopened` probes have failed since the breaker was last closed."""

    epoch: int
    until: float
    reopened: int = 0


class HalfOpen(msgspec.Struct, frozen=True, tag=True, gc=False):
    """One probe is out, with the permit of this epoch; it is given up for lost at `lease_ends`."""

    epoch: int
    lease_ends: float
    reopened: int = 0


class Isolated(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are refused until somebody releases the breaker by hand."""

    epoch: int


BreakerState: TypeAlias = Closed | Open | HalfOpen | Isolated


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Leave to make one call; hand it back with the result. `admitted` is the time it was given."""

    epoch: int
    probe: bool
    admitted: float


class Refused(msgspec.Struct, frozen=True, gc=False):
    """No leave: nothing changes within `retry_after` seconds unless a probe reports earlier. None: isolated by hand."""

    retry_after: float | None
