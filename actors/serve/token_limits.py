"""How many tokens a minute each tenant may use: reserved by an estimate, and corrected by what was used.

The tokens of a minute are counted in slices of a second, each of which counts until all of it is a minute old. So no 60
seconds have more than the limit, whenever they begin, as far as the estimates hold; what is used beyond an estimate
counts from then on.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from actors.serve.problems import Problem
from actors.tariffs.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from actors.serve.token_log import TokenLog
    from actors.tariffs.demand import Demand

Outputs: TypeAlias = "Sequence[Any] | None"
"""The answers that took tokens; None if that is not known."""
MINUTE = 60
UNKNOWN_OUTPUT = 1_000
"""The tokens of an answer that are reserved if the request does not bound them."""


class TokenWindow:
    """The tokens of the last minute, by the second in which they were reserved.

    >>> window = TokenWindow()
    >>> second = window.add(900, now=0.5)
    >>> window.wait(200, limit=1_000, now=10.0), window.wait(2_000, limit=1_000, now=10.0)
    (51.0, inf)
    >>> window.correct(second, -800)
    >>> window.wait(200, limit=1_000, now=10.0), window.used
    (0.0, 100)
    """

    def __init__(self) -> None:
        self._slices: deque[list[int]] = deque()
        self.used = 0

    def wait(self, tokens: int, *, limit: int, now: float) -> float:
        """Return the seconds until so many tokens may be reserved; 0.0 is now, infinity never."""
        self._forget(now)
        if tokens > limit:
            return math.inf
        excess = self.used + tokens - limit
        for second, count in self._slices:
            if excess <= 0:
                break
            excess -= count
            if excess <= 0:
                return second + MINUTE + 1 - now
        return 0.0

    def add(self, tokens: int, *, now: float) -> int:
        """Reserve tokens, and return the second to which they belong."""
        second = math.floor(now)
        if self._slices and self._slices[-1][0] >= second:
            second = self._slices[-1][0]
            self._slices[-1][1] += tokens
        else:
            self._slices.append([second, tokens])
        self.used += tokens
        return second

    def correct(self, second: int, tokens: int) -> None:
        """Count more tokens, or fewer if negative, to a second that still counts."""
        for one in self._slices:
            if one[0] == second:
                one[1] += tokens
                self.used += tokens

    def _forget(self, now: float) -> None:
        while self._slices and self._slices[0][0] + MINUTE + 1 <= now:
            self.used -= self._slices.popleft()[1]

    def __repr__(self) -> str:
        return f"<TokenWindow {self.used} tokens in {len(self._slices)} slices>"


class TokenShare:
    """What one request has reserved; `used` is what it took in the end, None if that is not known."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used: int | None = None

    def take(self, outputs: Outputs, dialect: str) -> None:
        """Note what answers say that they took; None is one that is not known."""
        self.used = None if outputs is None else used_by(outputs, dialect)


class TokenLimits:
    """The tokens that each tenant of a door has used lately, whichever of its keys was shown."""

    def __init__(self) -> None:
        self._windows: dict[str, TokenWindow] = {}
        self._log: TokenLog | None = None

    def remember(self, log: TokenLog, *, clock: float, now: float) -> None:
        """Keep them in a log from now on, and count what it has of the life before; `clock` is the time since 1970."""
        self._log = log
        for one in log.open(now=clock):
            # What is told to be of the future is of now: a clock that went back renews nothing.
            age = min(max(0.0, clock - one.at), MINUTE + 1.0)
            self._window(one.tenant).add(one.tokens, now=now - age)

    @contextmanager
    def reserved(self, tenant: str, limit: int, tokens: int, *, clock: float, now: float) -> Generator[TokenShare]:
        """Reserve tokens within the block, which may then say how many were used.

        Raises `Problem`, 429 with the true wait, if the tenant's limit leaves too few. A request that fails without
        having cost anything gives all of them back; one of which it is not known what it used keeps them.
        """
        window, share = self._window(tenant), TokenShare()
        if (wait := window.wait(tokens, limit=limit, now=now)) > 0:
            raise too_many(tenant, limit, tokens, wait=wait)
        second = window.add(tokens, now=now)
        self._write(tenant, clock, tokens)
        try:
            yield share
        except Problem as problem:
            if not problem.is_spent:
                share.used = 0
            raise
        finally:
            if share.used is not None and share.used != tokens:
                window.correct(second, share.used - tokens)
                self._write(tenant, clock, share.used - tokens)

    def _window(self, tenant: str) -> TokenWindow:
        window = self._windows.get(tenant)
        if window is None:
            window = self._windows[tenant] = TokenWindow()
        return window

    def _write(self, tenant: str, clock: float, tokens: int) -> None:
        if self._log is not None:
            self._log.write(tenant, clock, tokens)


def too_many(tenant: str, limit: int, tokens: int, *, wait: float) -> Problem:
    """Return the refusal of a request that would exceed its tenant's limit; a `wait` of infinity is for good."""
    message = f"{tenant!r} may use {limit} tokens a minute, and this request reserves {tokens}"
    if wait == math.inf:
        message += "; send less, or bound its answer by fewer tokens"
        return Problem(429, message, code="rate_limit_exceeded", should_retry=False)
    return Problem(429, f"{message}; come back in {wait:.1f} s", code="rate_limit_exceeded", retry_after=wait)


def reserved_for(demand: Demand | None) -> int:
    """Return the tokens to reserve for a request: its input by the estimate, and the most that its answer may have."""
    if demand is None:
        return UNKNOWN_OUTPUT
    output = UNKNOWN_OUTPUT * demand.answers if demand.output_bound is None else demand.output_bound
    return demand.input_estimate + output


def used_by(outputs: Sequence[Any], dialect: str) -> int | None:
    """Return the tokens that answers say they took; None if one does not say it.

    >>> used_by([{"usage": {"prompt_tokens": 10, "completion_tokens": 5}}], "chat"), used_by(["x"], "chat")
    (15, None)
    """
    total = 0
    for output in outputs:
        told = cast("dict[str, Any]", output).get("usage") if isinstance(output, dict) else None
        usage = read_usage(told, dialect)
        if usage is None:
            return None
        total += usage.all_input + usage.all_output
    return total
