"""The providers of models that are known by name: how they are reached, what they speak, and what a cut call costs.

They are data (presets.toml), read at first use. A preset of your own is a `Preset` with other values.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import msgspec

from actors.model_calls.request import Form  # noqa: TC001 - msgspec evaluates it.
from actors.tariffs.cut_usage import TYPICAL_SPEED

OnCut: TypeAlias = Literal["stops", "runs_on", "ask"]
"""What becomes of a call that its caller cuts off: it stops; it runs on and is charged whole; or that can be asked."""
ON_CUT: tuple[OnCut, ...] = get_args(OnCut)
Auth: TypeAlias = Literal["bearer", "x-api-key", "api-key", "none"]
"""The header that has the key: `Authorization: Bearer`, or one of this name; or there is no key."""


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a provider of models is reached; see presets.toml for the meaning of each field.

    >>> preset_named("groq").base_url
    'https://api.groq.com/openai/v1'
    """

    base_url: str = ""
    variable: str = ""
    """The environment variable that has the key; "" if there is none."""
    auth: Auth = "bearer"
    headers: dict[str, str] = {}
    forms: tuple[Form, ...] = ("chat",)
    output_field: str = "max_tokens"
    include_usage: bool = True
    """Whether a stream must be asked for its usage."""
    request_id_header: str = ""
    host: str = ""
    on_cut: OnCut = "runs_on"
    on_cut_plain: OnCut = "runs_on"
    cost_path: str = ""
    cost_header: str = ""
    cost_id: str = ""
    cost_field: str = ""
    prices: str = ""
    max_inputs: int | None = None
    """The most inputs of one call for embeddings; None if that is not documented."""
    max_embedded_tokens: int | None = None
    """The most tokens of all inputs of such a call; None as above."""
    usage: str = "chat"
    """The dialect in which a chat completion tells its usage; see `DIALECTS` of tariffs."""
    token_speed: float = TYPICAL_SPEED
    """Tokens a second, by which a stream is settled that was cut off, until streams of the model have shown its own."""
    cache_window: float = 300.0
    """Seconds for which it keeps the beginning of a prompt cached after it was last used."""
    paid: bool = True
    charges_errors: bool = True
    seen_at: str = ""

    def host_at(self, base_url: str) -> str | None:
        """Return the host whose dialects are spoken at `base_url`: that of the preset, wherever it is reached."""
        return self.host or urlsplit(self.base_url).hostname or urlsplit(base_url).hostname


COMPATIBLE = Preset(forms=("chat", "embeddings"))
"""A provider of which only its base URL is known."""


def checked_on_cut(field: str, on_cut: OnCut) -> OnCut:
    """Return it; raises ValueError for anything else."""
    if on_cut not in ON_CUT:
        raise ValueError(f"{field} must be one of {', '.join(ON_CUT)}, got {on_cut!r:.100}")
    return on_cut


@cache
def presets() -> dict[str, Preset]:
    """Return all presets by name."""
    text = resources.files("actors.model_calls").joinpath("presets.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, Preset])


def preset_named(name: str) -> Preset:
    """Return a preset; raises ValueError if there is none of this name."""
    known = presets()
    if name not in known:
        raise ValueError(f"there is no preset {name!r:.100}; the presets are {', '.join(sorted(known))}")
    return known[name]
