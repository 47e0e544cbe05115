"""Requests that wait at a ledger: for money, in a queue for each account, or for the last call on a closed account.

A request that draws on several accounts waits in the queue of one that has too little, behind all that came to the
ledger before it and wait there. At its other accounts it holds up no request.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import TYPE_CHECKING

from actors.ledger.messages import Reservation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.ledger.account import Account
    from actors.ledger.messages import Reserve
    from actors.ledger.page import AccountState

UNTIL_RENEWAL = "\0until renewal"
"""How the names of the queues end in which requests wait for a cap to renew; no account's name does."""
MIN_SWEPT = 64
"""So many numbers of waiters that have left are not worth a sweep."""


def until_renewal(account: str) -> str:
    """Name the queue of the requests that wait for the cap of an account to renew."""
    return f"{account}{UNTIL_RENEWAL}"


class ReserveWaiter(asyncio.Future[Reservation]):
    """The answer to a `Reserve` that waits; it is in the queue of one account at a time, and keeps its number."""

    __slots__ = ("account", "asked", "number", "wish")

    wish: Reserve
    number: int
    account: str | None
    """The account in whose queue it is, if any."""
    asked: tuple[str, ...]
    """The accounts for which more money was asked for on its behalf, and answered."""


class AccountQueue:
    """The waiters for one account; the one with the smallest number is the head."""

    __slots__ = ("numbers", "waiters")

    def __init__(self) -> None:
        self.waiters: dict[int, ReserveWaiter] = {}
        self.numbers: list[int] = []
        """A heap, which may still hold numbers of waiters that have left."""

    def enqueue(self, waiter: ReserveWaiter) -> None:
        """Add a waiter, in the order of its number."""
        self.waiters[waiter.number] = waiter
        heapq.heappush(self.numbers, waiter.number)

    def dequeue(self, waiter: ReserveWaiter) -> None:
        """Remove a waiter, wherever it is in the queue."""
        self.waiters.pop(waiter.number, None)
        if len(self.numbers) > 2 * len(self.waiters) + MIN_SWEPT:
            self.numbers = sorted(self.waiters)  # A sorted list is a heap.

    def head(self) -> ReserveWaiter | None:
        """Return the waiter whose turn it is; one that has just been cancelled, and is still queued, is passed over."""
        while self.numbers:
            waiter = self.waiters.get(self.numbers[0])
            if waiter is not None and not waiter.done():
                return waiter
            self.waiters.pop(heapq.heappop(self.numbers), None)
        return None


class ReserveQueues:
    """The wait queues of one ledger, by account."""

    def __init__(self) -> None:
        self._queues: dict[str, AccountQueue] = {}
        self._last_number = 0

    def new_waiter(self, wish: Reserve) -> ReserveWaiter:
        """Return a waiter with the next number, in no queue yet."""
        waiter = ReserveWaiter(loop=asyncio.get_running_loop())
        self._last_number += 1
        waiter.wish, waiter.number, waiter.account, waiter.asked = wish, self._last_number, None, ()
        return waiter

    def enqueue(self, waiter: ReserveWaiter, account: str) -> None:
        """Put a waiter into the queue of an account, and take it out of any other."""
        self.dequeue(waiter)
        waiter.account = account
        self._queues.setdefault(account, AccountQueue()).enqueue(waiter)

    def dequeue(self, waiter: ReserveWaiter) -> None:
        """Take a waiter out of its queue, if it is in one."""
        queue = self._queues.get(waiter.account) if waiter.account is not None else None
        if queue is not None:
            queue.dequeue(waiter)
            if not queue.waiters:
                del self._queues[waiter.account or ""]
        waiter.account = None

    def head_of(self, account: str) -> ReserveWaiter | None:
        """Return the waiter whose turn it is at an account."""
        queue = self._queues.get(account)
        if queue is None:
            return None
        waiter = queue.head()
        if waiter is None:
            del self._queues[account]
        return waiter

    def blocked_at(self, accounts: Sequence[str], number: float = math.inf) -> str | None:
        """Return the first of these accounts at which a waiter with a number below this one goes first, if any."""
        for account in accounts:
            head = self.head_of(account) if account in self._queues else None
            if head is not None and head.number < number:
                return account
        return None

    def waiting_for(self, account: str) -> list[ReserveWaiter]:
        """Return the waiters for an account, in order."""
        queue = self._queues.get(account)
        return [] if queue is None else [queue.waiters[number] for number in sorted(queue.waiters)]

    def accounts(self) -> set[str]:
        """Return the accounts for which requests wait, for a renewal or otherwise."""
        return {queue.removesuffix(UNTIL_RENEWAL) for queue in self._queues}

    def broken_invariants(self) -> Iterator[str]:
        """Name the queues that still hold waiters, although no request is under way."""
        for account, queue in self._queues.items():
            yield f"{len(queue.waiters)} were left waiting for money of account {account!r}"

    def __len__(self) -> int:
        return sum(len(queue.waiters) for queue in self._queues.values())

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __repr__(self) -> str:
        return f"<ReserveQueues {len(self)} waiting for {', '.join(self._queues) or 'nothing'}>"


class CloseWaiters:
    """The requests to close an account that wait until the last call that draws on it has ended."""

    def __init__(self) -> None:
        self._futures: dict[AccountState, asyncio.Future[Account]] = {}

    def wait_for(self, state: AccountState) -> asyncio.Future[Account]:
        """Return a future for the statement of a closed account; cancelling it leaves other askers alone."""
        future = self._futures.get(state)
        if future is None:
            future = self._futures[state] = asyncio.get_running_loop().create_future()
        # Shielded, because an asker that gives up must not take the answer from one that asks again.
        return asyncio.shield(future)

    def take_drained(self) -> list[tuple[AccountState, asyncio.Future[Account]]]:
        """Remove and return the waiters whose account no call draws on any more."""
        drained = [(state, future) for state, future in self._futures.items() if state.open == 0]
        for state, _ in drained:
            del self._futures[state]
        return [(state, future) for state, future in drained if not future.done()]

    def clear(self) -> tuple[AccountState, ...]:
        """Forget all of them, and return their accounts."""
        states = tuple(self._futures)
        self._futures.clear()
        return states

    def broken_invariants(self) -> Iterator[str]:
        """Name the accounts whose closing was not answered, although no request is under way."""
        for state in self._futures:
            yield f"the request to close account {state.name!r} was not answered"

    def __bool__(self) -> bool:
        return bool(self._futures)

    def __repr__(self) -> str:
        return f"<CloseWaiters for {', '.join(state.name for state in self._futures) or 'nothing'}>"
