"""When a provider is called again that is at work on a call, or that repeats calls on its own. Pure.

A provider that honours idempotency keys answers 409 while a call under the same key is at work. Then there is nothing
to repeat: the answer is waited for, at growing intervals, until the deadline.

Source: the IETF draft "The Idempotency-Key HTTP Header Field" (section 2.6: a retry while the original request is
still being processed is answered 409), as Stripe does for keys that are in use.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.supervisor.targets.settlement import STILL_AT_WORK

if TYPE_CHECKING:
    from actors.errors.families import CallFailed
    from actors.transports.transport import Idempotent

FIRST_LOOK = 0.5
"""Seconds until the first look after an answer that says that the call is at work."""
LOOK_GROWTH = 1.5
MAX_LOOK_INTERVAL = 10.0
"""Seconds between two looks at most, unless the provider states a longer wait that ends before the deadline."""
MIN_LOOK_INTERVAL = 0.1
"""Seconds between two looks at least, close to the deadline."""
MAX_ATTEMPTS_UNKNOWN = 2
"""The attempts of a request that found out by itself that a layer below repeats its calls; of later ones it is one."""


def is_at_work(error: CallFailed | None, idempotent: Idempotent) -> bool:
    """Tell whether a provider says that it is at work on a call under the same key.

    >>> from actors.errors.families import Transient
    >>> is_at_work(Transient("409", status=409), "key"), is_at_work(Transient("409", status=409), "no")
    (True, False)
    """
    return error is not None and error.retryable and error.status == STILL_AT_WORK and idempotent == "key"


def next_look(looks: int, *, now: float, deadline: float, random: float, retry_after: float | None) -> float:
    """Return when to look next after `looks` answers that the call is at work; infinity if the deadline comes before.

    The waits grow by half, from half a second to ten, each shorter by up to a tenth by `random` from [0, 1). Close to
    the deadline they are half of the time left, so that an answer that comes just before it is found. `retry_after` is
    the least that the provider asks for. One that ends beyond the deadline is its estimate, and not waited for: the
    answer may come sooner, be paid for, and be had by this request alone.

    >>> [next_look(looks, now=0.0, deadline=99.0, random=0.0, retry_after=None) for looks in (1, 2, 3)]
    [0.5, 0.75, 1.125]
    >>> next_look(20, now=90.0, deadline=99.0, random=0.0, retry_after=None)
    94.5
    >>> [next_look(1, now=0.0, deadline=99.0, random=0.0, retry_after=asked) for asked in (60.0, 600.0)]
    [60.0, 0.5]
    """
    grown = min(MAX_LOOK_INTERVAL, FIRST_LOOK * LOOK_GROWTH ** min(looks - 1, 100)) * (1.0 - 0.1 * random)
    asked = retry_after if retry_after is not None and now + retry_after < deadline else 0.0
    wait = max(min(grown, max((deadline - now) / 2, MIN_LOOK_INTERVAL)), asked)
    return now + wait if now + wait < deadline else math.inf


def has_had_all_attempts(failures: int, *, is_amplified: bool, was_amplified: bool) -> bool:
    """Tell whether a request may not call a provider again because a layer below repeats each of its calls.

    `was_amplified` says whether that was known when the last of its `failures` began.

    >>> has_had_all_attempts(1, is_amplified=True, was_amplified=False)
    False
    >>> has_had_all_attempts(1, is_amplified=True, was_amplified=True)
    True
    """
    return is_amplified and (was_amplified or failures >= MAX_ATTEMPTS_UNKNOWN)
