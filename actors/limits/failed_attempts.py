"""A brake on guesses of a secret: how many wrong ones each address may show."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from actors.limits.token_bucket import TokenBucket

ATTEMPTS = TokenBucket(rate=0.2, burst=10)
"""The wrong secrets that one address may show: ten at once, and then one in five seconds."""
MAX_ADDRESSES = 10_000
"""The addresses of which wrong secrets are counted; of more, the oldest are forgotten."""


def _client(address: str) -> str:
    """Return what one client shows itself as, also if it comes by IPv4 to a socket of IPv6.

    >>> _client("2001:db8::1") == _client("2001:db8::2"), _client("10.0.0.1"), _client("::ffff:10.0.0.1")
    (True, '10.0.0.1', '10.0.0.1')
    """
    try:
        shown = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(shown, ipaddress.IPv4Address):
        return address
    if shown.ipv4_mapped is not None:
        return str(shown.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(shown), 64), strict=False))


class FailedAttempts:
    """The wrong secrets that each address has shown lately.

    Of IPv6, the addresses of one network of 64 bits count as one: a single client may have all of them.

    >>> attempts = FailedAttempts()
    >>> [attempts.count("10.0.0.1", now=0.0) for _ in range(11)][-2:]
    [0.0, 5.0]
    >>> attempts.wait("10.0.0.1", now=2.0), attempts.wait("10.0.0.2", now=2.0)
    (3.0, 0.0)
    """

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait(self, address: str, *, now: float) -> float:
        """Return the seconds until an address may show another secret; 0.0 if it may now."""
        taken = self._buckets.get(_client(address), ATTEMPTS).take(now)
        return 0.0 if isinstance(taken, tuple) else taken

    def count(self, address: str, *, now: float) -> float:
        """Count a wrong secret; if that is one too many, return the seconds until its address may show another one."""
        address = _client(address)
        bucket = self._buckets.pop(address, ATTEMPTS)
        taken = bucket.take(now)
        if not isinstance(taken, tuple):
            self._buckets[address] = bucket
            return taken
        self._buckets[address] = taken[0]
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0
