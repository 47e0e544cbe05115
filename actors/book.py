"""Money in several accounts at once: all of them take a reservation or none does, and every step is an entry.

Decisions return the entry that they have made; `apply` makes the same step from an entry that was written down before,
so that a book and its replay are equal. Nothing here waits, and the time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors import BudgetExceeded, Permanent
from actors.ledger_errors import AlreadyPaid, StillUnsettled
from actors.ledger_requests import Reservation, Unsettled
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.
from actors.movements import (
    AccountClosed,
    AccountOpened,
    CapChanged,
    MoneyHeld,
    MoneyReleased,
    MoneyReserved,
    MoneySettled,
)
from actors.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.errors import Charged
    from actors.ledger_requests import Intent, Reserve
    from actors.movements import Booked, Entry
    from actors.page import Statement

REQUEST = "request"
"""What a request's own budget is called where it refuses."""
TOTAL = "total"
MAX_RELEASED = 10_000
"""The reservations released last that are remembered, in case a call was charged after all."""
MAX_COMBINATIONS = 10_000


class Short(msgspec.Struct, frozen=True):
    """An account has too little: `available` where `needed` is wanted; None is the request's own budget.

    It `may_come` if there are calls under way that might give back enough.
    """

    account: str | None
    needed: Micros
    available: Micros
    may_come: bool
    provider: str

    def refusal(self) -> BudgetExceeded:
        """Return what the asker is told."""
        return BudgetExceeded(
            needed=self.needed, available=self.available, cap=self.account or REQUEST, provider=self.provider
        )


class Record(msgspec.Struct, eq=False, gc=False):
    """One reservation, as long as it may still be booked."""

    number: int
    key: str
    provider: str
    amount: Micros
    accounts: tuple[str, ...]
    pages: tuple[Page, ...]
    since: float
    attempt: int = 1
    is_held: bool = False
    is_told: bool = False
    """Whether whoever made the last call has said what became of it."""
    was_held: Micros = 0
    """What goes back to being held if a repetition tells nothing new of the call before it."""
    is_sent: bool = True
    holder: Any = None

    def reservation(self) -> Reservation:
        """Return what its asker gets."""
        return Reservation(self.number, self.key, self.provider, self.amount, self.attempt)

    def __repr__(self) -> str:
        return f"<Record {self.reservation()}{' held' if self.is_held else ''}>"


class Book:
    """The accounts, the reservations drawn on them, and who was paid under which key.

    `max_paid_keys` are remembered after they were paid. An account is `crossed` where so much of its cap as
    `alert_percent` has come to be used, or has ceased to be. `first` is the number of the first reservation.
    """

    def __init__(self, *, first: int = 1, alert_percent: int = 80, max_paid_keys: int = 100_000) -> None:
        self.first = self.next = first
        self.alert_percent = alert_percent
        self.max_paid_keys = max_paid_keys
        self.total = Page(TOTAL, None)
        """The other side of every entry: it draws on each reservation once."""
        self.holders: dict[Any, dict[int, Record]] = {}
        """The reservations of calls under way, by the actor that answers for them."""
        self.crossed: list[Page] = []
        """The accounts that have crossed their alert, until somebody takes note and clears the list."""
        self.has_forgotten_keys = False
        self._pages: dict[str, Page] = {}
        self._records: dict[int, Record] = {}
        self._released: OrderedDict[int, Record] = OrderedDict()
        self._by_key: dict[str, list[Record]] = {}
        self._paid: OrderedDict[str, tuple[Micros, str]] = OrderedDict()
        self._combinations: dict[tuple[str, ...], tuple[Page, ...]] = {}

    def number_from(self, first: int) -> None:
        """Let the first reservation have this number, before there is one."""
        self.first = self.next = first

    # Accounts.

    def open(self, name: str, *, cap: Micros | None, at: float) -> AccountOpened:
        """Open an account; raises `Permanent` for a name in use."""
        page = self._pages.get(name)
        if page is not None:
            what = (
                f"was closed and still holds {page.held} micro-units of calls whose outcome is unknown; resolve them"
                if page.is_closed
                else "is open already; close it"
            )
            raise Permanent(f"account {name!r} {what} first, or take another name")
        return self._done(AccountOpened(account=name, cap=cap, at=at))

    def close(self, name: str, *, at: float) -> tuple[Page, AccountClosed]:
        """Let nobody draw on an account any more, and return its page, whose money may still have to go its way."""
        page = self._open_page(name)
        return page, self._done(AccountClosed(account=name, at=at))

    def set_cap(self, name: str, cap: Micros | None, *, at: float) -> CapChanged:
        """Change a cap; one below what is used already lets nothing more be reserved."""
        self._open_page(name)
        return self._done(CapChanged(account=name, cap=cap, at=at))

    def is_open(self, name: str) -> bool:
        """Tell whether an account can be drawn on."""
        page = self._pages.get(name)
        return page is not None and not page.is_closed

    def is_known(self, name: str) -> bool:
        """Tell whether a name is in use: by an open account, or a closed one in which money is left."""
        return name in self._pages

    def open_accounts(self) -> list[str]:
        """Return the names of the open accounts."""
        return [name for name, page in self._pages.items() if not page.is_closed]

    def take_crossed(self) -> list[Page]:
        """Return the accounts that have crossed their alert, one way or the other, since this was last asked."""
        crossed, self.crossed = self.crossed, []
        return crossed

    def forget_crossings(self) -> None:
        """Keep, of what has crossed its alert during a replay, only what is beyond it now, once each."""
        self.crossed = [page for page in self._pages.values() if page.is_alerted and not page.is_closed]

    def statement(self, name: str | None = None) -> Statement:
        """Return the figures of an account, open or closed with money in it; of all together for None."""
        page = self.total if name is None else self._pages.get(name)
        if page is None:
            raise Permanent(f"there is no account {name!r}, nor a closed one in which money is left")
        return page.statement()

    # Reservations.

    def reserve(self, wish: Reserve, *, at: float) -> MoneyReserved | Short:
        """Reserve in every account, or nothing in any; raises what says `Reserve`, but returns what is short.

        A call that repeats one whose outcome is unknown takes on its reservation, which stays in the accounts where it
        is, and needs only what it costs more.
        """
        key, amount, accounts = wish.key, wish.amount, wish.accounts
        pages = self._combinations.get(accounts) or self._combine(accounts)
        record: Record | None = None
        used = 0
        if key in self._by_key or key in self._paid:
            record = self._repeated(key, wish.provider, wish.intent)
            used = self.used_by(key)
        number, more, from_held = self.next, amount, 0
        if record is not None:
            number, accounts, pages, from_held = record.number, record.accounts, record.pages, record.amount
            more = max(0, amount - from_held)
        if wish.budget is not None and used + more > wish.budget:
            return Short(None, more, max(0, wish.budget - used), False, wish.provider)  # noqa: FBT003
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
        if charged == "held":
            return self._hold(record, at)
        if number in self._released:
            return None
        # A repetition that was not charged does not say whether the call before it was.
        return self._hold(record, at, keep=record.was_held) if record.was_held else self._release(record, at)

    def resolve(
        self, number: int, charged: Charged, cost: Micros | None = None, *, at: float
    ) -> MoneySettled | MoneyReleased:
        """Enter what was found out about a call whose money is held; raises `Permanent` for any other."""
        record = self._records.get(number)
        if record is None or not record.is_held:
            what = "is under way" if record is not None else "is not held, or no more"
            raise Permanent(f"reservation {number} {what}; ask GetHeld which are held")
        return self._settle(record, cost, at) if charged == "yes" else self._release(record, at)

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

    # What is known.

    def unsettled(self, *, account: str | None = None, is_held: bool | None = None) -> tuple[Unsettled, ...]:
        """Return the reservations that are neither settled nor released, the oldest first."""
        return tuple(
            Unsettled(
                reservation=record.number,
                key=record.key,
                provider=record.provider,
                amount=record.amount,
                accounts=record.accounts,
                is_held=record.is_held,
                since=record.since,
            )
            for record in self._records.values()
            if (account is None or account in record.accounts) and (is_held is None or record.is_held == is_held)
        )

    def paid(self, key: str) -> tuple[Micros, str] | None:
        """Return what was paid under a key, and to whom last, if that is remembered."""
        return self._paid.get(key)

    def remember_paid(self, key: str, paid: Micros, provider: str) -> None:
        """Remember that so much was paid under a key in all, and forget the key that was paid longest ago."""
        self._paid[key] = (paid, provider)
        if len(self._paid) > self.max_paid_keys:
            self._paid.popitem(last=False)
            self.has_forgotten_keys = True

    def used_by(self, key: str) -> Micros:
        """Return what was spent under a key and is kept for it."""
        kept = sum(record.amount for record in self._by_key.get(key, ()))
        paid = self._paid.get(key)
        return kept if paid is None else kept + paid[0]

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up: in an account, in the whole, and between the accounts and the reservations."""
        for page in (*self._pages.values(), self.total):
            yield from page.broken_invariants()
            records = [one for one in self._records.values() if page in one.pages]
            held = sum(one.amount for one in records if one.is_held)
            reserved = sum(one.amount for one in records if not one.is_held)
            if (page.reserved, page.held) != (reserved, held):
                yield f"the calls that draw on {page.name!r} have {reserved} reserved and {held} held: {page}"
            on_hold = sum(1 for one in records if one.is_held)
            if (page.open, page.on_hold) != (len(records) - on_hold, on_hold):
                yield f"{page.name!r} counts {page.open} open and {page.on_hold} held; {on_hold} of {len(records)} are"
            if page.used != page.reserved + page.held + page.settled:
                yield f"{page.used} is not what is used of {page.name!r}: {page}"
        if sorted(one.number for them in self._by_key.values() for one in them) != sorted(self._records):
            yield "not every reservation is known by its key"

    def figures(self) -> dict[str, Any]:
        """Return everything that a replay has to bring back."""
        return {
            "accounts": [page.statement() for page in (*self._pages.values(), self.total)],
            "unsettled": self.unsettled(),
            "paid": dict(self._paid),
            "next": self.next,
        }

    # Entries.

    def apply(self, entry: Entry) -> None:
        """Make a step again that was written down; raises `ValueError` where it cannot have been made."""
        match entry:
            case MoneyReserved():
                self._apply_reserved(entry)
            case MoneySettled():
                self._post_settled(self._known(entry), entry)
            case MoneyReleased():
                self._post_released(self._known(entry), entry)
            case MoneyHeld():
                self._post_held(self._known(entry), entry)
            case AccountOpened():
                if entry.account in self._pages:
                    raise ValueError(f"it opens an account that is open: {entry}")
                self._done(entry)
            case _:
                if not self.is_open(entry.account):
                    raise ValueError(f"it concerns an account that is not open: {entry}")
                self._done(entry)

    def _apply_reserved(self, entry: MoneyReserved) -> None:
        record = self._records.get(entry.reservation)
        if entry.from_held:
            if record is None or not record.is_held or record.amount != entry.from_held:
                raise ValueError(f"it repeats a call that is not held: {entry}")
            self._post_reserved(entry, record.pages)
        elif entry.reservation < self.next or not all(map(self.is_open, entry.accounts)):
            raise ValueError(f"it reserves what it cannot: {entry}")
        else:
            self._post_reserved(entry, self._combine(entry.accounts))

    def _known(self, entry: Booked) -> Record:
        record = self._records.get(entry.reservation) or self._released.get(entry.reservation)
        if record is None:
            raise ValueError(f"it books what was never reserved: {entry}")
        return record

    def _done(self, entry: Any) -> Any:
        """Make a step that concerns an account and no reservation."""
        name: str = entry.account
        self._combinations.clear()
        match entry:
            case AccountOpened():
                self._pages[name] = Page(name, entry.cap, alert_percent=self.alert_percent)
            case CapChanged():
                page = self._pages[name]
                page.set_cap(entry.cap, alert_percent=self.alert_percent)
                self._watch(page)
            case _:
                self._pages[name].is_closed = True
                self._forget(self._pages[name])
        return entry

    def _settle(self, record: Record, cost: Micros | None, at: float) -> MoneySettled:
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

    def _release(self, record: Record, at: float, *, is_told: bool = True) -> MoneyReleased:
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
        self, record: Record, at: float, *, keep: Micros | None = None, is_told: bool = True
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

    def _post_reserved(self, entry: MoneyReserved, pages: tuple[Page, ...]) -> Record:
        amount, from_held, number = entry.amount, entry.from_held, entry.reservation
        if from_held:
            record = self._records[number]
            record.amount += amount
            record.attempt += 1
            record.is_held = record.is_told = False
            record.was_held = from_held
            record.since = entry.at
        else:
            record = self._records[number] = Record(
                number, entry.key, entry.provider, amount, entry.accounts, pages, entry.at
            )
            others = self._by_key.get(entry.key)
            if others is None:
                self._by_key[entry.key] = [record]
            else:
                others.append(record)
            self.next = number + 1
        for page in pages:
            page.used += amount
            page.reserved_ever += amount
            page.reserved += amount + from_held
            page.open += 1
            if from_held:
                page.held -= from_held
                page.on_hold -= 1
            if page.used >= page.alert_at and not page.is_alerted:
                self._watch(page)
        return record

    def _post_settled(self, record: Record, entry: MoneySettled) -> None:
        cost = entry.cost
        if entry.is_late:
            self._revive(record)
        self._end(record, cost, entry.released, entry.overcharged)
        if cost:
            before = self._paid.pop(record.key, None)
            self.remember_paid(record.key, cost if before is None else cost + before[0], record.provider)

    def _post_released(self, record: Record, entry: MoneyReleased) -> None:
        self._end(record, 0, entry.released, 0)
        record.is_told = entry.is_told
        self._released[record.number] = record
        if len(self._released) > MAX_RELEASED:
            self._released.popitem(last=False)

    def _post_held(self, record: Record, entry: MoneyHeld) -> None:
        if record.number in self._released:
            self._revive(record)
        self._leave_holder(record)
        was_open = not record.is_held
        kept, released = entry.held, entry.released
        for page in record.pages:
            if was_open:
                page.open -= 1
                page.on_hold += 1
                page.reserved -= kept + released
                page.held += kept
            else:
                page.held -= released
            page.released += released
            page.used -= released
            self._watch(page)
        record.amount = kept
        record.is_held = True
        record.is_told = entry.is_told
        record.since = entry.at
        if entry.is_told:
            record.was_held = 0

    def _end(self, record: Record, cost: Micros, released: Micros, overcharged: Micros) -> None:
        """Let a reservation be no more, and its money go its way."""
        amount, is_held, beyond = record.amount, record.is_held, overcharged - released
        del self._records[record.number]
        others = self._by_key[record.key]
        if len(others) == 1:
            del self._by_key[record.key]
        else:
            others.remove(record)
        if record.holder is not None:
            self._leave_holder(record)
        for page in record.pages:
            if is_held:
                page.held -= amount
                page.on_hold -= 1
            else:
                page.reserved -= amount
                page.open -= 1
            if beyond:
                page.released += released
                page.used += beyond
            if cost:
                page.settled += cost
                page.overcharged += overcharged
            if (page.used >= page.alert_at) is not page.is_alerted:
                self._watch(page)
            if page.is_closed:
                self._forget(page)

    def _revive(self, record: Record) -> None:
        """Take back what was released, whatever the caps say: the call it was for may have been charged after all."""
        del self._released[record.number]
        self._records[record.number] = record
        self._by_key.setdefault(record.key, []).append(record)
        record.is_held = False
        record.was_held = 0
        for page in record.pages:
            page.released -= record.amount
            page.reserved += record.amount
            page.used += record.amount
            page.beyond += record.amount
            page.open += 1

    def _answer_for(self, record: Record, holder: Any) -> None:
        self._leave_holder(record)
        record.holder = holder
        theirs = self.holders.get(holder)
        if theirs is None:
            theirs = self.holders[holder] = {}
        theirs[record.number] = record

    def _leave_holder(self, record: Record) -> None:
        theirs = self.holders.get(record.holder)
        if theirs is not None:
            theirs.pop(record.number, None)
        record.holder = None

    def _watch(self, page: Page) -> None:
        """Take note where so much of a cap as calls for an alert has come to be used, or has ceased to be."""
        if (page.used >= page.alert_at) is not page.is_alerted:
            page.is_alerted = not page.is_alerted
            self.crossed.append(page)

    def _forget(self, page: Page) -> None:
        """Forget a closed account once no money is left in it."""
        if page.open == page.on_hold == 0 and self._pages.get(page.name) is page:
            del self._pages[page.name]

    # Looking up.

    def _repeated(self, key: str, provider: str, intent: Intent) -> Record | None:
        """Return the held reservation that a call under a known key takes on, if any; raise where it must not be."""
        if intent == "again":
            return None
        paid = self._paid.get(key)
        if paid is not None:
            raise AlreadyPaid(key, paid=paid[0], paid_to=paid[1])
        found: Record | None = None
        for other in self._by_key.get(key, ()):
            if found is None and intent == "repeat" and other.is_held and other.provider == provider:
                found = other
                continue
            raise StillUnsettled(
                key, reservation=other.number, at_provider=other.provider, amount=other.amount, is_held=other.is_held
            )
        return found

    def _open_page(self, name: str) -> Page:
        page = self._pages.get(name)
        if page is None or page.is_closed:
            raise Permanent(f"there is no open account {name!r}; open it first")
        return page

    def _combine(self, accounts: tuple[str, ...]) -> tuple[Page, ...]:
        """Return the pages of accounts that are drawn on together, and that of all."""
        pages = tuple(self._open_page(name) for name in accounts)
        if len(set(accounts)) != len(accounts):
            raise Permanent(f"a reservation draws on each account once; name none twice: {', '.join(accounts)}")
        if len(self._combinations) >= MAX_COMBINATIONS:
            self._combinations.clear()
        combined = self._combinations[accounts] = (*pages, self.total)
        return combined

    def __repr__(self) -> str:
        held = sum(1 for record in self._records.values() if record.is_held)
        return f"<Book {len(self._pages)} accounts, {len(self._records) - held} reservations open, {held} held>"


def _short(pages: tuple[Page, ...], amount: Micros, provider: str) -> Short:
    """Name the account that refuses: rather one in which no call under way can make room."""
    short = [page for page in pages if page.used + amount > page.limit]
    page = next((one for one in short if not one.may_allow_later(amount)), short[0])
    return Short(page.name, amount, page.available, page.may_allow_later(amount), provider)
