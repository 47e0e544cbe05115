"""Who waits for what: a line for each thing that is short, in which tenants take turns, each first come, first served.

Only the first in a line looks whether it may go on: at its time, or when the line is woken. Whoever leaves the front of
a line, whatever the reason, passes its place on to the next by waking it. So a release costs two looks, however many
wait, and none is lost on one who was cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.limits.fair_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QueueName: TypeAlias = tuple[str, str]
"""What is short: a kind and a name."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Stand in these lines, each named once, and look again at loop time `until` at the latest."""

    lines: tuple[QueueName, ...]
    until: float


class QueueEntry:
    """One request in the lines; it keeps its place in each for as long as it waits there.

    Where it left a line to be served elsewhere, and comes back because nothing came of it, it stands in front.
    """

    __slots__ = ("left", "lines", "tenant", "waiter")

    def __init__(self, tenant: str = "default") -> None:
        self.tenant = tenant
        # No set: the order in which lines are left decides who is woken first.
        self.lines: tuple[QueueName, ...] = ()
        self.left: tuple[QueueName, ...] = ()
        """The lines that it has left unserved, and may come back to."""
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the request look again; one that is awake already will."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class WaitQueues:
    """The lines of one supervisor, by what is short; in each, tenants take turns."""

    def __init__(self) -> None:
        self._lines: dict[QueueName, FairQueue[QueueEntry]] = {}

    def is_first(self, place: QueueEntry, line: QueueName) -> bool:
        """Tell whether it is the turn of `place`; where others wait, it joins them to find out."""
        standing = self._joined(place, line)
        return standing is None or head_of(standing) is place

    def join(self, place: QueueEntry, line: QueueName) -> None:
        """Stand in `line` where others wait there, whose turn comes first."""
        self._joined(place, line)

    async def wait(self, place: QueueEntry, wait: Wait) -> None:
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

    def leave(self, place: QueueEntry, *, served: QueueName | None = None) -> None:
        """Leave every line: the request has ended, or goes on with what it waited for in the line `served`."""
        if place.lines:
            place.left = tuple(line for line in place.lines if line != served)
            self._stand(place, (), served=served)

    def wake(self, line: QueueName) -> None:
        """Let the first in a line look again: something changed for the better."""
        standing = self._lines.get(line)
        if standing is not None:
            head_of(standing).wake()

    def wake_all(self, line: QueueName) -> None:
        """Let everybody in a line look again: something changed for the worse, and some may have to give up."""
        for place in tuple(self._lines.get(line, ())):
            place.wake()

    def _stand(self, place: QueueEntry, lines: Sequence[QueueName], *, served: QueueName | None = None) -> None:
        before, place.lines = place.lines, tuple(lines)
        for line in lines:
            if line not in before:
                standing = self._lines.get(line)
                if standing is None:
                    standing = self._lines[line] = FairQueue()
                self._join(standing, place, line)
        for line in before:
            if line not in lines:
                self._go(place, line, is_served=line == served)

    def _joined(self, place: QueueEntry, line: QueueName) -> FairQueue[QueueEntry] | None:
        """Return the line in which `place` stands now; None where nobody waits."""
        standing = self._lines.get(line)
        if standing is not None and place not in standing:
            self._join(standing, place, line)
            place.lines = (*place.lines, line)
        return standing

    def _join(self, standing: FairQueue[QueueEntry], place: QueueEntry, line: QueueName) -> None:
        returns = line in place.left
        if returns:
            place.left = tuple(one for one in place.left if one != line)
        standing.join(place, place.tenant, returns=returns)

    def _go(self, place: QueueEntry, line: QueueName, *, is_served: bool) -> None:
        standing = self._lines[line]
        was_first = standing.front() is place
        if was_first and is_served:
            standing.serve()  # Its tenant has had this turn.
        else:
            standing.leave(place)
        if not standing:
            del self._lines[line]
        elif was_first:
            head_of(standing).wake()

    def broken_invariants(self) -> Iterator[str]:
        """Name the lines that somebody stands in, although no request is under way."""
        for (kind, name), standing in self._lines.items():
            yield f"{len(standing)} requests were left in the line for {kind} {name!r}"

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __len__(self) -> int:
        return len({place for standing in self._lines.values() for place in standing})

    def __repr__(self) -> str:
        return f"<WaitingLines {len(self)} requests in {len(self._lines)} lines>"


def head_of(standing: FairQueue[QueueEntry]) -> QueueEntry:
    """Return whose turn it is in a line where somebody stands."""
    place = standing.front()
    assert place is not None  # noqa: S101 - a line that nobody stands in is taken away.
    return place
