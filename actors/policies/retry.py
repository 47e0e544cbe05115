"""Whether and when to repeat a failed call: exponential backoff with jitter, within a timeout and a retry budget."""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, TypeVar, Unpack, get_args

import anyio
import msgspec

from actors.errors.exceptions import is_retryable_error
from actors.errors.families import CallFailed, Transient
from actors.policies.retry_budget import RetryBudget as RetryBudget
from actors.policies.retry_budget import SharedRetryBudget as SharedRetryBudget
from actors.validation import SaysOptionNames, check_config, check_count, unknown_option
from runtime import current_deadline, earlier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.errors.families import CallOutcome, Charged

T = TypeVar("T")
Jitter: TypeAlias = Literal["full", "equal", "proportional", "decorrelated", "none"]
JITTERS: tuple[Jitter, ...] = get_args(Jitter)
GaveUp: TypeAlias = Literal["permanent", "max_retries", "timeout", "budget"]
"""Why a call was not retried: its error is not retryable, or the retries, the time or the retry budget are used up."""


class Retry(msgspec.Struct, frozen=True, kw_only=True, metaclass=SaysOptionNames):
    """How often a call is retried, and the waits between; durations are seconds.

    The wait before retry n grows as `base * 2 ** (n - 1)` up to `cap`. With jitter it is drawn at random:

    - "full" (the default): from 0 to that wait;
    - "equal": from half of that wait to all of it;
    - "proportional": from `proportion` below that wait to `proportion` above it. The growth ends at
      `cap / (1 + proportion)`: otherwise half of all late waits would be the cap itself, and end together;
    - "decorrelated": from `base` to three times the wait before, and at most to `cap`, for the same reason;
    - "none": no jitter.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    max_retries: int = 3
    base: float = 1.0
    cap: float = 30.0
    jitter: Jitter = "full"
    proportion: float = 0.3

    def __post_init__(self) -> None:
        check_count("max_retries", self.max_retries, least=0, unit="(0 never retries)")
        if not 0 <= self.base < math.inf:
            raise ValueError(f"base must be >= 0 seconds and finite, got {self.base}")
        if not self.base <= self.cap < math.inf:
            raise ValueError(f"cap must be finite and >= base ({self.base}) seconds, got {self.cap}")
        if self.jitter not in JITTERS:
            raise ValueError(f"jitter must be one of {', '.join(JITTERS)}, got {self.jitter!r}")
        if not 0 <= self.proportion <= 1:
            raise ValueError(f"proportion must be from 0 to 1, got {self.proportion}")

    def delay(
        self, attempt: int, *, random: float, retry_after: float | None = None, previous: float | None = None
    ) -> float:
        """Return the seconds to wait before retry number `attempt`, which counts from 1.

        `random` is a draw from [0, 1). `retry_after` is a floor that `cap` does not shorten. `previous` is the wait
        before the last retry, for decorrelated jitter; without it, the longest wait that was possible is assumed.

        >>> [Retry(jitter="none", cap=3.0).delay(attempt, random=0.0) for attempt in (1, 2, 3)]
        [1.0, 2.0, 3.0]
        >>> Retry().delay(1, random=0.5, retry_after=60.0)
        60.0
        >>> Retry(jitter="decorrelated").delay(5, random=0.5, previous=2.0)
        3.5
        """
        if attempt < 1:
            raise ValueError(f"attempt counts retries from 1, got {attempt}")
        # 2.0 ** 1024 overflows; every base has reached its cap long before that.
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
            case "decorrelated":
                before = self.base * 3.0 ** min(attempt - 1, 600) if previous is None else previous
                wait = self.base + random * (max(self.base, min(self.cap, 3 * before)) - self.base)
            case "none":
                wait = ceiling
        return max(min(wait, self.cap), retry_after or 0.0)


class ResultRejected(Transient):
    """A call succeeded, but its `result` was rejected each time; its price may have been paid."""

    outcome: CallOutcome = "done"
    charged: Charged = "held"

    def __init__(self, result: object) -> None:
        super().__init__("the call succeeded, but retry_on_result rejected its result; see the attribute result")
        self.result = result


class RetryStats(msgspec.Struct):
    """How many attempts and how much waiting one `with_retry` took; filled in while it runs, however it ends.

    `attempts` counts the calls begun, including the running one; `waited` is the seconds between them. `gave_up` is why
    an error was raised, None if none was raised or the caller was cancelled.
    """

    attempts: int = 0
    waited: float = 0.0
    gave_up: GaveUp | None = None


class RetryOptions(TypedDict, total=False):
    """The fields of a `Retry`, as keyword arguments."""

    max_retries: int
    base: float
    cap: float
    jitter: Jitter
    proportion: float


DEFAULT_RETRY = Retry()
NO_TIME_LIMIT = nullcontext()


async def with_retry(
    call: Callable[[], Awaitable[T]],
    *,
    policy: Retry = DEFAULT_RETRY,
    is_retryable: Callable[[Exception], bool] = is_retryable_error,
    retry_on_result: Callable[[T], bool] | None = None,
    budget: SharedRetryBudget | None = None,
    stats: RetryStats | None = None,
    rng: random.Random | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - the budget of all attempts together, not of one await.
    on_retry: Callable[[int, Exception, float], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    clock: Callable[[], float] = anyio.current_time,
    **options: Unpack[RetryOptions],
) -> T:
    """Return what `call` returns, after as many retries as `policy` allows; else raise its last error, as it is.

    The fields of `Retry` may be given one by one, such as `max_retries=3`, in place of those of `policy`.
    An error is raised at once if it is not retryable, if its wait or its `retry_after` is longer than what is left of
    `timeout` seconds or of the deadline of the request being served, or if `budget` has no retry left. An attempt that
    still runs at the end of the timeout is cancelled, and TimeoutError is raised, with the last error as its cause.
    Cancellation passes straight through. If `retry_on_result` returns True for a result, it is retried as an error is,
    and after the last retry raised in `ResultRejected`. `on_retry(attempt, error, wait)` is called before each wait.
    `stats` is filled in with the attempts made.
    """
    if not callable(call):
        raise TypeError(f"call must be a function that calls anew each time, such as lambda: ask(), got {call!r:.100}")
    check_config("policy", policy, Retry)
    if options:
        policy = _changed(policy, options)
    # Without a time limit, neither the clock nor a cancel scope is paid for.
    ends = earlier(math.inf if timeout is None else clock() + timeout, current_deadline.get())
    run = _RetryRun(policy, is_retryable, budget, stats or RetryStats(), rng, ends, clock)
    with NO_TIME_LIMIT if timeout is None else anyio.move_on_after(timeout):
        while True:
            run.begin()
            try:
                result = await call()
                if retry_on_result is None or not retry_on_result(result):
                    return result
                run.rejected = ResultRejected(result)
                raise run.rejected
            except Exception as error:
                failure = error
                wait = run.wait_after(error)
                if wait is None:
                    raise
            try:
                if on_retry is not None:
                    on_retry(run.attempt, failure, wait)
                await sleep(wait)
            except BaseException:
                run.take_back()
                raise
            run.stats.waited += wait
    run.stats.gave_up = "timeout"
    raise TimeoutError(f"no answer within {timeout:g} s, in attempt {run.attempt}") from run.failure


def _changed(policy: Retry, options: RetryOptions) -> Retry:
    for name in options:
        if name not in Retry.__struct_fields__:
            raise unknown_option("with_retry", name, Retry.__struct_fields__)
    return msgspec.structs.replace(policy, **options)


class _RetryRun(msgspec.Struct):
    """The state of one `with_retry`: the attempt it is in, how the last one failed, and whether there is another."""

    policy: Retry
    is_retryable: Callable[[Exception], bool]
    budget: SharedRetryBudget | None
    stats: RetryStats
    rng: random.Random | None
    ends: float
    clock: Callable[[], float]
    attempt: int = 0
    failure: Exception | None = None
    rejected: ResultRejected | None = None
    waited: float | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and not isinstance(self.budget, SharedRetryBudget):
            raise TypeError(
                f"budget must be a SharedRetryBudget, which calls to one target share, got {self.budget!r:.100}"
            )

    def begin(self) -> None:
        """Count an attempt that begins; the first one deposits in the budget."""
        if self.attempt == 0 and self.budget is not None:
            self.budget.deposit(self.clock())
        self.attempt += 1
        self.stats.attempts += 1
        self.stats.gave_up = None

    def wait_after(self, error: Exception) -> float | None:
        """Return the seconds to wait after an attempt failed with `error`, or None if that error is final."""
        self.failure = error
        self.stats.gave_up = self._reason_to_stop(error)
        if self.stats.gave_up is not None:
            return None
        self.rng = self.rng or random.Random()
        floor = error.retry_after if isinstance(error, CallFailed) else None
        wait = self.policy.delay(self.attempt, random=self.rng.random(), retry_after=floor, previous=self.waited)
        if self.ends != math.inf and self.clock() + wait >= self.ends:
            self.stats.gave_up = "timeout"
            return None
        if self.budget is not None and not self.budget.withdraw(self.clock()):
            self.stats.gave_up = "budget"
            return None
        self.waited = wait
        return wait

    def take_back(self) -> None:
        """Give back a retry that was withdrawn but is not made."""
        if self.budget is not None:
            self.budget.give_back()

    def _reason_to_stop(self, error: Exception) -> GaveUp | None:
        # A ResultRejected raised by the call itself, such as by a nested with_retry, is an error like any other.
        if error is not self.rejected and not self.is_retryable(error):
            return "permanent"
        return "max_retries" if self.attempt > self.policy.max_retries else None
