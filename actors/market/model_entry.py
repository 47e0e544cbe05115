"""A model as a market file lists it: a `[[providers]]` table with a `kind`, made into a listing by its preset."""

from __future__ import annotations

from collections.abc import Collection, Mapping  # noqa: TC003 - msgspec resolves the annotations below.
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.market.listing import CallTerms, Listing
from actors.market.model_listing import ReachOptions, listed_price, model_listing
from actors.market.short_form import ListingOptions, OfferOptions
from actors.masking import MASK, HidesSecrets, Secrets, shown_url
from actors.model_calls.presets import COMPATIBLE, OnCut, Preset, preset_named, presets
from actors.providers.provider import Provider
from actors.spelling import closest
from actors.transports.transport import Idempotent  # noqa: TC001 - as above.

if TYPE_CHECKING:
    from actors.market.tables import Table, TableReader
    from actors.money import Micros

FORM_OF_KIND = {"openai": "chat", "anthropic": "messages", "compatible": "chat"}
"""The form that a provider of each kind must speak."""
MARKS = frozenset({"kind", "model", "preset", "api_key"})
"""The keys by which a table is that of a model."""
LISTED = "listed"
"""The `tariff` of the price list that comes with the package."""


class ModelEntry(HidesSecrets, CallTerms, frozen=True, kw_only=True):
    """The keys of a model that say how it is reached; the other keys are those of `Provider`, as for any provider.

    `kind` says which protocol it speaks, and `preset` at which provider (by default that of the same name as the kind).
    `api_key` is by default what the environment variable of the preset holds. See `ModelTransport` for the others.
    """

    kind: Literal["openai", "anthropic", "compatible"]
    model: str
    preset: str | None = None
    known_as: str = ""
    base_url: str = ""
    api_key: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    paid: bool | None = None
    idempotent: Idempotent = "no"
    charges_errors: bool | None = None
    on_cut: OnCut | None = None
    on_cut_plain: OnCut | None = None

    def shown_instead(self) -> dict[str, object]:
        return {
            "base_url": shown_url(self.base_url),
            "api_key": None if self.api_key is None else MASK,
            "headers": dict.fromkeys(self.headers, MASK),
        }


MODEL_OFFER_KEYS = ("name", "services", "price", *(key for key in OfferOptions.__annotations__ if key != "address"))
MODEL_KEYS = (*MODEL_OFFER_KEYS, *ModelEntry.__struct_fields__, "budget")


def is_model(entry: Table) -> bool:
    """Tell whether a table is that of a model."""
    return not MARKS.isdisjoint(entry)


def model_entry_listing(
    reader: TableReader,
    entry: Table,
    key: str,
    *,
    money: Mapping[str, Micros],
    environ: Mapping[str, str],
    secrets: Collection[str],
) -> Listing:
    """Return the listing of the model in the table at `key`; `money` are its amounts, read already.

    Raises `MarketError`, also if its key is missing.
    """
    table = {name: value for name, value in entry.items() if name not in {"price", "budget"}}
    asks_list = isinstance(table.get("tariff"), str)
    if asks_list and table.pop("tariff") != LISTED:
        raise reader.error(f"{key}.tariff", f'expected a table of prices, or "{LISTED}" for those of the price list')
    reach = reader.convert(
        {name: table[name] for name in ModelEntry.__struct_fields__ if name in table}, key, ModelEntry
    )
    preset = _preset_of(reader, reach, key)
    offered = {name: table[name] for name in MODEL_OFFER_KEYS if name in table}
    offer = reader.convert({"name": reach.model, "services": [], **offered}, key, Provider)
    options: dict[str, Any] = {name: getattr(offer, name) for name in offered if name in OfferOptions.__annotations__}
    for kind in (ReachOptions, ListingOptions):
        options |= {
            name: getattr(reach, name) for name in table if name in kind.__annotations__ and hasattr(reach, name)
        }
    options |= {"name": offer.name} if "name" in offered else {}
    options |= {"service": offer.services} if offer.services else {}
    options |= {"known_as": reach.known_as} if reach.known_as else {}
    options |= {"api_key": _key_of(reader, reach, preset, key, environ), "secrets": secrets, **money}
    if asks_list:
        options["tariff"] = _listed_tariff(reader, reach, preset, key)
    try:
        return model_listing(reach.model, _preset_name(reach) or COMPATIBLE, **options)
    except ValueError as error:
        # An error may quote what was put in, and so would its traceback.
        hidden = Secrets([*secrets, *([options["api_key"]] if options["api_key"] else [])])
        raise reader.error(key, hidden.mask(str(error))) from None


def _preset_name(reach: ModelEntry) -> str | None:
    """Return the name of the preset of a model; None for a provider of which only its base URL is known."""
    return reach.preset if reach.preset is not None else None if reach.kind == "compatible" else reach.kind


def _preset_of(reader: TableReader, reach: ModelEntry, key: str) -> Preset:
    if not reach.model:
        raise reader.error(f"{key}.model", 'expected the name of a model, such as "gpt-5-mini", got ""')
    name = _preset_name(reach)
    if name is None:
        preset = COMPATIBLE
    elif name in presets():
        preset = preset_named(name)
    else:
        meant = closest(name, presets())
        hint = "" if meant is None else f"did you mean {meant!r}? "
        raise reader.error(
            f"{key}.preset", f"there is no preset {name!r:.100}; {hint}known are {', '.join(sorted(presets()))}"
        )
    form = FORM_OF_KIND[reach.kind]
    if form not in preset.forms:
        other = "anthropic" if form == "chat" else "compatible"
        raise reader.error(f"{key}.kind", f'{name!r} does not speak as {reach.kind!r} does; write kind = "{other}"')
    if not (reach.base_url or preset.base_url):
        raise reader.error(
            f"{key}.base_url",
            'this key is required, because it is not known from a preset; write such as "https://HOST/v1", or a preset',
        )
    return preset


def _key_of(reader: TableReader, reach: ModelEntry, preset: Preset, key: str, environ: Mapping[str, str]) -> str:
    """Return the key of a model: as the file says, or what the variable of its preset holds; "" if it needs none."""
    variable = preset.variable
    given = reach.api_key if reach.api_key is not None else environ.get(variable, "") if variable else ""
    if not given and variable:
        raise reader.error(
            f"{key}.api_key", f'the key is missing: set {variable}, or write api_key = "${{NAME}}" for another variable'
        )
    return given


def _listed_tariff(reader: TableReader, reach: ModelEntry, preset: Preset, key: str) -> Any:
    found = listed_price(reach.model, preset)
    if found is None:
        raise reader.error(
            f"{key}.tariff",
            f'{reach.model!r} is not in the price list; write its prices, such as {{ input = "0.25", output = "2" }}',
        )
    return found.tariff
