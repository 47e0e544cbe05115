"""How long to wait for one attempt, learned from how long a provider's answers take. Pure.

Source: the retransmission timer of RFC 6298: a smoothed latency plus four times its mean deviation, doubled after each
timeout (Karn's backoff). There are three differences. A repetition here costs money, so the timeout is `margin` times
that sum. The deviation falls slowly, because ten fast answers do not mean that the eleventh will be fast. And an
attempt that timed out is a sample too, of the time that it was given: without it, answers that take longer than the
timeout would never be seen, and the timeout would stay too short for ever.

Some providers answer a part of the calls as usual and the rest never. Once a call has had all the time that is
configured, and was not answered while others were, more time is known not to help: so a call that hangs alone after
less is a sample only now and then, until an answer comes late.
"""

from __future__ import annotations

import math

import msgspec

GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / 8, 1 / 4, 4.0
"""Alpha, beta and K of RFC 6298."""
DEVIATION_FALL_GAIN = 1 / 32
"""Beta if an answer deviates less than usual."""
MAX_BACKOFF = 64.0
EXCUSED = 50
"""One in so many calls that hang alone is a sample, if more time is known not to help."""


class AttemptTimeout(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The timeout of one attempt at one provider; an immutable value, in seconds.

    Until `min_samples` answers have been seen, it is the configured one; after that it is never below `floor`. The
    fields after `margin` are its state: the smoothed latency, its mean deviation, the answers seen, the factor by which
    timeouts in a row have stretched it, and how many calls may hang alone before one is a sample.

    >>> estimate = AttemptTimeout(min_samples=2).after(1.0).after(1.0)
    >>> estimate.seconds(configured=10.0), estimate.seconds(configured=10.0, left=3.0)
    (5.875, 3.0)
    """

    floor: float = 1.0
    min_samples: int = 20
    margin: float = 2.0
    smoothed: float = 0.0
    deviation: float = 0.0
    samples: int = 0
    backoff: float = 1.0
    excused: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.floor < math.inf:
            raise ValueError(f"floor must be > 0 seconds and finite, got {self.floor}")
        if self.min_samples < 1:
            raise ValueError(f"min_samples must be >= 1 answer, got {self.min_samples}")
        if not 1 <= self.margin < math.inf:
            raise ValueError(f"margin must be >= 1 and finite, got {self.margin}")

    def after(self, latency: float, *, timed_out: bool = False) -> AttemptTimeout:
        """Return the estimate after an attempt that was answered, or was given up, after `latency` seconds.

        Leave out attempts that were refused, failed fast, or were ended by anything but their timeout.
        """
        if not self.samples:
            # A first attempt that is given up tells only a lower bound of how long answers take.
            smoothed, deviation = latency, latency / 2
        else:
            more = abs(latency - self.smoothed) - self.deviation
            deviation = self.deviation + (DEVIATION_GAIN if more > 0 else DEVIATION_FALL_GAIN) * more
            smoothed = self.smoothed + GAIN * (latency - self.smoothed)
        return AttemptTimeout(
            floor=self.floor,
            min_samples=self.min_samples,
            margin=self.margin,
            smoothed=smoothed,
            deviation=deviation,
            samples=min(self.samples + 1, self.min_samples),
            backoff=min(2 * self.backoff, MAX_BACKOFF) if timed_out else 1.0,
            # An answer that comes late shows that more time helps.
            excused=self.excused if timed_out or not self.excused or latency <= self._learned else 0,
        )

    def after_hanging(self, latency: float, *, had_all: bool) -> AttemptTimeout:
        """Return the estimate after an attempt that timed out alone, after `latency` seconds: others were answered.

        It `had_all` if that was the configured timeout.
        """
        if had_all:
            return msgspec.structs.replace(self, excused=EXCUSED)
        if self.excused > 1:
            return msgspec.structs.replace(self, excused=self.excused - 1)
        sampled = self.after(latency, timed_out=True)
        return msgspec.structs.replace(sampled, excused=EXCUSED) if self.excused else sampled

    def seconds(self, *, configured: float, left: float = math.inf) -> float:
        """Return the timeout of the next attempt: at most `configured`, and at most what is `left` to the deadline."""
        if self.samples < self.min_samples:
            return min(configured, left)
        return min(self._learned * self.backoff, configured, left)

    @property
    def _learned(self) -> float:
        return max(self.floor, self.margin * (self.smoothed + DEVIATIONS * self.deviation))
