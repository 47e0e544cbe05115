"""The interface of a wire: one HTTP request goes out, the chunks of its response come back as they arrive.

A wire moves bytes and reports how far it has come. It decides nothing: no retry, no redirect, no meaning of a status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from actors.masking import MASK, HidesSecrets, shown_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

WireStage = Literal["unknown", "waiting", "connecting", "sent"]
"""How far a request has come: the wire has not said; it waits for a connection; it gets one; its bytes may be sent."""


class WireRequest(HidesSecrets, msgspec.Struct, frozen=True):
    """One HTTP request. A body that is not empty is sent with its length; `headers` are sent as they are."""

    method: Literal["GET", "POST"]
    url: str
    headers: dict[str, str] = {}
    body: bytes = b""

    def shown_instead(self) -> dict[str, object]:
        return {
            "url": shown_url(self.url),
            "headers": dict.fromkeys(self.headers, MASK),
            "body": f"{len(self.body)} bytes",
        }


class WireProgress:
    """How far one request has come, as its wire reports it.

    A request of which nothing was reported counts as sent: what it cost is safer to ask than to forget.
    """

    __slots__ = ("_connects", "_sends", "max_concurrency", "stage")

    def __init__(self) -> None:
        self.stage: WireStage = "unknown"
        self.max_concurrency = 0
        """The bound for which the request waits, if it waits."""
        self._sends = self._connects = 0

    def __repr__(self) -> str:
        return f"WireProgress({self.stage}, wire_calls={self.wire_calls})"

    def waiting(self, max_concurrency: int) -> None:
        """Report that the request waits until fewer than `max_concurrency` requests are under way."""
        self.max_concurrency = max_concurrency
        self._reach("waiting")

    def connecting(self) -> None:
        """Report that the request gets a connection; each further report is a connect that is tried again."""
        self._connects += self.stage == "connecting"
        self._reach("connecting")

    def sending(self) -> None:
        """Report that the first byte of a request is about to be sent, once for each request that a wire sends."""
        self._sends += 1
        self.stage = "sent"

    @property
    def may_be_sent(self) -> bool:
        """Whether bytes of the request may have left."""
        return self.stage in {"sent", "unknown"}

    @property
    def wire_calls(self) -> int:
        """The number of requests sent, at least 1, and of connects that were tried again."""
        return max(1, self._sends) + self._connects

    def _reach(self, stage: WireStage) -> None:
        # What was sent once stays sent, even if the wire tries again.
        if self.stage != "sent":
            self.stage = stage


class WireResponse(Protocol):
    """A response whose head has arrived. It holds its connection until it is closed, so it must be closed."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers: names in lower case, the values of a repeated name joined by ", "."""
        ...

    def chunks(self, *, gap: float | None = None) -> AsyncIterator[bytes]:
        """Iterate over the body, in chunks that are not empty, as they arrive and as they were sent (not decompressed).

        Raises `ConnectionError` if the body breaks off, and `TimeoutError` if no chunk came for `gap` seconds.
        """
        ...

    def close(self) -> None:
        """Give the connection back if the body was read to its end; else close it, which the server sees at once.

        Safe to call twice.
        """
        ...


class Wire(Protocol):
    """Sends requests. Implement it for an HTTP client that this package does not know.

    If `send` and the chunks end soon after they are cancelled, a wire may say so by `ends_when_cancelled = True`.
    """

    async def send(self, request: WireRequest, progress: WireProgress) -> WireResponse:
        """Return the response as soon as its head has arrived; report to `progress` how far the request has come.

        Raises `OSError` (as `ConnectionError` and `TimeoutError` are) if there is no response. There is no limit of
        time: the caller cancels. After a cancellation, no connection counts as busy.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; requests under way fail. Safe to call twice."""
        ...
