"""What is kept for how long, by a clock that may leap. Pure.

Ages go by the newest entry, not by the machine's clock alone: a clock that is wrong for an hour must not drop what was
to be kept for a month. So while it has leapt, by more than a day, nothing is dropped until that has lasted for a day.
"""

from __future__ import annotations

import msgspec

DAY = 86_400.0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many seconds what is kept under a key stays: its body, and its head; and how much of the entries does.

    By default bodies stay for 30 days and heads for 400, and of the entries that a snapshot stands for, 32 MB.
    """

    bodies_for: float = 30 * DAY
    heads_for: float = 400 * DAY
    entries_bytes: int = 32_000_000


class KeptClock(msgspec.Struct, frozen=True, array_like=True):
    """By which time ages are counted: `trusted`, in seconds since 1970; 0 if no time was seen yet.

    If the times seen are more than a day from it, `leapt_at` is the first of them; `last` is the newest.
    """

    trusted: float = 0.0
    leapt_at: float | None = None
    last: float = 0.0


def after_time(clock: KeptClock, at: float) -> KeptClock:
    """Return the clock after an entry of this time. There are four cases.

    1. It is the first, or at most a day from what is trusted: time goes on, and never back.
    2. It is further, for the first time, or again: a leap begins.
    3. It is further, and has been for a day: the leap is trusted.
    4. It is further, and has not been for so long: nothing is known yet.

    >>> clock = after_time(KeptClock(), 100.0)
    >>> after_time(clock, 90.0).trusted, after_time(clock, 5e9).trusted
    (100.0, 100.0)
    >>> after_time(after_time(after_time(clock, 5e9), 5e9 + 0.7 * DAY), 5e9 + 1.1 * DAY).trusted == 5e9 + 1.1 * DAY
    True
    """
    if not clock.trusted or abs(at - clock.trusted) <= DAY:
        return KeptClock(max(clock.trusted, at), None, at)  # 1.
    if clock.leapt_at is None or not clock.leapt_at <= at <= clock.last + DAY:
        return KeptClock(clock.trusted, at, at)  # 2.
    if at >= clock.leapt_at + DAY:
        return KeptClock(at, None, at)  # 3.
    return KeptClock(clock.trusted, clock.leapt_at, at)  # 4.


def horizon(clock: KeptClock, keep_for: float) -> int:
    """Return the time before which everything can be dropped; 0 for nothing, as during a leap.

    >>> horizon(KeptClock(trusted=1_000.0), 10.0), horizon(KeptClock(1_000.0, 5e9, 5e9), 10.0)
    (990, 0)
    """
    return 0 if clock.leapt_at is not None else max(0, int(clock.trusted - keep_for))
