"""Why a ledger refuses what no cap forbids: somebody might be paid twice, or nothing could be written down."""

from __future__ import annotations

from actors.errors.families import CallOutcome, Charged, NotAdmitted, Permanent
from actors.money import Micros, usd


class AlreadyPaid(Permanent):
    """A call under this idempotency key was paid, to `paid_to` and `paid` in all: it need not be paid again."""

    charged: Charged = "yes"

    def __init__(self, key: str, *, paid: Micros, paid_to: str) -> None:
        super().__init__(
            f"key {key!r} was paid already, ${usd(paid)}, last to {paid_to!r}; take its result from there; "
            'to pay once more, take another idempotency key, or reserve with intent="again"'
        )
        self.key = key
        self.paid = paid
        self.paid_to = paid_to


class StillUnsettled(Permanent):
    """A call under this idempotency key is under way, or may have been paid: see `is_held`. Settle that one first.

    `reservation` is its number, `at_provider` who was called, and `amount` the micro-units that are kept for it.
    """

    outcome: CallOutcome = "unknown"
    charged: Charged = "held"

    def __init__(self, key: str, *, reservation: int, at_provider: str, amount: Micros, is_held: bool) -> None:
        what = "may have been paid by" if is_held else "is under way with"
        super().__init__(
            f"key {key!r} {what} a call to {at_provider!r}, reservation {reservation} of ${usd(amount)}; find out what "
            f'became of it, and ask Resolve({reservation}, "yes") or "no"; if both may be paid, take another '
            'idempotency key, or reserve with intent="again"'
        )
        self.key = key
        self.reservation = reservation
        self.at_provider = at_provider
        self.amount = amount
        self.is_held = is_held


class JournalError(Exception):
    """The journal of a ledger cannot be used: it belongs to somebody else, or what it says cannot be relied on."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"journal {path!r} {problem}; {remedy}")
        self.path = path
        self.problem = problem


class JournalFailed(NotAdmitted):
    """The reservation could not be written down, so the call was not allowed; nothing was spent."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"journal {path!r} cannot be written: {reason}; make room for it, and try again")
        self.path = path
