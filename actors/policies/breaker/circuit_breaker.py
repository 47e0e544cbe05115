"""A circuit breaker for any async call, usable without an actor: a thin shell around the pure transitions."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, TypeVar

from actors.errors.exceptions import classify
from actors.errors.families import BreakerOpen
from actors.policies.breaker.config import DEFAULT_BREAKER, BreakerConfig
from actors.policies.breaker.states import BreakerState, Closed, HalfOpen, Isolated, Open, Permit, Refused
from actors.policies.breaker.transitions import (
    admit,
    after_cancellation,
    after_failure,
    after_success,
    isolate,
    release,
    share,
)
from actors.validation import check_config, check_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def counts_against_provider(error: Exception) -> bool:
    """Tell whether the provider is to blame for an error: not for a caller's mistake, throttling or our own refusal."""
    return classify(error, provider="provider").blames_provider


class CircuitBreaker:
    """A breaker to run calls through; all its callers must be on one event loop.

    `clock` returns seconds (default: the running loop's time), and `rng` draws the jitter. `counts_as_failure` tells
    which errors count; any other, like a cancellation, leaves the breaker as it is.
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
        check_text("name of a circuit breaker", name)
        check_config("config", config, BreakerConfig)
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
        # A call that is cancelled has proved nothing, nor has one for which counts_as_failure raises.
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

    def admit(self, *, now: float | None = None, within: float = math.inf) -> Permit:
        """Give leave to make one call, for a caller that runs it itself; raise `BreakerOpen` if there is none.

        The call may take `within` seconds, by default an unknown time. Every permit must come back by `settle`,
        whatever becomes of the call.
        """
        at = self._clock() if now is None else now
        admission = admit(self._state, now=at, config=self.config, within=within)
        if isinstance(admission, Refused):
            raise BreakerOpen(self.name, retry_after=admission.retry_after)
        self._state, permit = admission
        return permit

    def raise_if_open(self) -> None:
        """Raise `BreakerOpen` if a call would be refused now; no leave is taken."""
        admission = admit(self._state, now=self._clock(), config=self.config)
        if isinstance(admission, Refused):
            raise BreakerOpen(self.name, retry_after=admission.retry_after)

    def settle(self, permit: Permit, *, failed: bool | None, now: float | None = None) -> None:
        """Take a permit back; the call failed (True), succeeded (False), or proved nothing (None)."""
        at = self._clock() if now is None else now
        if failed is None:
            self._state = after_cancellation(self._state, permit, now=at)
            return
        transition = after_failure if failed else after_success
        self._state = transition(self._state, permit, now=at, config=self.config, random=self._rng.random())

    def share(self) -> float:
        """Return the part of its usual load that the provider should get now; see the function `share`."""
        state = self._state
        # This is asked before each call, and almost every provider has never been away.
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
