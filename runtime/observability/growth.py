"""Which mailboxes grow and grow: a look at every actor, a slice of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.observability.events import MailboxGrows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runtime.ref import ActorRef

SLICE = 1_000
"""Actors that are looked at in one turn of the loop: below a millisecond."""
LOOKS = 5
"""So many looks in a row must find a mailbox larger than before."""
LEAST_WAITING = 100
"""Messages; fewer are no matter."""


class Growth:
    """Remembers the mailboxes that have messages, and tells of those that grew in five looks in a row."""

    def __init__(self) -> None:
        self._ahead: list[Any] = []
        self._seen: dict[str, tuple[int, int]] = {}
        """How many messages waited at the last look, and at how many looks in a row there were more."""
        self._next: dict[str, tuple[int, int]] = {}
        self._told: dict[str, int] = {}

    def look(self, roots: Iterable[ActorRef[Any]]) -> Iterator[MailboxGrows]:
        """Look at the next slice of the actors below `roots`; with the last slice, a look at all of them has ended."""
        if not self._ahead:
            self._seen, self._next = self._next, {}
            # An actor that has ended, or has no mail, is as good as new.
            self._told = {path: waiting for path, waiting in self._told.items() if path in self._seen}
            self._ahead = [ref.recipient.home for ref in roots]
        for _ in range(SLICE):
            if not self._ahead:
                return
            cell = self._ahead.pop()
            if cell.supervised is not None:
                self._ahead.extend(cell.supervised.by_name.values())
            grown = self._judge(cell.path, len(cell.queue), cell.options.mailbox.capacity) if cell.queue else None
            if grown is not None:
                yield grown

    def _judge(self, path: str, waiting: int, capacity: int) -> MailboxGrows | None:
        before, times = self._seen.get(path, (0, 0))
        times = times + 1 if waiting > before else 0
        self._next[path] = (waiting, times)
        told = self._told.get(path)
        if told is not None and waiting < told / 2:
            del self._told[path]
        if times < LOOKS or waiting < LEAST_WAITING or path in self._told:
            return None
        self._told[path] = waiting
        return MailboxGrows(actor=path, waiting=waiting, capacity=capacity)
