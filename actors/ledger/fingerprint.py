"""What a request under a key asks for, as a digest, so that another request under its key is recognised.

The digest is keyed by a secret of the ledger, so that it tells nothing of a request to whoever reads it. Each field has
a part of its own, so that an error can name the fields that differ. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from actors.errors.families import Permanent
from actors.ledger.canonical import NoData, canonical, fields_of

Fields: TypeAlias = tuple[tuple[str, bytes], ...]
"""The fields of a request that change its answer, by name, each as canonical bytes."""
MAX_FIELDS = 48
"""An input of more fields counts as one."""
NAME_SIZE, CONTENT_SIZE = 4, 8
"""The bytes of a digest; a part is one of a name, and one of what is under it."""
BRIEF_SIZE = 6
"""The bytes of one that is brief: by chance another request under the key has it once in 2^48 times."""


def request_fields(service: str, content: Any, requirement: Any) -> Fields:
    """Return the fields of a request that change its answer; raises `Permanent` if its input is not data.

    How it is to be served does not count: its budget, time, strategy, account and whether it streams.
    """
    try:
        parts = {"service": canonical(service), "requirement": canonical(requirement)}
        for name, value in _parts_of(content).items():
            parts[name] = canonical(value)
    except NoData as error:
        raise Permanent(
            f"the input of a request with an idempotency key must be data, so that another request under its key can "
            f"be told from it; it has a {error.found.__qualname__} in it: give data in its place, or no key"
        ) from error
    except (ValueError, RecursionError) as error:
        raise Permanent(f"the input of a request with an idempotency key cannot be compared: {error}") from error
    return tuple(parts.items())


def _parts_of(content: Any) -> dict[str, Any]:
    """Return the fields of an input with a name each, if it has any, beside the kind of the input."""
    entries: Mapping[Any, Any] | None = None
    kind = ""
    if issubclass(type(content), Mapping):
        entries = content
    elif isinstance(content, msgspec.Struct):
        entries, kind = fields_of(content), type(content).__name__
    if entries is None or len(entries) > MAX_FIELDS or not all(isinstance(name, str) for name in entries):
        return {"input": content}
    return {"input": [kind], **{f"input.{name}": value for name, value in entries.items()}}


def fingerprint(fields: Fields, *, secret: bytes) -> bytes:
    """Return the fingerprint of a request, by which it can be compared and nothing be learned about it."""
    return b"".join(sorted(_part(name, content, secret) for name, content in fields))


def brief(print_: bytes) -> bytes:
    """Return the bytes that stand for a fingerprint in a journal once its answer is not kept any more."""
    return blake2b(print_, digest_size=BRIEF_SIZE).digest()


def is_same(print_: bytes, other: bytes) -> bool:
    """Tell whether two fingerprints are of the same request, the other of which may be brief."""
    return other == (brief(print_) if len(other) == BRIEF_SIZE else print_)


def differing_fields(fields: Fields, other: bytes, *, secret: bytes) -> tuple[str, ...]:
    """Name the fields in which a request differs from the one with this other fingerprint; none if that is brief.

    A field that only the other one has cannot be named, and is a difference of the input.
    """
    size = NAME_SIZE + CONTENT_SIZE
    if len(other) == BRIEF_SIZE:
        return ()
    parts = [other[start : start + size] for start in range(0, len(other), size)]
    names = {part[:NAME_SIZE] for part in parts}
    own = {_part(name, content, secret): name for name, content in fields}
    differing = [name for part, name in own.items() if part not in parts]
    if names - {part[:NAME_SIZE] for part in own}:
        differing.append("input")
    return tuple(dict.fromkeys(differing))


def differing_names(fields: Fields, others: Fields) -> tuple[str, ...]:
    """Name the fields in which two requests differ."""
    own, other = dict(fields), dict(others)
    return tuple(name for name in {**own, **other} if own.get(name) != other.get(name))


def _part(name: str, content: bytes, secret: bytes) -> bytes:
    of_name = blake2b(name.encode("utf-8", "surrogatepass"), key=secret, digest_size=NAME_SIZE).digest()
    # The name is in it too, so that one content under two names is two digests.
    return of_name + blake2b(of_name + content, key=secret, digest_size=CONTENT_SIZE).digest()
