"""When held money is settled as charged, because nothing was found out about its call for too long. Pure.

Ages are kept in seconds since 1970, so that they go on over restarts. What is due when is kept in loop time, so that a
clock that is set back keeps no money.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from actors.ledger.record import KeyRecord

LONGEST_SLEEP = 3600.0
"""Seconds after which the clock is looked at again, in case it has jumped."""


class Expiry(NamedTuple):
    """A held reservation that expires at `due`, in loop time, or once the clock says `at`."""

    due: float
    number: int
    at: float


def expires_at(record: KeyRecord, default: float | None) -> float | None:
    """Return when a held call counts as charged, in seconds since 1970; None for never.

    Its own `held_for` goes before the ledger's. A call that is under way does not age, whether it was made again or a
    look-up has said so.
    """
    held_for = default if record.held_for is None else record.held_for
    if held_for is None or record.held_since is None or record.is_under_way or not record.is_held:
        return None
    return record.held_since + held_for


class HeldAges:
    """What is held, in the order in which it expires; `default` is the `held_for` of the ledger."""

    def __init__(self, default: float | None) -> None:
        self.default = default
        self._queue: list[Expiry] = []

    def ages(self, record: KeyRecord) -> bool:
        """Tell whether a reservation will expire if it is held long enough."""
        return self.default is not None or record.held_for is not None

    def note(self, record: KeyRecord, *, now: float, clock: float) -> bool:
        """Take note of a held reservation, or of what has become known of it; tell whether it expires next.

        `now` is in loop time, and `clock` in seconds since 1970.
        """
        at = expires_at(record, self.default)
        if at is None:
            return False
        if record.born is None:
            record.born = now + (record.held_since or clock) - clock
        heapq.heappush(self._queue, Expiry(record.born + at - (record.held_since or clock), record.number, at))
        return self._queue[0].number == record.number

    def pause(self, *, now: float) -> float | None:
        """Return after how many seconds to look again; None if nothing ages."""
        return min(max(self._queue[0].due - now, 0.0), LONGEST_SLEEP) if self._queue else None

    def take_due(self, records: dict[int, KeyRecord], *, now: float, clock: float) -> list[KeyRecord]:
        """Return the reservations that have expired, each once; what is not held any more is forgotten."""
        due: dict[int, KeyRecord] = {}
        while self._queue and (self._queue[0].due <= now or self._queue[0].at <= clock):
            one = heapq.heappop(self._queue)
            record = records.get(one.number)
            if record is not None and expires_at(record, self.default) == one.at:
                due[one.number] = record
        return list(due.values())

    def __repr__(self) -> str:
        return f"<HeldAges of {len(self._queue)}, {self.default or math.inf:g} s>"
