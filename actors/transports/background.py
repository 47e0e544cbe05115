"""Responses of the background: they go on though the connection is lost, and are fetched by their ids.

Source: OpenAI's guide to its background mode: `background: true` needs `store: true`, a response is "queued" or
"in_progress" until it has ended, and it is polled by `GET /responses/{id}`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec

from actors.errors.families import CallFailed
from actors.model_calls.answer import fields_of
from actors.model_calls.request import ModelRequest
from actors.transports.http_json import decode_json
from actors.transports.transport import MAX_HANDLE

if TYPE_CHECKING:
    from actors.transports.http_client import HttpClient
    from actors.transports.http_exchange import Exchange

UNENDED = frozenset({"queued", "in_progress"})
"""The states of a response that has not ended."""
GONE = 404
FIRST_LOOK = 0.5
"""Seconds until the first look at a response that has just begun."""
LOOK_GROWTH = 1.5
MAX_LOOK_INTERVAL = 5.0
"""Seconds between two looks at most, unless the provider asks for more."""
MIN_LOOK_INTERVAL = 0.1
"""Seconds between two looks at least, close to the deadline."""
LOOK_TIMEOUT = 10.0
"""Seconds that one look may take."""


def request_told_in(body: dict[str, Any]) -> ModelRequest:
    """Return as much of the request for a response of the background as that tells: the form of text that is wanted.

    >>> from actors.model_calls.bad_answers import wants_json
    >>> [wants_json(request_told_in({"text": {"format": {"type": type}}})) for type in ("text", "json_object")]
    [False, True]
    """
    told: dict[str, Any] = {"input": "", "background": True}
    if isinstance(text := body.get("text"), dict):
        told["text"] = text
    return ModelRequest(form="responses", body=told)


class EndedResponse(NamedTuple):
    """A response that has ended, and the exchange by which that was told."""

    body: dict[str, Any]
    exchange: Exchange


def is_of_background(request: ModelRequest) -> bool:
    """Tell whether a request asks that its response goes on in the background."""
    return request.form == "responses" and request.body.get("background") is True


def unended_id(body: dict[str, Any]) -> str | None:
    """Return the id of a response that has not ended, as the handle of its call; None if it has, or tells no such id.

    >>> unended_id({"id": "resp_7", "status": "queued"}), unended_id({"id": "resp_7", "status": "completed"})
    ('resp_7', None)
    """
    identity = body.get("id")
    is_handle = isinstance(identity, str) and 0 < len(identity) <= MAX_HANDLE
    return identity if is_handle and body.get("status") in UNENDED else None


def next_look(looks: int, *, now: float, deadline: float, retry_after: float | None) -> float | None:
    """Return when to look next after so many looks, in loop time; None if the deadline comes before.

    The pauses grow by half, from half a second to five, and close to the deadline they are half of the time left.

    >>> [next_look(looks, now=0.0, deadline=99.0, retry_after=None) for looks in (1, 2, 9)]
    [0.5, 0.75, 5.0]
    >>> next_look(9, now=90.0, deadline=94.0, retry_after=None), next_look(1, now=0.0, deadline=9.0, retry_after=9.0)
    (92.0, None)
    """
    grown = min(MAX_LOOK_INTERVAL, FIRST_LOOK * LOOK_GROWTH ** min(looks - 1, 100))
    pause = max(min(grown, max((deadline - now) / 2, MIN_LOOK_INTERVAL)), retry_after or 0.0)
    return now + pause if now + pause < deadline else None


async def until_ended(
    client: HttpClient, identity: str, *, deadline: float, begun: bool = False
) -> EndedResponse | None:
    """Look at a response until it has ended; None if it has not by the deadline, in loop time.

    Without `begun`, the first look is at once. A look that fails, because the provider is down or throttles, is made
    again. Raises a `CallFailed` for any other answer, such as one with status 404 if the response is gone.
    """
    loop = asyncio.get_running_loop()
    url = f"{client.url}/responses/{quote(identity, safe='')}"
    looks, retry_after = int(begun), None
    while True:
        if looks:
            look_at = next_look(looks, now=loop.time(), deadline=deadline, retry_after=retry_after)
            if look_at is None:
                await asyncio.sleep(max(deadline - loop.time(), 0.0))
                return None
            await asyncio.sleep(look_at - loop.time())
        looks += 1
        retry_after = None
        try:
            exchange = await client.get(url, within=max(MIN_LOOK_INTERVAL, min(LOOK_TIMEOUT, deadline - loop.time())))
            client.check_readable(exchange)
            body = fields_of(await decode_json(exchange.body, deadline=deadline), "the response")
        except CallFailed as failure:
            if not failure.retryable:
                raise
            retry_after = failure.retry_after
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass  # What is no response tells nothing of one.
        else:
            if body.get("status") not in UNENDED:
                return EndedResponse(body, exchange)
