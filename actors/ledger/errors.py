"""Why a ledger refuses a reservation within every cap: a key might be paid twice, or the journal cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.errors.families import CallOutcome, Charged, NotAdmitted, Permanent
from actors.money import Micros  # noqa: TC001

if TYPE_CHECKING:
    from actors.ledger.reservation import Reservation
    from runtime.persistence import JournalError


class AlreadyPaid(Permanent):
    """A call under this idempotency key was paid: `paid` in all, the last to the provider `paid_to`.

    If there is a receipt, `at` is when (seconds since 1970), and `digest` that of the answer, which is not kept.
    """

    charged: Charged = "yes"

    def __init__(
        self, key: str, *, paid: Micros, paid_to: str, at: float | None = None, digest: str = "", why: str = ""
    ) -> None:
        super().__init__(
            f"key {key!r} was paid already, {paid}, last to {paid_to!r}{why and f', and its answer {why}'}; take its "
            "result from there, or, to pay once more, use another idempotency key, ask with repurchase=True, or "
            'reserve with intent="again"'
        )
        self.key = key
        self.paid = paid
        self.paid_to = paid_to
        self.at = at
        self.digest = digest


class KeyReused(Permanent):
    """This idempotency key belongs to another request; `fields` names what differs, such as "input.messages".

    They are not known any more once the answer is not kept any more.
    """

    outcome: CallOutcome = "not_started"

    def __init__(self, key: str, *, fields: tuple[str, ...]) -> None:
        super().__init__(
            f"key {key!r} belongs to another request, which differs{' in ' if fields else ''}{', '.join(fields)}; "
            "use another idempotency key, or ask for the same as before"
        )
        self.key = key
        self.fields = fields


class PaidUnanswered(AlreadyPaid):
    """A call under this key was held for so long that it counts as paid, and there is no answer to it.

    Whether it was paid is unknown still, and may become known later. Until then the key is not paid again.
    """

    outcome: CallOutcome = "unknown"
    charged: Charged = "held"

    def __init__(self, key: str, *, paid: Micros, paid_to: str, reservation: int) -> None:
        super().__init__(key, paid=paid, paid_to=paid_to)
        what = (
            f"key {key!r} counts as paid to {paid_to!r}, {paid}, without an answer: what became of its call was "
            f'not found out in time; ask Resolve({reservation}, "yes") or "no" once it is known, or use another '
            "idempotency key"
        )
        self.args = (what,)
        self.reservation = reservation


class StillUnsettled(Permanent):
    """A call under this idempotency key is under way, or may have been paid (`is_held`), and must be settled first.

    `reservation` is its number, `at_provider` the provider that was called, and `amount` what is kept for it. By its
    `handle`, if there is one, it can be taken up.
    """

    outcome: CallOutcome = "unknown"
    charged: Charged = "held"

    def __init__(
        self,
        key: str,
        *,
        reservation: int,
        at_provider: str,
        amount: Micros,
        is_held: bool,
        handle: str | None = None,
    ) -> None:
        what = "may have been paid by" if is_held else "is under way with"
        super().__init__(
            f"key {key!r} {what} a call to {at_provider!r}, reservation {reservation} of {amount}; find out what "
            f'became of it, and ask Resolve({reservation}, "yes") or "no"; if both may be paid, use another '
            'idempotency key, or reserve with intent="again"'
        )
        self.key = key
        self.reservation = reservation
        self.at_provider = at_provider
        self.amount = amount
        self.is_held = is_held
        self.handle = handle


class RiskExceeded(StillUnsettled):
    """To pay another provider besides would leave more at risk of being paid twice than is allowed.

    `at_risk` is what would be at risk, and `limit` what may be: under the key if `cap` is "request",
    else in the account of that name. Of an account that `is_paused` nothing is given, whatever its cap.
    """

    def __init__(
        self, passed: Reservation, *, at_risk: Micros, limit: Micros, cap: str, is_paused: bool = False
    ) -> None:
        number, amount = passed.number, passed.amount
        super().__init__(passed.key, reservation=number, at_provider=passed.provider, amount=amount, is_held=True)
        whose = "the request" if cap == "request" else f"account {cap!r}"
        bound, way_out = (
            (f"{whose} is paused", "resume the account")
            if is_paused
            else (f"{whose} allows {limit}", "allow a higher risk")
        )
        what = (
            f"key {passed.key!r} may have been paid by a call to {passed.provider!r}, reservation {number} of "
            f"{amount}; to pay another provider besides would leave {at_risk} at risk of being paid twice, "
            f'and {bound}; find out what became of it, and ask Resolve({number}, "yes") or "no"; or {way_out}'
        )
        self.args = (what,)
        self.at_risk = at_risk
        self.limit = limit
        self.cap = cap
        self.is_paused = is_paused


class JournalUnreadable(Permanent):
    """What the journal keeps cannot be read, because the file is damaged for example: nothing was done.

    `path` is the file, and `problem` says why.
    """

    outcome: CallOutcome = "not_started"

    def __init__(self, what: str, error: JournalError) -> None:
        super().__init__(f"{what}: {error}")
        self.path = error.path
        self.problem = error.problem


class JournalFailed(NotAdmitted):
    """What was asked could not be written to the journal: no call was allowed, and nothing was spent.

    A reservation or an account does not hold. What became of a call is written as soon as it can be.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"journal {path!r} {problem}; make room for it, and try again")
        self.path = path


class JournalDown(NotAdmitted):
    """The last write to the journal failed, so that nothing is paid until one succeeds: the call never ran."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"journal {path!r} {problem}; nothing is paid until it can be written, which is tried each second: "
            "make room for it"
        )
        self.path = path
