"""A circuit breaker: pure transitions of an immutable state, and a thin shell that runs calls through them.

Every change of state begins a new epoch, and every admitted call carries a `Permit` of its epoch: a result
whose epoch has passed is stale and changes nothing. That one rule is what keeps late results, lost probes
and double reports from moving the breaker.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec

from actors.errors.classification import classify
from actors.errors.families import BreakerOpen
from actors.policies.breaker.window import FailureWindow
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

FIRST_SHARE = 0.1
"""The part of its load that a provider gets when it has just come back."""
EASED_FAILURES, EASED_RATE = 2, 0.5
"""What `failure_threshold` is never lowered below on probation, and what is left of `failure_rate` at least."""


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how long; durations are seconds.

    It opens on `failure_threshold` failures in a row, or when of the last calls within `window`, of `min_calls` at
    least, the part `failure_rate` failed, or the part `slow_rate` took `slow_call` or longer (None: never slow).
    It stays open for `open_for`, doubled for each probe that fails, up to `max_open_for` (None: three times
    `open_for`, and five times after a relapse, which costs more than a probe), each wait spread by `jitter` to both
    sides. A probe that has not reported after `probe_lease` is given up for lost.

    For `slow_start` after a probe closed it, the provider is eased in (0: not): see `share`. For `relapse_within` it
    is on probation: `failure_threshold` and `min_calls` grow back to what they are from a tenth, though the first is
    not below 2, and `failure_rate` grows back from a half of it, so that one failure among the first few calls is
    enough. A
    breaker that opens again on probation waits as if its probe had failed.
    """

    failure_threshold: int = 5
    failure_rate: float = 0.5
    min_calls: int = 20
    window: float = 30.0
    open_for: float = 5.0
    max_open_for: float | None = None
    jitter: float = 0.1
    slow_call: float | None = None
    slow_rate: float = 0.5
    probe_lease: float = 30.0
    slow_start: float = 10.0
    relapse_within: float = 60.0

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_durations()

    def _check_counts(self) -> None:
        for name, count in (("failure_threshold", self.failure_threshold), ("min_calls", self.min_calls)):
            check_count(name, count, unit="call")
        for name, rate in (("failure_rate", self.failure_rate), ("slow_rate", self.slow_rate)):
            if not 0 < rate <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {rate}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be from 0 to below 1, got {self.jitter}")

    def _check_durations(self) -> None:
        for name, duration in (
            ("window", self.window),
            ("open_for", self.open_for),
            ("probe_lease", self.probe_lease),
            ("slow_call", 1.0 if self.slow_call is None else self.slow_call),
        ):
            if not 0 < duration < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite, got {duration}")
        if not self.open_for <= self.longest_wait < math.inf:
            raise ValueError(f"max_open_for must be finite and >= open_for ({self.open_for}), got {self.max_open_for}")
        for name, duration in (("slow_start", self.slow_start), ("relapse_within", self.relapse_within)):
            if not 0 <= duration < math.inf:
                raise ValueError(f"{name} must be >= 0 seconds (0: none) and finite, got {duration}")

    @property
    def longest_wait(self) -> float:
        """The seconds that it stays open at most, however often a provider has relapsed."""
        return 5 * self.open_for if self.max_open_for is None else self.max_open_for

    @property
    def longest_wait_for_probe(self) -> float:
        """The seconds that it stays open at most, however many probes have failed."""
        return 3 * self.open_for if self.max_open_for is None else self.max_open_for


class Closed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls pass. `failures` counts those in a row.

    Where a probe closed it, `since` is when, and `reopened` the probes that had failed before.
    """

    epoch: int = 0
    failures: int = 0
    window: FailureWindow = FailureWindow()
    since: float | None = None
    reopened: int = 0


class Open(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are refused until `until`; `reopened` probes have failed since the breaker was last closed."""

    epoch: int
    until: float
    reopened: int = 0


class HalfOpen(msgspec.Struct, frozen=True, tag=True, gc=False):
    """One probe is out, with the permit of this epoch; it is given up for lost at `lease_ends`."""

    epoch: int
    lease_ends: float
    reopened: int = 0


class Isolated(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Calls are refused until somebody releases the breaker by hand."""

    epoch: int


BreakerState: TypeAlias = Closed | Open | HalfOpen | Isolated


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Leave to make one call; hand it back with the result. `admitted` is the time it was given."""

    epoch: int
    probe: bool
    admitted: float


class Refused(msgspec.Struct, frozen=True, gc=False):
    """No leave: nothing changes within `retry_after` seconds unless a probe reports earlier. None: isolated by hand."""

    retry_after: float | None


def admit(state: BreakerState, *, now: float, config: BreakerConfig) -> tuple[BreakerState, Permit] | Refused:
    """Decide on one call at `now`: the next state and a permit, or a refusal that leaves the state as it is.

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
            probing = HalfOpen(epoch, lease_ends=now + config.probe_lease, reopened=state.reopened)
            return probing, Permit(epoch, probe=True, admitted=now)
        case Isolated():
            return Refused(None)


def share(state: BreakerState, now: float, config: BreakerConfig) -> float:
    """Return the part of its usual load, above 0 and at most 1, that a provider should get at `now`.

    It grows evenly from 0.1 to 1 in the `slow_start` seconds after a probe closed the breaker, because a provider that
    has just come back has cold caches and a backlog. Any other state says 1: what it lets through is a matter of
    `admit`, and one probe is no share.

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
    """Tell whether a provider has come back so lately that it may relapse.

    >>> is_on_probation(Closed(since=0.0), 59.0, BreakerConfig()), is_on_probation(Closed(), 0.0, BreakerConfig())
    (True, False)
    """
    return _grown(state, now, config.relapse_within) < 1


def _grown(state: BreakerState, now: float, length: float) -> float:
    """Return what has grown evenly from a tenth to 1 in the seconds since a probe closed the breaker."""
    if not isinstance(state, Closed) or state.since is None or now >= state.since + length:
        return 1.0
    return FIRST_SHARE + (1 - FIRST_SHARE) * max(0.0, now - state.since) / length


def after_success(
    state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig, random: float
) -> BreakerState:
    """Return the state after a call that succeeded; `random` is a draw from [0, 1), used if it opens.

    A success closes a half-open breaker, unless it was slow by `config.slow_call`.
    """
    if permit.epoch != state.epoch:
        return state
    slow = config.slow_call is not None and now - permit.admitted >= config.slow_call
    match state:
        case Closed():
            window = state.window.record(now, length=config.window, slow=slow)
            closed = Closed(state.epoch, 0, window, state.since, state.reopened)
            return _opened(closed, now, config, random) if slow and _trips(closed, now, config) else closed
        case HalfOpen():
            if slow:
                return _opened(state, now, config, random)
            return Closed(state.epoch + 1, since=now, reopened=state.reopened)
        case Open() | Isolated():
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
            closed = Closed(state.epoch, state.failures + 1, window, state.since, state.reopened)
            return _opened(closed, now, config, random) if _trips(closed, now, config) else closed
        case HalfOpen():
            return _opened(state, now, config, random)
        case Open() | Isolated():
            return state


def after_cancellation(state: BreakerState, permit: Permit, *, now: float) -> BreakerState:
    """Return the state after a call that ended without saying anything about the provider.

    A cancelled probe gives its place back: the breaker is open with its wait over, so the next call probes.
    """
    if isinstance(state, HalfOpen) and permit.epoch == state.epoch:
        return Open(state.epoch + 1, until=now, reopened=state.reopened)
    return state


def after_inconclusive(state: BreakerState, permit: Permit, *, now: float, config: BreakerConfig) -> BreakerState:
    """Return the state after a call that found the provider alive, and does not tell whether it is well.

    A breaker that is half-open makes its next probe after its first wait, however long the last one was.

    >>> after_inconclusive(HalfOpen(3, 30.0, 4), Permit(3, probe=True, admitted=0.0), now=1.0, config=BreakerConfig())
    Open(epoch=4, until=6.0, reopened=4)
    """
    if isinstance(state, HalfOpen) and permit.epoch == state.epoch:
        return Open(state.epoch + 1, until=now + config.open_for, reopened=state.reopened)
    return state


def isolate(state: BreakerState) -> Isolated:
    """Return the state in which every call is refused until `release`."""
    return state if isinstance(state, Isolated) else Isolated(state.epoch + 1)


def release(state: BreakerState) -> BreakerState:
    """Return the state after a release by hand: closed with a clean record, if it was isolated."""
    return Closed(state.epoch + 1) if isinstance(state, Isolated) else state


def failures_left(state: Closed, now: float, config: BreakerConfig) -> int:
    """Return how many failures in a row more open the breaker, at least 1; fewer while a provider is on probation.

    >>> failures_left(Closed(failures=2), 0.0, BreakerConfig())
    3
    """
    return max(1, _threshold(state, now, config) - state.failures)


def _threshold(state: Closed, now: float, config: BreakerConfig) -> int:
    return _lowered(config.failure_threshold, _grown(state, now, config.relapse_within), EASED_FAILURES)


def _trips(state: Closed, now: float, config: BreakerConfig) -> bool:
    """Tell whether a closed breaker has seen enough; while a provider is on probation, less is enough."""
    eased = _grown(state, now, config.relapse_within)
    if state.failures >= _threshold(state, now, config):
        return True
    min_calls = _lowered(config.min_calls, eased, 1)
    rate = config.failure_rate * max(EASED_RATE, eased)
    # On probation the probe is one of the calls.
    before = 1 if eased < 1 else 0
    # What went well before it fell ill must not hide it for as long as the window lasts.
    return any(
        before + calls >= min_calls
        and (
            failures >= rate * (before + calls)
            or (config.slow_call is not None and slow >= config.slow_rate * (before + calls))
        )
        for calls, failures, slow in state.window.latest()
    )


def _lowered(count: int, eased: float, least: int) -> int:
    return count if eased == 1.0 else min(count, max(least, math.ceil(count * eased)))


def _opened(state: Closed | HalfOpen, now: float, config: BreakerConfig, random: float) -> Open:
    # Until it has proved that it can bear its load, a provider that came back has not recovered.
    is_relapse = is_on_probation(state, now, config)
    reopened = state.reopened + 1 if is_relapse or isinstance(state, HalfOpen) else 0
    longest = config.longest_wait if is_relapse else config.longest_wait_for_probe
    grown = config.open_for * 2.0 ** min(reopened, 1000)
    spread = 1 + config.jitter * (2 * random - 1)
    return Open(state.epoch + 1, until=now + min(longest, min(longest, grown) * spread), reopened=reopened)


def counts_against_provider(error: Exception) -> bool:
    """Whether `error` is the provider's failure: not the caller's mistake, nor throttling, nor our own refusal."""
    return classify(error, provider="provider").blames_provider


DEFAULT_BREAKER = BreakerConfig()


class CircuitBreaker:
    """A breaker to run calls through, usable alone; all its callers must be on one event loop.

    `clock` gives seconds (default: the running loop's time), `rng` the jitter, and `counts_as_failure` says
    which errors count; the others, like cancellation, leave the breaker as it is.
    """

    def __init__(
        self,
        name: str,
        config: BreakerConfig = DEFAULT_BREAKER,
        *,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
        counts_as_failure: Callable[[Exception], bool] = counts_against_provider,
    ) -> None:
        self.name = name
        self.config = config
        self._state: BreakerState = Closed()
        self._clock = clock or _loop_time
        self._rng = rng or random.Random()
        self.counts_as_failure = counts_as_failure

    @property
    def state(self) -> BreakerState:
        """The state as of the last call; an open breaker whose wait is over is still `Open` here."""
        return self._state

    async def execute(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns; raise what it raises, or `BreakerOpen` without calling it."""
        permit = self.admit()
        # Until it is reported otherwise, a call has proved nothing: also if it is cancelled, or if
        # counts_as_failure raises.
        failed: bool | None = None
        try:
            result = await call()
            failed = False
        except Exception as error:
            failed = self.counts_as_failure(error) or None
            raise
        else:
            return result
        finally:
            self.settle(permit, failed=failed)

    def admit(self, *, now: float | None = None) -> Permit:
        """Give leave to make one call, for those who run it themselves; raise `BreakerOpen` where there is none.

        Every permit must come back by `settle`, whatever becomes of the call.
        """
        admission = admit(self._state, now=self._clock() if now is None else now, config=self.config)
        if isinstance(admission, Refused):
            raise BreakerOpen(self.name, retry_after=admission.retry_after)
        self._state, permit = admission
        return permit

    def raise_if_open(self) -> None:
        """Raise `BreakerOpen` where there is no leave now, and take none where there is."""
        admission = admit(self._state, now=self._clock(), config=self.config)
        if isinstance(admission, Refused):
            raise BreakerOpen(self.name, retry_after=admission.retry_after)

    def settle(self, permit: Permit, *, failed: bool | None, now: float | None = None) -> None:
        """Take a permit back: the call failed, or did not, or proved nothing (None)."""
        at = self._clock() if now is None else now
        if failed is None:
            self._state = after_cancellation(self._state, permit, now=at)
            return
        transition = after_failure if failed else after_success
        self._state = transition(self._state, permit, now=at, config=self.config, random=self._rng.random())

    def share(self) -> float:
        """Return the part of its usual load that the provider should get now; see the function `share`."""
        state = self._state
        # Asked for each call, and almost always of a provider that never was away.
        if isinstance(state, Closed) and state.since is None:
            return 1.0
        return share(state, self._clock(), self.config)

    def isolate(self) -> None:
        """Refuse every call from now on, until `release`."""
        self._state = isolate(self._state)

    def release(self) -> None:
        """End an isolation; the breaker is closed, with a clean record."""
        self._state = release(self._state)

    def __repr__(self) -> str:
        match self._state:
            case Closed():
                state = f"closed, {self._state.failures} of {self.config.failure_threshold} failures in a row"
            case Open():
                state = f"open until {self._state.until:.3f}, {self._state.reopened} probes failed"
            case HalfOpen():
                state = f"half-open, one probe until {self._state.lease_ends:.3f}"
            case Isolated():
                state = "isolated by hand"
        return f"<CircuitBreaker {self.name!r} {state}>"


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
