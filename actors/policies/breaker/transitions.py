"""The transitions between the states of a circuit breaker. Pure: the time and each random draw are arguments."""

from __future__ import annotations

import math

from actors.policies.breaker.config import BreakerConfig  # noqa: TC001 - the examples below make one.
from actors.policies.breaker.states import BreakerState, Closed, HalfOpen, Isolated, Open, Permit, Refused

FIRST_SHARE = 0.1
"""The part of its load that a provider gets when it has just come back."""
WAIT_IF_ALONE = 2 / 3
"""The part of a wait after a failed probe that is left if requests wait for the provider and have no other."""
MIN_FAILURES, MIN_RATE = 2, 0.5
"""On probation, `failure_threshold` is at least this number, and `failure_rate` at least this part of itself."""


def admit(
    state: BreakerState, *, now: float, config: BreakerConfig, within: float = math.inf
) -> tuple[BreakerState, Permit] | Refused:
    """Decide on one call at `now`; return the next state and a permit, or a refusal that leaves the state as it is.

    The call may take `within` seconds; infinity if that is not known.

    >>> admit(Open(epoch=1, until=30.0), now=10.0, config=BreakerConfig())
    Refused(retry_after=20.0)
    """
    match state:
        case Closed():
            return state, Permit(state.epoch, probe=False, admitted=now)
        case Open() if now < state.until:
            return Refused(state.until - now)
        case HalfOpen() if now < state.lease_ends:
            return Refused(state.lease_ends - now)
        case Open() | HalfOpen():
            epoch = state.epoch + 1
            lease_ends = now + config.lease(within)
            # A probe whose lease is over is lost, but its good answer would still say all there is to know.
            probing = HalfOpen(epoch, lease_ends, state.reopened, _earlier(state), state.has_relapsed)
            return probing, Permit(epoch, probe=True, admitted=now)
        case Isolated():
            return Refused(None)


def share(state: BreakerState, now: float, config: BreakerConfig) -> float:
    """Return the part of its usual load, above 0 and at most 1, that a provider should get at `now`.

    It grows evenly from 0.1 to 1 in the `slow_start` seconds after a probe closed the breaker, because a provider that
    has just come back has cold caches and a backlog. In any other state it is 1: there `admit` alone decides what is
    let through.

    Source: the slow start of load balancers such as Envoy and nginx.

    >>> closed = Closed(epoch=3, since=100.0)
    >>> (
    ...     share(closed, 100.0, BreakerConfig()),
    ...     share(closed, 105.0, BreakerConfig()),
    ...     share(closed, 110.0, BreakerConfig()),
    ... )
    (0.1, 0.55, 1.0)
    """
    return _grown(state, now, config.slow_start)


def is_on_probation(state: BreakerState, now: float, config: BreakerConfig) -> bool:
    """Tell whether a provider has come back so recently that it may relapse.

    >>> is_on_probation(Closed(since=0.0), 59.0, BreakerConfig()), is_on_probation(Closed(), 0.0, BreakerConfig())
    (True, False)
    """
    return _grown(state, now, config.relapse_within) < 1


def _grown(state: BreakerState, now: float, length: float) -> float:
    """Return a part that grows evenly from a tenth to 1 within `length` seconds after a probe closed the breaker."""
    if not isinstance(state, Closed) or state.since is None or now >= state.since + length:
        return 1.0
    return FIRST_SHARE + (1 - FIRST_SHARE) * max(0.0, now - state.since) / length


def after_success(
    state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig, random: float
) -> BreakerState:
    """Return the state after a call that succeeded; `random` is a draw from [0, 1), used if it opens.

    A success closes a half-open breaker, unless it was slow by `config.slow_call` or `config.slow_interval`. So does
    that of an earlier probe whose lease is over, or after which another was cancelled.

    >>> late = Permit(3, probe=True, admitted=0.0)
    >>> after_success(HalfOpen(4, 60.0, earlier=1), late, now=45.0, config=BreakerConfig(), random=0.5).epoch
    5
    >>> after_success(Open(4, until=50.0), late, now=45.0, config=BreakerConfig(), random=0.5)
    Open(epoch=4, until=50.0, reopened=0, earlier=0, has_relapsed=False)
    """
    if permit.epoch != state.epoch and not _still_counts(state, permit):
        return state
    slow = config.slow_call is not None and now - permit.admitted >= config.slow_call
    if permit.interval is not None and config.slow_interval is not None:
        slow |= permit.interval >= config.slow_interval
    match state:
        case Closed():
            window = state.window.record(now, length=config.window, slow=slow)
            closed = Closed(state.epoch, 0, window, state.since, state.reopened, state.has_relapsed)
            return _opened(closed, now, config, random) if slow and _trips(closed, now, config) else closed
        case HalfOpen() if slow and permit.epoch == state.epoch:
            return _opened(state, now, config, random)
        case HalfOpen() | Open() if not slow:
            return Closed(state.epoch + 1, since=now, reopened=state.reopened, has_relapsed=state.has_relapsed)
        case _:
            return state


def after_failure(
    state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig, random: float
) -> BreakerState:
    """Return the state after a call that failed; `random` is a draw from [0, 1), used if it opens."""
    if permit.epoch != state.epoch:
        return state
    match state:
        case Closed():
            slow = config.slow_call is not None and now - permit.admitted >= config.slow_call
            window = state.window.record(now, length=config.window, failed=True, slow=slow)
            closed = Closed(state.epoch, state.failures + 1, window, state.since, state.reopened, state.has_relapsed)
            return _opened(closed, now, config, random) if _trips(closed, now, config) else closed
        case HalfOpen():
            return _opened(state, now, config, random)
        case Open() | Isolated():
            return state


def after_cancellation(state: BreakerState, permit: Permit, *, now: float) -> BreakerState:
    """Return the state after a call whose end says nothing about the provider.

    A cancelled probe makes room for another: the breaker is open and its wait is over, so the next call is a probe.
    """
    if isinstance(state, HalfOpen) and permit.epoch == state.epoch:
        return Open(state.epoch + 1, now, state.reopened, _earlier(state), state.has_relapsed)
    return state


def after_hasty_failure(state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig) -> BreakerState:
    """Return the state after a call that was given less time than is configured.

    It counts as a failure in a row, but does not open the breaker: the next one will, unless an answer comes before.

    >>> permit = Permit(0, probe=False, admitted=0.0)
    >>> after_hasty_failure(Closed(failures=3), permit, now=1.0, config=BreakerConfig()).failures
    4
    >>> after_hasty_failure(Closed(failures=4), permit, now=1.0, config=BreakerConfig()).failures
    4
    """
    if not isinstance(state, Closed) or permit.epoch != state.epoch or failures_left(state, now, config) == 1:
        return state
    return Closed(state.epoch, state.failures + 1, state.window, state.since, state.reopened, state.has_relapsed)


def after_inconclusive(state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig) -> BreakerState:
    """Return the state after a call that found the provider alive, but does not show whether it is healthy.

    A half-open breaker waits for `open_for` before its next probe, however long its last wait was.

    >>> after_inconclusive(HalfOpen(3, 30.0, 4), Permit(3, probe=True, admitted=0.0), now=1.0, config=BreakerConfig())
    Open(epoch=4, until=6.0, reopened=4, earlier=1, has_relapsed=False)
    """
    if isinstance(state, HalfOpen) and permit.epoch == state.epoch:
        wait_ends = now + config.open_for
        return Open(state.epoch + 1, wait_ends, state.reopened, _earlier(state), state.has_relapsed)
    return state


def after_failed_check(
    state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig, random: float
) -> BreakerState:
    """Return the state after a probe was not made because a health check before it failed.

    It is waited for as after a failed probe, but no longer if the provider has relapsed: the check cost no call.

    >>> probing, permit = HalfOpen(3, 30.0, 4, has_relapsed=True), Permit(3, probe=True, admitted=0.0)
    >>> after_failed_check(probing, permit, now=1.0, config=BreakerConfig(), random=0.5).until
    16.0
    """
    if not isinstance(state, HalfOpen) or permit.epoch != state.epoch:
        return state
    reopened = state.reopened + 1
    until = now + _wait(config, reopened, has_relapsed=False, random=random)
    return Open(state.epoch + 1, until, reopened, has_relapsed=state.has_relapsed)


def sooner(state: Open, *, now: float, config: BreakerConfig, is_after_probe: bool = True) -> Open:
    """Return an open breaker's state if requests wait for its provider, which have nowhere else to go.

    A relapse is waited for no longer than failed probes, and after a probe a third is taken off the wait, but not below
    `config.open_for`. The wait stays as it is if `max_open_for` is configured.

    >>> sooner(Open(2, until=15.0, reopened=3), now=0.0, config=BreakerConfig()).until
    10.0
    >>> relapsed = Open(2, until=30.0, reopened=1, has_relapsed=True)
    >>> sooner(relapsed, now=0.0, config=BreakerConfig(), is_after_probe=False).until
    15.0
    """
    wait = state.until - now
    if config.max_open_for is not None or wait <= config.open_for * (1 + config.jitter):
        return state
    wait = min(wait, config.longest_wait_for_probe) if state.has_relapsed else wait
    until = now + max(config.open_for, wait * WAIT_IF_ALONE if is_after_probe else wait)
    return Open(state.epoch, until, state.reopened, state.earlier, state.has_relapsed)


def isolate(state: BreakerState) -> Isolated:
    """Return the state in which every call is refused until `release`."""
    return state if isinstance(state, Isolated) else Isolated(state.epoch + 1)


def release(state: BreakerState) -> BreakerState:
    """Return the state after a release by hand: closed with a clean record, if it was isolated."""
    return Closed(state.epoch + 1) if isinstance(state, Isolated) else state


def failures_left(state: Closed, now: float, config: BreakerConfig) -> int:
    """Return how many more failures in a row open the breaker, at least 1; fewer while the provider is on probation.

    >>> failures_left(Closed(failures=2), 0.0, BreakerConfig())
    3
    """
    return max(1, _threshold(state, now, config) - state.failures)


def _earlier(state: Open | HalfOpen) -> int:
    """Return how many epochs back good answers to probes count in a next state that no failure brings about."""
    return state.earlier + 1


def _still_counts(state: BreakerState, permit: Permit) -> bool:
    """Tell whether a good answer to a probe of an earlier epoch closes the breaker."""
    return (
        permit.probe
        and isinstance(state, Open | HalfOpen)
        and state.epoch - state.earlier <= permit.epoch < state.epoch
    )


def _threshold(state: Closed, now: float, config: BreakerConfig) -> int:
    return _lowered(config.failure_threshold, _grown(state, now, config.relapse_within), MIN_FAILURES)


def _trips(state: Closed, now: float, config: BreakerConfig) -> bool:
    """Tell whether a closed breaker has seen enough failures to open; on probation, fewer are enough."""
    grown = _grown(state, now, config.relapse_within)
    if state.failures >= _threshold(state, now, config):
        return True
    min_calls = _lowered(config.min_calls, grown, 1)
    rate = config.failure_rate * max(MIN_RATE, grown)
    # On probation the probe is one of the calls.
    before = 1 if grown < 1 else 0
    # Successes from before the provider began to fail must not hide that for as long as the window lasts, so each of
    # its latest parts is judged too.
    return any(
        before + calls >= min_calls
        and (failures >= rate * (before + calls) or slow >= config.slow_rate * (before + calls))
        for calls, failures, slow in state.window.latest()
    )


def _lowered(count: int, grown: float, least: int) -> int:
    return count if grown == 1.0 else min(count, max(least, math.ceil(count * grown)))


def _opened(state: Closed | HalfOpen, now: float, config: BreakerConfig, random: float) -> Open:
    """Return the state of a breaker that opens.

    There are three cases: 1. The provider came back, and has not shown that it can bear its load: it has relapsed. 2. A
    probe has failed; it may have relapsed before. 3. It has been well for long.
    """
    is_relapse = is_on_probation(state, now, config)
    if is_relapse or isinstance(state, HalfOpen):
        reopened, has_relapsed = state.reopened + 1, is_relapse or state.has_relapsed
    else:
        reopened, has_relapsed = 0, False
    wait = _wait(config, reopened, has_relapsed=has_relapsed, random=random)
    return Open(state.epoch + 1, now + wait, reopened, has_relapsed=has_relapsed)


def _wait(config: BreakerConfig, reopened: int, *, has_relapsed: bool, random: float) -> float:
    """Return the seconds until the next probe, or check, after so many in vain."""
    wait, longest = config.open_for * 2.0 ** min(reopened, 1000), config.longest_wait_for_probe
    if has_relapsed:
        wait, longest = max(wait, config.least_wait_after_relapse), config.longest_wait
    spread = 1 + config.jitter * (2 * random - 1)
    return min(longest, min(longest, wait) * spread)
