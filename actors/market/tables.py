"""Turns the tables of a market file into Structs, and every way that can fail into an error with the key's path."""

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
    """A market file cannot be used. `path` is the file, `key` where in it, `problem` what was expected there."""

    def __init__(self, path: str, key: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (path, key, problem) if part))
        self.path = path
        self.key = key
        self.problem = problem


class TableReader:
    """Reads tables of the file `path`; `key` is always where in the file a table or a value stands."""

    def __init__(self, path: str) -> None:
        self.path = path

    def table(self, value: Any, key: str, heading: str) -> Table:
        """Return `value`, which must be a table; `heading` is how it is written."""
        if not isinstance(value, dict):
            raise self.error(key, f"expected a table under {heading}, got {toml_type(value)}")
        return cast("Table", value)

    def refuse_unknown(self, table: Table, key: str, known: Sequence[str]) -> None:
        """Raise for the first key of `table` that is not among `known`."""
        for name in table:
            if name not in known:
                where = f"{key}.{name}" if key else name
                raise self.error(where, f"unknown key; known are {', '.join(sorted(known))}")

    def convert(self, table: Table, key: str, struct: type[S]) -> S:
        """Return `table` as a `struct`; types are strict."""
        try:
            return msgspec.convert(table, struct)
        except msgspec.ValidationError as error:
            where, problem = _explain(str(error), struct)
            raise self.error(f"{key}.{where}" if where else key, problem) from error

    def error(self, key: str, problem: str) -> MarketError:
        """Return the error to raise for what stands at `key`."""
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
    """Return what TOML calls the type of `value`."""
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
    problem, _, path = message.partition(" - at `$")
    where = path.rstrip("`").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
        return ".".join(part for part in (where, missing[1]) if part), "this key is required"
    if enum := re.fullmatch(r"Invalid enum value (.*)", problem):
        *most, last = map(repr, typing.get_args(typing.get_type_hints(struct)[where]))
        return where, f"expected {', '.join(most)} or {last}, got {enum[1]}"
    if expected := re.fullmatch(r"Expected `(.*)`, got `(.*)`", problem):
        return where, f"expected {_in_toml(expected[1])}, got {_in_toml(expected[2])}"
    return where, problem


def _in_toml(types: str) -> str:
    """TOML has no null, so a type that may be null is written by leaving the key out."""
    return " or ".join(_TOML_NAMES.get(name, name) for name in types.split(" | ") if name != "null")
