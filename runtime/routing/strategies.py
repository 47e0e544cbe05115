"""Strategies of a router: which of several actors gets a message. Given the message and the actors, they return one."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Routee(Protocol):
    """What a routing knows of an actor."""

    @property
    def path(self) -> str: ...
    @property
    def load(self) -> int: ...


R = TypeVar("R", bound=Routee)


class Routing(Protocol):
    """Chooses an actor for a message; there is at least one. Give each router a routing of its own."""

    def choose(self, message: Any, routees: Sequence[R]) -> R: ...


class RoundRobin:
    """One after the other."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, message: Any, routees: Sequence[R]) -> R:
        self._turn = (self._turn + 1) % len(routees)
        return routees[self._turn]

    def __repr__(self) -> str:
        return "RoundRobin()"


class LeastBusy:
    """The one with the least mail and work under way; among equals, the first."""

    def choose(self, message: Any, routees: Sequence[R]) -> R:
        return min(routees, key=lambda routee: routee.load)

    def __repr__(self) -> str:
        return "LeastBusy()"


class ConsistentHash:
    """Messages with the same key go to the same actor, and few change theirs when actors come or go.

    `key` takes the message and returns a str. Rendezvous hashing: each actor is scored with the key, and the highest
    score wins (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996). Scores depend on the path
    and the key alone, so they are the same in every process.
    """

    def __init__(self, key: Callable[[Any], str]) -> None:
        self.key = key

    def choose(self, message: Any, routees: Sequence[R]) -> R:
        key = self.key(message).encode()
        return max(routees, key=lambda routee: score(routee.path.encode(), key))

    def __repr__(self) -> str:
        return f"ConsistentHash({self.key!r})"


def score(path: bytes, key: bytes) -> bytes:
    """Return how strongly a key is drawn to a path, as a number in eight bytes."""
    return blake2b(path + b"\0" + key, digest_size=8).digest()
