"""Limits of a fake model as token buckets, and the headers in which each dialect tells them. Pure: `now` is given.

Sources: the vendors' pages on rate limits. OpenAI's reset is the time until the limit is full again, as a Go duration;
Anthropic's is a date in RFC 3339; OpenRouter's is in milliseconds since 1970.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.fake.config import FakeLimits
    from actors.fake.dialects import FakeDialect

MINUTE, DAY = 60.0, 86_400.0


class FakeBucket:
    """One limit: `size` units that refill evenly within `period` seconds. What is told late may take it below 0."""

    __slots__ = ("_at", "_level", "name", "period", "size")

    def __init__(self, name: str, size: int, period: float) -> None:
        self.name = name
        self.size = size
        self.period = period
        self._level = float(size)
        self._at = 0.0

    def level(self, now: float) -> float:
        """Return the units that are left."""
        return min(float(self.size), self._level + (now - self._at) * self.size / self.period)

    def draw(self, units: float, now: float) -> None:
        """Take units, more than there are if need be."""
        self._level = self.level(now) - units
        self._at = now

    def wait_for(self, units: float, now: float) -> float:
        """Return the seconds until so many units are there."""
        return max(0.0, units - self.level(now)) * self.period / self.size

    def until_full(self, now: float) -> float:
        """Return the seconds until the limit is full again."""
        return self.wait_for(self.size, now)

    def remaining(self, now: float) -> int:
        """Return the whole units that are left, never below 0."""
        return max(0, math.floor(self.level(now) + 1e-9))


class LimitRefusal(Exception):
    """A call beyond a limit: which one, and the seconds until it fits; None if it never will."""

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


WORDS = {
    "requests": "requests per min (RPM)",
    "requests_per_day": "requests per day (RPD)",
    "tokens": "tokens per min (TPM)",
    "input_tokens": "input tokens per minute",
    "output_tokens": "output tokens per minute",
}


class FakeThrottleState:
    """The limits of one key at one model, and the calls it has under way."""

    def __init__(self, model: str, limits: FakeLimits) -> None:
        sizes = {name: getattr(limits, name) for name in WORDS}
        self._model = model
        self._concurrent = limits.concurrent
        self.under_way = 0
        self.buckets = {
            name: FakeBucket(name, size, DAY if name == "requests_per_day" else MINUTE)
            for name, size in sizes.items()
            if size is not None
        }

    def admit(self, input_tokens: int, now: float) -> None:
        """Draw a request and its input. Raises `LimitRefusal`, and draws nothing, if a limit does not bear it."""
        if self._concurrent is not None and self.under_way >= self._concurrent:
            raise LimitRefusal(f"Too many concurrent requests for {self._model}: {self.under_way}.", retry_after=1.0)
        needs = {"requests": 1, "requests_per_day": 1, "tokens": input_tokens, "input_tokens": input_tokens}
        for name, bucket in self.buckets.items():
            need = needs.get(name, 1)
            if need > bucket.size:
                raise LimitRefusal(
                    f"Request too large for {self._model} on {WORDS[name]}: Limit {bucket.size}, Requested {need}. "
                    "The input or output tokens must be reduced in order to run successfully.",
                    retry_after=None,
                )
            wait = bucket.wait_for(need, now)
            if wait > 0:
                raise LimitRefusal(
                    f"Rate limit reached for {self._model} on {WORDS[name]}: Limit {bucket.size}, Used "
                    f"{bucket.size - bucket.remaining(now)}, Requested {need}. Please try again in {go_time(wait)}.",
                    retry_after=wait,
                )
        for name, bucket in self.buckets.items():
            bucket.draw(needs.get(name, 0), now)

    def used(self, output_tokens: int, now: float) -> None:
        """Draw the output of a call that has ended."""
        for name in ("tokens", "output_tokens"):
            if name in self.buckets:
                self.buckets[name].draw(output_tokens, now)


def go_time(seconds: float) -> str:
    """Return seconds as OpenAI writes them, in the way of the language Go.

    >>> [go_time(seconds) for seconds in (0.0, 0.012, 7.66, 60.0, 179.56)]
    ['0s', '12ms', '7.66s', '1m0s', '2m59.56s']
    """
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".")
    return (f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else "") + f"{text}s"


class LimitsTold(NamedTuple):
    """What headers tell: limits at a time, given as seconds since the start and since 1970."""

    state: FakeThrottleState
    now: float
    wall: float
    refused: bool


Rows: TypeAlias = "Iterable[tuple[str, str | int]]"


def limit_headers(
    dialect: FakeDialect, state: FakeThrottleState, *, now: float, wall: float, refused: bool = False
) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell the limits; `wall` is the time in seconds since 1970."""
    if not state.buckets or dialect.limit_headers == "none":
        return []
    rows = {
        "openai": _openai,
        "azure": _azure,
        "groq": _groq,
        "mistral": _mistral,
        "together": _together,
        "anthropic": _anthropic,
        "openrouter": _openrouter,
    }[dialect.limit_headers](LimitsTold(state, now, wall, refused))
    return [(name.encode(), str(value).encode()) for name, value in rows]


def _openai(told: LimitsTold) -> Rows:
    for name in ("requests", "tokens"):
        if bucket := told.state.buckets.get(name):
            yield f"x-ratelimit-limit-{name}", bucket.size
            yield f"x-ratelimit-remaining-{name}", bucket.remaining(told.now)
            yield f"x-ratelimit-reset-{name}", go_time(bucket.until_full(told.now))


def _azure(told: LimitsTold) -> Rows:
    for name in ("requests", "tokens"):
        if bucket := told.state.buckets.get(name):
            yield f"x-ratelimit-limit-{name}", bucket.size
            yield f"x-ratelimit-remaining-{name}", bucket.remaining(told.now)
            if told.refused:
                yield f"x-ratelimit-reset-{name}", math.ceil(bucket.until_full(told.now))


def _groq(told: LimitsTold) -> Rows:
    """Requests are per day, and tokens per minute."""
    for name, own in (("requests", "requests_per_day"), ("tokens", "tokens")):
        if bucket := told.state.buckets.get(own):
            yield f"x-ratelimit-limit-{name}", bucket.size
            yield f"x-ratelimit-remaining-{name}", bucket.remaining(told.now)
            yield f"x-ratelimit-reset-{name}", go_time(bucket.until_full(told.now))


def _mistral(told: LimitsTold) -> Rows:
    for name, own in (("req", "requests"), ("tokens", "tokens")):
        if bucket := told.state.buckets.get(own):
            yield f"x-ratelimit-limit-{name}-minute", bucket.size
            yield f"x-ratelimit-remaining-{name}-minute", bucket.remaining(told.now)


def _together(told: LimitsTold) -> Rows:
    for name, prefix in (("requests", "x-ratelimit"), ("tokens", "x-tokenlimit")):
        if bucket := told.state.buckets.get(name):
            yield f"{prefix}-limit", bucket.size
            yield f"{prefix}-remaining", bucket.remaining(told.now)
            yield f"{prefix}-reset", math.ceil(bucket.until_full(told.now))


def _anthropic(told: LimitsTold) -> Rows:
    for own in ("requests", "tokens", "input_tokens", "output_tokens"):
        if bucket := told.state.buckets.get(own):
            name = f"anthropic-ratelimit-{own.replace('_', '-')}"
            full = datetime.fromtimestamp(math.ceil(told.wall + bucket.until_full(told.now)), UTC)
            yield f"{name}-limit", bucket.size
            yield f"{name}-remaining", bucket.remaining(told.now)
            yield f"{name}-reset", full.strftime("%Y-%m-%dT%H:%M:%SZ")


def _openrouter(told: LimitsTold) -> Rows:
    """Told on errors alone."""
    bucket = told.state.buckets.get("requests") or told.state.buckets.get("requests_per_day")
    if told.refused and bucket is not None:
        yield "x-ratelimit-limit", bucket.size
        yield "x-ratelimit-remaining", bucket.remaining(told.now)
        yield "x-ratelimit-reset", math.ceil((told.wall + bucket.until_full(told.now)) * 1000)
