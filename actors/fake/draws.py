"""Numbers drawn from a seed, the content of a request and its try number, so that no order of arrival changes them."""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import TypeAlias

import msgspec

_STEPS = 2**53
_NORMAL = NormalDist()


class Draw(msgspec.Struct, frozen=True):
    """The draws of one try of one request: each purpose has its own, which no other purpose shifts."""

    seed: int
    content: bytes
    attempt: int

    def digest(self, purpose: str) -> bytes:
        """Return 16 bytes that depend on seed, content, try number and purpose alone."""
        told = b"%d\0%d\0%b\0" % (self.seed, self.attempt, purpose.encode())
        return blake2b(told + self.content, digest_size=16).digest()

    def share(self, purpose: str) -> float:
        """Return a number from 0 up to but without 1.

        >>> Draw(1, b"hello", 0).share("stray") == Draw(1, b"hello", 0).share("stray")
        True
        """
        return (int.from_bytes(self.digest(purpose)[:8], "big") >> 11) / _STEPS

    def below(self, purpose: str, count: int) -> int:
        """Return a whole number from 0 up to but without `count`."""
        return int.from_bytes(self.digest(purpose)[:8], "big") % count


def fingerprint(path: str, body: bytes) -> bytes:
    """Return what identifies the content of a request: equal requests have equal fingerprints."""
    return blake2b(path.encode() + b"\0" + body, digest_size=16).digest()


class Uniform(msgspec.Struct, frozen=True, tag_field="kind", tag="uniform", forbid_unknown_fields=True):
    """Every value from `low` to `high` is as likely."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """Return the value below which the given share of all values lies."""
        return self.low + (self.high - self.low) * share


class Exponential(msgspec.Struct, frozen=True, tag_field="kind", tag="exponential", forbid_unknown_fields=True):
    """Waits without memory, `mean` on average, at most `high`."""

    mean: float
    high: float = math.inf

    def at(self, share: float) -> float:
        """Return the value below which the given share of all values lies."""
        return min(self.high, -self.mean * math.log1p(-share))


class Lognormal(msgspec.Struct, frozen=True, tag_field="kind", tag="lognormal", forbid_unknown_fields=True):
    """Half of the values are below `median`; `sigma` says how far they spread. Latencies of servers look like this."""

    median: float
    sigma: float = 0.5
    high: float = math.inf

    def at(self, share: float) -> float:
        """Return the value below which the given share of all values lies."""
        return min(self.high, self.median * math.exp(self.sigma * _NORMAL.inv_cdf(max(share, 1e-9))))


Spread: TypeAlias = float | Uniform | Exponential | Lognormal
"""A number that is always the same, or a distribution: in a file `0.3` or `{kind = "lognormal", median = 0.3}`."""


def drawn(spread: Spread, draw: Draw, purpose: str) -> float:
    """Return the value of a spread that a draw decides; a spread that is one number needs no draw.

    >>> 1.0 <= drawn(Uniform(1.0, 3.0), Draw(1, b"", 0), "latency") < 3.0
    True
    """
    return spread if isinstance(spread, int | float) else spread.at(draw.share(purpose))
