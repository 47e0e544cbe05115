"""When a provider will let the next calls begin, as far as its state tells. Pure.

It is worked out as it will be decided, call by call, from the immutable values of the state: a place becomes free when
a call has taken as long as answers take at present, and the pace and the limits allow one call after the other. What no
state tells is left out: a 429 to come, a provider that breaks, calls that hang, requests that are given up.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from actors.limits.pacing import Pacing
from actors.limits.quota import NO_WEIGHTS
from actors.policies.breaker.states import Closed, HalfOpen, Isolated, Open, Permit
from actors.supervisor.targets.admission import places_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from actors.policies.breaker.config import BreakerConfig
    from actors.policies.breaker.states import BreakerState
    from actors.supervisor.targets.state import TargetState

LATER = 0.25
"""A call that is overdue takes so much longer, as a part of what it has taken: the later it is, the less is known."""
NO_PROBE = Permit(epoch=0, probe=False, admitted=0.0)


def admissions(
    state: TargetState,
    *,
    now: float,
    breaker: BreakerConfig,
    begun: Iterable[float],
    probe_at: float = 0.0,
    weights: Mapping[str, int] = NO_WEIGHTS,
) -> Iterator[float]:
    """Yield the loop times, from `now` on, at which calls may begin; as many as can be told, which may be none.

    `begun` is when each call under way began, and `probe_at` when the probe did.
    """
    latency = state.limit.mean_latency
    at = _opens_at(state, now=now, probe_at=probe_at, latency=latency)
    if isinstance(state.breaker, Open):
        yield max(now, state.breaker.until)  # The probe.
    if at == math.inf:
        return
    places = free_at(state, at, now=now, breaker=breaker, ends=(begin + latency for begin in begun))
    pace = Pacing(state.learned, state.quota)
    while places:
        at = pace.next_after(max(at, heapq.heappop(places)), weights)
        if at == math.inf:
            return
        yield at
        if latency > 0:
            heapq.heappush(places, at + latency)


def _opens_at(state: TargetState, *, now: float, probe_at: float, latency: float) -> float:
    """Return when all calls will be let through again, probes excepted; infinity if that is not known."""
    at = now
    match state.breaker:
        case Closed():
            pass
        case Open(until=until):
            at = max(now, until) + latency
        case HalfOpen():
            at = end_of_probe(state.breaker, now=now, probe_at=probe_at, latency=latency)
        case Isolated():
            at = math.inf
    return max([at, *(now + one.wait(now) for one in state.left_for())])


def free_at(state: TargetState, at: float, *, now: float, breaker: BreakerConfig, ends: Iterable[float]) -> list[float]:
    """Return when each place is free at the earliest, from `at` on, as a heap; the calls under way end at `ends`."""
    is_closed = isinstance(state.breaker, Closed)
    count = places_of(state, NO_PROBE, now=now, breaker=breaker) if is_closed else state.limit.allowed
    under_way = state.under_way - isinstance(state.breaker, HalfOpen)  # The probe will have ended.
    is_known = state.limit.mean_latency > 0
    known = sorted(max(end, at) for end in ends)[:under_way] if is_known else []
    return [at] * (count - under_way) + known[max(0, under_way - count) :]


def end_of_probe(state: BreakerState, *, now: float, probe_at: float, latency: float) -> float:
    """Return when a probe will presumably end: once it has taken as long as an answer does, or soon if that is over.

    It counts as lost at the end of its lease.
    """
    lease_ends = state.lease_ends if isinstance(state, HalfOpen) else now
    overdue = now + LATER * (now - probe_at)
    return min(lease_ends, probe_at + latency if now < probe_at + latency else overdue)
