"""A token bucket kept as one number: the time at which it would be full again (GCRA).

Source: ITU-T I.371 and ATM Forum Traffic Management 4.0, "Generic Cell Rate Algorithm", in its virtual
scheduling form: each admission moves the theoretical arrival time (TAT) on by `weight / rate`, and is due
once the TAT is no more than `burst / rate` ahead of the clock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class Grant(msgspec.Struct, frozen=True, gc=False):
    """`weight` tokens of a bucket, valid from time `at`; give back unused ones with `TokenBucket.refund`."""

    at: float
    weight: int
    serial: int


class Low(msgspec.Struct, frozen=True, gc=False):
    """Since the grant `serial` the bucket has lacked at least `tokens` of its burst; `before` are earlier, lower ones.

    The levels that admissions met, each with those before it that were lower: a stack, whose `tokens` grow.
    """

    serial: int
    tokens: int
    before: Low | None = None


LEVELS = 256
"""The levels that are told apart, so that a stack of them is never deeper."""


class TokenBucket(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`rate` tokens per second, at most `burst` at once; an immutable value that starts full.

    In any span of t seconds at most `burst + rate * t` tokens fall due. `now` is seconds of any one clock.

    The TAT is `busy_since + spent / rate`, computed each time from a whole number of tokens, so that a bucket that
    is busy for days does not drift. `lows` are the least backlogs, in tokens, that admissions met since `busy_since`;
    they bound what a refund may give back. The fields after `burst` are its state.
    """

    rate: float
    burst: int
    busy_since: float = -math.inf
    spent: int = 0
    lows: Low | None = None
    serial: int = 0
    first_serial: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be > 0 tokens per second and finite, got {self.rate}")
        if self.burst < 1:
            raise ValueError(f"burst must be >= 1 token, got {self.burst}")

    def take(self, now: float, weight: int = 1) -> tuple[TokenBucket, Grant] | float:
        """Take `weight` tokens at `now`, or return the seconds until the bucket would hold them (above 0).

        Raises ValueError for a weight below 1, and for one above `burst`, for which no wait is long enough.

        >>> bucket, _ = TokenBucket(rate=5.0, burst=1).take(now=0.0)
        >>> bucket.take(now=0.0)
        0.2
        """
        at = self._due(now, weight)
        return at - now if at > now else self._grant(at, now, weight)

    def reserve(self, now: float, weight: int = 1) -> tuple[TokenBucket, Grant]:
        """Take `weight` tokens in advance: from time `grant.at` on they are valid, after those of all earlier grants.

        Raises ValueError as `take` does.

        >>> bucket, first = TokenBucket(rate=5.0, burst=1).reserve(now=0.0)
        >>> bucket, second = bucket.reserve(now=0.0)
        >>> first.at, second.at
        (0.0, 0.2)
        """
        return self._grant(self._due(now, weight), now, weight)

    def _grant(self, at: float, now: float, weight: int) -> tuple[TokenBucket, Grant]:
        """Return the bucket after `weight` tokens were promised at `now` for time `at`, and their grant."""
        serial = self.serial + 1
        tat = self.busy_since + self.spent / self.rate
        # Only a bucket that was really full begins anew; doing so at each grant would add up rounding errors.
        if now > tat:
            busy_since, spent, lows, first_serial = now, weight, None, serial
        else:
            busy_since, spent, first_serial = self.busy_since, self.spent + weight, self.first_serial
            lows = self._lows_after(serial, at)
        bucket = TokenBucket(
            rate=self.rate,
            burst=self.burst,
            busy_since=busy_since,
            spent=spent,
            lows=lows,
            serial=serial,
            first_serial=first_serial,
        )
        return bucket, Grant(at, weight, serial)

    def broken_invariants(self, quota: str) -> Iterator[str]:
        """Name the invariants that this bucket, of the quota named, breaks; they hold at any time."""
        if self.spent < 0:
            yield f"more tokens came back to {quota} than were taken: {self}"

    def refund(self, grant: Grant, weight: int | None = None) -> TokenBucket:
        """Return the bucket after `weight` tokens of `grant` (default: all) come back unused. Once per grant.

        All of them come back, unless the bucket would have been full meanwhile without them: what it could not have
        held then is lost, for an admission met it since. So the rate is never exceeded. A bucket that was full since
        then has lost all of them, and a grant of another bucket gives back nothing.
        """
        unused = grant.weight if weight is None else weight
        if not 0 <= unused <= grant.weight:
            raise ValueError(f"weight must be from 0 to the {grant.weight} tokens of the grant, got {unused}")
        if not self.first_serial <= grant.serial <= self.serial:
            return self
        newer: list[Low] = []
        low = self.lows
        while low is not None and low.serial > grant.serial:
            newer.append(low)
            low = low.before
        if newer:
            unused = min(unused, newer[-1].tokens)
            # Each admission since then would have met so many tokens more.
            for one in reversed(newer):
                low = self._pushed(low, one.serial, one.tokens - unused)
        return msgspec.structs.replace(self, spent=self.spent - unused, lows=low, serial=self.serial + 1)

    def charge(self, now: float, weight: int) -> TokenBucket:
        """Return the bucket after `weight` tokens were used at `now`, even if it did not hold them."""
        serial = self.serial + 1
        if now > self.busy_since + self.spent / self.rate:
            return msgspec.structs.replace(
                self, busy_since=now, spent=weight, lows=None, serial=serial, first_serial=serial
            )
        lows = self._lows_after(serial, now)
        return msgspec.structs.replace(self, spent=self.spent + weight, lows=lows, serial=serial)

    def changed(self, now: float, *, rate: float, burst: int) -> TokenBucket:
        """Return the bucket from `now` on at another rate and burst: with what it holds, but at most the new burst.

        No tokens come or go, not even parts of one. Grants of before give nothing back to it.

        >>> half_full = TokenBucket(rate=1.0, burst=2).take(now=0.0, weight=2)[0].changed(0.5, rate=4.0, burst=4)
        >>> half_full.take(now=0.5)
        0.125
        """
        held = self.burst - max(0.0, (self.busy_since - now) * self.rate + self.spent)
        missing = max(0.0, burst - held)
        spent, serial = math.ceil(missing), self.serial + 1
        busy_since = now - (spent - missing) / rate
        return TokenBucket(
            rate=rate, burst=burst, busy_since=busy_since, spent=spent, serial=serial, first_serial=serial
        )

    def debt(self, now: float) -> float:
        """Return the seconds until it holds at least 0 tokens again; 0.0 if it has no debt."""
        return max(0.0, self.busy_since + (self.spent - self.burst) / self.rate - now)

    def missing(self, now: float) -> int:
        """Return how many tokens it lacks of its burst, rounded up; more than that if it is in debt.

        >>> TokenBucket(rate=2.0, burst=5).take(now=0.0, weight=4)[0].missing(now=1.0)
        2
        """
        if not self.spent or now == math.inf:
            return 0
        return max(0, math.ceil((self.busy_since - now) * self.rate + self.spent - 1e-6))  # As in `_lows_after`.

    def _lows_after(self, serial: int, at: float) -> Low | None:
        """Return the least backlogs after an admission for time `at`."""
        # The 1e-6 absorbs the rounding of a backlog that is a whole number of tokens.
        backlog = math.floor((self.busy_since - at) * self.rate + self.spent + 1e-6)
        return self._pushed(self.lows, serial, max(0, backlog))

    def _pushed(self, low: Low | None, serial: int, tokens: int) -> Low:
        step = self.burst // LEVELS + 1
        while low is not None and low.tokens // step >= tokens // step:
            tokens = min(tokens, low.tokens)
            low = low.before
        return Low(serial, tokens, low)

    def _due(self, now: float, weight: int) -> float:
        """Return the first time, `now` or later, at which the bucket holds `weight` tokens."""
        if not 1 <= weight <= self.burst:
            raise ValueError(f"weight must be from 1 to the burst of {self.burst} tokens, got {weight}")
        return max(now, self.busy_since + (self.spent + weight - self.burst) / self.rate)
