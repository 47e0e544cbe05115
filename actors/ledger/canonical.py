"""Data as bytes that are equal if the data is: what a request asks for, so that another one can be told from it.

The order of a mapping and of a set does not count, nor does whether a sequence is a list or a tuple, nor a field of a
Struct that has its default. Everything else does: 1, 1.0, True and "1" differ, and so do text and bytes. Pure.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any, cast

import msgspec

MAX_DEPTH = 100
"""How deep data may be nested; what contains itself is deeper."""
MAPPING, SET, OBJECT, BIG_INT, ODD_TEXT = 1, 2, 3, 4, 5
"""The codes of what msgpack has no type for."""
MAX_KINDS = 256
"""The Structs whose fields are remembered."""
AS_TEXT = (Decimal, dt.date, dt.time, dt.timedelta, uuid.UUID, PurePath)
_encode = msgspec.msgpack.Encoder().encode


class NoData(TypeError):
    """Something of which it cannot be told whether it is equal, such as a function; `found` is its type."""

    def __init__(self, found: type[Any]) -> None:
        super().__init__(f"{found.__qualname__} is no data")
        self.found = found


def canonical(value: Any) -> bytes:
    """Return data as bytes, equal for equal data; raises `NoData` for anything else, and ValueError if it is too deep.

    >>> canonical({"a": 1, "b": [2]}) == canonical({"b": (2,), "a": 1})
    True
    >>> len({canonical(one) for one in (1, 1.0, True, "1", b"1")})
    5
    """
    return _encode(_normal(value, 0))


def _normal(value: Any, depth: int) -> Any:
    if value is None or type(value) in {bool, float}:
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep, or contains itself")
    if isinstance(value, Enum) and hasattr(value, "_name_"):  # An amount is one without a name.
        return _object(type(value), [value.name])
    if isinstance(value, str):
        return str.__str__(value) if value.isascii() else _text(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else msgspec.msgpack.Ext(BIG_INT, b"%d" % value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(cast("bytes", value))
    return _compound(value, depth + 1)


def _compound(value: Any, depth: int) -> Any:
    kind = cast("type[Any]", type(value))
    if issubclass(kind, Mapping):
        return msgspec.msgpack.Ext(MAPPING, _sorted_pairs(value, depth))
    if issubclass(kind, Sequence):
        return [_normal(one, depth) for one in value]
    if issubclass(kind, AbstractSet):
        return msgspec.msgpack.Ext(SET, _encode(sorted(_encode(_normal(one, depth)) for one in value)))
    if issubclass(kind, AS_TEXT):
        return _object(kind, [str(value)])
    return _object(kind, [_sorted_pairs(fields_of(value), depth)])


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a Struct, a dataclass or a model that do not have their defaults; raises `NoData`."""
    kind = cast("type[Any]", type(value))
    if issubclass(kind, msgspec.Struct):
        given = ((name, getattr(value, name), _default(*default)) for name, *default in _fields_with_defaults(kind))
        return {name: content for name, content, default in given if not _equals(content, default)}
    if dataclasses.is_dataclass(kind):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(kind)}
    dump = getattr(kind, "model_dump", None)
    if dump is None:
        raise NoData(kind)
    return dict(dump(value))


@lru_cache(maxsize=MAX_KINDS)
def _fields_with_defaults(kind: type[Any]) -> tuple[tuple[str, Any, Any], ...]:
    """Return the fields of a Struct, each with its default or what makes that; they take msgspec 50 us to tell."""
    return tuple((one.name, one.default, one.default_factory) for one in msgspec.structs.fields(kind))


def _default(default: Any, factory: Any) -> Any:
    return factory() if default is msgspec.NODEFAULT and factory is not msgspec.NODEFAULT else default


def _equals(content: Any, default: Any) -> bool:
    """Tell whether a field has its default, and not something that only compares equal, as 1 does to True."""
    return type(content) is type(default) and bool(content == default)


def _sorted_pairs(entries: Mapping[Any, Any], depth: int) -> bytes:
    pairs = [(_encode(_normal(key, depth)), _encode(_normal(content, depth))) for key, content in entries.items()]
    return _encode(sorted(pairs))


def _object(kind: type[Any], content: list[Any]) -> Any:
    # By the name of the class alone, so that it may move to another module between two runs.
    return msgspec.msgpack.Ext(OBJECT, _encode([kind.__name__, *content]))


def _text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return msgspec.msgpack.Ext(ODD_TEXT, value.encode("utf-8", "surrogatepass"))
    return str.__str__(value)
