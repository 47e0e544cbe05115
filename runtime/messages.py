"""The base classes of messages: a `Message` is sent by `tell`, a `Request[R]` by `ask`, and answered with an `R`."""

from __future__ import annotations

from typing import Any, Generic, Protocol, Self, TypeVar, dataclass_transform

import msgspec

R = TypeVar("R")
Q_co = TypeVar("Q_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


# Tells type checkers that a message is frozen because its base class is, as msgspec makes it.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True):
    """The base class of every message: an immutable Struct, cheap to make, ready for the wire.

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
        """Tie a request to the type of its answer, for type checkers only; it is never called."""
        raise NotImplementedError


class Asks(Protocol[Q_co, R_co]):
    """The protocol from which a type checker reads a request's type and its answer's type."""

    def __answer__(self) -> tuple[Q_co, R_co]: ...


def name_of(message: Any) -> str:
    """Return the name of a message for errors and log lines: its type, without its fields, which may be private."""
    return type(message).__name__
