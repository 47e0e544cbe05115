"""What each entry does to the figures: the state of a book, and the steps by which alone it changes.

A step is posted once to every account that it concerns and once to the whole, so that either side can be checked by
the other; and it is the same step whether it was decided just now or is read back from a journal.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import Permanent
from actors.ledger.entries import AccountOpened, CapChanged, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.messages import Reservation, Unsettled
from actors.ledger.page import AccountState
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.ledger.entries import Booked, Entry
    from actors.ledger.page import Statement

TOTAL = "total"
MAX_RELEASED = 10_000
"""The reservations released last that are remembered, in case a call was charged after all."""
MAX_COMBINATIONS = 10_000
"""The sets of accounts that are drawn on together, and are looked up once."""


class KeyRecord(msgspec.Struct, eq=False, gc=False):
    """One reservation, as long as it may still be booked."""

    number: int
    key: str
    provider: str
    amount: Micros
    accounts: tuple[str, ...]
    pages: tuple[AccountState, ...]
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


class Postings:
    """Accounts, reservations and paid keys; see `Book` for what the parameters are."""

    def __init__(self, *, first: int = 1, alert_percent: int = 80, max_paid_keys: int = 100_000) -> None:
        self.first = self.next = first
        self.alert_percent = alert_percent
        self.max_paid_keys = max_paid_keys
        self.total = AccountState(TOTAL, None)
        """The other side of every entry: it draws on each reservation once."""
        self.holders: dict[Any, dict[int, KeyRecord]] = {}
        """The reservations of calls under way, by the actor that answers for them."""
        self.crossed: list[AccountState] = []
        """The accounts that have crossed their alert, until somebody takes note and clears the list."""
        self.has_forgotten_keys = False
        self._pages: dict[str, AccountState] = {}
        self._records: dict[int, KeyRecord] = {}
        self._released: OrderedDict[int, KeyRecord] = OrderedDict()
        self._by_key: dict[str, list[KeyRecord]] = {}
        self._paid: OrderedDict[str, tuple[Micros, str]] = OrderedDict()
        self._combinations: dict[tuple[str, ...], tuple[AccountState, ...]] = {}

    def number_from(self, first: int) -> None:
        """Let the first reservation have this number, before there is one."""
        self.first = self.next = first

    # What is known.

    def is_open(self, name: str) -> bool:
        """Tell whether an account can be drawn on."""
        page = self._pages.get(name)
        return page is not None and not page.is_closed

    def is_known(self, name: str) -> bool:
        """Tell whether a name is in use: by an open account, or a closed one in which money is left."""
        return name in self._pages

    def draining(self, name: str) -> AccountState | None:
        """Return the page of an account that was closed while calls draw on it, and still do."""
        page = self._pages.get(name)
        return page if page is not None and page.is_closed and page.open else None

    def open_accounts(self) -> list[str]:
        """Return the names of the open accounts."""
        return [name for name, page in self._pages.items() if not page.is_closed]

    def statement(self, name: str | None = None) -> Statement:
        """Return the figures of an account, open or closed with money in it; of all together for None."""
        page = self.total if name is None else self._pages.get(name)
        if page is None:
            raise Permanent(f"there is no account {name!r}, nor a closed one in which money is left")
        return page.statement()

    def take_crossed(self) -> list[AccountState]:
        """Return the accounts that have crossed their alert, one way or the other, since this was last asked."""
        crossed, self.crossed = self.crossed, []
        return crossed

    def forget_crossings(self) -> None:
        """Keep, of what has crossed its alert during a replay, only what is beyond it now, once each."""
        self.crossed = [page for page in self._pages.values() if page.is_alerted and not page.is_closed]

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

    def _known(self, entry: Booked) -> KeyRecord:
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
                self._pages[name] = AccountState(name, entry.cap, alert_percent=self.alert_percent)
            case CapChanged():
                page = self._pages[name]
                page.set_cap(entry.cap, alert_percent=self.alert_percent)
                self._watch(page)
            case _:
                self._pages[name].is_closed = True
                self._forget(self._pages[name])
        return entry

    def _post_reserved(self, entry: MoneyReserved, pages: tuple[AccountState, ...]) -> KeyRecord:
        amount, from_held, number = entry.amount, entry.from_held, entry.reservation
        if from_held:
            record = self._records[number]
            record.amount += amount
            record.attempt += 1
            record.is_held = record.is_told = False
            record.was_held = from_held
            record.since = entry.at
        else:
            record = self._records[number] = KeyRecord(
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

    def _post_settled(self, record: KeyRecord, entry: MoneySettled) -> None:
        cost = entry.cost
        if entry.is_late:
            self._revive(record)
        self._end(record, cost, entry.released, entry.overcharged)
        if cost:
            before = self._paid.pop(record.key, None)
            self.remember_paid(record.key, cost if before is None else cost + before[0], record.provider)

    def _post_released(self, record: KeyRecord, entry: MoneyReleased) -> None:
        self._end(record, 0, entry.released, 0)
        record.is_told = entry.is_told
        self._released[record.number] = record
        if len(self._released) > MAX_RELEASED:
            self._released.popitem(last=False)

    def _post_held(self, record: KeyRecord, entry: MoneyHeld) -> None:
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

    def _end(self, record: KeyRecord, cost: Micros, released: Micros, overcharged: Micros) -> None:
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

    def _revive(self, record: KeyRecord) -> None:
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

    def _leave_holder(self, record: KeyRecord) -> None:
        theirs = self.holders.get(record.holder)
        if theirs is not None:
            theirs.pop(record.number, None)
        record.holder = None

    def _watch(self, page: AccountState) -> None:
        """Take note where so much of a cap as calls for an alert has come to be used, or has ceased to be."""
        if (page.used >= page.alert_at) is not page.is_alerted:
            page.is_alerted = not page.is_alerted
            self.crossed.append(page)

    def _forget(self, page: AccountState) -> None:
        """Forget a closed account once no money is left in it."""
        if page.open == page.on_hold == 0 and self._pages.get(page.name) is page:
            del self._pages[page.name]

    def _open_page(self, name: str) -> AccountState:
        page = self._pages.get(name)
        if page is None or page.is_closed:
            raise Permanent(f"there is no open account {name!r}; open it first")
        return page

    def _combine(self, accounts: tuple[str, ...]) -> tuple[AccountState, ...]:
        """Return the pages of accounts that are drawn on together, and that of all."""
        pages = tuple(self._open_page(name) for name in accounts)
        if len(set(accounts)) != len(accounts):
            raise Permanent(f"a reservation draws on each account once; name none twice: {', '.join(accounts)}")
        if len(self._combinations) >= MAX_COMBINATIONS:
            self._combinations.clear()
        combined = self._combinations[accounts] = (*pages, self.total)
        return combined
