"""Converts the tables of a market file into Structs; every mistake becomes an error with the path of its key."""

from __future__ import annotations

import re
import typing
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

S = TypeVar("S", bound=msgspec.Struct)
Table = dict[str, Any]


class MarketError(ValueError):
    """A market file cannot be used: `path` is the file, `key` the place in it, `problem` what was expected there."""

    def __init__(self, path: str, key: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (path, key, problem) if part))
        self.path = path
        self.key = key
        self.problem = problem


class TableReader:
    """Reads tables of the file `path`; `key` is always the place of a table or value in the file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def table(self, value: Any, key: str, heading: str) -> Table:
        """Return `value` as a table, or raise; `heading` is how the table is written in TOML."""
        if not isinstance(value, dict):
            raise self.error(key, f"expected a table under {heading}, got {toml_type(value)}")
        return cast("Table", value)

    def refuse_unknown(self, table: Table, key: str, known: Sequence[str]) -> None:
        """Raise for the first key of `table` that is not among `known`."""
        for name in table:
            if name not in known:
                path = f"{key}.{name}" if key else name
                raise self.error(path, f"unknown key; known are {', '.join(sorted(known))}")

    def convert(self, table: Table, key: str, struct: type[S]) -> S:
        """Return `table` as a `struct`; types are not coerced."""
        try:
            return msgspec.convert(table, struct)
        except msgspec.ValidationError as error:
            path, problem = _explain(str(error), struct)
            raise self.error(f"{key}.{path}" if path else key, problem) from error

    def error(self, key: str, problem: str) -> MarketError:
        """Return the error to raise for the value at `key`."""
        return MarketError(self.path, key, problem)


_TOML_NAMES = {
    "object": "table",
    "dict": "table",
    "array": "list",
    "str": "string",
    "int": "integer",
    "bool": "boolean",
}


def toml_type(value: object) -> str:
    """Return the TOML name of the type of `value`."""
    name = type(value).__name__
    return _TOML_NAMES.get(name, name)


def _explain(message: str, struct: type[msgspec.Struct]) -> tuple[str, str]:
    """Split msgspec's message into the key below the table and the problem, in the words of TOML.

    >>> class Paint(msgspec.Struct):
    ...     colour: typing.Literal["red", "green", "blue"]
    >>> _explain("Expected `float | null`, got `str` - at `$.litres`", Paint)
    ('litres', 'expected float, got string')
    >>> _explain("Invalid enum value 'pink' - at `$.colour`", Paint)
    ('colour', "expected 'red', 'green' or 'blue', got 'pink'")
    """
    problem, _, place = message.partition(" - at `$")
    path = place.rstrip("`").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
        return ".".join(part for part in (path, missing[1]) if part), "this key is required"
    if enum := re.fullmatch(r"Invalid enum value (.*)", problem):
        *most, last = map(repr, _choices(typing.get_type_hints(struct)[path]))
        return path, f"expected {', '.join(most)}{' or ' if most else ''}{last}, got {enum[1]}"
    if expected := re.fullmatch(r"Expected `(.*)`, got `(.*)`", problem):
        return path, f"expected {_in_toml(expected[1])}, got {_in_toml(expected[2])}"
    return path, problem


def _choices(hint: Any) -> list[Any]:
    """Return the values that a Literal allows, or one that may be left out."""
    options = typing.get_args(hint)
    if type(None) in options:
        return [choice for option in options for choice in typing.get_args(option)]
    return list(options)


def _in_toml(types: str) -> str:
    """Return msgspec's names of types in TOML's words, without null: TOML leaves the key out instead."""
    return " or ".join(_TOML_NAMES.get(name, name) for name in types.split(" | ") if name != "null")
