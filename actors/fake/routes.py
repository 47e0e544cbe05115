"""Which path of a fake server means what: the model calls under the prefixes of all dialects, and its own endpoints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

import msgspec

from actors.fake.faults import FaultPlan
from actors.fake.lookups import (
    cancel_response,
    count_tokens,
    generation,
    model_told,
    models_list,
    response_told,
)
from actors.fake.wire import FakeReply, FakeRequest, json_reply

if TYPE_CHECKING:
    from actors.fake.asked import Form
    from actors.fake.provider import FakeProvider

PREFIX = re.compile(r"^(?:/openai/deployments/[^/]+|(?:/api|/openai|/v1beta/openai)?(?:/v1)?)(?=/)")
"""The beginnings of the paths of all dialects, such as Groq's `/openai/v1` and OpenRouter's `/api/v1`."""
CALLS: dict[str, Form] = {
    "/chat/completions": "chat",
    "/embeddings": "embeddings",
    "/responses": "responses",
    "/messages": "messages",
}


def route(provider: FakeProvider, request: FakeRequest, *, now: float) -> FakeReply:
    """Return the reply to any request."""
    provider.settle_background(now=now)
    path = request.path[len(match[0]) :] if (match := PREFIX.match(request.path)) else request.path
    if request.method == "POST" and path in CALLS:
        return provider.accept(request, CALLS[path], now=now)
    found = _looked_up(provider, request, path, now=now)
    if found is not None:
        return found
    own = _own(provider, request, now=now)
    if own is not None:
        return own
    message = f"Invalid URL ({request.method} {request.path})"
    return json_reply(
        404, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "unknown_url"}}
    )


def _looked_up(provider: FakeProvider, request: FakeRequest, path: str, *, now: float) -> FakeReply | None:
    """Return the reply of the endpoints that tell something and charge nothing."""
    match request.method, path.strip("/").split("/"):
        case "GET", ["models"]:
            return provider.answered(request, form=None, now=now, tell=lambda: models_list(provider, request))
        case "GET", ["models", *words]:
            name = unquote("/".join(words))
            return provider.answered(
                request, form=None, now=now, model=name, tell=lambda: model_told(provider, request, name)
            )
        case "POST", ["messages", "count_tokens"]:
            return provider.answered(request, form="messages", now=now, tell=lambda: count_tokens(provider, request))
        case "GET", ["responses", name]:
            return provider.answered(request, form=None, now=now, tell=lambda: response_told(provider, name, now=now))
        case "POST", ["responses", name, "cancel"]:
            return provider.answered(request, form=None, now=now, tell=lambda: cancel_response(provider, name, now=now))
        case "GET", ["generation"]:
            return provider.answered(request, form=None, now=now, tell=lambda: generation(provider, request, now=now))
        case _:
            return None


def _own(provider: FakeProvider, request: FakeRequest, *, now: float) -> FakeReply | None:
    """Return the reply of the endpoints that no real provider has."""
    match request.method, request.path:
        case "GET", "/books":
            since = parse_qs(request.query).get("since", ["0"])[0]
            return json_reply(200, provider.books.told(since=int(since) if since.isdigit() else 0))
        case "GET", "/health":
            return json_reply(200, {"status": "ok"})
        case "GET", "/plan":
            return json_reply(200, provider.plan)
        case "POST", "/plan":
            try:
                plan = msgspec.json.decode(request.body, type=FaultPlan)
            except (msgspec.DecodeError, ValueError) as error:
                return json_reply(400, {"error": {"message": f"the plan was not taken: {error}"}})
            provider.set_plan(plan, now=now)
            return json_reply(200, plan)
        case _:
            return None
