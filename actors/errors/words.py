"""The provider's own words: what the body of an error says, as text that is safe to show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from actors.errors.families import CallFailed, ConnectionFailed
from actors.masking import NO_SECRETS, Secrets, escaped, text_of

F = TypeVar("F", bound=CallFailed)
MAX_SAID = 500
"""Characters of a provider's words that are kept."""
MAX_MESSAGE = 1_000
"""Characters of an error's message that are kept if it quotes a text from outside."""
SCANNED = 16_384
"""Characters that are looked at: of a long text, no more is masked and escaped."""
MAX_DECODED = 262_144
"""Bytes or characters; a longer body is not decoded for its message. A refusal is read up to a quarter of that."""
MAX_DEPTH = 4
"""So many fields inside each other are followed to find a message."""
MESSAGE_FIELDS = (
    "message",
    "Message",
    "error",
    "errors",
    "detail",
    "details",
    "error_description",
    "description",
    "msg",
    "title",
    "reason",
)
"""The fields in which providers put what they say, the most telling first: `{"error": {"message": ...}}`, `{"detail":
[{"msg": ...}]}`, problem details (RFC 9457), AWS."""


def with_words(failure: F, source: object, *, secrets: Secrets = NO_SECRETS, at_most: int = MAX_SAID) -> F:
    """Give a failure the provider's own words, which are in `source` (see `own_words`), and return it.

    What else it says may be from outside too, such as the text of a client's error: that is masked and escaped as well.
    """
    failure.said = own_words(source, secrets=secrets, at_most=at_most)
    failure.args = (_shown(str(failure.args[0]), MAX_MESSAGE, secrets), *failure.args[1:])
    if isinstance(failure, ConnectionFailed):
        failure.reason = _shown(failure.reason, MAX_MESSAGE, secrets)
    return failure


def own_words(source: object, *, secrets: Secrets = NO_SECRETS, at_most: int = MAX_SAID) -> str:
    r"""Return what a provider said in the body of an error: its message if it has one, else the text of the body.

    `source` is the body as bytes or text, decoded JSON, or the error of a client that quotes it. It may be of any size
    and malformed in any way. The words have at most `at_most` characters and are one line; control characters are
    escapes, and each of `secrets` is "***".

    >>> own_words(b'{"error": {"code": 400, "message": "the context is\\n100 tokens"}}')
    'the context is\\n100 tokens'
    >>> own_words("<html>bad gateway</html>"), own_words(b"")
    ('<html>bad gateway</html>', '')
    """
    return _shown(_text_of(source), at_most, secrets)


def _shown(text: str, at_most: int, secrets: Secrets) -> str:
    """Return a text from outside as it may be shown."""
    shown = escaped(secrets.mask(text.strip(), at_most=SCANNED).strip()[: at_most + 1])
    return shown if len(shown) <= at_most else f"{shown[: at_most - 3]}..."


def _text_of(source: object) -> str:
    if issubclass(type(source), BaseException):  # Not `isinstance`, which an error may answer by raising.
        source = text_of(cast("BaseException", source))
    if isinstance(source, bytes | bytearray):
        source = source.decode(errors="replace")
    if isinstance(source, str):
        text = source.removeprefix("\ufeff")
        return _message_in(_decoded(text)) or text
    return _message_in(source) or ("" if source is None else written(source))


def _decoded(text: str) -> object:
    if len(text) > MAX_DECODED or not text.lstrip().startswith(("{", "[", '"')):
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):  # Of text with a lone surrogate, that is no DecodeError.
        return None


def _message_in(value: object, depth: int = MAX_DEPTH) -> str:
    """Return the first text under one of the fields that hold messages; "" if there is none."""
    if isinstance(value, str):
        return value.strip()
    if depth > 0 and isinstance(value, list | tuple):
        for one in cast("list[Any]", value)[:MAX_DEPTH]:
            if found := _message_in(one, depth - 1):
                return found
    if depth > 0 and isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        for name in MESSAGE_FIELDS:
            if found := _message_in(fields.get(name), depth - 1):
                return found
    return ""


def written(value: object) -> str:
    """Return a decoded value as JSON; "" if that is not possible, as of one that is nested too deep."""
    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except UnicodeEncodeError:
        return json.dumps(value, default=repr)  # Which escapes a lone surrogate.
    except (ValueError, TypeError, OverflowError, RecursionError):
        return ""
