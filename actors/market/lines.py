"""Finds the line of each key in a TOML text, which the parser does not tell. Pure."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}\n]', re.DOTALL
)
"""Strings and comments, whose brackets and line breaks mean nothing, and the brackets and line breaks that do."""


def key_lines(text: str) -> dict[str, int]:
    r"""Return the line of each heading and each `key = value` of a valid TOML text, by its path.

    >>> key_lines('budget = "1"\n[[providers]]\nname = "alder"\n')
    {'budget': 1, 'providers[0]': 2, 'providers[0].name': 3}
    """
    lines: dict[str, int] = {}
    tables: Counter[str] = Counter()
    heading = ""
    for line, statement in _statements(text):
        if statement.startswith("[["):
            path = _path(statement[2:].partition("]]")[0], "", tables)
            array = path.removesuffix("]").rpartition("[")[0] if path.endswith("]") else path
            heading = f"{array}[{tables[array]}]"
            tables[array] += 1
            lines.setdefault(heading, line)
        elif statement.startswith("["):
            heading = _path(statement[1:].partition("]")[0], "", tables)
            lines.setdefault(heading, line)
        else:
            lines.setdefault(_path(_before_equals(statement), heading, tables), line)
    return lines


def line_of(key: str, lines: dict[str, int]) -> int | None:
    """Return the line of a key, or else of the smallest table around it that has a line.

    >>> line_of("providers[0].limits[2].rate", {"providers[0]": 2, "providers[0].limits": 7})
    7
    """
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each heading and each `key = value` with its first line; a value may go over several lines."""
    start, depth = 0, 0
    begun = line = 1
    for token in TOKEN.finditer(text + "\n"):
        mark = token[0]
        if mark in {"[", "{"}:
            depth += 1
        elif mark in {"]", "}"}:
            depth -= 1
        line += mark.count("\n")
        if mark == "\n" and depth <= 0:
            statement = text[start : token.start()].strip()
            if statement and not statement.startswith("#"):
                yield begun, statement
            start, begun, depth = token.end(), line, 0


def _before_equals(statement: str) -> str:
    """Return the key of `key = value`; a quoted part of it may hold a = itself."""
    found = re.match(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[^="'])*""", statement)
    return found[0] if found else ""


def _path(dotted: str, heading: str, tables: Counter[str]) -> str:
    """Return the path of a key under a heading; of a list of tables, it is the last one so far."""
    try:
        level: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return heading
    path = heading
    while isinstance(level, dict):
        ((name, level),) = cast("dict[str, Any]", level).items()
        path = f"{path}.{name}" if path else name
        if path in tables:
            path += f"[{tables[path] - 1}]"
    return path
