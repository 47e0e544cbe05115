"""Why requests wait, as one value for whatever decides on it, and in words. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

WaitReason: TypeAlias = Literal[
    "learned limit",
    "stated limit",
    "breaker",
    "probe",
    "isolated",
    "left alone",
    "place",
    "retries",
    "money",
    "turn",
    "backoff",
    "quota",
    "outcome",
    "discovery",
    "ledger",
    "queue",
    "parked",
]
"""What lets no more requests through for now.

A "turn" is that of requests that came before, or of other tenants; a "backoff" is the wait after a failure of the
request's own; a "quota" is one that providers share; the "outcome" is that of a call that may have been paid; the
"ledger" does not answer; the "queue" is full, because too many wait already; "parked" is an item of a batch until a
reset.
"""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class LearnedPace(msgspec.Struct, frozen=True, kw_only=True):
    """What a learned limit goes by: `rate` calls a second since so many 429s, the last at loop time `last_at`.

    A `rate` of None means that the answers have only asked to wait.
    """

    rate: float | None
    refusals: int
    last_at: float


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Why requests wait since loop time `since`, and when that will presumably be over, `until`; None if unknown.

    `evidence` is what the reason goes by: a `LearnedPace`, or words. Of one request, `provider` is where it waits, and
    so many requests wait there `before` it.
    """

    reason: WaitReason
    since: float | None = None
    until: float | None = None
    evidence: LearnedPace | str
    provider: str | None = None
    before: int = 0

    def text(self, now: float) -> str:
        """Return it in words for a person, as of loop time `now`.

        >>> pace = LearnedPace(rate=80.0, refusals=2, last_at=88.0)
        >>> Waiting(reason="learned limit", since=88.0, evidence=pace).text(100.0)
        'limited to 80/s since two 429s, 12 s ago'
        >>> Waiting(reason="breaker", since=90.0, until=130.0, evidence="its calls failed").text(100.0)
        'breaker: its calls failed, for 10 s, about 30 s more'
        """
        evidence = self.evidence
        if isinstance(evidence, LearnedPace):
            pace = "held back" if evidence.rate is None else f"limited to {evidence.rate:.3g}/s"
            if not evidence.refusals:
                said = f"{pace} by its headers"
            else:
                count = NUMBERS[evidence.refusals] if evidence.refusals < len(NUMBERS) else str(evidence.refusals)
                many = "" if evidence.refusals == 1 else "s"
                said = f"{pace} since {count} 429{many}, {seconds(now - evidence.last_at)} ago"
        else:
            said = f"{self.reason}: {evidence}"
            if self.since is not None:
                said += f", for {seconds(now - self.since)}"
        if self.before:
            said += f", {self.before:,} before it"
        if self.until is not None and self.until > now:
            said += f", about {seconds(self.until - now)} more"
        return said


def seconds(duration: float) -> str:
    """Return a duration for people: tenths below ten seconds.

    >>> seconds(0.04), seconds(2.25), seconds(75.2)
    ('0.0 s', '2.2 s', '75 s')
    """
    duration = max(0.0, duration)
    return f"{duration:.1f} s" if 0 < duration < 10 else f"{duration:.0f} s"
