"""A model at a provider in one breath: the listings for a market."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import Unpack

from actors.market.model_listing import ModelOptions, model_listing
from actors.model_calls.presets import COMPATIBLE

if TYPE_CHECKING:
    from actors.market.listing import Listing
    from actors.model_calls.presets import Preset


def openai(model: str, **options: Unpack[ModelOptions]) -> Listing:
    """Return the listing of a model at OpenAI; see `compatible` for the options.

    >>> openai("gpt-5-mini", api_key="sk-none").provider.name
    'openai/gpt-5-mini'
    """
    return model_listing(model, "openai", **options)


def anthropic(model: str, **options: Unpack[ModelOptions]) -> Listing:
    """Return the listing of a model at Anthropic; see `compatible` for the options.

    >>> sorted(anthropic("claude-sonnet-4-6", api_key="none").provider.services)
    ['chat', 'claude-sonnet-4-6']
    """
    return model_listing(model, "anthropic", **options)


def compatible(model: str, *, preset: str | Preset = COMPATIBLE, **options: Unpack[ModelOptions]) -> Listing:
    """Return the listing of a model that is reached as `preset` says, or whose `base_url` speaks as OpenAI's does.

    The key is `api_key`, or what the environment variable of the preset holds. Requests find the model by its own name
    and by `service`, which is "chat" if it is not stated. `price` is dollars for a call; without it and a `tariff`, the
    price list of the package counts. `max_output` bounds the tokens of an answer if the request does not. The other
    options are those of `Provider`, `ModelTransport` and `Listing`.

    Raises ValueError if the key is missing or there is no such preset, and TypeError for an unknown option.

    >>> compatible("llama-3.3-70b", preset="groq", api_key="gsk-none").provider.name
    'groq/llama-3.3-70b'
    >>> compatible("llama", base_url="http://127.0.0.1:8000/v1", name="alder").transport()
    ModelTransport(alder, llama, HttpClient(alder at http://127.0.0.1:8000/v1, unused), idempotent='no')
    """
    return model_listing(model, preset, **options)
