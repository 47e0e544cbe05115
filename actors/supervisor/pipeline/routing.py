"""Where a request goes next: an untried provider first, then one that may be tried again. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import BadAnswer, CallFailed, ConsumerLeft, OutcomeUnknown, Permanent, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

    from actors.policies.retry import Retry
    from actors.providers.selection import SelectionStrategy
    from actors.supervisor.messages import OnBadAnswer, OnRefused


class Tried(msgspec.Struct, frozen=True):
    """A provider that has failed this request: how often, when last, and from when on it may be tried again."""

    failures: int
    failed_at: float
    ready_at: float
    """Infinity if it may not."""


def after_failure(
    error: CallFailed, *, failures: int, now: float, deadline: float, policy: Retry, random: float
) -> Tried:
    """Return what a provider is for this request after so many failures that count; `random` is in [0, 1).

    It may be tried again after its backoff, if the error allows a retry and the deadline allows that wait.
    """
    if not error.retryable or failures > policy.max_retries:
        return Tried(failures, now, math.inf)
    ready_at = now + wait_before_retry(error, failures=failures, policy=policy, random=random)
    return Tried(failures, now, ready_at if ready_at < deadline else math.inf)


def wait_before_retry(error: CallFailed, *, failures: int, policy: Retry, random: float) -> float:
    """Return the seconds until a provider may be tried again after its failure number `failures`.

    A 429 that says when is believed, but for up to a twentieth more by `random`, so that not all come back at once. The
    backoff is the wait of all others, and is no shorter than what the error says.
    """
    if isinstance(error, Throttled) and error.retry_after is not None:
        return error.retry_after * (1 + 0.05 * random)
    return policy.delay(max(1, failures), random=random, retry_after=error.retry_after)


def ends_request(error: CallFailed, *, on_refused: OnRefused = "fail", on_bad_answer: OnBadAnswer = "fail") -> bool:
    """Tell whether no other provider may be tried.

    There are six cases:

    1. It may be paid for already.
    2. Its content was refused: it is shown to others only if its caller says so.
    3. It is the caller's mistake, wherever it goes.
    4. It was answered, and is paid for, to no use: others are asked only if its caller says so.
    5. The consumer of its stream has left.
    6. It may be served elsewhere.
    """
    if isinstance(error, BadAnswer):
        return on_bad_answer == "fail"
    if isinstance(error, Permanent):
        return on_refused == "fail" if error.concerns == "content" else error.scope == "request"
    return isinstance(error, OutcomeUnknown | ConsumerLeft)


def in_order(
    ranked: Iterable[str], *, tried: Mapping[str, Tried], among: Container[str], is_unhealthy: Callable[[str], bool]
) -> Iterator[str]:
    """Yield the names of the providers that may be called, the one to call first in front, as far as they are read.

    Untried providers come first, as `ranked` by the strategy in force. Then come those `among` which the request may
    choose that may be tried again, the one that is ready first in front. Unhealthy providers come after healthy ones,
    and are kept because a check may be wrong.
    """
    behind: list[str] = []
    for name in ranked:
        if name in tried:
            continue
        if is_unhealthy(name):
            behind.append(name)
        else:
            yield name
    again = [name for _, name in sorted((one.ready_at, name) for name, one in tried.items() if _may_be_tried(one))]
    for name in again:
        if name in among:
            if is_unhealthy(name):
                behind.append(name)
            else:
                yield name
    yield from behind


def _may_be_tried(tried: Tried) -> bool:
    return tried.ready_at < math.inf


def in_force(strategies: Sequence[SelectionStrategy], tried: Collection[str]) -> SelectionStrategy:
    """Return the strategy after so many failed providers: the first for the first choice, then one fallback each.

    The last is in force for good.
    """
    return strategies[min(len(tried), len(strategies) - 1)]
