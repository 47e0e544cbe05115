"""Which model a transport calls, and where: what is told of it to those who look at calls from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from actors.model_calls.presets import Preset

PORTS = {"http": 80, "https": 443}


class CalledModel(msgspec.Struct, frozen=True):
    """A model as its provider names it, the host that is called, and the one whose dialects are spoken there."""

    model: str
    host: str | None = None
    port: int | None = None
    speaks_as: str | None = None


def called_model(model: str, url: str, preset: Preset) -> CalledModel:
    """Return what is told of a model at a URL.

    >>> from actors.model_calls.presets import preset_named
    >>> called_model("gpt-5", "https://acme.example/openai/v1", preset_named("azure"))
    CalledModel(model='gpt-5', host='acme.example', port=443, speaks_as='openai.azure.com')
    """
    parts = urlsplit(url)
    return CalledModel(model, parts.hostname, parts.port or PORTS.get(parts.scheme), preset.host_at(url))
