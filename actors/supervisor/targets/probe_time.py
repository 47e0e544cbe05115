"""How long the call may take that finds out whether a provider has recovered. Pure.

The call is a caller's request, which must not spend all of its time on a provider that hangs while another could serve
it. So it is cut, and the next one gets twice its time: a provider that has become slow for good is found out too, after
a few probes. Doubling after each attempt in vain is the backoff of RFC 6298, section 5.5, which takes the least
timeout of a second from its section 2.4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.limits.concurrency import ConcurrencyLimit

PROOF_MARGIN = 2.5
"""How many times the usual latency a call must have that is to prove something, lest it fails for want of time."""
MIN_PROBE_TIME = 1.0
"""Seconds; a probe is not cut before, because whoever comes back may be a little slower at first."""
GROWTH = 2.0


class ProbeTime(msgspec.Struct, frozen=True, gc=False):
    """The `seconds` that a probe gets, and from how many on its failure to answer counts against its provider."""

    seconds: float
    proof: float = math.inf
    is_cut: bool = False
    """Whether that is less than its request has left, because the request may be served elsewhere or later."""


def asked_by_probe(latency: float, cut_after: float) -> float:
    """Return the seconds that a probe must have to prove something; 0.0 if nothing is known.

    `latency` is what an answer takes, and `cut_after` the time of the last probe if it was too short; each is 0.0 if
    it is not known.

    >>> asked_by_probe(0.2, 0.0), asked_by_probe(0.2, 4.0), asked_by_probe(0.0, 0.0)
    (0.5, 8.0, 0.0)
    """
    return max(PROOF_MARGIN * latency, GROWTH * cut_after)


def time_of_probe(asked: float, *, left: float, patience: float, spare: float | None) -> ProbeTime:
    """Return the time of a probe that asks for so many seconds, of those `left` to its request.

    It gets what it asks for, or half of the time left if nothing is known. `spare` seconds of the rest are kept for
    another provider, if half of the time left is enough for that; None if the probe must not, or need not, be cut.
    `patience` is all the time that its request had.

    >>> time_of_probe(0.5, left=10.0, patience=10.0, spare=0.75)
    ProbeTime(seconds=1.0, proof=0.5, is_cut=True)
    >>> time_of_probe(16.0, left=10.0, patience=10.0, spare=0.75).seconds
    9.25
    >>> time_of_probe(0.0, left=10.0, patience=10.0, spare=0.75).seconds
    5.0
    """
    # If no request has as much time as it asks for, one that has as much as any says enough.
    proof = min(asked, patience / 2) if asked > 0 else math.inf
    if spare is None:
        return ProbeTime(left, proof)
    wanted = max(MIN_PROBE_TIME, asked) if asked > 0 else left / 2
    seconds = min(wanted, max(left - spare, left / 2))
    return ProbeTime(seconds, min(proof, seconds) if asked > 0 else proof, is_cut=seconds < left)


def time_of_call(limit: ConcurrencyLimit, *, left: float, spare: float | None) -> float:
    """Return the time of a call that is no probe, of the seconds `left` to its request: what another may need is kept.

    It is all that is left if there is no other, if it is not known how long either takes, or if the rest would be too
    little for the provider itself.

    >>> from actors.limits.concurrency import ConcurrencyLimit
    >>> time_of_call(ConcurrencyLimit(10, present=-2.0, usual=-2.0, samples=20), left=5.0, spare=0.5)
    4.5
    >>> time_of_call(ConcurrencyLimit(10, present=1.0, usual=1.0, samples=20), left=5.0, spare=0.5)
    5.0
    """
    rest = left - (spare or 0.0)
    asked = asked_by_probe(max(limit.usual_latency, limit.present_latency), 0.0)
    return rest if 0 < asked <= rest else left


def spare_for(others: Iterable[ConcurrencyLimit]) -> float | None:
    """Return the seconds to keep for the fastest of other providers; infinity if not known, None without others.

    >>> spare_for([]) is None
    True
    """
    spare: float | None = None
    for limit in others:
        latency = max(limit.expected_latency, limit.present_latency)
        needed = PROOF_MARGIN * latency if latency > 0 else math.inf
        spare = needed if spare is None else min(spare, needed)
    return spare
