"""What requests have in common whose prompts begin alike, so that a provider may have that cached. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.model_calls.request import CONTENT_OF, ModelRequest, model_request

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTINGS = frozenset({"system", "developer"})
"""The roles of messages that stand before what is asked."""
DIGEST_BYTES = 16
KEY_FIELD = "prompt_cache_key"

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def prefix_digest(tenant: str, given: object) -> bytes | None:
    """Return what is the same for all requests of one tenant whose prompts begin alike; None if `given` is no prompt.

    That is the `prompt_cache_key` of the request if it has one, or else its system prompt, its tools and its first
    message. What they say is not kept.

    >>> first, again = ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}, {"role": "assistant"}])
    >>> prefix_digest("a", {"messages": first}) == prefix_digest("a", {"messages": again})
    True
    >>> prefix_digest("b", {"messages": first}) == prefix_digest("a", {"messages": first})
    False
    """
    if not isinstance(given, ModelRequest):
        if not isinstance(given, dict):
            return None
        try:
            given = model_request(cast("dict[str, Any]", given))
        except (TypeError, ValueError):
            return None
    if given.form == "embeddings":
        return None
    digest = blake2b(_encode(tenant), digest_size=DIGEST_BYTES)
    for part in _parts(given):
        digest.update(_encode(part))
    return digest.digest()


def _parts(request: ModelRequest) -> Iterable[Any]:
    body = request.body
    key = body.get(KEY_FIELD)
    if isinstance(key, str) and key:
        return (KEY_FIELD, key)
    system = body.get("instructions") if request.form == "responses" else body.get("system")
    return (request.form, system, body.get("tools"), *_first(body.get(CONTENT_OF[request.form])))


def _first(content: object) -> Iterable[Any]:
    """Yield the messages up to the first that is no setting."""
    if not isinstance(content, list | tuple):
        yield content
        return
    for message in cast("list[object]", content):
        yield message
        if not (isinstance(message, dict) and cast("dict[str, object]", message).get("role") in SETTINGS):
            return
