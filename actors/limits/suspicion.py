"""Whether a provider's 429s come because of our rate, or stray: by how they fall among the answers. Pure.

The share of the 429s alone does not tell. If a twentieth of the calls is refused, the rate may be a twentieth above a
limit, or the provider may refuse a twentieth of the calls of anyone. There are two ways to know:

1. So many come together that strays do not explain it. For each call a sequential test weighs how much more likely its
   outcome is if half of the calls are refused than if `STRAY_SHARE` of them are. It raises an alarm at a threshold that
   keeps false alarms `ALARM_EVERY` seconds apart, whatever the rate is. Source: E. Page, "Continuous Inspection
   Schemes", Biometrika 41, 1954 (CUSUM); the mean time between false alarms is at least the exponential of the
   threshold (G. Lorden, "Procedures for Reacting to a Change in Distribution", 1971).
2. Fewer come at a lower rate. So the rate is lowered a little once there are enough 429s to tell, and if the share of
   the 429s stays what it was, they stray, and the rate was not the cause.
"""

from __future__ import annotations

import math

import msgspec

STRAY_SHARE = 0.05
"""The share of calls that may be refused for other reasons than our rate, as long as no larger one was measured."""
LIMIT_SHARE = 0.5
"""The share of calls that is refused if a limit is far exceeded; the test raises alarms from about a quarter on."""
ALARM_EVERY = 90.0
"""Seconds between false alarms, about, if the share of strays is `STRAY_SHARE`."""
LEAST_CALLS = 50.0
"""The calls between false alarms at least, for rates so low that there are fewer in that time."""
TELLING = 8
"""The 429s that tell a share from chance, roughly: where so many are expected, two at most come once in 70 times."""
CONFIRMED_TELLING = 2
"""The 429s that tell of a limit which was confirmed by their absence at a lower rate."""
SAME_SHARE = 0.5
"""The part of the share before that is left at a lower rate, from which on it is the same: by chance, the share of
`TELLING` strays falls below it once in a hundred times."""
STRAYS_HOLD = 60.0
"""Seconds for which a share of strays that was found is believed."""


class Suspicion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the 429s of one provider tell; a new one suspects nothing.

    `served` and `throttled` count the outcomes `since` a moment in loop time: the first 429, or the last time that the
    rate was lowered. `streak` counts the 429s since a call was last served. `alarm` is the state of the sequential
    test. `share_before` is the share of the 429s that made the rate be lowered: 0.0 if it is not. A share of
    `stray_share` comes whatever the rate is, believed until `strays_until`.
    """

    served: int = 0
    throttled: int = 0
    since: float = -math.inf
    last: float = -math.inf
    """When the last 429 came."""
    streak: int = 0
    alarm: float = 0.0
    share_before: float = 0.0
    is_confirmed: bool = False
    """Whether the 429s were missed at the lowered rate: then there is a limit, whatever strays beside."""
    stray_share: float = 0.0
    strays_until: float = -math.inf

    @property
    def share(self) -> float:
        """The share of the 429s among the outcomes that are counted."""
        # If the first 429 began the count, it does not tell how often one comes.
        throttled = self.throttled if self.share_before else self.throttled - 1
        return throttled / max(1, self.served + throttled)

    @property
    def has_told(self) -> bool:
        """Whether there were enough outcomes at the lowered rate to miss the 429s, and they were missed."""
        return self.is_confirmed or (
            self.share_before * (self.served + self.throttled) >= TELLING and self.throttled <= CONFIRMED_TELLING
        )

    @property
    def is_unmoved(self) -> bool:
        """Whether there were enough 429s at the lowered rate to tell, and they are as frequent as before."""
        return self.throttled >= TELLING and self.share >= SAME_SHARE * self.share_before > 0

    def is_alarmed(self, rate: float) -> bool:
        """Tell whether so many 429s came together that strays do not explain it, at `rate` calls a second."""
        return self.alarm >= math.log(max(LEAST_CALLS, ALARM_EVERY * rate))

    def strays(self, now: float) -> float:
        """Return the share of 429s that was found to stray, as far as that is believed at `now`."""
        return self.stray_share if now < self.strays_until else 0.0

    def expects(self, now: float) -> float:
        """Return the share of 429s that the rate does not cause, as far as is known at `now`."""
        return min(0.9 * LIMIT_SHARE, max(STRAY_SHARE, 1.5 * self.strays(now)))

    def is_explained(self, now: float) -> bool:
        """Tell whether the share that was found to stray explains the 429s that are counted."""
        return self.share < 2 * self.strays(now)

    def strays_expected(self, now: float) -> float:
        """Return how many of the outcomes that are counted are 429s that stray, as far as is known at `now`."""
        return self.strays(now) * (self.served + self.throttled)

    def after_stray(self, now: float) -> Suspicion:
        """Return what is known after a 429 that the rate cannot have caused."""
        return msgspec.structs.replace(self, stray_share=self.share, strays_until=now + STRAYS_HOLD)

    def after_served(self, now: float) -> Suspicion:
        """Return what is known after a call was served."""
        alarm = self.alarm
        if alarm > 0:
            alarm = max(0.0, alarm + math.log(LIMIT_SHARE / (1 - self.expects(now))))
        return msgspec.structs.replace(self, served=self.served + 1, streak=0, alarm=alarm)

    def after_throttled(self, now: float, *, memory: float) -> Suspicion:
        """Return what is known after one more 429.

        Unless the rate is lowered, outcomes count for `memory` seconds, and then anew.
        """
        served, throttled, since = self.served, self.throttled, self.since
        if not self.share_before and (not throttled or now - since > memory):
            served, throttled, since = 0, 0, now
        return msgspec.structs.replace(
            self,
            served=served,
            throttled=throttled + 1,
            since=since,
            last=now,
            streak=self.streak + 1,
            alarm=self.alarm + math.log(LIMIT_SHARE / self.expects(now)),
            is_confirmed=self.has_told,
        )

    def after_lowering(self, now: float) -> Suspicion:
        """Return what is known when the rate is lowered at `now` because of these 429s: the outcomes count anew.

        The share by which the limit came to be believed stays what the next ones are compared with.
        """
        return Suspicion(
            since=now,
            last=self.last,
            share_before=max(self.share, self.share_before),
            is_confirmed=self.is_confirmed,
            stray_share=self.stray_share,
            strays_until=self.strays_until,
        )

    def after_no_change(self, now: float) -> Suspicion:
        """Return what is known when the rate is raised again at `now`, because lowering it changed nothing."""
        return Suspicion(last=self.last, stray_share=self.share, strays_until=now + STRAYS_HOLD)


NO_SUSPICION = Suspicion()
