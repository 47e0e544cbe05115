"""What a fake server tells when it is asked: its models, the tokens of a prompt, and what a generation cost. Free."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from actors.fake.asked import RequestRefused
from actors.fake.caching import input_tokens
from actors.fake.message_requests import read_prompt
from actors.fake.wire import FakeReply, FakeRequest, json_reply

if TYPE_CHECKING:
    from actors.fake.books import BookedCall
    from actors.fake.config import FakeModel
    from actors.fake.provider import FakeProvider

CREATED = 1_735_689_600
"""When every fake model was made: the first second of 2025."""
CREATED_AT = "2025-01-01T00:00:00Z"


def models_list(provider: FakeProvider, request: FakeRequest) -> FakeReply:
    """Return the models, in Anthropic's form to its clients."""
    models = list(provider.models.values())
    if _is_anthropic(provider, request):
        rows = [_anthropic_model(model) for model in models]
        first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
        return json_reply(200, {"data": rows, "has_more": False, "first_id": first, "last_id": last})
    return json_reply(200, {"object": "list", "data": [_model(provider, model) for model in models]})


def model_told(provider: FakeProvider, request: FakeRequest, name: str) -> FakeReply:
    """Return one model."""
    model = provider.models.get(name)
    if model is None:
        return provider.not_found(f"The model '{name}' does not exist")
    if _is_anthropic(provider, request):
        return json_reply(200, _anthropic_model(model))
    return json_reply(200, _model(provider, model))


def _is_anthropic(provider: FakeProvider, request: FakeRequest) -> bool:
    return provider.config.dialect == "anthropic" or b"anthropic-version" in request.headers


def _anthropic_model(model: FakeModel) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": CREATED_AT,
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output,
    }


def _model(provider: FakeProvider, model: FakeModel) -> dict[str, Any]:
    told: dict[str, Any] = {"id": model.name, "object": "model", "created": CREATED, "owned_by": "fake"}
    if provider.dialect_of(model) == "openrouter":
        rates = {"prompt": model.price.input, "completion": model.price.output}
        told |= {
            "name": model.name,
            "context_length": model.context_window,
            "pricing": {name: f"{Decimal(text) / 1_000_000:f}" for name, text in rates.items()},
            "top_provider": {
                "context_length": model.context_window,
                "max_completion_tokens": model.max_output,
                "is_moderated": False,
            },
        }
    return told


def count_tokens(provider: FakeProvider, request: FakeRequest) -> FakeReply:
    """Return the input tokens of a message that is not sent. Raises `RequestRefused`."""
    asked = read_prompt(provider.body_of(request), strict=True)
    model = provider.model_of(asked)
    return json_reply(200, {"input_tokens": input_tokens(asked, model)})


def generation(provider: FakeProvider, request: FakeRequest, *, now: float) -> FakeReply:
    """Return what a generation cost, in OpenRouter's form, once it has ended for `cost_delay` seconds."""
    wanted = parse_qs(request.query).get("id", [""])[0]
    call = next((one for one in reversed(provider.books.lines) if one.id == wanted and not one.replayed), None)
    if call is None or call.ended is None or now < call.ended + provider.config.cost_delay:
        return json_reply(404, {"error": {"code": 404, "message": f"Generation {wanted} not found"}})
    return json_reply(200, {"data": _generation(call)})


def _generation(call: BookedCall) -> dict[str, Any]:
    usage = call.usage
    return {
        "id": call.id,
        "model": call.model,
        "provider_name": "Fake",
        "total_cost": float(call.charged),
        "usage": float(call.charged),
        "is_byok": False,
        "streamed": call.streamed,
        "cancelled": call.cancelled,
        "tokens_prompt": usage.all_input,
        "tokens_completion": usage.output,
        "native_tokens_prompt": usage.all_input,
        "native_tokens_completion": usage.output,
        "native_tokens_reasoning": usage.reasoning,
        "native_tokens_cached": usage.cache_read,
        "latency": None if call.ended is None else round((call.ended - call.began) * 1000),
    }


def response_told(provider: FakeProvider, identity: str, *, now: float) -> FakeReply:
    """Return a stored response as it is now."""
    stored = provider.stored.get(identity)
    if stored is None:
        return provider.not_found(f"Response with id '{identity}' not found.")
    return json_reply(200, stored.told(now))


def cancel_response(provider: FakeProvider, identity: str, *, now: float) -> FakeReply:
    """Cancel a response of the background, and return it. Raises `RequestRefused` for any other."""
    stored = provider.stored.get(identity)
    if stored is None:
        return provider.not_found(f"Response with id '{identity}' not found.")
    if not stored.made.asked.background:
        raise RequestRefused(400, "Cannot cancel a synchronous response.")
    provider.cancel_background(stored, now=now)
    return json_reply(200, stored.told(now))
