"""Decides what may be spent: all accounts of a reservation take it or none does, and every decision is an entry.

Nothing here waits, and the time is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.entries import (
    AccountClosed,
    AccountOpened,
    AccountPaused,
    AccountResumed,
    CapChanged,
    CapRenewed,
    HandleNoted,
    HeldUnderWay,
    MoneyReserved,
    QuestionAnswered,
    QuestionAsked,
    TariffListed,
)
from actors.ledger.errors import AlreadyPaid, PaidUnanswered, RiskExceeded, StillUnsettled
from actors.ledger.keys import purchase_key
from actors.ledger.messages import Costing, HeldHandle
from actors.ledger.postings import Postings
from actors.ledger.receipt import KeyStatus
from actors.ledger.receipts import Receipts
from actors.money import ZERO, Micros, micros_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actors.errors.families import Charged
    from actors.ledger.entries import Booked, MoneyHeld, MoneyReleased, MoneySettled
    from actors.ledger.fingerprint import Fields
    from actors.ledger.messages import Reservation, Reserve, Unsettled
    from actors.ledger.page import AccountState
    from actors.ledger.periods import Renewal
    from actors.ledger.record import KeyRecord
    from actors.ledger.statement import Statement
    from actors.tariffs.tariff import Tariff

ESTIMATED = Costing(basis="estimated")
REQUEST = "request"
"""The name of a request's own budget in a refusal."""


class InsufficientFunds(msgspec.Struct, frozen=True):
    """An account has too little: `needed` was wanted, and `available` is left.

    `account` is None for the request's own budget. Money `may_free_up` if calls under way might give back enough.
    `leaf` is the account that the call names, and that the other is above, or is itself. `retry_after` are the seconds
    until the cap has renewed; None if that never gives enough. One that `is_paused` gives nothing, whatever its cap.
    """

    account: str | None
    needed: Micros
    available: Micros
    may_free_up: bool
    provider: str
    leaf: str | None = None
    retry_after: float | None = None
    is_paused: bool = False

    def refusal(self) -> BudgetExceeded:
        """Return what the asker is told."""
        return BudgetExceeded(
            needed=self.needed,
            available=self.available,
            cap=self.account or REQUEST,
            provider=self.provider,
            may_free_up=self.may_free_up,
            account=self.leaf,
            retry_after=self.retry_after,
            is_paused=self.is_paused,
        )


class Book:
    """The accounts, the reservations drawn on them, and which provider was paid under which key.

    The `max_paid_keys` that were paid last are remembered. An account crosses its alert at `alert_percent` of its cap.
    `first` is the number of the first reservation.
    """

    def __init__(self, *, first: int = 1, alert_percent: int = 80, max_paid_keys: int = 100_000) -> None:
        self.postings = Postings(first=first, alert_percent=alert_percent, max_paid_keys=max_paid_keys)
        self.accounts = self.postings.accounts
        self.receipts = Receipts(max_keys=max_paid_keys)
        self.paid_keys = self.postings.paid_keys
        self._left_closing: dict[str, AccountState] = {}

    def number_from(self, first: int) -> None:
        """Set the number of the first reservation, before there is one."""
        self.postings.first = self.postings.next = first

    # What is known.

    def is_open(self, account: str) -> bool:
        """Tell whether an account can be drawn on."""
        return self.accounts.is_open(account)

    def closing(self, account: str) -> AccountState | None:
        """Return an account that was closed, and whose closing was not answered yet; else None."""
        left = self._left_closing.pop(account, None)
        return self.accounts.draining(account) or (None if self.is_open(account) else left)

    def leave_closing(self, states: Iterable[AccountState]) -> None:
        """Note the accounts whose closing will be asked for again, although their last call may have ended by then."""
        self._left_closing.update((state.name, state) for state in states)

    def open_accounts(self) -> list[str]:
        """Return the names of the open accounts."""
        return self.accounts.open_names()

    def key_status(self, key: str, fields: Fields) -> KeyStatus:
        """Return what came of the request under a key; raises `KeyReused` if that asked for something else.

        A stream that ended early, and has turned out to cost nothing, has no receipt: it may be tried anew.
        """
        postings = self.postings
        others = (record.fingerprint for record in postings.by_key.get(key, ()))
        status = self.receipts.status(key, fields, others=others, is_paid=key in self.paid_keys)
        receipt = status.receipt
        if receipt is None or receipt.state != "cut":
            return status
        paid_as = purchase_key(key, receipt.purchase.number)
        held = sum(record.amount for record in postings.by_key.get(paid_as, ()))
        paid = self.paid_keys.paid(paid_as)
        cost = receipt.cost if paid is None else micros_of(max(int(receipt.cost), paid[0]))
        if not (cost or held or paid) and paid_as == key:
            return KeyStatus(status.fingerprint, None, is_paid=False)
        return KeyStatus(
            status.fingerprint, msgspec.structs.replace(receipt, cost=cost), is_paid=True, held=micros_of(held)
        )

    def statement(self, account: str | None = None) -> Statement:
        """Return the figures of an account, or of all together for None; raises `Permanent` if it is not known."""
        return self.accounts.statement(account)

    def unsettled(self, *, account: str | None = None, is_held: bool | None = None) -> tuple[Unsettled, ...]:
        """Return the reservations that are neither settled nor released, the oldest first."""
        return self.postings.unsettled(account=account, is_held=is_held)

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up."""
        yield from self.postings.broken_invariants()

    # Accounts.

    def open(
        self,
        name: str,
        *,
        cap: Micros | None,
        overdraft: Micros = ZERO,
        parent: str | None = None,
        renewal: Renewal | None = None,
        at: float,
    ) -> AccountOpened:
        """Open an account; raises `Permanent` if its name is in use, or if there is no such parent."""
        state = self.accounts.states.get(name)
        if state is not None:
            what = (
                f"was closed and still holds {micros_of(state.held)} for calls whose outcome is unknown; resolve them"
                if state.is_closed and state.held
                else "was closed, and calls under way still draw on it; wait for them"
                if state.is_closed
                else "is open already; close it"
            )
            raise Permanent(f"account {name!r} {what} first, or take another name")
        self.accounts.parent_of(parent)
        entry = AccountOpened(account=name, cap=cap, overdraft=overdraft, parent=parent, renewal=renewal, at=at)
        self.accounts.post(entry)
        return entry

    def close(self, name: str, *, at: float) -> tuple[AccountState, AccountClosed]:
        """Let no call draw on an account from now on; return its state too, as calls under way may still change it."""
        state = self.accounts.opened(name)
        entry = AccountClosed(account=name, at=at)
        self.accounts.post(entry)
        return state, entry

    def set_cap(
        self,
        name: str,
        cap: Micros | None,
        *,
        overdraft: Micros | None = None,
        renewal: Renewal | None = None,
        only_now: bool = False,
        at: float,
    ) -> CapChanged:
        """Change a cap; one below what is used already lets nothing more be reserved.

        It holds for this period alone if `only_now`. Without a `renewal` it does not renew.
        """
        self.accounts.opened(name)
        entry = CapChanged(account=name, cap=cap, overdraft=overdraft, renewal=renewal, only_now=only_now, at=at)
        self.accounts.post(entry)
        return entry

    def pause(self, name: str, *, is_paused: bool, at: float) -> AccountPaused | AccountResumed | None:
        """Let nothing be reserved in an account, or something again; None if that is so already."""
        if self.accounts.opened(name).is_paused == is_paused:
            return None
        entry = (AccountPaused if is_paused else AccountResumed)(account=name, at=at)
        self.accounts.post(entry)
        return entry

    def ask(self, account: str, needed: Micros, *, at: float) -> QuestionAsked | None:
        """Note that the owner is asked for a higher cap; None if there is such a question already."""
        if account in self.accounts.questions:
            return None
        entry = QuestionAsked(question=self.accounts.next_question, account=account, needed=needed, at=at)
        self.accounts.post(entry)
        return entry

    def answer(self, account: str, cap: Micros | None, *, for_good: bool, at: float) -> QuestionAnswered:
        """Note the answer to the question about an account; the cap is not changed by that yet."""
        question = self.accounts.questions[account].question
        entry = QuestionAnswered(question=question, account=account, cap=cap, for_good=for_good, at=at)
        self.accounts.post(entry)
        return entry

    def renew(self, name: str, *, at: float) -> CapRenewed | None:
        """Begin the period of a moment in an account, if it is a new one; None if not, or if its cap does not renew."""
        state = self.accounts.states.get(name)
        if state is None or state.renewing is None or state.is_closed:
            return None
        period = state.renewing.next_period(at)
        if period is None:
            state.renewing.refresh()
            return None
        entry = CapRenewed(account=name, start=period.start, end=period.end, at=at)
        self.accounts.post(entry)
        return entry

    # Reservations.

    def reserve(self, wish: Reserve, *, at: float) -> MoneyReserved | InsufficientFunds:
        """Reserve in every account, or nothing in any; raises as described at `Reserve`, but returns what is short.

        A call that repeats one whose outcome is unknown takes over its reservation, which stays in the accounts it is
        in. It needs only what it costs more. The held calls that it passes over are at risk from then on.
        """
        postings, key, amount, accounts = self.postings, wish.key, int(wish.amount), wish.accounts
        states = self.accounts.combinations.get(accounts) or self.accounts.drawn_on(accounts)
        record: KeyRecord | None = None
        put_at_risk, used = tuple[int, ...](), int(wish.spent)
        if key in postings.by_key or key in self.paid_keys:
            record = self._repeated(wish)
            put_at_risk = self._put_at_risk(wish, record)
            used = postings.used_by(key, at_least=used)
        number, more, from_held, overdrawn = postings.next, amount, 0, 0
        if record is not None:
            number, accounts, states, from_held = record.number, record.accounts, record.states, record.amount
            more = max(0, amount - from_held)
        if wish.budget is not None and used + more > wish.budget:
            left = micros_of(max(0, int(wish.budget) - used))
            return InsufficientFunds(None, micros_of(more), left, False, wish.provider)  # noqa: FBT003
        if more or record is None:  # What is held already is owed, whatever the caps say.
            for state in states:
                if state.used + more > state.limit:
                    least = amount if wish.at_least is None or record is not None else int(wish.at_least)
                    if least >= amount or not all(one.may_overdraw(least, amount - least) for one in states):
                        return self._short(states, more, wish.provider, at=at)
                    more, overdrawn = least, amount - least
                    break
        entry = MoneyReserved(
            reservation=number,
            key=key,
            provider=wish.provider,
            accounts=accounts,
            amount=micros_of(more),
            from_held=micros_of(from_held) if from_held else ZERO,
            passes_over=put_at_risk,
            risk_account=wish.risk_account if put_at_risk else None,
            must_hold=wish.must_hold,
            held_for=wish.held_for,
            overdrawn=micros_of(overdrawn) if overdrawn else ZERO,
            fingerprint=wish.fingerprint,
            if_killed=wish.if_killed,
            at=at,
        )
        record = postings.post_reserved(entry, states)
        record.is_sent = wish.is_sent
        if wish.holder is not None:
            postings.give_holder(record, wish.holder)
        return entry

    def has_enough_held(self, wish: Reserve) -> bool:
        """Tell whether a wish repeats a call for which as much is held already, so that it needs no more money."""
        return wish.intent == "repeat" and any(
            one.is_held and one.provider == wish.provider and one.amount >= wish.amount
            for one in self.postings.by_key.get(wish.key, ())
        )

    def reservation(self, number: int) -> Reservation:
        """Return what the asker of an open reservation gets."""
        return self.postings.records[number].reservation()

    def refuse_repetition(self, wish: Reserve) -> None:
        """Raise what `reserve` would because of the accounts and the key."""
        if wish.accounts not in self.accounts.combinations:
            self.accounts.drawn_on(wish.accounts)
        if wish.key in self.postings.by_key or wish.key in self.paid_keys:
            self._repeated(wish)

    def mark_sent(self, reservation: Reservation) -> None:
        """Note that a call has been sent: if its holder ends, it is unknown whether it was paid."""
        record = self.postings.records.get(reservation.number)
        if record is not None and record.attempt == reservation.attempt:
            record.is_sent = True

    def book(
        self,
        reservation: Reservation,
        charged: Charged,
        cost: Micros | None = None,
        *,
        costing: Costing | None = None,
        at: float,
    ) -> Booked | None:
        """Enter what became of a call; None if that was known already.

        That it was paid is entered whenever it becomes known: while the money is held, and even if it was released
        lately. Raises `Permanent` for a reservation that was never made.
        """
        number, postings = reservation.number, self.postings
        record = postings.ended_or_not(number)
        if record is None:
            if not postings.first <= number < postings.next:
                raise Permanent(f"there is no reservation {number}; was it made by another ledger?")
            return None
        if record.key != reservation.key:
            raise Permanent(f"reservation {number} is not of key {reservation.key!r}; was it made by another ledger?")
        if record.is_estimated and (charged != "yes" or costing is None or costing.basis == "estimated"):
            return None  # It came twice, and tells nothing better.
        if charged == "yes":
            return self._settle(record, cost, at, costing)
        if record.is_told or record.attempt != reservation.attempt:
            # It came twice, or late: a repetition of the call that was made meanwhile tells more.
            return None
        if number in postings.expired:
            return self._release(record, at) if charged == "no" and not record.was_held else None
        if charged == "held" and record.amount:  # For a call that costs nothing there is nothing to hold.
            return self._hold(record, at)
        if number in postings.released:
            return None
        return self._undo(record, at)

    def resolve(
        self,
        number: int,
        charged: Charged,
        cost: Micros | None = None,
        *,
        as_found: bool = False,
        costing: Costing | None = None,
        at: float,
    ) -> MoneySettled | MoneyReleased:
        """Enter what was found out about a call that is held, or whose cost is not known; else raises `Permanent`.

        With `as_found`, a payment is entered also if the money was released lately. There is one exception: the same
        provider was paid for another call under the key, or may still be. A look-up asks by the key, and so it is that
        call which was found.
        """
        record = self.postings.records.get(number) or self.postings.expired.get(number)
        late = self.postings.released.get(number) if as_found and charged == "yes" else None
        if late is not None and not self._has_another(late):
            return self._settle(late, cost, at, costing)
        if record is None or not (record.is_held or record.is_estimated):
            what = "is under way" if record is not None else "is not held, or no more"
            raise Permanent(f"reservation {number} {what}; ask GetHeld which are held")
        return self._settle(record, cost, at, costing) if charged == "yes" else self._release(record, at)

    def take_back(self, reservation: Reservation, *, at: float) -> Booked | None:
        """Undo a reservation that its asker never got, so that no call was made. None if it has ended."""
        record = self.postings.records.get(reservation.number)
        if record is None or record.is_told or record.attempt != reservation.attempt:
            return None
        return self._undo(record, at)

    def holder_ended(self, holder: Any, *, at: float) -> list[Booked]:
        """Book the calls that an actor has left open: held if the call may have been sent, else released."""
        return [
            self._hold(record, at, is_told=False) if record.is_sent else self._undo(record, at, is_told=False)
            for record in tuple(self.postings.holders.pop(holder, {}).values())
        ]

    def expire(self, record: KeyRecord, *, at: float) -> MoneySettled:
        """Settle a call that was held for too long as charged; what is found out later corrects it."""
        entry = record.settled(None, is_expired=True, at=at)
        self.postings.post_settled(record, entry)
        return entry

    def mark_under_way(self, number: int, *, at: float) -> HeldUnderWay | None:
        """Note that a held call is still under way, so that it does not age; None if it is not held."""
        record = self.postings.records.get(number)
        if record is None or not record.is_held:
            return None
        entry = HeldUnderWay(reservation=number, key=record.key, provider=record.provider, at=at)
        self.postings.post_under_way(record, entry)
        return entry

    def note_handle(self, reservation: Reservation, handle: str, *, at: float) -> HandleNoted | None:
        """Note the handle of a call; None if the call has ended, or another was made in its place."""
        record = self.postings.records.get(reservation.number)
        if record is None or record.attempt != reservation.attempt or record.handle == handle:
            return None
        record.handle = handle
        return HandleNoted(reservation=record.number, key=record.key, provider=record.provider, handle=handle, at=at)

    def handles(self) -> tuple[HeldHandle, ...]:
        """Return the held calls that can be taken up by a handle, the oldest first."""
        return tuple(
            HeldHandle(
                reservation=record.reservation(),
                handle=record.handle,
                fingerprint=record.fingerprint,
                paid_before=micros_of((self.paid_keys.paid(record.key) or (0,))[0]),
            )
            for record in self.postings.records.values()
            if record.is_held and record.handle is not None
        )

    def list_tariff(self, tariff: Tariff, *, at: float) -> TariffListed | None:
        """Note a tariff by which a call is settled; None if it was noted before."""
        digest = tariff.digest
        if digest in self.postings.tariffs:
            return None
        self.postings.tariffs.add(digest)
        return TariffListed(digest=digest, tariff=tariff, at=at)

    def hold_all(self, *, at: float) -> list[Booked]:
        """Hold what is open after a crash, because the outcome of those calls is unknown.

        A call of which it is declared what it costs if it is cut off is settled at that, as estimated.
        """
        return [
            self._hold(record, at, is_told=False)
            if record.if_killed is None or record.was_held or record.handle is not None
            else self._settle(record, micros_of(record.if_killed), at, ESTIMATED)
            for record in tuple(self.postings.records.values())
            if not record.is_held
        ]

    # Entries.

    def _settle(
        self, record: KeyRecord, cost: Micros | None, at: float, costing: Costing | None = None
    ) -> MoneySettled:
        number, postings = record.number, self.postings
        corrects = record.amount if number in postings.expired else 0
        entry = record.settled(cost, costing, is_late=number in postings.released, corrects=corrects, at=at)
        self.postings.post_settled(record, entry)
        return entry

    def _release(self, record: KeyRecord, at: float, *, is_told: bool = True) -> MoneyReleased:
        corrects = record.amount if record.number in self.postings.expired else 0
        entry = record.released(is_told=is_told, corrects=corrects, at=at)
        self.postings.post_released(record, entry)
        return entry

    def _hold(
        self, record: KeyRecord, at: float, *, keep: int | None = None, is_told: bool = True
    ) -> MoneyHeld | MoneyReleased:
        """Hold a reservation, or only the amount to `keep` of it."""
        if record.amount == 0:
            return self._release(record, at, is_told=is_told)  # There is nothing to hold.
        entry = record.held(record.amount if keep is None else keep, is_told=is_told, at=at)
        self.postings.post_held(record, entry)
        return entry

    def _undo(self, record: KeyRecord, at: float, *, is_told: bool = True) -> MoneyHeld | MoneyReleased:
        """Release a call that cost nothing; of a repetition, what was held before it is held again.

        That the repetition was not charged does not say whether the call before it was.
        """
        if record.was_held:
            return self._hold(record, at, keep=record.was_held, is_told=is_told)
        return self._release(record, at, is_told=is_told)

    # Keys.

    def _repeated(self, wish: Reserve) -> KeyRecord | None:
        """Return the held reservation that a call under a known key takes over, if any; raise if it is refused."""
        key, intent = wish.key, wish.intent
        others = self.postings.by_key.get(key, ())
        if intent == "repeat":
            for other in others:
                if other.is_held and other.provider == wish.provider:
                    return other
        paid = self.paid_keys.paid(key)
        if paid is not None and intent != "again":
            raise self._already_paid(key, paid=micros_of(paid[0]), paid_to=paid[1])
        for other in others:
            if _is_in_the_way(other, wish):
                raise StillUnsettled(
                    key,
                    reservation=other.number,
                    at_provider=other.provider,
                    amount=micros_of(other.amount),
                    is_held=other.is_held,
                    handle=other.handle,
                )
        return None

    def _already_paid(self, key: str, *, paid: Micros, paid_to: str) -> AlreadyPaid:
        for one in self.postings.expired.values():
            if one.key == key and not one.is_estimated:
                return PaidUnanswered(key, paid=paid, paid_to=paid_to, reservation=one.number)
        return AlreadyPaid(key, paid=paid, paid_to=paid_to)

    def _put_at_risk(self, wish: Reserve, repeated: KeyRecord | None) -> tuple[int, ...]:
        """Return the held reservations that a call is the first to pass over; raise if that is too much at risk."""
        if not wish.passes_over:
            return ()
        passed = [
            one
            for one in self.postings.by_key.get(wish.key, ())
            if one.is_held and one.number in wish.passes_over and one is not repeated
        ]
        if wish.risk is not None and (held := sum(one.amount for one in passed)) > wish.risk:
            raise RiskExceeded(passed[-1].reservation(), at_risk=micros_of(held), limit=wish.risk, cap=REQUEST)
        new = [one for one in passed if not one.is_passed_over]
        if wish.risk_account is not None and new:
            state = self.accounts.opened(wish.risk_account)
            if state.renewing is not None:
                raise Permanent(
                    f"the cap of account {state.name!r} renews, and what may be paid twice is bounded for good; "
                    "name another as risk_account"
                )
            at_risk = state.used + sum(one.amount for one in new)
            if at_risk > state.limit:
                raise RiskExceeded(
                    new[-1].reservation(),
                    at_risk=micros_of(at_risk),
                    limit=ZERO if state.is_paused else state.cap or ZERO,
                    cap=state.name,
                    is_paused=state.is_paused,
                )
        return tuple(one.number for one in new)

    def _has_another(self, record: KeyRecord) -> bool:
        """Tell whether the provider of a released reservation was paid, or may be, for another call under its key."""
        paid = self.paid_keys.paid(record.key)
        others = self.postings.by_key.get(record.key, ())
        return (paid is not None and paid[1] == record.provider) or any(
            one.provider == record.provider for one in others
        )

    def _short(self, states: tuple[AccountState, ...], amount: int, provider: str, *, at: float) -> InsufficientFunds:
        """Name the account that refuses: one that will never have enough, or else the one that will have it last.

        There are four cases: it is paused; calls under way cannot make room in it, and it does not renew; it will be
        renewed; calls under way may make room.
        """

        def prospect(state: AccountState) -> tuple[int, float]:
            renews_at = self._renews_at(state, amount)
            rank = 2 if state.may_allow_later(amount) else 0 if renews_at is None else 1
            rank = -1 if state.is_paused else rank
            return rank, -(renews_at or 0.0)

        state = min((one for one in states if one.used + amount > one.limit), key=prospect)
        leaf = next(one.name for one in states if any(above.name == state.name for above in one.path))
        renews_at = self._renews_at(state, amount)
        return InsufficientFunds(
            state.name,
            micros_of(amount),
            state.available,
            state.may_allow_later(amount),
            provider,
            leaf,
            None if renews_at is None else max(0.0, renews_at - at),
            state.is_paused,
        )

    def renews_in(self, name: str, amount: Micros, *, at: float) -> float | None:
        """Return the seconds until the cap of an account has renewed so that it has this amount; None for never."""
        account = self.accounts.states.get(name)
        if account is None or account.renewing is None:
            return None
        renews_at = account.renewing.renews_at(amount)
        return None if renews_at is None else max(0.0, renews_at - at)

    def _renews_at(self, state: AccountState, amount: int) -> float | None:
        """Return when an account will have renewed so that it has this amount; None for never."""
        account = self.accounts.states.get(state.name)
        if account is None or account.renewing is None or account.renewing.current is not state:
            return None
        return account.renewing.renews_at(amount)

    def __repr__(self) -> str:
        held = sum(1 for record in self.postings.records.values() if record.is_held)
        open_ = len(self.postings.records) - held
        return f"<Book {len(self.accounts.states)} accounts, {open_} reservations open, {held} held>"


def _is_in_the_way(other: KeyRecord, wish: Reserve) -> bool:
    """Tell whether a reservation under the same key forbids a call, as long as it is not settled.

    There are three cases: 1. The call passes it over, if it may. 2. It is held, and what is at risk is bounded: each
    that is held must be passed over. 3. Any other, unless both may be paid.
    """
    if other.number in wish.passes_over:
        return other.must_hold or not (other.is_held or wish.intent == "again")  # 1.
    if other.is_held and wish.risk is not None:
        return True  # 2.
    return wish.intent != "again"  # 3.
