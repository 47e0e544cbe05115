"""Asks a provider what a call cost whose answer never came whole, by the name that the provider gave it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from actors.errors.families import Permanent, Transient
from actors.transports.http_json import decode_json
from actors.transports.reconciliation import Finding, Lost, NeverRan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.model_calls.presets import Preset
    from actors.transports.http_client import HttpClient
    from actors.transports.transport import ProviderCall

ASKED_AFTER = (5.0, 30.0, 300.0, 3_600.0)
"""Seconds after its end at which a call is asked about: providers tell the cost some seconds later, or never."""
MAX_REFERENCE = 200
"""Characters of the name of a call; a longer one is none."""
NO_BODY: dict[str, Any] = {}


class CostLookUp:
    """Looks up the cost of calls as a preset says; raises ValueError for one that does not say how.

    What a call cost is told in dollars; one that cost nothing was cancelled in time, or never ran.
    """

    def __init__(self, client: HttpClient, preset: Preset) -> None:
        if not (preset.cost_path and preset.cost_field):
            raise ValueError(
                'a call can be asked about only if its preset has cost_path and cost_field; say on_cut="runs_on"'
            )
        self._client, self._preset = client, preset

    def note(self, call: ProviderCall, headers: Mapping[str, str], body: Mapping[str, Any] = NO_BODY) -> None:
        """Note the name of a call, if the head of its answer, or what came of its body, has it."""
        for reference in (body.get(self._preset.cost_id), headers.get(self._preset.cost_header)):
            if isinstance(reference, str) and 0 < len(reference) <= MAX_REFERENCE:
                call.notes.reference = reference

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `LooksUp`.
        """Return what became of a call. Raises a `CallFailed` if that is not known, or not yet."""
        client, reference = self._client, call.notes.reference
        if reference is None:
            raise Permanent(f"{client.provider!r} gave the call no name by which it can be asked for")
        deadline = asyncio.get_running_loop().time() + timeout
        url = f"{client.url}{self._preset.cost_path}?id={quote(reference, safe='')}"
        exchange = await client.get(url, within=timeout)
        client.check_readable(exchange)
        try:
            cost = _field(await decode_json(exchange.body, deadline=deadline), self._preset.cost_field)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise client.malformed(str(error), exchange) from client.secrets.cause(error)
        if cost is None:
            raise Transient(f"{client.provider!r} does not tell yet what the call cost", provider=client.provider)
        if isinstance(cost, int | float) and not isinstance(cost, bool):
            cost = f"{Decimal(repr(cost)):f}"
        found = Lost(cost)
        return NeverRan() if found.cost == 0 else found


def _field(body: object, path: str) -> Any:
    """Return a field of fields, whose names are joined by dots; None if it is not there."""
    value: Any = body
    for name in path.split("."):
        value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    return value
