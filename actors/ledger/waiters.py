"""Who waits for money of which account: a line for each, in the order in which they came to the ledger.

Somebody who needs several accounts stands in the line of one that is short, behind all who came before and wait there;
at the others it holds back nobody.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import TYPE_CHECKING

from actors.ledger.messages import Reservation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.ledger.messages import Reserve

MIN_SWEPT = 64
"""Places that were left, and are not worth a sweep."""


class ReserveWaiter(asyncio.Future[Reservation]):
    """The answer to one `Reserve` that waits; it stands in the line of one account at a time, with one number."""

    __slots__ = ("account", "asked", "number", "wish")

    wish: Reserve
    number: int
    account: str | None
    asked: tuple[str, ...]
    """The accounts of which somebody was asked for its sake, and has answered."""


class AccountQueue:
    """Those who wait for one account; the smallest number is first."""

    __slots__ = ("numbers", "waiters")

    def __init__(self) -> None:
        self.waiters: dict[int, ReserveWaiter] = {}
        self.numbers: list[int] = []

    def add(self, waiter: ReserveWaiter) -> None:
        """Let somebody stand at the place of its number."""
        self.waiters[waiter.number] = waiter
        heapq.heappush(self.numbers, waiter.number)

    def remove(self, waiter: ReserveWaiter) -> None:
        """Let somebody go."""
        self.waiters.pop(waiter.number, None)
        if len(self.numbers) > 2 * len(self.waiters) + MIN_SWEPT:
            self.numbers = sorted(self.waiters)  # A sorted list is a heap.

    def first(self) -> ReserveWaiter | None:
        """Return whose turn it is; whoever has given up a moment ago, and has not been told of yet, is passed over."""
        while self.numbers:
            waiter = self.waiters.get(self.numbers[0])
            if waiter is not None and not waiter.done():
                return waiter
            self.waiters.pop(heapq.heappop(self.numbers), None)
        return None


class ReserveQueues:
    """The lines of one ledger."""

    def __init__(self) -> None:
        self._lines: dict[str, AccountQueue] = {}
        self._came = 0

    def new_waiter(self, wish: Reserve) -> ReserveWaiter:
        """Make a place for somebody who comes now."""
        waiter = ReserveWaiter(loop=asyncio.get_running_loop())
        self._came += 1
        waiter.wish, waiter.number, waiter.account, waiter.asked = wish, self._came, None, ()
        return waiter

    def stand(self, waiter: ReserveWaiter, account: str) -> None:
        """Let somebody wait for an account, and for no other any more."""
        self.leave(waiter)
        waiter.account = account
        self._lines.setdefault(account, AccountQueue()).add(waiter)

    def leave(self, waiter: ReserveWaiter) -> None:
        """Let somebody wait no more."""
        line = self._lines.get(waiter.account) if waiter.account is not None else None
        if line is not None:
            line.remove(waiter)
            if not line.waiters:
                del self._lines[waiter.account or ""]
        waiter.account = None

    def first(self, account: str) -> ReserveWaiter | None:
        """Return whose turn it is at an account."""
        line = self._lines.get(account)
        if line is None:
            return None
        waiter = line.first()
        if waiter is None:
            del self._lines[account]
        return waiter

    def before(self, accounts: Sequence[str], number: float = math.inf) -> str | None:
        """Name the first of these accounts for which somebody waits who came before `number`."""
        for account in accounts:
            first = self.first(account) if account in self._lines else None
            if first is not None and first.number < number:
                return account
        return None

    def waiting_for(self, account: str) -> list[ReserveWaiter]:
        """Return those who wait for an account, in order."""
        line = self._lines.get(account)
        return [] if line is None else [line.waiters[number] for number in sorted(line.waiters)]

    def broken_invariants(self) -> Iterator[str]:
        """Name the lines that somebody stands in, although no request is under way."""
        for account, line in self._lines.items():
            yield f"{len(line.waiters)} were left waiting for money of account {account!r}"

    def __contains__(self, account: str) -> bool:
        return account in self._lines

    def __len__(self) -> int:
        return sum(len(line.waiters) for line in self._lines.values())

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __repr__(self) -> str:
        return f"<LedgerLines {len(self)} waiting for {', '.join(self._lines) or 'nothing'}>"
