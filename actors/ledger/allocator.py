"""Grants reservations: at once if every account has enough, else in the order of the wait queues, or not at all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import BudgetExceeded, CallFailed
from actors.ledger.entries import MoneyReserved
from actors.ledger.messages import Reservation
from actors.ledger.waiters import ReserveWaiter, until_renewal
from actors.money import ZERO

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from actors.ledger.approvals import Approvals, CapAnswer
    from actors.ledger.book import InsufficientFunds
    from actors.ledger.bookkeeper import Bookkeeper
    from actors.ledger.messages import Reserve
    from actors.ledger.page import AccountState
    from actors.ledger.periods import Renewal
    from actors.ledger.renewer import Renewer
    from actors.ledger.waiters import ReserveQueues
    from actors.money import Micros


class Allocator:
    """Decides which request gets money, and when; at most `max_waiting` requests wait.

    `watch` is called with the holder of a reservation before it is granted.
    """

    def __init__(
        self,
        bookkeeper: Bookkeeper,
        queues: ReserveQueues,
        approvals: Approvals,
        renewer: Renewer,
        *,
        max_waiting: int,
        watch: Callable[[Any], None],
    ) -> None:
        self._bookkeeper = bookkeeper
        self._book = bookkeeper.book
        self._paid_keys = bookkeeper.book.paid_keys
        self._queues = queues
        self._approvals = approvals
        self._renewer = renewer
        self._max_waiting = max_waiting
        self._watch = watch

    def reserve(self, wish: Reserve) -> Reservation | asyncio.Future[Reservation]:
        """Return a reservation, or a future for it; raises the refusal.

        There are three cases:
        1. An earlier request waits for one of the accounts, and goes first.
        2. Every account has enough.
        3. One has too little: the request waits for money, or while more is asked for, or is refused.
        """
        if self._book.accounts.has_tree:
            wish = msgspec.structs.replace(wish, accounts=self._book.accounts.with_parents(wish.accounts))
        if self._book.accounts.has_renewing:
            self.renew(wish.accounts)
        if self._paid_keys.has_forgotten:
            self._remember_key(wish.key)
        if (
            self._queues
            and (account := self._queues.blocked_at(wish.accounts)) is not None
            and not self._book.has_enough_held(wish)
        ):
            return self._wait_behind_others(wish, account)  # 1.
        made = self._book.reserve(wish, at=time.time())
        if isinstance(made, MoneyReserved):
            return self._grant(made, wish)  # 2.
        waiter = self._queues.new_waiter(wish)  # 3.
        if len(self._queues) >= self._max_waiting or not self._may_wait(waiter, made):
            raise made.refusal()
        if self._book.accounts.has_renewing:
            self._renewer.remind(made.account or "")
        return self._enqueue(waiter, self._queue_of(made))

    def serve(self, account: str) -> None:
        """Serve those that wait for an account, in its queue and for its renewal."""
        self._serve(account)
        if self._book.accounts.has_renewing:
            self._serve(until_renewal(account))

    def serve_renewed(self) -> None:
        """Serve those that wait for an account whose cap has renewed, and be reminded of the next."""
        waiting = self._renewer.waiting(self._queues)
        self._renew(waiting)
        for account in waiting:
            self.serve(account)
        self._renewer.remind_again(self._renewer.waiting(self._queues))

    def renew(self, accounts: Iterable[str]) -> None:
        """Begin a new period in these accounts if it is time, and serve those that wait for it."""
        for account in self._renew(accounts):
            self.serve(account)

    def _renew(self, accounts: Iterable[str]) -> list[str]:
        """Begin a new period in these accounts if it is time; return those in which one began."""
        renewed = self._renewer.renew(accounts)
        for account in renewed:
            self._approvals.withdraw(account)
        return renewed

    def _queue_of(self, short: InsufficientFunds) -> str:
        """Name the queue in which to wait for an account that is short.

        A request that nothing can help but the renewal holds up no other: what is left would be of no use to it.
        """
        account = short.account or ""
        is_parked = short.retry_after is not None and not short.may_free_up and not self._rolls(account)
        return until_renewal(account) if is_parked else account

    def _rolls(self, account: str) -> bool:
        renewal = self._book.accounts.states[account].renewal
        return renewal is not None and renewal.rolling

    def _serve(self, queue: str) -> None:
        """Serve a queue until its head has to wait there.

        There are five cases for the request at the head:
        1. An earlier one waits for another of its accounts: it waits there.
        2. It is refused for a reason other than money, such as a key that was paid meanwhile.
        3. Every account has enough: it is granted.
        4. One has too little, and there is nothing to wait for any more: it is refused.
        5. One has too little now: it waits there. If it is this one, all behind it wait too.
        """
        queues = self._queues
        while (waiter := queues.head_of(queue)) is not None:
            wish = waiter.wish
            if self._book.accounts.has_renewing:
                self._renew(wish.accounts)
            if (earlier := queues.blocked_at(wish.accounts, waiter.number)) is not None:
                queues.enqueue(waiter, earlier)  # 1.
                continue
            if self._paid_keys.has_forgotten:
                self._remember_key(wish.key)  # It may have been paid, and forgotten, since the request came.
            try:
                made = self._book.reserve(wish, at=time.time())
            except CallFailed as refusal:
                self._refuse(waiter, refusal)  # 2.
                continue
            if isinstance(made, MoneyReserved):
                queues.dequeue(waiter)
                self._grant(made, wish, waiter)  # 3.
            elif not self._may_wait(waiter, made):
                self._refuse(waiter, made.refusal())  # 4.
            elif (short_of := self._queue_of(made)) == queue:
                return  # 5.
            else:
                queues.enqueue(waiter, short_of)  # 5.
                self._renewer.remind(made.account or "")

    def set_cap(
        self,
        account: str,
        cap: Micros | None,
        renewal: Renewal | None = None,
        *,
        overdraft: Micros | None = None,
        only_now: bool = False,
    ) -> None:
        """Change a cap, and look again at the requests that wait for the account."""
        self._renew((account,))
        self._approvals.withdraw(account)  # This cap is newer than any answer that may still come.
        changed = self._book.set_cap(
            account, cap, overdraft=overdraft, renewal=renewal, only_now=only_now, at=time.time()
        )
        self._bookkeeper.record(changed)
        self.serve(account)

    def pause(self, account: str, *, is_paused: bool) -> None:
        """Let no call draw on an account, and refuse the requests that wait for it; or let calls draw on it again."""
        entry = self._book.pause(account, is_paused=is_paused, at=time.time())
        if entry is not None:
            self._approvals.withdraw(account)  # More is of no use to it now; it is asked for anew when it is.
            self._bookkeeper.record(entry)
            self.serve(account)

    def close(self, account: str) -> AccountState:
        """Close an account, which refuses all requests that wait for it; return its state."""
        state, entry = self._book.close(account, at=time.time())
        self._bookkeeper.record(entry)
        self._approvals.withdraw(account)
        self._bookkeeper.reporter.forget_alert(account)
        self.serve(account)
        return state

    def _grant(self, entry: MoneyReserved, wish: Reserve, waiter: ReserveWaiter | None = None) -> Any:
        """Record a reservation that was made; return the answer, or a future that has it once that is written."""
        if wish.holder is not None:
            self._watch(wish.holder)
        self._bookkeeper.record(entry)
        if entry.from_held or entry.overdrawn:
            reservation = self._book.reservation(entry.reservation)
        else:
            reservation = Reservation(entry.reservation, wish.key, wish.provider, wish.amount)
        return self._bookkeeper.once_written(reservation, waiter)

    def _remember_key(self, key: str) -> None:
        """Let the book know whether a key was paid, even if it has forgotten that."""
        if key not in self._paid_keys:
            self._bookkeeper.restore_paid_key(key)

    # Waiting.

    def _wait_behind_others(self, wish: Reserve, account: str) -> asyncio.Future[Reservation]:
        """Queue a request behind the others that wait for an account, as money in it goes to them first."""
        self._book.refuse_repetition(wish)
        if len(self._queues) >= self._max_waiting or not (wish.wait or self._approvals.is_pending(account)):
            raise BudgetExceeded(
                needed=wish.amount,
                available=ZERO,
                cap=account,
                account=self._book.accounts.leaf(account, wish.accounts),
                provider=wish.provider,
                may_free_up=True,
                retry_after=self._book.renews_in(account, wish.amount, at=time.time()),
            )
        return self._enqueue(self._queues.new_waiter(wish), account)

    def _enqueue(self, waiter: ReserveWaiter, account: str) -> ReserveWaiter:
        self._queues.enqueue(waiter, account)
        waiter.add_done_callback(self._left)
        return waiter

    def _left(self, waiter: asyncio.Future[Reservation]) -> None:
        """Take a waiter that gave up out of its queue."""
        if isinstance(waiter, ReserveWaiter) and (account := waiter.account) is not None:
            self._queues.dequeue(waiter)
            self._serve(account)  # The next one may want less.

    def _refuse(self, waiter: ReserveWaiter, refusal: CallFailed) -> None:
        self._queues.dequeue(waiter)
        waiter.set_exception(refusal)

    def _may_wait(self, waiter: ReserveWaiter, short: InsufficientFunds) -> bool:
        """Tell whether there is something to wait for: calls under way, or more money, which is asked for here."""
        account = short.account
        if account is None or short.is_paused:
            return False
        if short.may_free_up and waiter.wish.wait:
            return True
        return self._asks_for_more(waiter, account, short.needed) or (
            waiter.wish.wait and short.retry_after is not None
        )

    def _asks_for_more(self, waiter: ReserveWaiter, account: str, needed: Micros) -> bool:
        """Ask the owner for a higher cap, unless that is being done; False if there is no answer to wait for.

        A question of an earlier run that has no answer yet is asked again as the same.
        """
        if account in self._book.accounts.refused or not self._approvals.may_ask(waiter, account):
            return False
        if not self._approvals.is_pending(account):
            if (asked := self._book.ask(account, needed, at=time.time())) is not None:
                self._bookkeeper.record(asked)
            self._approvals.ask(waiter, self._book.statement(account), needed, self._answered)
        return True

    def _answered(self, account: str, answer: CapAnswer | None, asked_for: ReserveWaiter) -> None:
        """Go on after `on_exhausted` has answered, or has failed to."""
        asked_for.asked += (account,)
        self.answer(account, answer)

    def answer(self, account: str, answer: CapAnswer | None) -> None:
        """Raise the cap, or refuse the requests that have waited for this answer alone."""
        if answer is not None:
            answered = self._book.answer(account, answer.cap, for_good=answer.for_good, at=time.time())
            self._bookkeeper.record(answered)
        statement = self._book.statement(account)
        cap = None if answer is None else answer.cap
        if answer is not None and cap is not None and statement.cap is not None and cap > statement.cap:
            self.set_cap(account, cap, statement.renewal, only_now=not answer.for_good)
            return
        for waiter in (*self._queues.waiting_for(account), *self._queues.waiting_for(until_renewal(account))):
            waiter.asked += (account,)
            wish = waiter.wish
            if not wish.wait and not waiter.done():
                refusal = BudgetExceeded(
                    needed=wish.amount,
                    available=statement.available or ZERO,
                    cap=account,
                    account=self._book.accounts.leaf(account, wish.accounts),
                    provider=wish.provider,
                )
                self._refuse(waiter, refusal)
        self.serve(account)

    def __repr__(self) -> str:
        return f"<Allocator of {self._book!r}, {len(self._queues)} waiting>"
