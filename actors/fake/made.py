"""One call that a fake model has worked on: what every form needs to write its body or its events."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.fake.prices import FakeUsage

if TYPE_CHECKING:
    from actors.fake.answers import Answer
    from actors.fake.asked import Asked
    from actors.fake.config import DialectName, FakeModel
    from actors.fake.dialects import FakeDialect

Events: TypeAlias = Iterator[tuple[int, bytes]]
"""The events of a stream, each with the tokens of output that have come once it is sent."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one call with what they use and cost; `created` is in seconds since 1970."""

    id: str
    """32 digits that no other call has."""
    created: int
    asked: Asked
    model: FakeModel
    dialect: FakeDialect
    dialect_name: DialectName
    answers: tuple[Answer, ...]
    usage: FakeUsage
    cost: Fraction = Fraction(0)
    """In dollars, if the dialect tells it."""
    tells_usage: bool = True
    """Whether the answer tells its usage; a fault may leave it out."""
    zero_usage: bool = False

    @property
    def told_usage(self) -> FakeUsage:
        """The usage that the answer tells."""
        return FakeUsage() if self.zero_usage else self.usage
