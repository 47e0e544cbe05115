"""What each entry does to the figures of a book: the only steps by which its state changes.

A step is posted once to every account that it concerns and once to the total, so that either side can be checked by
the other. It is the same step whether it was decided just now or is read back from a journal.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from actors.ledger.account_table import AccountTable
from actors.ledger.entries import (
    AccountOpened,
    HandleNoted,
    HeldUnderWay,
    MoneyHeld,
    MoneyReleased,
    MoneyReserved,
    MoneySettled,
    TariffListed,
)
from actors.ledger.paid_keys import PaidKeys
from actors.ledger.record import KeyRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.ledger.entries import Booked, Entry
    from actors.ledger.messages import Unsettled
    from actors.ledger.page import AccountState

MAX_RELEASED = 10_000
"""How many of the reservations released last are remembered, in case one of their calls was charged after all."""
MAX_EXPIRED = 100_000
"""How many of the reservations that expired last are remembered, in case it becomes known what they cost."""


class Postings:
    """The accounts, reservations and paid keys of one book; see `Book` for the parameters."""

    def __init__(self, *, first: int = 1, alert_percent: int = 80, max_paid_keys: int = 100_000) -> None:
        self.first = self.next = first
        self.accounts = AccountTable(alert_percent=alert_percent)
        self.paid_keys = PaidKeys(max_paid_keys)
        self.records: dict[int, KeyRecord] = {}
        """The reservations that are neither settled nor released, by their number."""
        self.by_key: dict[str, list[KeyRecord]] = {}
        """The same by their key."""
        self.holders: dict[Any, dict[int, KeyRecord]] = {}
        """The reservations of calls under way, by the actor that answers for them."""
        self.released: OrderedDict[int, KeyRecord] = OrderedDict()
        """The reservations released last."""
        self.expired: OrderedDict[int, KeyRecord] = OrderedDict()
        """The reservations that were settled last though their cost is not known: held for too long, or estimated."""
        self.tariffs: set[str] = set()
        """The digests of the tariffs by which calls were settled."""

    def used_by(self, key: str, *, at_least: int = 0) -> int:
        """Return the micro-units that were spent under a key, `at_least` so many, and are kept for it."""
        kept = sum(record.amount for record in self.by_key.get(key, ()))
        paid = self.paid_keys.paid(key)
        return kept + (at_least if paid is None else max(at_least, paid[0]))

    def unsettled(self, *, account: str | None = None, is_held: bool | None = None) -> tuple[Unsettled, ...]:
        """Return the reservations that are neither settled nor released, the oldest first."""
        return tuple(
            record.unsettled()
            for record in self.records.values()
            if (account is None or account in record.accounts) and (is_held is None or record.is_held == is_held)
        )

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up: in an account, in the total, and between the accounts and the reservations."""
        for state in self.accounts.all_states():
            yield from state.broken_invariants()
            records = [one for one in self.records.values() if state in one.states]
            held = sum(one.amount for one in records if one.is_held)
            reserved = sum(one.amount for one in records if not one.is_held)
            if (state.reserved, state.held) != (reserved, held):
                yield f"the calls that draw on {state.name!r} have {reserved} reserved and {held} held: {state}"
            on_hold = sum(1 for one in records if one.is_held)
            if (state.open, state.on_hold) != (len(records) - on_hold, on_hold):
                counted = f"{state.open} open and {state.on_hold} held"
                yield f"{state.name!r} counts {counted}; {on_hold} of {len(records)} are held"
            if state.used != state.reserved + state.held + state.settled:
                yield f"{state.used} is not what is used of {state.name!r}: {state}"
        if sorted(one.number for them in self.by_key.values() for one in them) != sorted(self.records):
            yield "not every reservation is known by its key"

    def figures(self) -> dict[str, Any]:
        """Return everything that a replay has to bring back."""
        return {
            "accounts": [state.statement() for state in self.accounts.all_states()],
            "unsettled": self.unsettled(),
            "paid": self.paid_keys.all(),
            "expired": list(self.expired),
            "ages": [(one.number, one.held_since, one.held_for) for one in self.records.values() if one.is_held],
            "next": self.next,
            "tariffs": sorted(self.tariffs),
            "questions": (self.accounts.questions, self.accounts.refused, self.accounts.next_question),
        }

    # A step that is read back.

    def apply(self, entry: Entry) -> None:
        """Make a step again that was written down; raises `ValueError` if it cannot have been made.

        Nearly every entry reserves for a new call, or settles one that is open: these are made without another look.
        """
        if isinstance(entry, MoneySettled) and (record := self.records.get(entry.reservation)) is not None:
            self.post_settled(record, entry)
            return
        if isinstance(entry, MoneyReserved) and not (entry.from_held or entry.passes_over or entry.risk_account):
            states = self.accounts.combinations.get(entry.accounts)
            if states is not None and entry.reservation >= self.next:
                self.post_reserved(entry, states)
                return
        self._apply_with_care(entry)

    def _apply_with_care(self, entry: Entry) -> None:
        """Make any step again, after a look at whether it can have been made."""
        match entry:
            case MoneyReserved():
                self._apply_reserved(entry)
            case MoneySettled():
                self.post_settled(self._booked(entry), entry)
            case MoneyReleased():
                self.post_released(self._booked(entry), entry)
            case MoneyHeld():
                self.post_held(self._booked(entry), entry)
            case HeldUnderWay() | HandleNoted():
                self._apply_told(self._booked(entry), entry)
            case TariffListed():
                self.tariffs.add(entry.digest)
            case AccountOpened():
                if self.accounts.is_known(entry.account):
                    raise ValueError(f"it opens an account that is open: {entry}")
                self.accounts.post(entry)
            case _:
                if not self.accounts.is_open(entry.account):
                    raise ValueError(f"it concerns an account that is not open: {entry}")
                self.accounts.post(entry)

    def _apply_reserved(self, entry: MoneyReserved) -> None:
        if entry.from_held:
            record = self.records.get(entry.reservation)
            if record is None or not record.is_held or record.amount != entry.from_held:
                raise ValueError(f"it repeats a call that is not held: {entry}")
            self.post_reserved(entry, record.states)
            return
        states = self.accounts.combinations.get(entry.accounts)
        if entry.reservation < self.next or (states is None and not all(map(self.accounts.is_open, entry.accounts))):
            raise ValueError(f"it reserves what it cannot: {entry}")
        if entry.passes_over and not all(self._is_held(number) for number in entry.passes_over):
            raise ValueError(f"it passes over a call that is not held: {entry}")
        if entry.risk_account is not None and not self.accounts.is_open(entry.risk_account):
            raise ValueError(f"it puts at risk what it cannot: {entry}")
        self.post_reserved(entry, states or self.accounts.drawn_on(entry.accounts))

    def _apply_told(self, record: KeyRecord, entry: HeldUnderWay | HandleNoted) -> None:
        if isinstance(entry, HandleNoted):
            record.handle = entry.handle
        else:
            self.post_under_way(record, entry)

    def _is_held(self, number: int) -> bool:
        record = self.records.get(number)
        return record is not None and record.is_held

    def _booked(self, entry: Booked | HeldUnderWay | HandleNoted) -> KeyRecord:
        record = self.ended_or_not(entry.reservation)
        if record is None:
            raise ValueError(f"it books what was never reserved: {entry}")
        return record

    def ended_or_not(self, number: int) -> KeyRecord | None:
        """Return a reservation that can still be booked: open, held, or released or expired lately."""
        return self.records.get(number) or self.released.get(number) or self.expired.get(number)

    # The steps.

    def post_reserved(self, entry: MoneyReserved, states: tuple[AccountState, ...]) -> KeyRecord:
        """Reserve in these accounts: for a new call, or for the repetition of one whose money is held."""
        amount, from_held, number = int(entry.amount), int(entry.from_held), entry.reservation
        if from_held:
            record = self.records[number]
            record.amount += amount
            record.attempt += 1
            record.is_held = record.is_told = False
            record.was_held = from_held
            record.since = entry.at
            record.is_under_way = False
        else:
            record = self.records[number] = KeyRecord(
                number, entry.key, entry.provider, amount, entry.accounts, states, entry.at
            )
            others = self.by_key.get(entry.key)
            if others is None:
                self.by_key[entry.key] = [record]
            else:
                others.append(record)
            record.must_hold, record.held_for, record.fingerprint = entry.must_hold, entry.held_for, entry.fingerprint
            if entry.if_killed is not None:
                record.if_killed = int(entry.if_killed)
            if entry.overdrawn:
                record.overdrawn = int(entry.overdrawn)
                for state in states:
                    state.overdrawn += record.overdrawn
            self.next = number + 1
        if entry.passes_over:
            self._pass_over(entry)
        for state in states:
            state.used += amount
            state.reserved_ever += amount
            state.reserved += amount + from_held
            state.open += 1
            if from_held:
                state.held -= from_held
                state.on_hold -= 1
            if state.used >= state.alert_at and not state.is_alerted:
                self.accounts.check_alert(state)
        return record

    def post_settled(self, record: KeyRecord, entry: MoneySettled) -> None:
        """Spend what a call cost, and free the rest."""
        if entry.is_late:
            self._revive(record)
        elif self.expired and record.number in self.expired:
            self._hold_expired(record)
        cost = int(entry.cost)
        self._end(record, cost, int(entry.released), int(entry.overcharged))
        if cost:
            self.paid_keys.add(record.key, cost, record.provider)
            for other in self.by_key.get(record.key, ()):
                other.is_doubled = other.is_passed_over
        if entry.basis == "estimated":
            record.is_estimated, record.amount = True, cost
            for state in record.states:
                state.estimated += cost
        if entry.is_expired or record.is_estimated:
            record.amount = cost
            self.expired[record.number] = record
            if len(self.expired) > MAX_EXPIRED:
                self.expired.popitem(last=False)

    def post_released(self, record: KeyRecord, entry: MoneyReleased) -> None:
        """Free what was reserved for a call."""
        if self.expired and record.number in self.expired:
            self._hold_expired(record)
        self._end(record, 0, int(entry.released), 0)
        record.is_told = entry.is_told
        self.released[record.number] = record
        if len(self.released) > MAX_RELEASED:
            self.released.popitem(last=False)
        if record.key in self.by_key:
            self._withdraw_risk(self.by_key[record.key])

    def post_held(self, record: KeyRecord, entry: MoneyHeld) -> None:
        """Keep what a call may have cost until that is known, and free the rest."""
        if record.number in self.released:
            self._revive(record)
        self.leave_holder(record)
        was_open = not record.is_held
        kept, released = int(entry.held), int(entry.released)
        for state in record.states:
            if was_open:
                state.open -= 1
                state.on_hold += 1
                state.reserved -= kept + released
                state.held += kept
            else:
                state.held -= released
            state.released += released
            state.used -= released
            self.accounts.check_alert(state)
        record.amount = kept
        record.is_held = True
        record.is_told = entry.is_told
        record.since = entry.at
        if record.held_since is None:
            record.held_since = entry.at
        if entry.is_told:
            record.was_held = 0

    def post_under_way(self, record: KeyRecord, entry: HeldUnderWay) -> None:
        """Let what is held for a call age from now on, once it is not known to be under way any more."""
        record.held_since, record.born = entry.at, None
        record.is_under_way = True

    def _end(self, record: KeyRecord, cost: int, released: int, overcharged: int) -> None:
        """Forget a reservation, and move its money to what is spent or free."""
        amount, is_held, beyond = record.amount, record.is_held, overcharged - released
        if record.overdrawn:
            _free_overdraft(record)
        del self.records[record.number]
        others = self.by_key[record.key]
        if len(others) == 1:
            del self.by_key[record.key]
        else:
            others.remove(record)
        if record.holder is not None:
            self.leave_holder(record)
        for state in record.states:
            if is_held:
                state.held -= amount
                state.on_hold -= 1
            else:
                state.reserved -= amount
                state.open -= 1
            if beyond:
                state.released += released
                state.used += beyond
            if cost:
                state.settled += cost
                state.overcharged += overcharged
            if (state.used >= state.alert_at) is not state.is_alerted:
                self.accounts.check_alert(state)
            if state.is_closed:
                self.accounts.forget_if_empty(state)

    def _revive(self, record: KeyRecord) -> None:
        """Take back what was released, whatever the caps say: the call it was for may have been charged after all."""
        del self.released[record.number]
        self.records[record.number] = record
        self.by_key.setdefault(record.key, []).append(record)
        record.is_held = False
        record.was_held = 0
        for state in record.states:
            state.released -= record.amount
            state.reserved += record.amount
            state.used += record.amount
            state.beyond += record.amount
            state.open += 1

    # What may be paid twice.

    def _pass_over(self, entry: MoneyReserved) -> None:
        """Count what these held calls keep as at risk, because another call is made besides."""
        state = None if entry.risk_account is None else self.accounts.states[entry.risk_account]
        for number in entry.passes_over:
            record = self.records[number]
            record.is_passed_over = True
            if state is not None and record.risk_account is None:
                record.risk_account = state
                record.accounts += (state.name,)
                record.states += (state,)
                state.held += record.amount
                state.used += record.amount
                state.reserved_ever += record.amount
                state.on_hold += 1
                self.accounts.check_alert(state)

    def _withdraw_risk(self, left: list[KeyRecord]) -> None:
        """After a call was not charged, count the last held one before it as at risk no more if nothing else may be.

        `left` are the reservations of its key. The last is at risk only if another call was charged since it was passed
        over, and those before it are because of the last.
        """
        last = left[-1]
        if last.is_doubled or not all(one.is_passed_over and one.is_held for one in left):
            return
        last.is_passed_over = False
        state, last.risk_account = last.risk_account, None
        if state is None:
            return
        last.accounts = tuple(name for name in last.accounts if name != state.name)
        last.states = tuple(one for one in last.states if one is not state)
        state.held -= last.amount
        state.used -= last.amount
        state.released += last.amount
        state.on_hold -= 1
        self.accounts.check_alert(state)
        if state.is_closed:
            self.accounts.forget_if_empty(state)

    def _hold_expired(self, record: KeyRecord) -> None:
        """Hold again what was settled though its cost was not known: now it is."""
        del self.expired[record.number]
        self.records[record.number] = record
        self.by_key.setdefault(record.key, []).append(record)
        self.paid_keys.take_back(record.key, record.amount)
        was_estimated, record.is_estimated, record.is_held = record.is_estimated, False, True
        for state in record.states:
            state.settled -= record.amount
            state.held += record.amount
            state.on_hold += 1
            if was_estimated:
                state.estimated -= record.amount

    # Holders.

    def give_holder(self, record: KeyRecord, holder: Any) -> None:
        """Let an actor answer for a call."""
        if record.holder is not None:
            self.leave_holder(record)
        record.holder = holder
        theirs = self.holders.get(holder)
        if theirs is None:
            theirs = self.holders[holder] = {}
        theirs[record.number] = record

    def leave_holder(self, record: KeyRecord) -> None:
        """Let no actor answer for a call any more."""
        theirs = self.holders.get(record.holder)
        if theirs is not None:
            theirs.pop(record.number, None)
        record.holder = None

    def __repr__(self) -> str:
        held = sum(1 for record in self.records.values() if record.is_held)
        return f"<Postings {len(self.records) - held} reservations open, {held} held>"


def _free_overdraft(record: KeyRecord) -> None:
    """Let others use what a call may have overdrawn: its cost is known."""
    for state in record.states:
        state.overdrawn -= record.overdrawn
    record.overdrawn = 0
