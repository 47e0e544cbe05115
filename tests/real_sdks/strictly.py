"""Reads JSON as a type of an SDK without any leniency: no conversion, no field that the type does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator


IN_SOME_VERSIONS = {"ResponseFunctionCallArgumentsDoneEvent": {"name"}}
"""Fields that some versions of the openai SDK require, and others do not have."""


def read_strictly(kind: Any, value: bytes | str) -> Any:
    """Return the value as an object of a type. Raises ValidationError, or AssertionError for a field too many."""
    read = TypeAdapter(kind).validate_json(value, strict=True)
    assert list(unknown_fields(read, "$")) == []
    return read


def unknown_fields(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        known = IN_SOME_VERSIONS.get(type(value).__name__, set())
        yield from (f"{at}.{name}" for name in value.__pydantic_extra__ or () if name not in known)
        for name in value.__pydantic_fields_set__:
            yield from unknown_fields(getattr(value, name, None), f"{at}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from unknown_fields(one, f"{at}[{number}]")
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from unknown_fields(one, f"{at}[{name!r}]")
