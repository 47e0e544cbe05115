"""Begins the periods of caps that renew, each when it is first needed, and wakes the requests that wait for one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.ledger.reporting import LEAP
from runtime import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.ledger.bookkeeper import Bookkeeper
    from actors.ledger.waiters import ReserveQueues
    from runtime import Context, Timer

LONGEST_SLEEP = 3600.0
"""Seconds after which the clock is looked at again, in case it has jumped."""
SHORTEST_SLEEP = 1.0
"""Seconds that it is not looked at again after a look at which no period had begun."""


class RenewalDue(Message, frozen=True):
    """The ledger reminds itself of a cap that may have renewed."""


class ClockWatch:
    """How far the clock is ahead of the time that has passed since it was last looked at.

    >>> watch = ClockWatch(now=5.0, clock=1_000.0)
    >>> watch.ahead(now=7.0, clock=1_002.0), watch.ahead(now=8.0, clock=5_003.0), watch.ahead(now=9.0, clock=5_004.0)
    (0.0, 4000.0, 0.0)
    """

    def __init__(self, *, now: float, clock: float) -> None:
        self._now, self._clock = now, clock

    def ahead(self, *, now: float, clock: float) -> float:
        """Return the seconds, and look again from now on; `now` is in loop time."""
        ahead = (clock - self._clock) - (now - self._now)
        self._now, self._clock = now, clock
        return ahead


class Renewer:
    """Begins the periods of the accounts of one book."""

    def __init__(self, bookkeeper: Bookkeeper, context: Context) -> None:
        self._bookkeeper = bookkeeper
        self._book = bookkeeper.book
        self._context = context
        self._watch = ClockWatch(now=context.now(), clock=time.time())
        self._reminder: Timer | None = None
        self._reminded_of = 0

    def renew(self, accounts: Iterable[str]) -> list[str]:
        """Begin a new period in these accounts if it is time; return those in which one began."""
        clock, renewed = time.time(), list[str]()
        for account in accounts:
            entry = self._book.renew(account, at=clock)
            if entry is not None:
                self._bookkeeper.record(entry)
                renewed.append(account)
        if renewed:
            ahead = self._watch.ahead(now=self._context.now(), clock=clock)
            for account in renewed:
                self._bookkeeper.reporter.report_leap(account, ahead if ahead > LEAP else None)
        return renewed

    def waiting(self, queues: ReserveQueues) -> list[str]:
        """Return the accounts whose caps renew, and for which requests wait."""
        states = self._book.accounts.states
        return [one for one in queues.accounts() if one in states and states[one].renewing is not None]

    def remind(self, account: str) -> None:
        """Be woken when the next period of an account begins, as a request waits for it."""
        state = self._book.accounts.states.get(account)
        if state is not None and state.renewing is not None:
            self._wake_at(state.renewing.current.period.end)

    def remind_again(self, accounts: Iterable[str]) -> None:
        """Having been woken, be woken for the next period of these accounts.

        That is never at once, so that a clock which was put back, or is slow, is not asked all the time.
        """
        self._reminder = None
        states = self._book.accounts.states
        ends = [renewing.current.period.end for one in accounts if (renewing := states[one].renewing) is not None]
        if ends:
            self._wake_at(min(ends), least=SHORTEST_SLEEP)

    def _wake_at(self, end: int, *, least: float = 0.0) -> None:
        if self._reminder is not None:
            if end >= self._reminded_of:
                return
            self._reminder.cancel()
        self._reminded_of = end
        pause = min(max(end - time.time(), least), LONGEST_SLEEP)
        self._reminder = self._context.timers.once(pause, RenewalDue())
