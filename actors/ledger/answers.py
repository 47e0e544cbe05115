"""Answers and errors as bytes that give back what they were: tuples stay tuples, and types are found by their names."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
import uuid
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_DEPTH = 100
TUPLE, SET, FROZENSET, MAPPING, OBJECT, BIG_INT = 1, 2, 3, 4, 5, 6
"""The codes of what msgpack has no type for."""
PLAIN = frozenset({type(None), bool, float, str, bytes})
AS_TEXT: dict[type[Any], tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    Decimal: (str, Decimal),
    uuid.UUID: (str, uuid.UUID),
    dt.datetime: (dt.datetime.isoformat, dt.datetime.fromisoformat),
    dt.date: (dt.date.isoformat, dt.date.fromisoformat),
    dt.time: (dt.time.isoformat, dt.time.fromisoformat),
}
CODES: dict[type[Any], int] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}
Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.Encoder().encode


def encode(value: Any) -> bytes:
    """Return a value as bytes; raises TypeError if it cannot be read back, such as a function or a local class.

    >>> decode(encode({"a": (1, 2.5), 7: {"x"}}))
    {'a': (1, 2.5), 7: {'x'}}
    """
    try:
        return _encode(_packed(value, 0))
    except (ValueError, RecursionError) as error:
        raise TypeError(f"it cannot be encoded: {error}") from error


def decode(content: bytes) -> Any:
    """Return the value that was encoded; raises TypeError if one of its types is not known to this program."""
    try:
        return _decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise TypeError(f"it cannot be read: {error}") from error


def _packed(value: Any, depth: int) -> Any:
    kind = cast("type[Any]", type(value))
    if kind in PLAIN:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**64 else Ext(BIG_INT, b"%d" % value)
    if depth > MAX_DEPTH:
        raise TypeError(f"it is nested more than {MAX_DEPTH} deep, or contains itself")
    depth += 1
    if kind is list:
        return [_packed(one, depth) for one in value]
    if kind is dict:
        if all(type(key) is str for key in value):
            return {key: _packed(one, depth) for key, one in value.items()}
        return Ext(MAPPING, _encode([[_packed(key, depth), _packed(one, depth)] for key, one in value.items()]))
    code = CODES.get(kind)
    if code is not None:
        return Ext(code, _encode([_packed(one, depth) for one in value]))
    if kind is not _named(kind.__module__, kind.__qualname__):
        raise TypeError(f"{kind.__qualname__} cannot be found again by its name")
    return Ext(OBJECT, _encode([kind.__module__, kind.__qualname__, _packed(_state(value, kind), depth)]))


def _state(value: Any, kind: Any) -> Any:
    """Return what an object is made again of."""
    if kind in AS_TEXT:
        return AS_TEXT[kind][0](value)
    if issubclass(kind, Enum) and hasattr(value, "_name_"):  # An amount is one without a name.
        return value.name
    if issubclass(kind, msgspec.Struct):
        return {name: getattr(value, name) for name in kind.__struct_fields__}
    if dataclasses.is_dataclass(kind):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(kind)}
    if issubclass(kind, BaseException):
        return value.args, {**vars(value)}
    for base in (int, str, float):
        if issubclass(kind, base):
            return base(value)
    if hasattr(kind, "model_dump") and hasattr(kind, "model_validate"):
        return cast("Any", kind).model_dump(value)
    raise TypeError(f"{kind.__qualname__} is neither plain data nor a Struct, a dataclass or a model")


def _made(kind: Any, state: Any) -> Any:
    """Make an object of a kind again; raises TypeError if that is none whose objects are kept."""
    if kind in AS_TEXT:
        return AS_TEXT[kind][1](state)
    if issubclass(kind, Enum) and state in kind.__members__:
        return kind[state]
    if issubclass(kind, msgspec.Struct):
        fields: dict[str, Any] = state
        return kind(**fields)
    if dataclasses.is_dataclass(kind):
        return _with_fields(object.__new__(cast("Any", kind)), state)
    if issubclass(kind, BaseException):
        args, attributes = state
        error = kind.__new__(kind, *args)
        error.args = args
        vars(error).update(attributes)
        return error
    if issubclass(kind, int | str | float):
        return kind(state)
    if hasattr(kind, "model_dump") and hasattr(kind, "model_validate"):
        return cast("Any", kind).model_validate(state)
    raise TypeError(f"{kind.__qualname__} is neither plain data nor a Struct, a dataclass or a model")


def _with_fields(made: Any, fields: dict[str, Any]) -> Any:
    for name, content in fields.items():
        object.__setattr__(made, name, content)  # Also if it is frozen.
    return made


def _named(module: str, name: str) -> Any:
    """Return the class of a name in a module that this program has imported; None if there is none."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def _unpacked(code: int, content: memoryview) -> Any:
    if code == BIG_INT:
        return int(bytes(content))
    members: Any = _decoder.decode(content)
    if code == OBJECT:
        module, name, state = members
        kind = _named(module, name)
        if kind is None:
            raise TypeError(f"there is no {name} in {module}; import it first")
        return _made(kind, state)
    if code == MAPPING:
        return _mapping(members)
    return {TUPLE: tuple, SET: set, FROZENSET: frozenset}[code](members)


def _mapping(pairs: Iterable[Any]) -> dict[Any, Any]:
    return {key: one for key, one in pairs}  # noqa: C416 - a pair is a list.


_decoder = msgspec.msgpack.Decoder(ext_hook=_unpacked)
