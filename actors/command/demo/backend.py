"""The decisions of a demo provider: which calls it throttles, fails and serves, and its charges. No socket or clock."""

from __future__ import annotations

import math
import random
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from actors.money import to_micros

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES: dict[str, Callable[[str], Any]] = {
    "uppercase": str.upper,
    "word-count": lambda text: len(text.split()),
}


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a demo provider behaves; durations in seconds."""

    name: str = "demo"
    price: str = "0"  # US dollars, charged once per idempotency key.
    failure_rate: float = 0.0
    unclear_rate: float = 0.5  # The share of failures that are a 500, of unknown effect; the others are a 503.
    latency: tuple[float, float] = (0.0, 0.0)  # The shortest and the longest.
    brownout: tuple[float, float] | None = None  # Start, counted from the first call, and length.
    rate_limit: float | None = None  # Requests a second.
    burst: int | None = None  # Requests at once; by default those of one second.
    seed: int = 0
    max_remembered: int = 10_000  # Answers kept for repeated idempotency keys.

    def __post_init__(self) -> None:
        """Refuse values that no provider can have."""
        to_micros(self.price)  # Raises ValueError for a text that is not a price.
        if not 0 <= self.failure_rate <= 1:
            raise ValueError(f"failure rate must be from 0 to 1, got {self.failure_rate}")
        if not 0 <= self.unclear_rate <= 1:
            raise ValueError(f"unclear rate must be from 0 to 1, got {self.unclear_rate}")
        if not 0 <= self.latency[0] <= self.latency[1]:
            raise ValueError(f"latency must be LOW-HIGH with 0 <= LOW <= HIGH, got {self.latency}")
        if self.brownout is not None and min(self.brownout) < 0:
            raise ValueError(f"brown-out must be START:LENGTH, both >= 0, got {self.brownout}")
        if self.rate_limit is not None and self.rate_limit <= 0:
            raise ValueError(f"rate limit must be > 0 requests a second, got {self.rate_limit}")
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"burst must be >= 1 request, got {self.burst}")
        if self.max_remembered < 1:
            raise ValueError(f"max remembered must be >= 1 answer, got {self.max_remembered}")


class Stats(msgspec.Struct):
    """The calls and charges of a provider since it started."""

    calls: int = 0
    answered: int = 0
    failures: int = 0
    throttled: int = 0
    refused: int = 0  # Mistakes of the caller.
    replayed: int = 0  # Remembered answers that were given again, at no charge.
    charged_micros: int = 0
    distinct_keys: int = 0  # The distinct idempotency keys of all calls; `calls - distinct_keys` calls repeated one.
    paid_twice: int = 0  # Charges for a request id that was charged before: money that the caller lost.


class TextInput(msgspec.Struct, frozen=True):
    """An input object; members other than `text` are ignored."""

    text: str


class DemoCall(msgspec.Struct, frozen=True):
    """The body of a call."""

    service: str
    input: str | TextInput

    @property
    def text(self) -> str:
        """The text of the input."""
        return self.input if isinstance(self.input, str) else self.input.text


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A status and a JSON body, to be sent after `delay` seconds."""

    status: int
    body: Any
    delay: float = 0.0
    retry_after: int | None = None


def refusal(status: int, message: str, *, delay: float = 0.0, retry_after: int | None = None) -> Reply:
    """Return an error reply with a message."""
    body = {"error": {"code": status, "message": message}}
    return Reply(status=status, body=body, delay=delay, retry_after=retry_after)


class RecentNames:
    """The last `max_size` names, by which a repeated name is recognised."""

    def __init__(self, max_size: int) -> None:
        self._names: OrderedDict[str, None] = OrderedDict()
        self._max_size = max_size

    def add(self, name: str) -> bool:
        """Add a name, and return whether it is new; an empty name never is."""
        if not name or name in self._names:
            return False
        self._names[name] = None
        if len(self._names) > self._max_size:
            self._names.popitem(last=False)
        return True


class DemoProvider:
    """The memory and the decisions of one provider, under one lock."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.stats = Stats()
        self._lock = threading.Lock()
        self._random = random.Random(settings.seed)
        self._first_request: float | None = None
        self._next_slot = -math.inf
        self._answers: OrderedDict[str, tuple[DemoCall, Reply]] = OrderedDict()
        # They are kept longer than the answers, so that a double payment shows after its answer is forgotten.
        self._keys = RecentNames(100 * settings.max_remembered)
        self._charged = RecentNames(100 * settings.max_remembered)

    def answer(self, work: DemoCall, *, key: str, request_id: str, now: float) -> Reply:
        """Return the reply to a call: throttled, browned out, repeated, failed, or served and charged."""
        with self._lock:
            self.stats.calls += 1
            self.stats.distinct_keys += self._keys.add(key)
            if self._first_request is None:
                self._first_request = now
            delay = self._random.uniform(*self.settings.latency)
            wait = self._throttle(now)
            if wait > 0:
                self.stats.throttled += 1
                return refusal(429, "too many requests", retry_after=max(1, math.ceil(wait)))
            if self._in_brownout(now):
                self.stats.failures += 1
                return refusal(503, "brown-out", delay=min(1.0, 5 * delay))
            if work.service not in SERVICES:
                self.stats.refused += 1
                return refusal(404, f"no service {work.service!r}; there are {', '.join(SERVICES)}")
            if key in self._answers:
                return self._replay(work, key)
            if self._random.random() < self.settings.failure_rate:
                self.stats.failures += 1
                status = 500 if self._random.random() < self.settings.unclear_rate else 503
                return refusal(status, "failed on purpose", delay=delay)
            return self._serve(work, key=key, request_id=request_id, delay=delay)

    def health(self, *, now: float) -> Reply:
        """Return 200, or 503 during the brown-out."""
        with self._lock:
            if self._in_brownout(now):
                return refusal(503, "brown-out")
            return Reply(status=200, body={"name": self.settings.name, "status": "ok"})

    def counters(self) -> Reply:
        """Return the present counters."""
        with self._lock:
            return Reply(status=200, body=msgspec.structs.asdict(self.stats))

    def _in_brownout(self, now: float) -> bool:
        if self.settings.brownout is None or self._first_request is None:
            return False
        start, length = self.settings.brownout
        return start <= now - self._first_request < start + length

    def _throttle(self, now: float) -> float:
        """Take a permit and return 0, or return the seconds until there is one (GCRA, ITU-T I.371)."""
        rate = self.settings.rate_limit
        if rate is None:
            return 0.0
        burst = self.settings.burst or max(1, int(rate))
        slot = max(now, self._next_slot)
        wait = slot - (burst - 1) / rate - now
        if wait > 1e-9:  # Less is rounding.
            return wait
        self._next_slot = slot + 1 / rate
        return 0.0

    def _replay(self, work: DemoCall, key: str) -> Reply:
        remembered, reply = self._answers[key]
        if remembered != work:
            self.stats.refused += 1
            return refusal(422, "this idempotency key belongs to another input")
        self.stats.replayed += 1
        return reply

    def _serve(self, work: DemoCall, *, key: str, request_id: str, delay: float) -> Reply:
        reply = Reply(
            status=200,
            body={"output": SERVICES[work.service](work.text), "cost": self.settings.price},
            delay=delay,
        )
        self.stats.answered += 1
        self.stats.charged_micros += to_micros(self.settings.price)
        if key:
            self._answers[key] = (work, reply)
            if len(self._answers) > self.settings.max_remembered:
                self._answers.popitem(last=False)
        paid_for = request_id or key
        self.stats.paid_twice += bool(paid_for) and not self._charged.add(paid_for)
        return reply
