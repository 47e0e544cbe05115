"""What a market file says at one moment: all that a door takes from it is of the same edit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from actors.command.bad_input import BadInput
from actors.market import MarketError
from actors.market.file import parse_market, read_document, read_text
from actors.market.tables import Places
from actors.serve.file import parse_door
from actors.serve.names import UnusableName, names_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.market.market import Market
    from actors.serve.config import DoorConfig
    from actors.serve.names import Names

T = TypeVar("T")


class MarketText:
    """The text of a market file, read once. It and its methods raise `BadInput` for what cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._text = _usable(lambda: read_text(path))

    def market(self) -> Market:
        """Return the market."""
        return _usable(lambda: parse_market(self._text, path=self._path, environ=os.environ))

    def door(self) -> DoorConfig:
        """Return the door's part."""
        return _usable(lambda: parse_door(self._text, path=self._path))

    def names(self, market: Market, config: DoorConfig) -> Names:
        """Return what clients may ask for, of the market and the aliases of this text."""
        try:
            return names_of(market, config.aliases)
        except UnusableName as error:
            offering = [name for name, one in enumerate(market.providers) if error.name in one.provider.services]
            key = f"aliases.{error.name}" if error.name in config.aliases else f"providers[{offering[0]}]"
            places = Places(self._text, read_document(self._text, self._path))
            raise BadInput(f"{self._path}: {places.shown(key)}: {error}") from error

    def __repr__(self) -> str:
        return f"<MarketText of {self._path}>"


def _usable(make: Callable[[], T]) -> T:
    try:
        return make()
    except MarketError as error:
        raise BadInput(str(error)) from error
