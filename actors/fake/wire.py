"""What passes between the HTTP server and the decisions: a request, and a reply with its times and its breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from actors.fake.books import BookedCall
    from actors.fake.made import Events, Made
    from actors.fake.prices import FakeRates

Headers: TypeAlias = list[tuple[bytes, bytes]]
JSON = (b"content-type", b"application/json")


class FakeRequest(msgspec.Struct, frozen=True):
    """One HTTP request; the names of its headers are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes


class FakeReply(msgspec.Struct, kw_only=True):
    """One HTTP reply: a body or the events of a stream; times are seconds from the arrival of the request."""

    status: int
    headers: Headers
    body: bytes = b""
    events: Events | None = None
    call: BookedCall | None = None
    made: Made | None = None
    rates: FakeRates | None = None
    """What the call is charged by; None charges nothing."""
    latency: float = 0.0
    """Until the first token."""
    speed: float = 0.0
    """Tokens a second; 0 is no wait."""
    stall: float = 0.0
    """Silence before the first byte, beside the latency."""
    stalls_after: tuple[int, float] | None = None
    """The events of a stream after which it falls silent, and for how long."""
    cut_at: int | None = None
    """The bytes of the body after which the connection is closed; -1 closes it before the head."""
    ends_broken: bool = False
    """Whether the connection is closed at the end of the events, which an error ended."""
    settles_at: float | None = None
    """The time, in seconds since the start, at which a response of the background ends."""
    keep_alive: bytes = b""
    """What a stream sends while it waits for its first token."""

    def due(self, tokens: int) -> float:
        """Return the time at which so many tokens have come."""
        return self.latency + (max(0, tokens - 1) / self.speed if self.speed > 0 else 0.0)

    def tokens_by(self, seconds: float) -> int:
        """Return the tokens that have come by a time."""
        whole = 0 if self.made is None else self.made.usage.output
        if seconds < self.latency:
            return 0
        return min(whole, 1 + int((seconds - self.latency) * self.speed)) if self.speed > 0 else whole


def json_reply(status: int, value: Any, headers: Headers | None = None) -> FakeReply:
    """Return a reply with a JSON body."""
    return FakeReply(status=status, headers=[JSON, *(headers or [])], body=msgspec.json.encode(value))
