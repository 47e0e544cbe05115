"""What is asked and told between nodes: an actor that counts, and a bare Ray actor that does the same."""

from __future__ import annotations

from typing import Any

from runtime import Actor, Message, Request, handles


class Count(Message, frozen=True):
    """A message of a few hundred bytes."""

    number: int
    text: str


class Counted(Request[int], frozen=True):
    """Asks how many have come."""


class Counter(Actor[Any]):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.count = 0

    @handles(Count)
    def take(self, message: Count) -> None:
        self.count += 1

    @handles(Counted)
    def answer(self, message: Counted) -> int:
        return self.count


class Bare:
    """An async Ray actor."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self, data: bytes) -> int:
        del data
        self.count += 1
        return self.count
