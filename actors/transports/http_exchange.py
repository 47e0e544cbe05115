"""The parts of an HTTP exchange that need no client: its response as far as it came, its URL and its header values."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from actors.errors.waits import retry_after_of
from actors.limits.headers import parse_limits
from actors.masking import shown_url
from actors.transports.http_json import BYTE_ORDER_MARK
from actors.transports.wire import WireProgress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from actors.limits.reported import ReportedLimit
    from actors.transports.wire import Wire, WireRequest

# Everything that a header value may hold, except "%", which marks the escaped characters.
HEADER_SAFE = "!#$&'()*+,/:;<=>?@[]^`{|}"

FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})

MAX_REFUSAL_BYTES = 65_536
"""As much of the body of a refusal is read; its meaning stands near its beginning."""
QUOTED_BYTES = 65_536


class BodyReader(Protocol):
    """Reads the body of a success while it comes."""

    first: float
    """The seconds in which the answer has to begin; `on_first` is called when it has."""
    gap: float
    """The longest time between two chunks, in seconds."""
    on_first: Callable[[], None] | None

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer has come, though the body may not have ended."""
        ...

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the body to its end, or as far as it is wanted. Raises `OSError` if it breaks off."""
        ...


class Exchange:
    """One request to a provider, at `host`, and as much of its response as has come."""

    def __init__(self, request: WireRequest, *, provider: str, host: str | None) -> None:
        self.request = request
        self.provider = provider
        self.host = host
        self.progress = WireProgress()
        self.status = 0
        """0 until the head of the response has come."""
        self.headers: Mapping[str, str] = {}
        self._body = bytearray()

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        return self.status != 0 and not self.succeeded

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    @property
    def size(self) -> int:
        return len(self._body)

    @property
    def text(self) -> str:
        return self.body.removeprefix(BYTE_ORDER_MARK).decode(errors="replace")

    @property
    def json(self) -> object:
        """The body, decoded; None if it is not JSON."""
        try:
            return msgspec.json.decode(self.text)
        except (msgspec.DecodeError, RecursionError):
            return None

    @property
    def beginning(self) -> str:
        """The beginning of the body, for an error message."""
        return self._body[:QUOTED_BYTES].decode(errors="replace")

    @property
    def encoding(self) -> str:
        """How the body is compressed; "identity" if it is not."""
        return self.headers.get("content-encoding", "identity").strip().lower() or "identity"

    @property
    def wire_calls(self) -> int:
        return self.progress.wire_calls

    @property
    def limits(self) -> tuple[ReportedLimit, ...]:
        """The limits that the headers report."""
        return parse_limits(self.headers, now=datetime.now(UTC), host=self.host, provider=self.provider)

    @property
    def retry_after(self) -> float | None:
        """The seconds that a failed answer asks to wait, by its headers or its body."""
        return retry_after_of(self.headers, self.text, now=datetime.now(UTC), host=self.host, status=self.status)

    async def run(self, wire: Wire, *, max_reply_bytes: int, reader: BodyReader | None = None) -> None:
        """Send, and read the body to its end, or until it is larger than allowed. Raises `OSError`.

        The body of a success goes to `reader` instead, if there is one, piece by piece, until it has seen the end. One
        that is compressed is not read: nothing of it could be understood.
        """
        response = await wire.send(self.request, self.progress)
        try:
            if response.status < 200:
                raise ConnectionError(f"the server answered {response.status}, which is no answer to a call")
            self.headers = response.headers
            self.status = response.status
            if reader is not None and self.succeeded:
                if self.encoding != "identity":
                    return
                await reader.read(response.chunks(gap=reader.gap))
                return
            most = max_reply_bytes if self.succeeded else min(max_reply_bytes, MAX_REFUSAL_BYTES)
            async for chunk in response.chunks():
                self._body += chunk
                if len(self._body) > most:
                    break
        except OSError:
            # A refusal whose body breaks off is still a refusal; a success needs its body.
            if not self.refused:
                raise
        finally:
            response.close()


def checked_url(url: str) -> str:
    """Return `url`; raises ValueError if it could never be called. What it holds of secrets is not in the error."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        # The error quotes what it does not understand, which may be a password.
        raise ValueError("url is not a URL: its host or its port cannot be read") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(f'url must begin with http:// or https:// and name a host, got "{shown_url(url)}"')
    if not url.isprintable() or " " in host:
        raise ValueError(f"url must be printable and its host without spaces, got {shown_url(url)!r}")
    return url


def joined_url(url: str, path: str) -> str:
    """Return `path` resolved against `url`, as a link would be; raises ValueError if that is no URL.

    >>> joined_url("http://host:8001/v1/work?key=1", "/health")
    'http://host:8001/health'
    """
    try:
        if path.isprintable():
            return checked_url(urljoin(url, path))
        why = "it is not printable"
    except (ValueError, TypeError, AttributeError) as error:
        why = str(error)
    shown = shown_url(path) if isinstance(path, str) else path
    raise ValueError(f"health_path {shown!r:.100} cannot be joined to {shown_url(url)}: {why}")


def without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return `url` without its user and password, and the header that says the same.

    >>> without_credentials("http://me:secret@host/")
    ('http://host/', {'Authorization': 'Basic bWU6c2VjcmV0'})
    """
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if not user:
        return url, {}
    name, _, password = user.partition(":")
    secret = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {secret}"}


def header_value(text: str) -> str:
    """Return `text` as a header value: characters that are not printable ASCII are percent-escaped, as in a URL.

    >>> header_value("order-7"), header_value("Bäcker 1%")
    ('order-7', 'B%C3%A4cker%201%25')
    """
    if text.isascii() and text.replace("-", "").isalnum():  # As most keys are.
        return text
    return quote(text, safe=HEADER_SAFE, errors="surrogatepass")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` as a dict; raises ValueError for a name or value that cannot be sent."""
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
            raise ValueError(f"{name!r} is not a header name; use letters, digits and !#$%&'*+-.^_`|~ only")
        if name.lower() in FRAMING:
            raise ValueError(f"header {name!r} says where a request ends, which the transport does; leave it out")
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            # The value may be a secret, so the message does not show it.
            raise ValueError(f"the value of header {name!r} must be printable ASCII without spaces around it")
    return dict(headers)


def merged_headers(*parts: Mapping[str, str]) -> dict[str, str]:
    """Return all headers; of those whose names differ at most in case, the last one.

    >>> merged_headers({"User-Agent": "understudy"}, {"user-agent": "mine"})
    {'user-agent': 'mine'}
    """
    merged = {name.lower(): (name, value) for part in parts for name, value in part.items()}
    return dict(merged.values())
