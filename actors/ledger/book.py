"""Money in several accounts at once: all of them take a reservation or none does, and every step is an entry.

Decisions return the entry that they have made. Nothing here waits, and the time is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.entries import (
    AccountClosed,
    AccountOpened,
    CapChanged,
    MoneyHeld,
    MoneyReleased,
    MoneyReserved,
    MoneySettled,
)
from actors.ledger.errors import AlreadyPaid, StillUnsettled
from actors.ledger.postings import Postings
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.

if TYPE_CHECKING:
    from actors.errors.families import Charged
    from actors.ledger.entries import Booked
    from actors.ledger.messages import Intent, Reservation, Reserve
    from actors.ledger.page import AccountState
    from actors.ledger.postings import KeyRecord

REQUEST = "request"
"""What a request's own budget is called where it refuses."""


class InsufficientFunds(msgspec.Struct, frozen=True):
    """An account has too little: `available` where `needed` is wanted; None is the request's own budget.

    It `may_free_up` if there are calls under way that might give back enough.
    """

    account: str | None
    needed: Micros
    available: Micros
    may_free_up: bool
    provider: str

    def refusal(self) -> BudgetExceeded:
        """Return what the asker is told."""
        return BudgetExceeded(
            needed=self.needed,
            available=self.available,
            cap=self.account or REQUEST,
            provider=self.provider,
            may_free_up=self.may_free_up,
        )


class Book(Postings):
    """The accounts, the reservations drawn on them, and who was paid under which key.

    `max_paid_keys` are remembered after they were paid. An account is `crossed` where so much of its cap as
    `alert_percent` has come to be used, or has ceased to be. `first` is the number of the first reservation.
    """

    # Accounts.

    def open(self, name: str, *, cap: Micros | None, at: float) -> AccountOpened:
        """Open an account; raises `Permanent` for a name in use."""
        page = self._pages.get(name)
        if page is not None:
            what = (
                f"was closed and still holds {page.held} micro-units of calls whose outcome is unknown; resolve them"
                if page.is_closed and page.held
                else "was closed, and calls under way still draw on it; wait for them"
                if page.is_closed
                else "is open already; close it"
            )
            raise Permanent(f"account {name!r} {what} first, or take another name")
        return self._done(AccountOpened(account=name, cap=cap, at=at))

    def close(self, name: str, *, at: float) -> tuple[AccountState, AccountClosed]:
        """Let nobody draw on an account any more, and return its page, whose money may still have to go its way."""
        page = self._open_page(name)
        return page, self._done(AccountClosed(account=name, at=at))

    def set_cap(self, name: str, cap: Micros | None, *, at: float) -> CapChanged:
        """Change a cap; one below what is used already lets nothing more be reserved."""
        self._open_page(name)
        return self._done(CapChanged(account=name, cap=cap, at=at))

    # Reservations.

    def reserve(self, wish: Reserve, *, at: float) -> MoneyReserved | InsufficientFunds:
        """Reserve in every account, or nothing in any; raises what says `Reserve`, but returns what is short.

        A call that repeats one whose outcome is unknown takes on its reservation, which stays in the accounts where it
        is, and needs only what it costs more.
        """
        key, amount, accounts = wish.key, wish.amount, wish.accounts
        pages = self._combinations.get(accounts) or self._combine(accounts)
        record: KeyRecord | None = None
        used = 0
        if key in self._by_key or key in self._paid:
            record = self._repeated(key, wish.provider, wish.intent)
            used = self.used_by(key)
        number, more, from_held = self.next, amount, 0
        if record is not None:
            number, accounts, pages, from_held = record.number, record.accounts, record.pages, record.amount
            more = max(0, amount - from_held)
        if wish.budget is not None and used + more > wish.budget:
            return InsufficientFunds(None, more, max(0, wish.budget - used), False, wish.provider)  # noqa: FBT003
        if more or record is None:  # What is held already is owed, whatever the caps say.
            for page in pages:
                if page.used + more > page.limit:
                    return _short(pages, more, wish.provider)
        entry = MoneyReserved(
            reservation=number,
            key=key,
            provider=wish.provider,
            accounts=accounts,
            amount=more,
            from_held=from_held,
            at=at,
        )
        record = self._post_reserved(entry, pages)
        record.is_sent = wish.is_sent
        if wish.holder is not None:
            self._answer_for(record, wish.holder)
        return entry

    def has_enough_held(self, wish: Reserve) -> bool:
        """Tell whether a wish repeats a call for which as much is held already: it takes nothing from others."""
        return wish.intent == "repeat" and any(
            one.is_held and one.provider == wish.provider and one.amount >= wish.amount
            for one in self._by_key.get(wish.key, ())
        )

    def given(self, number: int) -> Reservation:
        """Return what the asker of a reservation gets."""
        return self._records[number].reservation()

    def refuse_repetition(self, wish: Reserve) -> None:
        """Raise what `reserve` would because of the accounts and the key."""
        if wish.accounts not in self._combinations:
            self._combine(wish.accounts)
        if wish.key in self._by_key or wish.key in self._paid:
            self._repeated(wish.key, wish.provider, wish.intent)

    def mark_sent(self, reservation: Reservation) -> None:
        """Note that a call has been sent: if its holder ends, nobody knows whether it was paid."""
        record = self._records.get(reservation.number)
        if record is not None and record.attempt == reservation.attempt:
            record.is_sent = True

    def book(
        self, reservation: Reservation, charged: Charged, cost: Micros | None = None, *, at: float
    ) -> Booked | None:
        """Enter what became of a call; None where that was known already.

        That it was paid is entered whenever it becomes known: while the money is held, and even where it was released
        lately. Raises `Permanent` for a reservation that was never made.
        """
        number = reservation.number
        record = self._records.get(number) or self._released.get(number)
        if record is None:
            if not self.first <= number < self.next:
                raise Permanent(f"there is no reservation {number}; was it made by another ledger?")
            return None
        if record.key != reservation.key:
            raise Permanent(f"reservation {number} is not of key {reservation.key!r}; was it made by another ledger?")
        if charged == "yes":
            return self._settle(record, cost, at)
        if record.is_told or record.attempt != reservation.attempt:
            # It came twice, or late: whoever repeated the call meanwhile knows better.
            return None
        if charged == "held" and record.amount:  # Of a call that costs nothing there is nothing to hold.
            return self._hold(record, at)
        if number in self._released:
            return None
        # A repetition that was not charged does not say whether the call before it was.
        return self._hold(record, at, keep=record.was_held) if record.was_held else self._release(record, at)

    def resolve(
        self, number: int, charged: Charged, cost: Micros | None = None, *, as_found: bool = False, at: float
    ) -> MoneySettled | MoneyReleased:
        """Enter what was found out about a call whose money is held; raises `Permanent` for any other.

        `as_found` that it was paid is entered also where it was released lately. Not where the same provider was paid
        for another call under its key, or has one open: then that is what was found, for who looks up asks by the key.
        """
        record = self._records.get(number)
        late = self._released.get(number) if as_found and charged == "yes" else None
        if late is not None and not self._has_another(late):
            return self._settle(late, cost, at)
        if record is None or not record.is_held:
            what = "is under way" if record is not None else "is not held, or no more"
            raise Permanent(f"reservation {number} {what}; ask GetHeld which are held")
        return self._settle(record, cost, at) if charged == "yes" else self._release(record, at)

    def _has_another(self, record: KeyRecord) -> bool:
        """Tell whether the provider of a released reservation was paid, or may be, for another call under its key."""
        paid = self._paid.get(record.key)
        others = self._by_key.get(record.key, ())
        return (paid is not None and paid[1] == record.provider) or any(
            one.provider == record.provider for one in others
        )

    def take_back(self, reservation: Reservation, *, at: float) -> Booked | None:
        """Undo a reservation that its asker never got, so that no call was made. None where it has ended."""
        record = self._records.get(reservation.number)
        if record is None or record.is_told or record.attempt != reservation.attempt:
            return None
        return self._hold(record, at, keep=record.was_held) if record.was_held else self._release(record, at)

    def holder_ended(self, holder: Any, *, at: float) -> list[Booked]:
        """Book what an actor has left open: held where the call may have been sent, else released."""
        booked: list[Booked] = []
        for record in tuple(self.holders.pop(holder, {}).values()):
            if record.is_sent:
                booked.append(self._hold(record, at, is_told=False))
            elif record.was_held:
                booked.append(self._hold(record, at, keep=record.was_held, is_told=False))
            else:
                booked.append(self._release(record, at, is_told=False))
        return booked

    def hold_all(self, *, at: float) -> list[Booked]:
        """Hold what is open after a crash: nobody knows what became of those calls."""
        return [self._hold(record, at, is_told=False) for record in tuple(self._records.values()) if not record.is_held]

    # Entries.

    def _settle(self, record: KeyRecord, cost: Micros | None, at: float) -> MoneySettled:
        amount = record.amount
        if cost is None:
            cost = amount
        entry = MoneySettled(
            reservation=record.number,
            key=record.key,
            provider=record.provider,
            accounts=record.accounts,
            cost=cost,
            released=amount - cost if cost < amount else 0,
            overcharged=cost - amount if cost > amount else 0,
            is_late=record.number in self._released,
            at=at,
        )
        self._post_settled(record, entry)
        return entry

    def _release(self, record: KeyRecord, at: float, *, is_told: bool = True) -> MoneyReleased:
        entry = MoneyReleased(
            reservation=record.number,
            key=record.key,
            provider=record.provider,
            accounts=record.accounts,
            released=record.amount,
            is_told=is_told,
            at=at,
        )
        self._post_released(record, entry)
        return entry

    def _hold(
        self, record: KeyRecord, at: float, *, keep: Micros | None = None, is_told: bool = True
    ) -> MoneyHeld | MoneyReleased:
        """Hold a reservation, or so much of it as to `keep`."""
        if record.amount == 0:
            return self._release(record, at, is_told=is_told)  # There is nothing to hold.
        if keep is None:
            keep = record.amount
        entry = MoneyHeld(
            reservation=record.number,
            key=record.key,
            provider=record.provider,
            accounts=record.accounts,
            held=keep,
            released=record.amount - keep,
            is_told=is_told,
            at=at,
        )
        self._post_held(record, entry)
        return entry

    def _repeated(self, key: str, provider: str, intent: Intent) -> KeyRecord | None:
        """Return the held reservation that a call under a known key takes on, if any; raise where it must not be."""
        if intent == "again":
            return None
        if intent == "repeat":
            for other in self._by_key.get(key, ()):
                if other.is_held and other.provider == provider:
                    return other
        paid = self._paid.get(key)
        if paid is not None:
            raise AlreadyPaid(key, paid=paid[0], paid_to=paid[1])
        found: KeyRecord | None = None
        for other in self._by_key.get(key, ()):
            if found is None and intent == "repeat" and other.is_held and other.provider == provider:
                found = other
                continue
            raise StillUnsettled(
                key, reservation=other.number, at_provider=other.provider, amount=other.amount, is_held=other.is_held
            )
        return found

    def _answer_for(self, record: KeyRecord, holder: Any) -> None:
        self._leave_holder(record)
        record.holder = holder
        theirs = self.holders.get(holder)
        if theirs is None:
            theirs = self.holders[holder] = {}
        theirs[record.number] = record

    def __repr__(self) -> str:
        held = sum(1 for record in self._records.values() if record.is_held)
        return f"<Book {len(self._pages)} accounts, {len(self._records) - held} reservations open, {held} held>"


def _short(pages: tuple[AccountState, ...], amount: Micros, provider: str) -> InsufficientFunds:
    """Name the account that refuses: rather one in which no call under way can make room."""
    short = [page for page in pages if page.used + amount > page.limit]
    page = next((one for one in short if not one.may_allow_later(amount)), short[0])
    return InsufficientFunds(page.name, amount, page.available, page.may_allow_later(amount), provider)
