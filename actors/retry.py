"""Whether and when to call again: exponential backoff with jitter, within a timeout and a retry budget."""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import anyio
import msgspec

from actors.classification import is_retryable_error
from actors.errors import CallFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Jitter: TypeAlias = Literal["full", "equal", "proportional", "none"]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often a call is retried, and the waits between; durations are seconds.

    The wait before retry n grows as `base * 2 ** (n - 1)` up to `cap`. With jitter it is drawn from
    0 to that ("full", the default), from half of it ("equal"), or from `proportion` below to `proportion`
    above ("proportional"; there the growth ends at `cap / (1 + proportion)`, or half of all late waits
    would be the cap itself and arrive together).

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    max_retries: int = 3
    base: float = 1.0
    cap: float = 30.0
    jitter: Jitter = "full"
    proportion: float = 0.3

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be >= 0 (0 never retries), got {self.max_retries}")
        if not 0 <= self.base < math.inf:
            raise ValueError(f"base must be >= 0 seconds and finite, got {self.base}")
        if not self.base <= self.cap < math.inf:
            raise ValueError(f"cap must be finite and >= base ({self.base}) seconds, got {self.cap}")
        if self.jitter not in {"full", "equal", "proportional", "none"}:
            raise ValueError(f"jitter must be full, equal, proportional or none, got {self.jitter!r}")
        if not 0 <= self.proportion <= 1:
            raise ValueError(f"proportion must be from 0 to 1, got {self.proportion}")

    def delay(self, attempt: int, *, random: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait before retry number `attempt`, which counts from 1.

        `random` is a draw from [0, 1). `retry_after` is a floor that `cap` does not shorten.

        >>> [Retry(jitter="none", cap=3.0).delay(attempt, random=0.0) for attempt in (1, 2, 3)]
        [1.0, 2.0, 3.0]
        >>> Retry().delay(1, random=0.5, retry_after=60.0)
        60.0
        """
        if attempt < 1:
            raise ValueError(f"attempt counts retries from 1, got {attempt}")
        # 2.0 ** 1024 overflows; long before that every base has met its cap.
        grown = self.base * 2.0 ** min(attempt - 1, 1000)
        ceiling = min(self.cap, grown)
        match self.jitter:
            case "full":
                wait = ceiling * random
            case "equal":
                wait = ceiling * (0.5 + 0.5 * random)
            case "proportional":
                centre = min(grown, self.cap / (1 + self.proportion))
                wait = centre * (1 + self.proportion * (2 * random - 1))
            case "none":
                wait = ceiling
        return max(min(wait, self.cap), retry_after or 0.0)


DEFAULT_RETRY = Retry()
UNLIMITED = nullcontext()


async def with_retry(
    call: Callable[[], Awaitable[T]],
    *,
    policy: Retry = DEFAULT_RETRY,
    is_retryable: Callable[[Exception], bool] = is_retryable_error,
    rng: random.Random | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - the budget of all attempts together, not of one await.
    on_retry: Callable[[int, Exception, float], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    clock: Callable[[], float] = anyio.current_time,
) -> T:
    """Return what `call` returns, after as many retries as `policy` allows; else raise its last error.

    An error that is not retryable is raised at once, and so is one whose wait, or whose `retry_after`, is
    longer than what is left of `timeout` seconds. An attempt still running when the timeout ends is
    cancelled, and TimeoutError raised, with the last error as its cause. Cancellation passes straight
    through. `on_retry(attempt, error, wait)` is called before each wait.
    """
    # Without a timeout, neither the clock nor a cancel scope is paid for.
    ends = math.inf if timeout is None else clock() + timeout
    failure: Exception | None = None
    attempt = 0
    with UNLIMITED if timeout is None else anyio.move_on_after(timeout):
        while True:
            try:
                return await call()
            except Exception as error:
                failure = error
                attempt += 1
                if attempt > policy.max_retries or not is_retryable(error):
                    raise
                rng = rng or random.Random()
                floor = error.retry_after if isinstance(error, CallFailed) else None
                wait = policy.delay(attempt, random=rng.random(), retry_after=floor)
                if timeout is not None and clock() + wait >= ends:
                    raise
            if on_retry is not None:
                on_retry(attempt, failure, wait)
            await sleep(wait)
    raise TimeoutError(f"no answer within {timeout:g} s, in attempt {attempt + 1}") from failure


class RetryBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The retries one target may still get, so that retries never multiply the load of an outage.

    Each first attempt deposits `ratio` tokens, and `min_per_second` tokens come with time, so that a quiet
    client may retry too; a retry withdraws one whole token. `max_tokens` bounds a burst of retries. With the
    defaults a target gets at most 10 % extra load, plus one retry per second. An immutable value; `now` is
    in seconds of any one clock, and a clock that steps back adds nothing.

    Source: the retry budgets of Finagle (`RetryBudget`, a leaky token bucket) and the SRE book, chapter 21.
    """

    ratio: float = 0.1
    min_per_second: float = 1.0
    max_tokens: float = 100.0
    tokens: float = 10.0
    updated: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio must be from 0 to 1 retry per first attempt, got {self.ratio}")
        if not 0 <= self.min_per_second < math.inf:
            raise ValueError(f"min_per_second must be >= 0 and finite, got {self.min_per_second}")
        if not 1 <= self.max_tokens < math.inf:
            raise ValueError(f"max_tokens must be finite and >= 1, the price of a retry, got {self.max_tokens}")
        if not 0 <= self.tokens <= self.max_tokens:
            raise ValueError(f"tokens must be from 0 to max_tokens ({self.max_tokens}), got {self.tokens}")

    def deposit(self, now: float) -> RetryBudget:
        """Return the budget after a first attempt at `now`."""
        return self._at(now, gained=self.ratio)

    def withdraw(self, now: float) -> RetryBudget | None:
        """Return the budget after a retry at `now`, or None where it does not allow one.

        >>> budget = RetryBudget(tokens=1.0, min_per_second=0.0).withdraw(now=0.0)
        >>> budget.tokens, budget.withdraw(now=0.0)
        (0.0, None)
        """
        refreshed = self._at(now, gained=0.0)
        # Ten deposits of 0.1 add up to a hair less than 1.
        if refreshed.tokens < 1 - 1e-9:
            return None
        return msgspec.structs.replace(refreshed, tokens=max(0.0, refreshed.tokens - 1))

    def wait(self, now: float) -> float:
        """Return the seconds from `now` until time alone allows a retry; infinity where it never does.

        >>> RetryBudget(tokens=0.5, min_per_second=2.0).wait(now=0.0)
        0.25
        """
        missing = max(0.0, 1 - self._at(now, gained=0.0).tokens)
        return missing / self.min_per_second if self.min_per_second else math.inf

    def _at(self, now: float, *, gained: float) -> RetryBudget:
        passed = 0.0 if self.updated is None else max(0.0, now - self.updated)
        tokens = min(self.max_tokens, self.tokens + gained + passed * self.min_per_second)
        updated = now if self.updated is None else max(now, self.updated)
        return msgspec.structs.replace(self, tokens=tokens, updated=updated)
