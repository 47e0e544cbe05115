"""What a ledger publishes: every entry, an alert when most of a cap is used, and what a provider charged too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.events import CAP_ALERT, CLOCK_ALERT, HELD_ALERT, AlertCleared, AlertRaised, HeldExpired, Overcharged
from actors.money import ZERO
from runtime import Message

if TYPE_CHECKING:
    from actors.errors.families import Permanent
    from actors.ledger.account_table import AccountTable
    from actors.ledger.entries import MoneySettled
    from actors.money import Micros
    from runtime import Context, Timer
    from runtime.persistence import JournalError


LEAP = 60.0
"""Seconds by which the clock is ahead of the time that has passed, and has leapt: more than what is lost to rounding,
to a slow loop, or to the steps by which daemons put a clock right."""
CLOCK_ERROR = 1e-6
"""Seconds by which a timer may be early, by rounding."""


class HeldAlertDue(Message, frozen=True):
    """The ledger reminds itself of money that may be held for long enough to raise an alert."""


class HeldCalls:
    """The reservations that are held for calls to one provider."""

    __slots__ = ("alerted_at", "calls")

    def __init__(self) -> None:
        self.calls: dict[int, tuple[float, Micros]] = {}
        """Since when each is held, in loop time, and how much."""
        self.alerted_at: float | None = None

    def oldest(self) -> tuple[float, Micros]:
        """Return since when the one is held that is held for longest, and how much."""
        return min(self.calls.values(), key=lambda one: one[0])


class Reporter:
    """Publishes what becomes of the money in the accounts of one ledger."""

    def __init__(self, context: Context, accounts: AccountTable, *, held_alert_after: float) -> None:
        self._accounts = accounts
        self._now = context.now
        self._log = context.log
        self.publish = context.events.publish  # Looked up once, because every step is published.
        self._timers = context.timers
        self._held_alert_after = held_alert_after
        self._reminder: Timer | None = None
        self._reminded_at = 0.0
        self._alerted_at: dict[str, float] = {}
        self._leapt_at: dict[str, float] = {}
        self._held: dict[str, HeldCalls] = {}
        """What is held, by provider; only those for which something is."""

    def report_alerts(self) -> None:
        """Publish which accounts have crossed their alert, one way or the other."""
        now = self._now()
        for state in self._accounts.take_crossed():
            value = state.share
            since = self._alerted_at.pop(state.name, now)
            if state.is_alerted:
                self._alerted_at[state.name] = now
                threshold = self._accounts.alert_percent / 100
                self.publish(
                    AlertRaised(rule=CAP_ALERT, subject=state.name, value=value or 0.0, threshold=threshold, at=now)
                )
            else:
                self.publish(AlertCleared(rule=CAP_ALERT, subject=state.name, value=value, lasted=now - since))

    def forget_alert(self, account: str) -> None:
        """Clear the alert of an account that was closed."""
        since = self._alerted_at.pop(account, None)
        if since is not None:
            self.publish(AlertCleared(rule=CAP_ALERT, subject=account, value=None, lasted=self._now() - since))
        self.report_leap(account, None)

    def report_leap(self, account: str, ahead: float | None) -> None:
        """Publish that a cap has renewed because the clock leapt ahead by so many seconds; None if it did not."""
        now = self._now()
        since = self._leapt_at.pop(account, None)
        if since is not None:
            self.publish(AlertCleared(rule=CLOCK_ALERT, subject=account, value=None, lasted=now - since))
        if ahead is not None:
            self._leapt_at[account] = now
            cause = (
                f"the clock is {ahead:,.0f} s ahead of the time that has passed, and the cap of {account!r} has "
                "renewed by it; put the clock right: the period holds until the clock has passed it"
            )
            self.publish(
                AlertRaised(rule=CLOCK_ALERT, subject=account, value=ahead, threshold=LEAP, at=now, cause=cause)
            )

    def report_held(self, provider: str, reservation: int, amount: Micros, *, held_for: float = 0.0) -> None:
        """Note that money is held for a call, since `held_for` seconds; it is published once that lasts."""
        held = self._held.get(provider)
        if held is None:
            held = self._held[provider] = HeldCalls()
        held.calls.setdefault(reservation, (self._now() - held_for, amount))
        if held.alerted_at is None:
            self._report_held_long(provider, held)

    def report_held_long(self) -> None:
        """Publish for which providers money has been held for long."""
        self._reminder = None
        for provider, held in self._held.items():
            if held.alerted_at is None:
                self._report_held_long(provider, held)

    def _report_held_long(self, provider: str, held: HeldCalls) -> None:
        """Publish it for one provider if it is time, or else be reminded."""
        now, (since, amount) = self._now(), held.oldest()
        due = since + self._held_alert_after
        if due > now + CLOCK_ERROR:
            if self._reminder is None or due < self._reminded_at:
                if self._reminder is not None:
                    self._reminder.cancel()
                self._reminded_at = due
                self._reminder = self._timers.once(due - now, HeldAlertDue())
            return
        held.alerted_at = now
        cause = f"{amount} are held for a call whose outcome is unknown; GetHeld lists them, Resolve ends them"
        self.publish(
            AlertRaised(rule=HELD_ALERT, subject=provider, value=int(amount) / 1e6, threshold=0.0, at=now, cause=cause)
        )

    def report_resolved(self, provider: str, reservation: int) -> None:
        """Note what became of a call, and publish it if nothing has been held for long for its provider any more."""
        held, now = self._held.get(provider), self._now()
        if held is None or held.calls.pop(reservation, None) is None:
            return
        if not held.calls:
            del self._held[provider]
        elif held.oldest()[0] + self._held_alert_after <= now:
            return
        if held.alerted_at is not None:
            self.publish(AlertCleared(rule=HELD_ALERT, subject=provider, value=0.0, lasted=now - held.alerted_at))
            held.alerted_at = None
        if held.calls:
            self._report_held_long(provider, held)

    def report_overcharge(self, entry: MoneySettled) -> None:
        """Publish that a call was charged more than was reserved for it, or after all of that had been released."""
        self.publish(
            Overcharged(
                provider=entry.provider,
                key=entry.key,
                quoted=ZERO if entry.is_late else entry.cost - entry.overcharged,
                charged=entry.cost,
                accounts=entry.accounts,
            )
        )

    def report_expired(self, entry: MoneySettled, *, since: float) -> None:
        """Publish that a call counts as charged, because nothing was found out about it for too long."""
        self.publish(
            HeldExpired(
                reservation=entry.reservation,
                provider=entry.provider,
                key=entry.key,
                amount=entry.cost,
                accounts=entry.accounts,
                since=since,
            )
        )

    def log_not_opened(self, refusal: Permanent) -> None:
        """Log that an account of the configuration could not be opened."""
        self._log.warning("{}", refusal)

    def report_journal_down(self, error: JournalError) -> None:
        """Log that nothing is paid until the journal can be written."""
        self._log.error("{}; nothing is paid until it can be written, which is tried each second", error)

    def log_journal_failed(self, error: JournalError) -> None:
        """Log that the last entries could not be written."""
        self._log.opt(exception=error).error("what is not in the journal will be held at the next start")
