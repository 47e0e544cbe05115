"""Recognises the retries that SDKs make by themselves, which name no key: they get the answer of the try before.

OpenAI's and Anthropic's SDKs count their tries in `x-stainless-retry-count`. A try that has the API key, path and body
of one with a lower count, whose client did not get its whole answer, is that request again: of several, one whose
client has left. A client that was told of a failure was answered, and what it tries after that is new. Pure.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

COUNT_HEADER = "x-stainless-retry-count"
REMEMBERED_FOR = 900.0
"""Seconds for which a try is remembered whose client did not get its whole answer."""
MAX_TRIES = 10_000
"""The tries that are remembered at most; of more, the oldest are forgotten."""
MAX_OBEYED = 60.0
MAX_BACKOFF = 8.0
"""Seconds that the SDKs of OpenAI and Anthropic wait before another try (`_calculate_retry_timeout` in their
`_base_client`): as long as they are told, up to the first; otherwise less than the second."""
LATE = 10.0
"""Seconds by which such a try may come later than its SDK has planned."""
DIGEST_BYTES = 16
MAX_DIGITS = 3
MAX_TOLD = 1_000
"""The requests at most of which it is remembered that they failed."""


class ToldFailure(msgspec.Struct, frozen=True):
    """A failure that a client was told of: after how many tries, and between which times it may try again."""

    count: int
    since: float
    until: float


class Try(msgspec.Struct, frozen=True, array_like=True):
    """One try of a request: `same` tells requests apart, and `key` is the idempotency key of all its tries.

    `count` is how many tries were before it, and `at` when it began, in seconds since 1970. The key is the `tenant`'s.
    """

    same: str
    key: str
    count: int
    at: float
    tenant: str | None = None


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
        self._staying: dict[str, Callable[[], bool]] = {}
        """Tells of those under way whether their clients are still there."""
        self._told: OrderedDict[str, list[ToldFailure]] = OrderedDict()
        """The failures that clients were told of, by what is the same request."""
        self.expired: list[Try] = []
        """Those that were forgotten without their clients having got their answers."""

    def begin(
        self,
        same: str,
        count: int,
        *,
        now: float,
        tenant: str | None = None,
        is_there: Callable[[], bool] | None = None,
    ) -> Try:
        """Return a try that begins: of a request that is remembered and was tried less often, or of a new one.

        `is_there` tells whether its own client still is, until it is `over`.
        """
        self._forget_old(now)
        key = self._key_before(same, count, now) or f"door-{uuid.uuid4().hex}"
        self.end(key)
        begun = Try(same, key, count, now, tenant)
        self.remember(begun)
        if is_there is not None:
            self._staying[key] = is_there
        return begun

    def _key_before(self, same: str, count: int, now: float) -> str | None:
        """Return the key of the request that is tried again; None if it is none, or one that failed.

        There are three cases: 1. the client of a try has left; 2. one was told of a failure, and this is when its SDK
        tries that again; 3. clients are still there, as far as is known here: what is between may keep a connection
        open. So what comes at another time than a told failure is tried again is never paid twice.
        """
        before = [key for key in self._keys.get(same, ()) if self._by_key[key].count < count]
        left = [key for key in before if key not in self._staying or not self._staying[key]()]
        if left or (before and self._was_told(same, count, now)):
            return left[-1] if left else None
        return before[-1] if before else None

    def _was_told(self, same: str, count: int, now: float) -> bool:
        """Tell whether a client was told of a failure, after which this try would be the next; only once for each."""
        told = self._told.get(same, [])
        found = next((one for one in told if one.count == count - 1 and one.since <= now <= one.until), None)
        if found is not None:
            told.remove(found)
        return found is not None

    def tell(self, one: Try, *, now: float, wait: float | None = None) -> None:
        """Note that the client of a try was told of a failure, and to `wait` before it tries again, if it was told."""
        self.end(one.key)
        told = self._told.pop(one.same, [])
        since, until = _tried_again(wait)
        failure = ToldFailure(one.count, now + since, now + until)
        self._told[one.same] = [*(other for other in told if other.until >= now), failure]
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)

    def over(self, one: Try) -> None:
        """Note that a try is under way no more, whether its client has its answer or not."""
        self._staying.pop(one.key, None)

    def remember(self, one: Try) -> None:
        """Remember a try, such as one from before a restart."""
        self._by_key[one.key] = one
        self._keys.setdefault(one.same, []).append(one.key)
        if len(self._by_key) > MAX_TRIES:
            self._expire(next(iter(self._by_key.values())))

    def end(self, key: str) -> None:
        """Forget a try whose client got its whole answer."""
        one = self._by_key.pop(key, None)
        self._staying.pop(key, None)
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
            self._expire(oldest)

    def _expire(self, one: Try) -> None:
        self.end(one.key)
        self.expired.append(one)

    def __iter__(self) -> Iterator[Try]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)


def _tried_again(wait: float | None) -> tuple[float, float]:
    """Return after how many seconds, at least and at most, an SDK tries again that was told to wait so long.

    >>> _tried_again(20.0), _tried_again(3_600.0), _tried_again(None)
    ((18.0, 30.0), (0.0, 18.0), (0.0, 18.0))
    """
    if wait is not None and wait <= MAX_OBEYED:
        return 0.9 * wait, wait + LATE  # A clock that was set meanwhile makes it early.
    return 0.0, MAX_BACKOFF + LATE
