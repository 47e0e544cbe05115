"""Recognises the retries that SDKs make by themselves, which name no key: they get the answer of the try before.

OpenAI's and Anthropic's SDKs count their tries in `x-stainless-retry-count`. A try that has the API key, path and body
of one with a lower count, whose client did not get its whole answer, is that request again. Pure.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COUNT_HEADER = "x-stainless-retry-count"
REMEMBERED_FOR = 900.0
"""Seconds for which a try is remembered whose client did not get its whole answer."""
MAX_TRIES = 10_000
"""The tries that are remembered at most; of more, the oldest are forgotten."""
DIGEST_BYTES = 16
MAX_DIGITS = 3


class Try(msgspec.Struct, frozen=True, array_like=True):
    """One try of a request: `same` tells requests apart, and `key` is the idempotency key of all its tries.

    `count` is how many tries were before it, and `at` when it began, in seconds since 1970.
    """

    same: str
    key: str
    count: int
    at: float


def retry_count(headers: Mapping[str, str]) -> int | None:
    """Return how many tries were before this one, by what its SDK says; None if it says nothing of use.

    >>> retry_count({"x-stainless-retry-count": "2"}), retry_count({}), retry_count({"x-stainless-retry-count": "-"})
    (2, None, None)
    """
    told = headers.get(COUNT_HEADER, "")
    return int(told) if told.isascii() and told.isdigit() and len(told) <= MAX_DIGITS else None


def same_request(asker: str, path: str, body: bytes) -> str:
    """Return what tells requests apart, without keeping what they say."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in (asker.encode("utf-8", "surrogatepass"), path.encode("utf-8", "surrogatepass"), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


class OpenTries:
    """The tries whose clients have not got their whole answers, the oldest first.

    >>> tries = OpenTries()
    >>> first = tries.begin("a", 0, now=0.0)
    >>> tries.begin("a", 1, now=1.0).key == first.key, tries.begin("a", 1, now=1.0).key == first.key
    (True, False)
    """

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, Try] = OrderedDict()
        self._keys: dict[str, list[str]] = {}
        """The keys of those that are the same request, the oldest first."""

    def begin(self, same: str, count: int, *, now: float) -> Try:
        """Return a try that begins: of a request that is remembered and was tried less often, or of a new one."""
        self._forget_old(now)
        before = [key for key in self._keys.get(same, ()) if self._by_key[key].count < count]
        key = before[-1] if before else f"door-{uuid.uuid4().hex}"
        self.end(key)
        begun = Try(same, key, count, now)
        self.remember(begun)
        return begun

    def remember(self, one: Try) -> None:
        """Remember a try, such as one from before a restart."""
        self._by_key[one.key] = one
        self._keys.setdefault(one.same, []).append(one.key)
        if len(self._by_key) > MAX_TRIES:
            self.end(next(iter(self._by_key)))

    def end(self, key: str) -> None:
        """Forget a try whose client got its whole answer."""
        one = self._by_key.pop(key, None)
        if one is not None:
            keys = self._keys[one.same]
            keys.remove(key)
            if not keys:
                del self._keys[one.same]

    def _forget_old(self, now: float) -> None:
        while self._by_key:
            oldest = next(iter(self._by_key.values()))
            if oldest.at > now - REMEMBERED_FOR:
                return
            self.end(oldest.key)

    def __iter__(self) -> Iterator[Try]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)
