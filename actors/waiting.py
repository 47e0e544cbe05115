"""Who waits for what: a line for each thing that is short, first come, first served.

Only the first in a line looks whether it may go on: at its time, or when the line is woken. Whoever leaves the front of
a line, whatever the reason, passes its place on to the next by waking it. So a release costs two looks, however many
wait, and none is lost on one who was cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

Line: TypeAlias = tuple[str, str]
"""What is short: a kind and a name."""


class Wait(msgspec.Struct, frozen=True):
    """Stand in these lines, each named once, and look again at loop time `until` at the latest."""

    lines: tuple[Line, ...]
    until: float


class Place:
    """One request in the lines; it keeps its place in each for as long as it waits there."""

    __slots__ = ("lines", "waiter")

    def __init__(self) -> None:
        # No set: the order in which lines are left decides who is woken first.
        self.lines: tuple[Line, ...] = ()
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the request look again; one that is awake already will."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class WaitingLines:
    """The lines of one supervisor, by what is short."""

    def __init__(self) -> None:
        # Dictionaries, because they keep the order of arrival and let anybody leave from the middle.
        self._lines: dict[Line, dict[Place, None]] = {}

    def is_first(self, place: Place, line: Line) -> bool:
        """Tell whether nobody stands before `place`, which need not stand in the line yet."""
        standing = self._lines.get(line)
        return not standing or next(iter(standing)) is place

    async def wait(self, place: Place, wait: Wait) -> None:
        """Stand in the lines of `wait`, and no others, until woken or until its time."""
        self._stand(place, wait.lines)
        loop = asyncio.get_running_loop()
        place.waiter = loop.create_future()
        timer = loop.call_at(wait.until, place.wake)
        try:
            await place.waiter
        finally:
            timer.cancel()
            place.waiter = None

    def leave(self, place: Place) -> None:
        """Leave every line: the request goes on, or has ended."""
        if place.lines:
            self._stand(place, ())

    def wake(self, line: Line) -> None:
        """Let the first in a line look again: something changed for the better."""
        standing = self._lines.get(line)
        if standing:
            next(iter(standing)).wake()

    def wake_all(self, line: Line) -> None:
        """Let everybody in a line look again: something changed for the worse, and some may have to give up."""
        for place in self._lines.get(line, ()):
            place.wake()

    def _stand(self, place: Place, lines: Collection[Line]) -> None:
        left = [line for line in place.lines if line not in lines]
        place.lines = tuple(lines)
        for line in lines:
            self._lines.setdefault(line, {}).setdefault(place)
        for line in left:
            standing = self._lines[line]
            was_first = next(iter(standing)) is place
            del standing[place]
            if not standing:
                del self._lines[line]
            elif was_first:
                next(iter(standing)).wake()

    def broken_invariants(self) -> Iterator[str]:
        """Name the lines that somebody stands in, although no request is under way."""
        for (kind, name), standing in self._lines.items():
            yield f"{len(standing)} requests were left in the line for {kind} {name!r}"

    def __len__(self) -> int:
        return len({place for standing in self._lines.values() for place in standing})

    def __repr__(self) -> str:
        return f"<WaitingLines {len(self)} requests in {len(self._lines)} lines>"
