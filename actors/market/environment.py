"""Expands `${NAME}` in headers, keys, secrets and URLs of a market file, so that no secret stands in the file. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from actors.market.tables import MarketError, Places, Table
from actors.market.webhook import WEBHOOK_EXPANDED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")
"""The escape, which stands for the text itself; or a reference, whose group is None if it names nothing."""
TEXTS = ("url", "base_url", "health_path", "api_key")
"""The keys of a provider, beside its headers, whose values are expanded."""
SHOWN_MISSING = 20


class Expansion:
    """Expands what is read from one file at `path`. `values` are what was put in, which are secrets.

    Each text is expanded once: what stands in a variable is not looked at again.
    """

    def __init__(self, environ: Mapping[str, str], path: str, places: Places) -> None:
        self.values: set[str] = set()
        self._environ = environ
        self._path = path
        self._places = places
        self._missing: dict[str, str] = {}
        """The place of the first reference to each variable that is not set."""

    def document(self, document: Table) -> Table:
        """Return the document with its references expanded. Raises `MarketError`, which names all that are missing.

        What is of the wrong type stays as it is: it is reported when it is read.
        """
        changed: Table = {}
        for name, texts in (("providers", TEXTS), ("alerts", WEBHOOK_EXPANDED)):
            listed = document.get(name)
            if isinstance(listed, list):
                entries = enumerate(cast("list[Any]", listed))
                changed[name] = [self._entry(entry, f"{name}[{place}]", texts) for place, entry in entries]
        if self._missing:
            shown = [f"{name} in {self._places.shown(key)}" for name, key in self._missing.items()]
            more = f" and {len(shown) - SHOWN_MISSING} more" if len(shown) > SHOWN_MISSING else ""
            raise MarketError(
                self._path,
                "",
                f"these environment variables are not set, or are empty: {', '.join(shown[:SHOWN_MISSING])}{more}; "
                "set them, or write $${ for the text ${ itself",
            )
        return document | changed

    def _entry(self, entry: Any, key: str, texts: Sequence[str]) -> Any:
        if not isinstance(entry, dict):
            return entry
        table = cast("Table", entry)
        changed: Table = {name: self._expanded(table[name], f"{key}.{name}") for name in texts if name in table}
        if isinstance(table.get("headers"), dict):
            headers = cast("Table", table["headers"])
            changed["headers"] = {
                name: self._expanded(value, f"{key}.headers.{name}") for name, value in headers.items()
            }
        return table | changed

    def _expanded(self, text: Any, key: str) -> Any:
        if not isinstance(text, str):
            return text

        def put_in(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            name = found[1]
            if name is None:
                # What follows is not shown: it may be a secret that begins so.
                raise MarketError(
                    self._path,
                    key,
                    "a ${ begins no reference; write ${NAME}, or $${ for the text ${ itself",
                    where=self._places.where(key),
                )
            value = self._environ.get(name, "")
            if not value:
                self._missing.setdefault(name, key)
            # A URL that is shown has lost its line breaks (WHATWG URL).
            self.values |= {value, re.sub(r"[\r\n\t]", "", value)}
            return value

        return REFERENCE.sub(put_in, text)
