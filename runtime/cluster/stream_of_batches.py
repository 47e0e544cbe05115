"""The order of batches between two nodes: numbered, taken once each, at most a window of them under way. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FRAMES = 256
MAX_BYTES = 64 * 1024
WINDOW = 8
"""Batches that may be under way: what comes faster waits, and what waits has a bound."""

T = TypeVar("T")


class Posted(msgspec.Struct):
    """A frame on its way out; `lost` is called if its node ends before it was taken: with whether it had left."""

    data: bytes
    lost: Callable[[bool], None] | None = None
    alone: bool = False
    """Whether it leaves at once if nothing waits before it."""


class Outgoing:
    """What leaves for one node: frames that wait, and batches whose replies have not come."""

    def __init__(self) -> None:
        self.waiting: deque[Posted] = deque()
        self.under_way: dict[int, list[Posted]] = {}
        self.number = 0

    @property
    def replied(self) -> int:
        """All batches below this number have been replied to."""
        return min(self.under_way, default=self.number)

    @property
    def may_leave(self) -> bool:
        """Tell whether a batch may leave now: the window counts from the oldest one without a reply."""
        return bool(self.waiting) and self.number - self.replied < WINDOW

    def next_batch(self) -> tuple[int, list[Posted]]:
        """Take the next batch: as much as may travel at once."""
        frames: list[Posted] = []
        size = 0
        while (
            self.waiting and len(frames) < MAX_FRAMES and (not frames or size + len(self.waiting[0].data) <= MAX_BYTES)
        ):
            size += len(self.waiting[0].data)
            frames.append(self.waiting.popleft())
        number, self.number = self.number, self.number + 1
        self.under_way[number] = frames
        return number, frames

    def lose_all(self) -> None:
        """Tell every frame that it was not taken, or that this is unknown."""
        waiting, self.waiting = self.waiting, deque()
        under_way, self.under_way = self.under_way, {}
        for frames in under_way.values():
            for one in frames:
                if one.lost is not None:
                    one.lost(True)  # noqa: FBT003 - the answer to "had it left?".
        for one in waiting:
            if one.lost is not None:
                one.lost(False)  # noqa: FBT003 - as above.


class Incoming(Generic[T]):
    """What comes from one node: each batch is taken once, in its order, and its reply is kept until that has come.

    >>> incoming = Incoming[str]()
    >>> (
    ...     incoming.take(1, "second", replied=0),
    ...     incoming.take(0, "first", replied=0),
    ...     incoming.take(0, "again", replied=0),
    ... )
    ([], ['first', 'second'], [])
    """

    def __init__(self) -> None:
        self.expected = 0
        self.early: dict[int, T] = {}
        self.first_kept = 0

    def is_new(self, number: int) -> bool:
        """Tell whether a batch has never been here."""
        return number >= self.expected and number not in self.early

    def take(self, number: int, batch: T, *, replied: int) -> list[T]:
        """Return the batches that are to be handled now."""
        self.first_kept = max(self.first_kept, replied)
        if not self.is_new(number) or number >= self.expected + WINDOW:
            return []
        self.early[number] = batch
        due: list[T] = []
        while self.expected in self.early:
            due.append(self.early.pop(self.expected))
            self.expected += 1
        return due
