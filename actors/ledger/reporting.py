"""What a ledger publishes: every entry, an alert when most of a cap is used, and what a provider charged too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.events import CAP_ALERT, HELD_ALERT, AlertCleared, AlertRaised, HeldExpired, Overcharged
from actors.money import ZERO

if TYPE_CHECKING:
    import sqlite3

    from actors.errors.families import Permanent
    from actors.ledger.entries import MoneySettled
    from actors.ledger.page import AccountTable
    from actors.money import Micros
    from runtime import Context


class HeldCalls:
    """The reservations that are held for calls to one provider."""

    __slots__ = ("reservations", "since")

    def __init__(self, since: float) -> None:
        self.reservations: set[int] = set()
        self.since = since
        """In loop time."""


class Reporter:
    """Publishes what becomes of the money in the accounts of one ledger."""

    def __init__(self, context: Context, accounts: AccountTable) -> None:
        self._accounts = accounts
        self._now = context.now
        self._log = context.log
        self.publish = context.events.publish  # Looked up once, because every step is published.
        self._alerted_at: dict[str, float] = {}
        self._held: dict[str, HeldCalls] = {}
        """What is held, by provider; only those for which something is."""

    def report_alerts(self) -> None:
        """Publish which accounts have crossed their alert, one way or the other."""
        now = self._now()
        for state in self._accounts.take_crossed():
            value = state.used / state.cap if state.cap else None
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

    def report_held(self, provider: str, reservation: int, amount: Micros) -> None:
        """Note that money is held for a call, and publish it if it is the first of its provider."""
        held, now = self._held.get(provider), self._now()
        if held is None:
            held = self._held[provider] = HeldCalls(now)
            cause = f"{amount} are held for a call whose outcome is unknown; GetHeld lists them, Resolve ends them"
            self.publish(
                AlertRaised(
                    rule=HELD_ALERT, subject=provider, value=int(amount) / 1e6, threshold=0.0, at=now, cause=cause
                )
            )
        held.reservations.add(reservation)

    def report_resolved(self, provider: str, reservation: int) -> None:
        """Note what became of a call, and publish it if nothing is held for its provider any more."""
        held = self._held.get(provider)
        if held is None:
            return
        held.reservations.discard(reservation)
        if held.reservations:
            return
        del self._held[provider]
        self.publish(AlertCleared(rule=HELD_ALERT, subject=provider, value=0.0, lasted=self._now() - held.since))

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

    def log_journal_failed(self, path: str, error: sqlite3.Error) -> None:
        """Log that the last entries could not be written."""
        self._log.opt(exception=error).error("journal {!r} cannot be written", path)
