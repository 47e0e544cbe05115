"""What happens to money, as facts: each is an event on the stream, an entry of the journal, and a step of the book.

A reservation is made once. Its money is then settled, released, or held until it is known which of the two.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from actors.ledger.periods import Renewal  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import ZERO, Micros
from actors.tariffs.tariff import Tariff  # noqa: TC001 - msgspec resolves the annotations below.
from actors.tariffs.usage import Usage  # noqa: TC001 - as above.
from runtime import Event
from runtime.persistence import qualified

CostBasis: TypeAlias = Literal["exact", "provider", "estimated"]
"""How the cost of a call is known: by its usage and its tariff; as its provider stated it; or not, so that it is
estimated until a later figure corrects it."""


class LedgerEntry(Event, frozen=True, tag=qualified("actors.ledger"), omit_defaults=True):
    """What every entry is: an event that is written by its full name, without the fields that say nothing."""


class AccountOpened(LedgerEntry, frozen=True, kw_only=True):
    """An account was opened; a `cap` of None allows anything. `at` is in seconds since 1970, as in every entry.

    `overdraft` is how far calls that cost more than estimated may pass the cap, at most. What draws on it draws on its
    `parent` too. The cap is that of each period if there is a `renewal`.
    """

    account: str
    cap: Micros | None
    at: float
    overdraft: Micros = ZERO
    parent: str | None = None
    renewal: Renewal | None = None


class CapChanged(LedgerEntry, frozen=True, kw_only=True):
    """The cap of an account was changed, and its overdraft; None leaves that as it is.

    If the `renewal` is as before, what the period has used counts on; else one begins. With `only_now`, the cap holds
    for this period alone; of a window that rolls, until what counts now has passed; of an account that does not renew,
    until its cap is set to another.
    """

    account: str
    cap: Micros | None
    at: float
    overdraft: Micros | None = None
    renewal: Renewal | None = None
    only_now: bool = False


class CapRenewed(LedgerEntry, frozen=True, kw_only=True):
    """A period of an account has begun, from `start` until before `end`, in seconds since 1970; nothing of it is used.

    It is never before an earlier one, even if the clock has been put back.
    """

    account: str
    start: int
    end: int
    at: float


class QuestionAsked(LedgerEntry, frozen=True, kw_only=True):
    """The owner of the money is asked for a higher cap, because a call needs so much more than is left."""

    question: int
    account: str
    needed: Micros
    at: float


class QuestionAnswered(LedgerEntry, frozen=True, kw_only=True):
    """The owner has answered, once, with a new cap or with None to refuse; a `CapChanged` follows if that is higher.

    The answer holds for the period, or `for_good`.
    """

    question: int
    account: str
    cap: Micros | None
    for_good: bool = False
    at: float


class AccountClosed(LedgerEntry, frozen=True, kw_only=True):
    """No call can draw on an account any more; what is reserved or held in it is still settled or released."""

    account: str
    at: float


class AccountPaused(LedgerEntry, frozen=True, kw_only=True):
    """No call can draw on an account until it is resumed; its cap stays as it is, and can be changed meanwhile."""

    account: str
    at: float


class AccountResumed(LedgerEntry, frozen=True, kw_only=True):
    """Calls can draw on an account again that was paused, as far as its cap allows."""

    account: str
    at: float


class MoneyReserved(LedgerEntry, frozen=True, kw_only=True, gc=False):
    """`amount` was promised to a call, in each of `accounts`.

    If the call repeats one under its idempotency key, both share one reservation. `from_held` is then what had been
    held for it before, and is promised to it too; otherwise it is 0.

    `passes_over` numbers the held calls that may be paid as well, from this call on. What they hold is held in
    `risk_account` too, if there is one. A call with `must_hold` is never passed over itself. `held_for` is how many
    seconds its money is held at most, if it ever is; None is as the ledger says. It may cost `overdrawn` more than was
    promised to it, which is within the overdraft of its accounts. `fingerprint` tells what the request asks for, if it
    has a key of its caller. If the program is killed while the call is under way, it is settled at `if_killed`, as
    estimated, at the next start; None holds its money then.
    """

    reservation: int
    key: str
    provider: str
    accounts: tuple[str, ...]
    amount: Micros
    from_held: Micros = ZERO
    passes_over: tuple[int, ...] = ()
    risk_account: str | None = None
    must_hold: bool = False
    held_for: float | None = None
    overdrawn: Micros = ZERO
    fingerprint: bytes | None = None
    if_killed: Micros | None = None
    at: float


class TariffListed(LedgerEntry, frozen=True, kw_only=True):
    """A tariff was used for the first time: its prices, and the digest by which settlements name it."""

    digest: str
    tariff: Tariff
    at: float


class MoneySettled(LedgerEntry, frozen=True, kw_only=True, gc=False):
    """A call cost `cost`, of which `overcharged` was never reserved; `released` of what was reserved is free again.

    It `is_late` if all of that had been released before, because the charge was not known. It `is_expired` if the money
    was held for too long, and the charge is not known. Once it is, another entry `corrects` what was settled then.

    `basis` says how the cost is known (None: it is a listed price, or what was reserved), by which `usage`, if that was
    told, and at which `tariff`, by its digest. Of what was overcharged, `overdrawn` was within the overdraft.
    """

    reservation: int
    key: str
    provider: str
    accounts: tuple[str, ...]
    cost: Micros
    released: Micros = ZERO
    overcharged: Micros = ZERO
    is_late: bool = False
    is_expired: bool = False
    corrects: Micros = ZERO
    basis: CostBasis | None = None
    usage: Usage | None = None
    tariff: str | None = None
    overdrawn: Micros = ZERO
    at: float


class MoneyReleased(LedgerEntry, frozen=True, kw_only=True, gc=False):
    """A call cost nothing, so what was reserved for it is free again. `is_told` as in `MoneyHeld`.

    It `corrects` what was settled for it when it had been held for too long.
    """

    reservation: int
    key: str
    provider: str
    accounts: tuple[str, ...]
    released: Micros
    is_told: bool = True
    corrects: Micros = ZERO
    at: float


class HeldUnderWay(LedgerEntry, frozen=True, kw_only=True):
    """The provider has said of a held call that it is still under way, so that its money does not age."""

    reservation: int
    key: str
    provider: str
    at: float


class HandleNoted(LedgerEntry, frozen=True, kw_only=True):
    """The provider has given a handle, by which the call can be taken up whatever becomes of its connection."""

    reservation: int
    key: str
    provider: str
    handle: str
    at: float


class MoneyHeld(LedgerEntry, frozen=True, kw_only=True, gc=False):
    """It is unknown whether a call was paid: `held` is kept for it, and `released` is free again.

    `is_told` if the ledger was told so; False if the actor that answers for the call ended, or the ledger crashed.
    """

    reservation: int
    key: str
    provider: str
    accounts: tuple[str, ...]
    held: Micros
    released: Micros = ZERO
    is_told: bool = True
    at: float


Booked: TypeAlias = MoneySettled | MoneyReleased | MoneyHeld
"""What becomes of a reservation."""
AccountEntry: TypeAlias = (
    QuestionAsked
    | QuestionAnswered
    | AccountOpened
    | CapChanged
    | CapRenewed
    | AccountPaused
    | AccountResumed
    | AccountClosed
)
"""What concerns an account and no reservation."""
Entry: TypeAlias = AccountEntry | MoneyReserved | TariffListed | HeldUnderWay | HandleNoted | Booked
"""Every step of a book."""
