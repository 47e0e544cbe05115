"""What is asked of a ledger and told to it, and what it answers. Amounts are micro-units."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from actors.errors.families import Charged  # noqa: TC001 - msgspec resolves the annotations below.
from actors.ledger.account import Account
from actors.ledger.entries import MoneyReleased, MoneySettled
from actors.ledger.page import Statement
from actors.money import MAX_MICROS, Micros
from actors.validation import check_text
from runtime import ActorRef, Message, Request

Intent: TypeAlias = Literal["first", "repeat", "again"]
"""What a call is to others under its key: the first; the same once more, charged once, because its provider honours
keys; or one that may be paid besides them, as whoever asks knows."""


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """Leave to spend `amount` on one call: say with `BookCall` what became of it, whatever that is.

    `attempt` counts the calls that have shared the reservation, as repetitions under one key do.
    """

    number: int
    key: str
    provider: str
    amount: Micros
    attempt: int = 1


class Reserve(Request[Reservation], frozen=True, kw_only=True):
    """Reserve `amount` in every one of `accounts`, or nothing in any; refused with `BudgetExceeded`.

    `key` is the idempotency key of the logical request, the same over all its calls, and `budget` caps what is spent
    and kept under it. Refused with `AlreadyPaid` and `StillUnsettled` where somebody might be paid twice under that
    key, unless the `intent` is to: "repeat" for a provider that charges a key once, "again" for a call that may be
    paid besides what was.

    With `wait`, an asker waits for money that calls under way may give back, in order, until the deadline. `holder` is
    the actor that answers for the call: if it ends or is restarted without a word, the money is held; or released,
    where the reservation was not made as `is_sent` and no `MarkSent` came.
    """

    key: str
    provider: str
    amount: Micros
    accounts: tuple[str, ...] = ()
    budget: Micros | None = None
    intent: Intent = "first"
    wait: bool = False
    holder: ActorRef | None = None
    is_sent: bool = True

    def __post_init__(self) -> None:
        if type(self.amount) is not int or not 0 <= self.amount <= MAX_MICROS:
            raise ValueError(f"amount must be a whole number of micro-units, from 0 to 2^63 - 1, got {self.amount!r}")
        if self.budget is not None and (type(self.budget) is not int or self.budget < 0):
            raise TypeError(f"budget must be a whole number of micro-units >= 0, got {self.budget!r}; see to_micros")
        if type(self.accounts) is not tuple:
            raise TypeError(f"accounts must be a tuple of names, got {self.accounts!r}")
        for account in self.accounts:
            if type(account) is not str:
                raise TypeError(f"accounts must be a tuple of names, got {self.accounts!r}")
        check_text("key", self.key)
        check_text("provider", self.provider)


class MarkSent(Message, frozen=True):
    """Tell that a call is about to be sent, so that its money is held should its holder end."""

    reservation: Reservation

    def __post_init__(self) -> None:
        check_reservation(self.reservation)


class BookCall(Message, frozen=True, gc=False):
    """Tell what became of a call: paid ("yes"), not paid ("no"), or nobody knows ("held").

    `cost` is what it cost, if it was paid; None where the provider does not say, and what was reserved is taken for it.
    Told twice, it counts once. What was held may be settled later by the same message.
    """

    reservation: Reservation
    charged: Charged = "yes"
    cost: Micros | None = None

    def __post_init__(self) -> None:
        check_reservation(self.reservation)
        if self.charged not in {"yes", "no", "held"}:
            raise ValueError(f'charged must be "yes", "no" or "held", got {self.charged!r}')
        if self.cost is not None:
            check_cost(self.charged, self.cost)


class Resolve(Request[MoneySettled | MoneyReleased], frozen=True):
    """Tell what was found out of a call whose money is held: paid, and how much; or not paid.

    Also after its accounts were closed. Refused with `Permanent` for a reservation that is not held. With `as_found`,
    by whoever has asked the provider, that it was paid goes before a "no" that somebody has said meanwhile.
    """

    reservation: int
    charged: Literal["yes", "no"]
    cost: Micros | None = None
    as_found: bool = False

    def __post_init__(self) -> None:
        if type(self.reservation) is not int:
            raise TypeError(f"reservation must be the number of one, as GetHeld lists it, got {self.reservation!r}")
        if self.charged not in {"yes", "no"}:
            raise ValueError(f'charged must be "yes" or "no", got {self.charged!r}')
        if self.cost is not None:
            check_cost(self.charged, self.cost)


class SetCap(Request[Statement], frozen=True):
    """Change the cap of an open account (None: no cap); one below what is used stops all that draws on it."""

    account: str
    cap: Micros | None

    def __post_init__(self) -> None:
        check_text("account", self.account)
        check_cap(self.cap)


class GetStatement(Request[Statement], frozen=True):
    """Ask for the figures of an account, or of all together; `Permanent` where nothing is known of it."""

    account: str | None = None

    def __post_init__(self) -> None:
        if self.account is not None:
            check_text("account", self.account)


class Unsettled(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation whose money is neither settled nor released, since `since`, in seconds since 1970."""

    reservation: int
    key: str
    provider: str
    amount: Micros
    accounts: tuple[str, ...]
    is_held: bool
    since: float


class GetHeld(Request[tuple[Unsettled, ...]], frozen=True):
    """Ask for the reservations of calls whose outcome is unknown, in `account` or in all, the oldest first."""

    account: str | None = None

    def __post_init__(self) -> None:
        if self.account is not None:
            check_text("account", self.account)


def check_reservation(reservation: Reservation) -> None:
    """Raise `TypeError` for what no ledger has given."""
    if type(reservation) is not Reservation:
        raise TypeError(f"reservation must be what Reserve was answered with, got {reservation!r}")


def check_cost(charged: Charged, cost: Micros) -> None:
    """Raise `ValueError` for what a call cannot have cost."""
    if type(cost) is not int or not 0 <= cost <= MAX_MICROS:
        raise ValueError(f"cost must be a whole number of micro-units, from 0 to 2^63 - 1, got {cost!r}")
    if charged != "yes":
        raise ValueError(f'a call that is charged {charged!r} has no cost, got {cost}; say charged "yes"')


def check_cap(cap: Micros | None) -> None:
    """Raise `ValueError` for what cannot be a cap."""
    if cap is not None and (type(cap) is not int or cap < 0):
        raise ValueError(f"cap must be a whole number of micro-units >= 0, or None for no cap, got {cap!r}")


class OpenAccount(Request[str], frozen=True, kw_only=True):
    """Open an account with a cap in micro-units (None: no cap), and learn its name; a name in use is refused."""

    name: str | None = None
    cap: Micros | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_text("name", self.name)
        check_cap(self.cap)


class CloseAccount(Request[Account], frozen=True, kw_only=True):
    """Close an account, and learn what became of its money.

    No call can draw on it from then on; the answer comes when those that do already have ended.
    """

    name: str

    def __post_init__(self) -> None:
        check_text("name", self.name)
