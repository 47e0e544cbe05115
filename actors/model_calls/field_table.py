"""Which fields of a request can be said in the form of another protocol. They are data (fields.toml). Pure."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.model_calls.request import Form

Treatment: TypeAlias = Literal["converted", "same", "approximated", "price_or_speed", "not_expressible"]
"""What becomes of a field in another form; fields.toml explains the words."""


class NotExpressible(ValueError):
    """A request cannot be said in the form of another protocol; the text says what of it cannot."""


class FieldRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of a request: what becomes of it in each other form."""

    chat: Treatment = "not_expressible"
    responses: Treatment = "not_expressible"
    messages: Treatment = "not_expressible"
    asks_nothing: tuple[Any, ...] = ()

    def is_idle(self, value: object) -> bool:
        """Tell whether a value asks for nothing; 1 and True are different values."""
        return value is None or any(
            value == idle and isinstance(value, bool) == isinstance(idle, bool) for idle in self.asks_nothing
        )


class PartRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of one kind of part of a request."""

    read: tuple[str, ...]
    approximated: tuple[str, ...] = ()
    price_or_speed: tuple[str, ...] = ()
    not_expressible: tuple[str, ...] = ()


class FieldTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of fields.toml."""

    fields: dict[str, dict[str, FieldRow]]
    parts: dict[str, PartRow]


@cache
def field_table() -> FieldTable:
    """Return the table."""
    text = resources.files("actors.model_calls").joinpath("fields.toml").read_bytes()
    return msgspec.toml.decode(text, type=FieldTable)


class Remarks:
    """What the answer must tell of a request that was translated; each remark once, in the order in which it arose."""

    def __init__(self, told: Iterable[str] = ()) -> None:
        self._told = dict.fromkeys(told)

    def approximated(self, field: str, why: str = "left out") -> None:
        """Tell that a field means only nearly the same."""
        self._told[f"{field}: approximated ({why})"] = None

    def price_or_speed(self, field: str) -> None:
        """Tell that a field was left out that changes only price or speed."""
        self._told[f"{field}: left out (price or speed only)"] = None

    @property
    def told(self) -> tuple[str, ...]:
        """All remarks."""
        return tuple(self._told)


def sort_fields(body: dict[str, Any], form: Form, to: Form, remarks: Remarks) -> tuple[set[str], dict[str, Any]]:
    """Return the fields of a request to convert, and those that go out unchanged. Raises `NotExpressible`."""
    rows, to_convert, unchanged = field_table().fields[form], set[str](), dict[str, Any]()
    for field, value in body.items():
        row = rows.get(field)
        if value is None or (row is not None and row.is_idle(value)):
            continue
        treatment: Treatment = "not_expressible" if row is None else getattr(row, to)
        match treatment:
            case "converted":
                to_convert.add(field)
            case "same":
                unchanged[field] = value
            case "approximated":
                remarks.approximated(field)
            case "price_or_speed":
                remarks.price_or_speed(field)
            case "not_expressible":
                raise NotExpressible(f"the form {to!r} has nothing for {field!r:.100} with {value!r:.100}")
    return to_convert, unchanged


def part(value: object, kind: str, where: str, remarks: Remarks) -> dict[str, Any]:
    """Return a part of a request whose fields can all be said in other forms. Raises `NotExpressible` if not."""
    if not isinstance(value, dict):
        raise NotExpressible(f"{where} is no JSON object, but {value!r:.100}")
    row, fields = field_table().parts[kind], cast("dict[str, Any]", value)
    for name, one in fields.items():
        if one is None or one is False or name in row.read:
            continue
        if name in row.price_or_speed:
            remarks.price_or_speed(name)
        elif name in row.approximated:
            if one not in ([], {}, ""):
                remarks.approximated(f"{name} of {where}")
        else:
            raise NotExpressible(f"{where} has {name!r:.100}, which other forms cannot express")
    return fields


def text_of(value: object, where: str) -> str:
    """Return a text. Raises `NotExpressible` if it is none."""
    if not isinstance(value, str):
        raise NotExpressible(f"{where} is no text, but {value!r:.100}")
    return value


def list_of(value: object, where: str) -> list[Any]:
    """Return a list. Raises `NotExpressible` if it is none."""
    if not isinstance(value, list | tuple):
        raise NotExpressible(f"{where} is no list, but {value!r:.100}")
    return list(cast("Iterable[Any]", value))
