"""The answer of a provider that an error of its client carries: status, headers and body, wherever they are kept.

Nothing is read from a connection here: a body counts only if the client has read it already.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec

from actors.errors.dialects import dialects
from actors.errors.error_tree import MAX_TEXT, attribute, quiet, sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATUS_NAMES = ("status_code", "status", "http_status", "code")
"""Where clients keep the status, as a number, an enum, a text, or a function that returns one of these."""
WORD_NAMES = ("status", "code", "type", "error_code")
"""Where clients keep the word for a status, such as "RESOURCE_EXHAUSTED"."""
BODY_NAMES = ("body", "details", "error")
"""Where clients keep the decoded body on their error."""
MAX_HEADERS = 200
MAX_BODY = 65_536
"""Characters or bytes of a body that are used."""


class CarriedAnswer(NamedTuple):
    """The answer that an error carries. `has_response` tells whether the client's response came with it.

    `status` may be below 300 if the error stood in a body that began as a success. `headers` have names in lower case;
    `body` is decoded if the client has decoded it, its text otherwise, and "" if there is none. `is_rpc` tells that the
    status stands for one of gRPC, whose client uses them for its own troubles as well.
    """

    status: int
    headers: Mapping[str, str]
    body: object
    has_response: bool
    host: str | None
    is_rpc: bool

    @property
    def text(self) -> str:
        """The body as text."""
        if isinstance(self.body, str):
            return self.body
        return msgspec.json.encode(self.body).decode()[:MAX_BODY]

    @property
    def error_body(self) -> object:
        """The body with its error under "error", as answers have it; some SDKs keep the error alone."""
        if not isinstance(self.body, Mapping) or "error" in cast("Mapping[object, object]", self.body):
            return cast("object", self.body)
        return {"error": cast("object", self.body)}


def answer_of(error: BaseException) -> CarriedAnswer | None:
    """Return the answer that an error carries; None if it has no status, nor a word that stands for one."""
    response = attribute(error, "response")
    status = _status_of(error, response)
    if status is None:
        return None
    return CarriedAnswer(
        status,
        _headers_of(error, response),
        _body_of(error, response),
        response is not None,
        _host_of(error, response),
        is_rpc=callable(attribute(error, "code")) or attribute(error, "grpc_status_code") is not None,
    )


def _status_of(error: BaseException, response: object) -> int | None:
    number = next((number for number in _numbers_of(error, response) if number >= 300), None)
    if number is not None:
        return number
    words = [_value(attribute(error, name)) for name in WORD_NAMES]
    words.append(_in(response, "Error", "Code"))
    statuses = (dialects().status_of(str.__getitem__(word, slice(0, 100))) for word in words if isinstance(word, str))
    found = next((status for status in statuses if status is not None), None)
    if found is None and next(_numbers_of(error, response), None) is not None:
        return 200  # A stream that began well; what its error means is in its body.
    return found


def _numbers_of(error: BaseException, response: object) -> Iterator[int]:
    for holder in (error, response):
        for name in STATUS_NAMES:
            number = _number_in(_value(attribute(holder, name)))
            if number is not None and (name != "code" or 300 <= number <= 599):
                yield number
    number = _number_in(_in(response, "ResponseMetadata", "HTTPStatusCode"))
    if number is not None:
        yield number


def _value(kept: object) -> object:
    """Return what is kept under a name: itself, the value of an enum, or what a function of no arguments returns."""
    if callable(kept) and not isinstance(kept, type):
        kept = sound(quiet(cast("Callable[[], object]", kept)))
        if inspect.iscoroutine(kept):
            kept.close()  # It would have to be awaited.
            return None
    if isinstance(kept, Enum):
        value = attribute(kept, "value")
        # The numbers of gRPC are none of HTTP's, but its names have a meaning.
        return value if isinstance(value, str) or _number_in(value) is not None else attribute(kept, "name")
    return kept


def _number_in(value: object) -> int | None:
    """Return a status that a value names.

    >>> _number_in(429), _number_in("429 Too Many Requests"), _number_in("1300"), _number_in(True)
    (429, 429, None, None)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = quiet(lambda: int.__int__(value))
        return number if isinstance(number, int) and 100 <= number <= 999 else None
    if isinstance(value, str):
        first = str.__getitem__(value, slice(0, 40)).strip().partition(" ")[0]
        if first.isascii() and first.isdigit() and len(first) == 3 and first[0] != "0":
            return int(first)
    return None


def _headers_of(error: BaseException, response: object) -> dict[str, str]:
    kept: tuple[Any, ...] = (
        attribute(response, "headers"),
        attribute(error, "headers"),
        attribute(error, "litellm_response_headers"),
        _in(response, "ResponseMetadata", "HTTPHeaders"),
    )
    for headers in kept:
        found = quiet(lambda headers=headers: dict(_text_pairs(list(headers.items())[:MAX_HEADERS])))
        if found:
            return cast("dict[str, str]", found)
    return {}


def _text_pairs(pairs: list[object]) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        if isinstance(pair, tuple) and len(cast("tuple[object, ...]", pair)) == 2:
            name, value = cast("tuple[object, object]", pair)
            if isinstance(name, str) and isinstance(value, str):
                yield str.lower(name), str.__getitem__(value, slice(0, MAX_TEXT))


def _body_of(error: BaseException, response: object) -> object:
    """Return the body as far as the client has read it, or what the error says if it has none."""
    bodies: list[Any] = [response, *_read_already(response), *(_plain(error, name) for name in BODY_NAMES)]
    for body in bodies:
        if isinstance(body, bytes | bytearray):
            return bytes(body[:MAX_BODY]).decode(errors="replace")
        if isinstance(body, str) and body:
            return str.__getitem__(body, slice(0, MAX_BODY))
        if isinstance(body, Mapping | list):
            decoded = _as_json(cast("object", body))
            if decoded:
                return decoded
    text = quiet(lambda: str(error))
    return str.__getitem__(text, slice(0, MAX_BODY)) if isinstance(text, str) else ""


def _as_json(value: object) -> object:
    """Return a value as its JSON is decoded, so that it holds nothing but plain values; None if that fails."""
    return quiet(lambda: msgspec.json.decode(msgspec.json.encode(value, enc_hook=repr)))


def _read_already(response: object) -> Iterator[object]:
    """Yield the body that a response holds; its properties are not asked, since they may read from the connection."""
    if response is not None:
        for name in ("_content", "_body", "text", "body", "content"):  # httpx and requests; aiohttp; others.
            yield _plain(response, name)


def _plain(holder: object, name: str) -> object:
    """Return an attribute that is a plain value; None if it is computed, or missing."""
    kept = sound(quiet(lambda: inspect.getattr_static(holder, name)))
    # A slot is read by its descriptor.
    return attribute(holder, name) if isinstance(kept, types.MemberDescriptorType) else kept


def _host_of(error: BaseException, response: object) -> str | None:
    """Return the host that was called, as the request of a client has it."""
    for request in (attribute(response, "request"), attribute(error, "request"), attribute(error, "request_info")):
        url = attribute(request, "url")
        host = attribute(url, "host")
        if isinstance(host, str) and host:
            return host
        if isinstance(url, str):
            found = quiet(lambda url=url: _hostname(url))
            if isinstance(found, str) and found:
                return found
    return None


def _hostname(url: str) -> str | None:
    return urlsplit(url).hostname


def _in(holder: object, *path: str) -> object:
    """Return what nested dicts hold, as the response of botocore is one."""
    found: Any = holder
    for name in path:
        found = sound(quiet(lambda found=found, name=name: found[name]))
    return found
