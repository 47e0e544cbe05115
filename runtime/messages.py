"""What actors say to each other: a `Message` is told, a `Request[R]` is asked and answered with an `R`."""

from __future__ import annotations

from typing import Any, Generic, Protocol, Self, TypeVar, dataclass_transform

import msgspec

R = TypeVar("R")
Q_co = TypeVar("Q_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


# Tells type checkers that a message is frozen because its parent is, as msgspec makes it.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True):
    """The parent of every message: an immutable Struct, cheap to make, ready for the wire.

    >>> class Deposit(Message):
    ...     amount: int
    >>> Deposit(5)
    Deposit(amount=5)
    """


class Request(Message, Generic[R], frozen=True):
    """A message that is answered with an `R`.

    >>> class Balance(Request[int]):
    ...     pass
    """

    def __answer__(self) -> tuple[Self, R]:
        """Tie a request to the type of its answer, for type checkers alone; it is never called."""
        raise NotImplementedError


class Asks(Protocol[Q_co, R_co]):
    """The shape by which a type checker reads both the request and its answer's type from one argument."""

    def __answer__(self) -> tuple[Q_co, R_co]: ...


def name_of(message: Any) -> str:
    """Name a message in an error or a log line: its type, without the payload, which may be private."""
    return type(message).__name__
