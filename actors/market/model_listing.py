"""Makes the listing of a model at a provider in one call, by the preset of that provider."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypedDict

from typing_extensions import Unpack

from actors.market.listing import CallLimits, Listing
from actors.market.short_form import ListingOptions, OfferOptions
from actors.model_calls.presets import COMPATIBLE, Preset, preset_named
from actors.providers.provider import Provider
from actors.spelling import unknown_name
from actors.tariffs.price_list import price_list
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from actors.model_calls.presets import OnCut
    from actors.money import Amount
    from actors.tariffs.price_list import ModelPrice
    from actors.transports.transport import Idempotent, Transport
    from actors.transports.wire import Wire

CHAT = "chat"
"""The service of every model that chats, if no other is stated."""
EMBEDS = "embed"
"""What the names of models for embeddings hold, as a rule."""
MODEL_TIMEOUT = 60.0
"""Seconds for one attempt, if a listing does not say: a long answer takes longer than calls of other kinds."""
MODEL_HELD_FOR = 86_400.0
"""Seconds after which a call counts as charged of which nothing was found out, if a listing does not say."""


class ReachOptions(TypedDict, total=False):
    """How a model is reached; see `ModelTransport`."""

    base_url: str
    api_key: str | None
    headers: Mapping[str, str]
    paid: bool
    idempotent: Idempotent
    charges_errors: bool | None
    max_output: int | None
    on_cut: OnCut | None
    on_cut_plain: OnCut | None
    secrets: Collection[str]
    wire: Wire | None


class ModelOptions(OfferOptions, ReachOptions, ListingOptions, total=False):
    """Every option of a model's listing; their meanings and defaults are those of the objects that it makes."""

    name: str
    service: str | Iterable[str]
    known_as: str
    price: Amount


class MakeModel:
    """Makes the transport to one model. Its `repr` shows no secret."""

    def __init__(self, name: str, model: str, preset: Preset, reached: dict[str, Any]) -> None:
        self._name, self._model, self._preset, self._reached = name, model, preset, reached

    def __repr__(self) -> str:
        return f"MakeModel({self._name}, {self._model})"

    def __call__(self) -> Transport:
        # Imported here, so that a market without models does not need aiohttp.
        from actors.transports.model_transport import ModelTransport  # noqa: PLC0415

        return ModelTransport(self._name, self._model, preset=self._preset, **self._reached)


def model_listing(model: str, preset: str | Preset = COMPATIBLE, **options: Unpack[ModelOptions]) -> Listing:
    """Return the listing of a `model` that is reached as `preset` says: a name, or a `Preset` of your own.

    Its services are the model's own name, so that a request can ask for this model, and "chat"; or else `service`. If
    others call the same model by another name, `known_as` is that name. A model for embeddings does not chat. The
    provider's `name` is by default that of the preset and the model. The key is `api_key`, or what the environment
    variable of the preset holds. Without a `price` or a `tariff`, it costs what the price list says that comes with the
    package, if that has it. The other options are those of `Provider`, `ModelTransport` and `Listing`.

    Raises ValueError if the key is missing, or there is no such preset, and TypeError for an unknown option.
    """
    chosen = preset_named(preset) if isinstance(preset, str) else preset
    _refuse_unknown(options)
    given: dict[str, Any] = dict(options)
    name = given.get("name") or (f"{preset}/{model}" if isinstance(preset, str) else model)
    known_as, embeds = given.get("known_as") or model, EMBEDS in model.lower()
    service = given.get("service", () if embeds else CHAT)
    services = {model, known_as, *({service} if isinstance(service, str) else service)}
    reached = {key: value for key, value in given.items() if key in ReachOptions.__annotations__}
    reached["api_key"] = key_of(name, chosen, given.get("api_key"))
    reached["max_connections"] = given.get("max_concurrency", CallLimits().max_concurrency)
    if not (reached.get("base_url") or chosen.base_url):
        raise ValueError(f'{name!r} needs its base_url, such as base_url="https://NAME.openai.azure.com/openai/v1"')
    if given.get("idempotent") == "key":
        logger_for(name).warning(
            "{!r} is declared to honour idempotency keys, which no provider of models is known to do: a call whose "
            "outcome is unknown is made again, and may be paid twice",
            name,
        )
    make = MakeModel(name, model, chosen, reached)
    make()  # It opens nothing until it is used; but a mistake is reported here, and not at the first call.
    found = listed_price(model, chosen)
    offered: dict[str, Any] = {"max_inputs": chosen.max_inputs}
    if found is not None and not embeds:  # For embeddings, the list has the window of one input.
        offered["window"] = found.window
    if embeds:
        offered["max_input_tokens"] = chosen.max_embedded_tokens
    offered |= {key: value for key, value in given.items() if key in OfferOptions.__annotations__}
    terms: dict[str, Any] = {"timeout": MODEL_TIMEOUT, "held_for": MODEL_HELD_FOR, "cache_window": chosen.cache_window}
    if found is not None and given.keys().isdisjoint({"price", "tariff"}):
        terms["tariff"] = found.tariff
    terms |= {key: value for key, value in given.items() if key in ListingOptions.__annotations__}
    return Listing(
        provider=Provider(name=name, services=services, price=given.get("price", 0), model=known_as, **offered),
        transport=make,
        **terms,
    )


def listed_price(model: str, preset: Preset) -> ModelPrice | None:
    """Return what a model costs at the provider of a preset, by the price list of the package; None if it is not in it.

    >>> listed_price("gpt-5-mini", preset_named("openai")).tariff.input
    '0.25'
    """
    if not preset.prices:
        return None
    try:
        return price_list().find(model, preset.prices)
    except LookupError:
        return None


def key_of(name: str, preset: Preset, given: str | None) -> str:
    """Return the key of a provider: what is given, or what its environment variable holds.

    Raises ValueError if the provider wants one and there is none, or if it could not be sent.
    """
    key = given if given is not None else os.environ.get(preset.variable, "") if preset.variable else ""
    if not key and preset.variable:
        raise ValueError(f"the key of {name!r} is missing: set {preset.variable}, or give api_key=")
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        # It may be a secret, so the message does not show it.
        raise ValueError(f"the key of {name!r} must be printable ASCII, without a space or a line break around it")
    return key


def _refuse_unknown(options: ModelOptions) -> None:
    for option in options:
        if option not in ModelOptions.__annotations__:
            raise TypeError(f"a model has {unknown_name('option', option, tuple(ModelOptions.__annotations__))}")
