"""Converts the tables of a market file into Structs; every mistake becomes an error with the path of its key."""

from __future__ import annotations

import re
import typing
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from actors.market.lines import key_lines, line_of
from actors.spelling import closest, meant_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

S = TypeVar("S", bound=msgspec.Struct)
Table = dict[str, Any]


class MarketError(ValueError):
    """A market file cannot be used: `path` is the file, `key` the place in it, `problem` what was expected there.

    The message names the line, and the provider that an entry describes, as far as they are known: these are `where`.
    """

    def __init__(self, path: str, key: str, problem: str, *, where: str = "") -> None:
        super().__init__(": ".join(part for part in (path, f"{key} ({where})" if where else key, problem) if part))
        self.path = path
        self.key = key
        self.problem = problem


class Places:
    """The line of each key of a file, and the name that each entry of a list gives to itself."""

    def __init__(self, text: str, document: Table) -> None:
        self._lines = key_lines(text)
        self._document = document

    def where(self, key: str) -> str:
        """Return the name of the entry that holds `key`, and the line of `key`; empty if neither is known."""
        line = line_of(key, self._lines)
        parts = [self._name(key), "" if line is None else f"line {line}"]
        return ", ".join(part for part in parts if part)

    def shown(self, key: str) -> str:
        """Return `key` with its `where`."""
        return f"{key} ({where})" if (where := self.where(key)) else key

    def _name(self, key: str) -> str:
        found = re.match(r"(\w+)\[(\d+)\]", key)
        entries = self._document.get(found[1]) if found else None
        if found is None or not isinstance(entries, list):
            return ""
        entry = cast("list[Any]", entries)[int(found[2])]
        name = cast("Table", entry).get("name") if isinstance(entry, dict) else None
        return f"{name!r:.60}" if isinstance(name, str) and name else ""


class TableReader:
    """Reads tables of the file `path`; `key` is always the place of a table or value in the file.

    `places` tells lines and names for errors, and `headings` the keys that are known under each heading.
    """

    def __init__(self, path: str, places: Places, headings: Mapping[str, Collection[str]]) -> None:
        self.path = path
        self.places = places
        self._headings = headings

    def table(self, value: Any, key: str, heading: str) -> Table:
        """Return `value` as a table, or raise; `heading` is how the table is written in TOML."""
        if not isinstance(value, dict):
            raise self.error(key, f"expected a table under {heading}, got {toml_type(value)}")
        return cast("Table", value)

    def refuse_unknown(self, table: Table, key: str, known: Sequence[str]) -> None:
        """Raise for the first key of `table` that is not among `known`, with what it was probably meant to be."""
        for name, value in table.items():
            if name not in known:
                # A table was hardly meant to be one of the plain values under another heading.
                headings: Mapping[str, Collection[str]] = {} if isinstance(value, dict) else self._headings
                meant = meant_key(name, known, headings) or meant_key(name, known, self._headings)
                hint = f"did you mean {meant}? " if meant is not None else ""
                problem = f"unknown key; {hint}known are {', '.join(sorted(known))}"
                raise self.error(f"{key}.{name}" if key else name, problem)

    def convert(self, table: Table, key: str, struct: type[S]) -> S:
        """Return `table` as a `struct`; types are not coerced."""
        try:
            return msgspec.convert(table, struct)
        except msgspec.ValidationError as error:
            path, problem = _explain(str(error), struct)
            if path.endswith("[...]"):  # msgspec names no key of a table of strings.
                path = path.removesuffix("[...]")
                values = cast("Table", table[path])
                path += "." + next(name for name, value in values.items() if not isinstance(value, str))
            if not path and (name := problem.partition(" ")[0]) in table:
                # A check of the whole table, whose message begins with the value that it refuses.
                raise MarketError(self.path, key, problem, where=self.places.where(f"{key}.{name}")) from error
            raise self.error(f"{key}.{path}" if path else key, problem) from error

    def error(self, key: str, problem: str) -> MarketError:
        """Return the error to raise for the value at `key`."""
        return MarketError(self.path, key, problem, where=self.places.where(key))


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
        choices = _choices(typing.get_type_hints(struct)[path])
        *most, last = map(repr, choices)
        meant = closest(enum[1].strip("'"), [one for one in choices if isinstance(one, str)])
        hint = "" if meant is None else f"; did you mean {meant!r}?"
        return path, f"expected {', '.join(most)}{' or ' if most else ''}{last}, got {enum[1]}{hint}"
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
