"""The messages that a ledger takes, and its answers. Amounts are given in dollars, as str, int or Decimal."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

import msgspec

from actors.errors.families import BudgetExceeded, Charged, Permanent
from actors.ledger.account import Account
from actors.ledger.entries import CostBasis, MoneyReleased, MoneySettled
from actors.ledger.errors import (
    AlreadyPaid,
    JournalDown,
    JournalFailed,
    JournalUnreadable,
    KeyReused,
    PaidUnanswered,
    RiskExceeded,
    StillUnsettled,
)
from actors.ledger.fingerprint import Fields  # noqa: TC001 - as above.
from actors.ledger.periods import Renewal, take_cap
from actors.ledger.receipt import KeyStatus, PaidAnswer
from actors.ledger.reservation import Reservation
from actors.ledger.statement import Statement
from actors.money import MAX_MICROS, ZERO, AmountField, Micros, OptionalAmountField, amount_default, take_amount
from actors.tariffs.tariff import Tariff  # noqa: TC001 - as above.
from actors.tariffs.usage import Usage  # noqa: TC001 - as above.
from actors.validation import check_text, checked_held_for
from runtime import ActorRef, Message, Refusal, Request

Intent: TypeAlias = Literal["first", "repeat", "again"]
"""What a call is to others under its key. "first": there must be no other. "repeat": it is the same call once more,
charged once, because its provider honours keys. "again": it may be paid in addition to the others."""
JOURNAL_REFUSALS: tuple[type[Refusal], ...] = (Permanent, JournalDown, JournalFailed, JournalUnreadable)
"""What most requests are refused with; from a ledger on another node, they come as what they are."""


def _take_given(message: Reserve, *names: str) -> None:
    """Take the amounts that are given."""
    for name in names:
        if getattr(message, name) is not None:
            take_amount(message, name)


class Reserve(Request[Reservation], frozen=True, kw_only=True):
    """Reserve `amount` in every one of `accounts`, or nothing in any; refused with `BudgetExceeded`.

    `key` is the idempotency key of the logical request, the same over all its calls, and `budget` caps what is spent
    and kept under it. Refused with `AlreadyPaid` or `StillUnsettled` if the key might be paid twice, unless that is the
    `intent`: "repeat" for a provider that charges a key once, "again" for a call that may be paid in addition.

    `passes_over` numbers held calls under the key whose outcome could not be found out: they are no reason to refuse,
    as long as they hold at most `risk` together (None: no bound), and there is room for them in `risk_account`, an open
    account that bounds what may be paid twice in all. Refused with `RiskExceeded` otherwise. A call that was reserved
    with `must_hold` is never passed over. What is held for it counts as charged after `held_for` seconds (None: as the
    ledger says).

    `at_least` is what the call costs presumably at most, if that is less than `amount`: if no more than that is left,
    it is what is reserved, as long as every account with a cap has an overdraft that bears the rest.

    With `wait`, the request waits for money that calls under way may give back, in order, until its deadline. `holder`
    is the actor that answers for the call. If it ends or is restarted without telling the outcome, the money is held.
    It is released instead if the reservation was made with `is_sent=False` and no `MarkSent` came.

    `spent` is what the asker knows to have been spent under the key; of many keys, the ledger may have forgotten that.
    `fingerprint` tells what the request under the key asks for, as the ledger gave it for a `FindKey`. `if_killed` is
    what the call counts as having cost if the program is killed while it is under way (None: its money is held).
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = (
        BudgetExceeded,
        AlreadyPaid,
        PaidUnanswered,
        StillUnsettled,
        RiskExceeded,
        KeyReused,
        *JOURNAL_REFUSALS,
    )

    key: str
    provider: str
    amount: AmountField
    accounts: tuple[str, ...] = ()
    budget: OptionalAmountField = amount_default(None)
    intent: Intent = "first"
    wait: bool = False
    holder: ActorRef | None = None
    is_sent: bool = True
    passes_over: tuple[int, ...] = ()
    risk: OptionalAmountField = amount_default(None)
    risk_account: str | None = None
    must_hold: bool = False
    held_for: float | None = None
    at_least: OptionalAmountField = amount_default(None)
    fingerprint: bytes | None = None
    if_killed: OptionalAmountField = amount_default(None)
    spent: AmountField = amount_default(ZERO)

    def __post_init__(self) -> None:
        # What is as in most messages between actors is seen without a call.
        amount, budget, risk = self.amount, self.budget, self.risk
        if not (type(amount) is type(self.spent) is Micros and 0 <= amount <= MAX_MICROS):
            take_amount(self, "amount")
            take_amount(self, "spent")
        if not self.at_least is self.if_killed is None:
            _take_given(self, "at_least", "if_killed")
        if not (budget is None or (type(budget) is Micros and 0 <= budget <= MAX_MICROS)):
            take_amount(self, "budget")
        if not (risk is None or (type(risk) is Micros and 0 <= risk <= MAX_MICROS)):
            take_amount(self, "risk")
        if self.held_for is not None:
            msgspec.structs.force_setattr(self, "held_for", checked_held_for(self.held_for))
        if type(self.passes_over) is not tuple or (
            self.passes_over and any(type(number) is not int for number in self.passes_over)
        ):
            raise TypeError(f"passes_over must be a tuple of numbers, as GetHeld lists them, got {self.passes_over!r}")
        if type(self.accounts) is not tuple or (
            self.accounts and any(type(account) is not str for account in self.accounts)
        ):
            raise TypeError(f"accounts must be a tuple of names, got {self.accounts!r}")
        if type(self.key) is not str or not self.key.isascii():
            check_text("key", self.key)
        if type(self.provider) is not str or not self.provider.isascii():
            check_text("provider", self.provider)


class MarkSent(Message, frozen=True):
    """Tell that a call is about to be sent, so that its money is held if its holder ends."""

    reservation: Reservation

    def __post_init__(self) -> None:
        check_reservation(self.reservation)


class NoteHandle(Message, frozen=True):
    """Tell the handle by which a call can be taken up again, so that it outlives the program."""

    reservation: Reservation
    handle: str

    def __post_init__(self) -> None:
        check_reservation(self.reservation)
        check_text("handle", self.handle)


class MarkUnderWay(Message, frozen=True):
    """Tell that a held call is still under way, so that its money does not age; or that this is not known any more."""

    reservation: int
    is_under_way: bool = True

    def __post_init__(self) -> None:
        if type(self.reservation) is not int:
            raise TypeError(f"reservation must be a number, as GetHeld lists it, got {self.reservation!r}")


class Costing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How the cost of a call is known: its `basis`, the `usage` that was told, and the `tariff` that was in force.

    What is settled as "estimated" is corrected by a cost that is told for the same reservation later.
    """

    basis: CostBasis
    usage: Usage | None = None
    tariff: Tariff | None = None

    def __post_init__(self) -> None:
        if self.basis not in {"exact", "provider", "estimated"}:
            raise ValueError(f'basis must be "exact", "provider" or "estimated", got {self.basis!r:.100}')


class BookCall(Message, frozen=True, gc=False):
    """Tell what became of a call: paid ("yes"), not paid ("no"), or unknown ("held").

    `cost` is what it cost, if it was paid; None if the provider does not say, and then it is what was reserved. Told
    twice, it counts once. What was held may be settled later by the same message. `costing` says how the cost is known.
    With an `answer`, a receipt of it is kept with the payment.
    """

    reservation: Reservation
    charged: Charged = "yes"
    cost: OptionalAmountField = amount_default(None)
    costing: Costing | None = None
    answer: PaidAnswer | None = None

    def __post_init__(self) -> None:
        if type(self.reservation) is not Reservation:
            check_reservation(self.reservation)
        if self.charged not in {"yes", "no", "held"}:
            raise ValueError(f'charged must be "yes", "no" or "held", got {self.charged!r}')
        cost = self.cost
        if cost is not None:
            if not (type(cost) is Micros and 0 <= cost <= MAX_MICROS):
                take_amount(self, "cost")
            if self.charged != "yes":
                check_cost(self.charged, self.cost or ZERO)


class Resolve(Request[MoneySettled | MoneyReleased], frozen=True):
    """Tell what was found out about a call whose money is held: paid, and how much; or not paid.

    It may come after the accounts were closed, and after the money was settled because it had been held for too long:
    then it corrects that, and so it does what was settled as estimated. Refused with `Permanent` for any other
    reservation that is not held. With
    `as_found`, the provider itself has said so, and then "yes" counts even if the money was released lately.
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = JOURNAL_REFUSALS

    reservation: int
    charged: Literal["yes", "no"]
    cost: OptionalAmountField = amount_default(None)
    as_found: bool = False
    costing: Costing | None = None
    answer: PaidAnswer | None = None

    def __post_init__(self) -> None:
        if type(self.reservation) is not int:
            raise TypeError(f"reservation must be a number, as GetHeld lists it, got {self.reservation!r}")
        if self.charged not in {"yes", "no"}:
            raise ValueError(f'charged must be "yes" or "no", got {self.charged!r}')
        if self.cost is not None:
            take_amount(self, "cost")
            check_cost(self.charged, self.cost)


class FindKey(Request[KeyStatus], frozen=True):
    """Ask what came of the request under a key, as the ledger has the key (see `scoped_key`).

    `fields` is what it asks for now; refused with `KeyReused` if it asked for something else before.
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = (KeyReused, *JOURNAL_REFUSALS)

    key: str
    fields: Fields

    def __post_init__(self) -> None:
        check_text("key", self.key)


class ForgetAnswer(Message, frozen=True):
    """Tell that the answer under a key, as the ledger has the key, is not asked for again; that it was paid is kept."""

    key: str

    def __post_init__(self) -> None:
        check_text("key", self.key)


class KeepFailure(Message, frozen=True):
    """Tell with which error a request has ended that paid `answer.paid_before`, the last time to this provider.

    Or tell what came of a stream that ended early, and whose cost is not known yet.
    """

    answer: PaidAnswer
    provider: str

    def __post_init__(self) -> None:
        check_text("provider", self.provider)


class OpenAccount(Request[str], frozen=True, kw_only=True):
    """Open an account with a cap (None: no cap); answered with its name.

    Without a name, one is made up. Refused with `Permanent` if the name is in use. `overdraft` is how far the cap may
    be passed, at most, by calls for which only their estimate was left.

    What draws on it draws on its `parent` too, an open account, and on that one's, up to 16 in all: each has to have
    enough, whatever the caps of those below it add up to. Closing an account closes those below it.

    A cap may renew: "5/day" or "100/month" by the calendar of a `zone` (None: UTC), "5/day rolling" as a window that
    rolls on. Then it is that of each period, and money counts in the period in which it was reserved.
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = JOURNAL_REFUSALS

    name: str | None = None
    cap: OptionalAmountField = amount_default(None)
    overdraft: AmountField = amount_default(ZERO)
    parent: str | None = None
    zone: str | None = None
    renewal: Renewal | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_text("name", self.name)
        if self.parent is not None:
            check_text("parent", self.parent)
        take_cap(self, "cap", "renewal", zone=self.zone)
        msgspec.structs.force_setattr(self, "zone", None)  # It is in the renewal now.
        take_amount(self, "overdraft")


class CloseAccount(Request[Account], frozen=True, kw_only=True):
    """Close an account; answered with its figures.

    No call can draw on it from then on. The answer comes when the calls that draw on it already have ended.
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = JOURNAL_REFUSALS

    name: str

    def __post_init__(self) -> None:
        check_text("name", self.name)


class GiveUpAccount(Message, frozen=True):
    """Close an account that its asker was not given any more: no call draws on it, and nothing is answered."""

    name: str

    def __post_init__(self) -> None:
        check_text("name", self.name)


class SetCap(Request[Statement], frozen=True):
    """Change the cap of an open account (None: no cap); if more is used already, no call can draw on it.

    A cap that renews goes on doing so as before, unless this one renews otherwise ("5/day"); then a period begins.
    Without `keeps_renewal`, a cap that says no period does not renew any more. `overdraft` is how far it may be passed
    (None: as far as before).
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = JOURNAL_REFUSALS

    account: str
    cap: OptionalAmountField
    renewal: Renewal | None = None
    overdraft: OptionalAmountField = amount_default(None)
    keeps_renewal: bool = True

    def __post_init__(self) -> None:
        check_text("account", self.account)
        take_cap(self, "cap", "renewal")
        if self.overdraft is not None:
            take_amount(self, "overdraft")


class PauseAccount(Request[Statement], frozen=True):
    """Let no call draw on an open account until it is resumed, whatever becomes of its cap meanwhile.

    Requests that need it are refused with `BudgetExceeded`, which `is_paused`. With a journal, that outlives the
    program.
    """

    account: str

    def __post_init__(self) -> None:
        check_text("account", self.account)


class ResumeAccount(Request[Statement], frozen=True):
    """Let calls draw on an account again that was paused, as far as its cap allows by now."""

    account: str

    def __post_init__(self) -> None:
        check_text("account", self.account)


class AnswerQuestion(Request[Statement], frozen=True, kw_only=True):
    """Answer the question of this number, once, in place of `on_exhausted`: with the new cap, or None to refuse.

    It holds for this period of the account, or `for_good`. A statement of the account names its `question`, which
    outlives the program if there is a journal. Refused with `Permanent` if that was answered, or is of no use any more.
    """

    question: int
    cap: OptionalAmountField
    for_good: bool = False

    def __post_init__(self) -> None:
        if type(self.question) is not int:
            raise TypeError(f"question must be a number, as a statement names it, got {self.question!r:.100}")
        if self.cap is not None:
            take_amount(self, "cap")


class AwaitCommit(Request[None], frozen=True):
    """Wait until all that the ledger was told before is on disk; answered at once if it has no journal.

    Refused with `JournalFailed` if that could not be written.
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = JOURNAL_REFUSALS


class GetStatement(Request[Statement], frozen=True):
    """Ask for the figures of an account, or of all together for None; refused with `Permanent` if it is not known."""

    refusals: ClassVar[tuple[type[Refusal], ...]] = JOURNAL_REFUSALS

    account: str | None = None

    def __post_init__(self) -> None:
        if self.account is not None:
            check_text("account", self.account)


class Statements(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of several accounts, and of the `total` of all; `open` accounts there are."""

    total: Statement
    accounts: tuple[Statement, ...]
    open: int


class ListStatements(Request[Statements], frozen=True, kw_only=True):
    """Ask for the figures of the open accounts from the `first` on, at most `most`; or of those of `names` known."""

    names: tuple[str, ...] | None = None
    first: int = 0
    most: int = 1_000


class Unsettled(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation whose money is neither settled nor released; `since` is in seconds since 1970.

    It `is_passed_over` if another call under its key was made besides, so that both may be paid.
    """

    reservation: int
    key: str
    provider: str
    amount: Micros
    accounts: tuple[str, ...]
    is_held: bool
    since: float
    is_passed_over: bool = False


class GetHeld(Request[tuple[Unsettled, ...]], frozen=True):
    """Ask for the reservations of calls whose outcome is unknown, in `account` or in all, the oldest first."""

    account: str | None = None

    def __post_init__(self) -> None:
        if self.account is not None:
            check_text("account", self.account)


class HeldHandle(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may have been paid, and the `handle` by which it can be taken up.

    `fingerprint` is of what the request under its key asks for, None if that is not known. `paid_before` is what has
    been paid under the key.
    """

    reservation: Reservation
    handle: str
    fingerprint: bytes | None
    paid_before: Micros


class ListHandles(Request[tuple[HeldHandle, ...]], frozen=True):
    """Ask which calls whose outcome is unknown can be taken up by a handle, the oldest first."""


def check_reservation(reservation: Reservation) -> None:
    """Raise `TypeError` if this is no reservation."""
    if type(reservation) is not Reservation:
        raise TypeError(f"reservation must be the Reservation that answered a Reserve, got {reservation!r}")


def check_cost(charged: Charged, cost: Micros) -> None:
    """Raise `ValueError` if a call that ended so has no cost."""
    if charged != "yes":
        raise ValueError(f'a call with charged={charged!r} has no cost, got {cost}; give charged="yes", or no cost')
