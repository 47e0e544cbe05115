"""The state of a book as bytes, so that a long journal need not be read from its first entry.

What was paid under keys is not in it: the journal finds that by the key. The reservations that have ended may be many,
so they are encoded before, some at a time, and only what still changes is encoded in the moment of the snapshot.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from actors.ledger.entries import QuestionAsked  # noqa: TC001 - msgspec resolves the annotations below.
from actors.ledger.page import AccountState, PeriodState, RenewingCap
from actors.ledger.periods import Period, Renewal
from actors.ledger.record import KeyRecord
from actors.money import Micros, micros_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.ledger.postings import Postings

MAX_OPEN = 2_000
"""The reservations that are encoded in one moment, some three milliseconds' work; with more open, it is put off."""


class SavedPeriod(msgspec.Struct, array_like=True, frozen=True):
    """What a period has beside the figures of every account."""

    start: int
    end: int
    elsewhere: int
    elsewhere_reserved: int
    is_over: bool
    limit: int | None


class SavedRenewal(msgspec.Struct, array_like=True, frozen=True):
    """A cap that renews; its periods by their places among the accounts."""

    renewal: Renewal
    cap: int | None
    raised: int | None
    raised_until: int
    current: int
    earlier: tuple[int, ...]


class SavedAccount(msgspec.Struct, array_like=True, frozen=True):
    """An account, or one that is known only to reservations that have ended; its parent by its place among them.

    A period of a renewing cap is one of them too.
    """

    name: str
    cap: int | None
    figures: tuple[int, ...]
    is_alerted: bool
    is_closed: bool
    parent: int | None = None
    renewing: SavedRenewal | None = None
    period: SavedPeriod | None = None
    raised_from: tuple[int | None] | None = None
    """The cap that was set, if an answer has made another of it."""
    is_paused: bool = False


FIGURES = (
    "beyond",
    "estimated",
    "held",
    "on_hold",
    "open",
    "overcharged",
    "overdraft",
    "overdrawn",
    "released",
    "reserved",
    "reserved_ever",
    "settled",
    "used",
)
"""The figures of an account, in the order in which they are saved."""


class SavedRecord(msgspec.Struct, array_like=True, frozen=True):
    """A reservation; its accounts are named by their place among those that are saved."""

    number: int
    key: str
    provider: str
    amount: int
    accounts: tuple[str, ...]
    states: tuple[int, ...]
    since: float
    attempt: int
    is_held: bool
    is_told: bool
    was_held: int
    is_sent: bool
    must_hold: bool
    is_passed_over: bool
    is_doubled: bool
    risk_account: int | None
    held_for: float | None
    held_since: float | None
    is_under_way: bool
    overdrawn: int
    is_estimated: bool
    fingerprint: bytes | None = None
    handle: str | None = None
    if_killed: int | None = None


class SavedBook(msgspec.Struct, array_like=True, frozen=True, tag="actors.ledger.SavedBook"):
    """A book: its accounts, and its reservations: open or held, released lately, and expired.

    The total is the first of the accounts; `listed` are the places of those that are known by their names.
    """

    next: int
    tariffs: tuple[str, ...]
    accounts: tuple[SavedAccount, ...]
    listed: tuple[int, ...]
    records: list[bytes]
    released: list[bytes]
    expired: list[bytes]
    questions: tuple[QuestionAsked, ...] = ()
    refused: dict[str, int | None] = {}
    next_question: int = 1


ENCODER = msgspec.msgpack.Encoder()
RECORD_DECODER = msgspec.msgpack.Decoder(SavedRecord)
BOOK_DECODER = msgspec.msgpack.Decoder(SavedBook)


class BookSaver:
    """Encodes the state of one book."""

    def __init__(self, postings: Postings) -> None:
        self._postings = postings
        self._states: dict[AccountState, int] = {postings.accounts.total: 0}
        self._ended: dict[int, bytes] = {}

    def prepare(self, limit: int) -> bool:
        """Encode at most `limit` of the reservations that have ended; tell whether all the others are encoded."""
        for record in chain(self._postings.released.values(), self._postings.expired.values()):
            if record.number not in self._ended:
                if not limit:
                    return False
                limit -= 1
                self._ended[record.number] = self._encoded(record)
        return True

    def changed(self, reservation: int) -> None:
        """Note that a reservation that had ended is changed."""
        self._ended.pop(reservation, None)

    def save(self) -> bytes | None:
        """Return the state as it is now; None if that would take too long, so that it should be tried later."""
        postings, ended = self._postings, self._ended
        if len(postings.records) > MAX_OPEN:
            return None
        records = [self._encoded(record) for record in postings.records.values()]
        released, expired = (
            [ended.get(number) or self._encoded(record) for number, record in records_.items()]
            for records_ in (postings.released, postings.expired)
        )
        listed = tuple(map(self._place_of, postings.accounts.states.values()))
        for state in tuple(self._states):
            for above in state.path:
                for one in _periods(above):
                    self._place_of(one)
        accounts = tuple(self._saved(state) for state in self._states)
        tariffs = tuple(postings.tariffs)
        asked = postings.accounts
        questions = tuple(asked.questions.values()), asked.refused, asked.next_question
        saved = SavedBook(postings.next, tariffs, accounts, listed, records, released, expired, *questions)
        return ENCODER.encode(saved)

    def _place_of(self, state: AccountState) -> int:
        return self._states.setdefault(state, len(self._states))

    def _saved(self, state: AccountState) -> SavedAccount:
        figures = tuple(int(getattr(state, name)) for name in FIGURES)
        cap = None if state.cap is None else int(state.cap)
        parent = None if state.parent is None else self._place_of(state.parent)
        return SavedAccount(
            state.name,
            cap,
            figures,
            state.is_alerted,
            state.is_closed,
            parent,
            None if state.renewing is None else self._saved_renewal(state.renewing),
            _saved_period(state) if isinstance(state, PeriodState) else None,
            None if state.base_cap == state.cap else (None if state.base_cap is None else int(state.base_cap),),
            state.is_paused,
        )

    def _saved_renewal(self, renewing: RenewingCap) -> SavedRenewal:
        return SavedRenewal(
            renewing.renewal,
            None if renewing.cap is None else int(renewing.cap),
            None if renewing.raised is None else int(renewing.raised),
            renewing.raised_until,
            self._place_of(renewing.current),
            tuple(map(self._place_of, renewing.earlier)),
        )

    def _encoded(self, one: KeyRecord) -> bytes:
        place_of = self._place_of
        return ENCODER.encode(
            SavedRecord(
                one.number,
                one.key,
                one.provider,
                one.amount,
                one.accounts,
                tuple(map(place_of, one.states)),
                one.since,
                one.attempt,
                one.is_held,
                one.is_told,
                one.was_held,
                one.is_sent,
                one.must_hold,
                one.is_passed_over,
                one.is_doubled,
                None if one.risk_account is None else place_of(one.risk_account),
                one.held_for,
                one.held_since,
                one.is_under_way,
                one.overdrawn,
                one.is_estimated,
                one.fingerprint,
                one.handle,
                one.if_killed,
            )
        )

    def __repr__(self) -> str:
        return f"<BookSaver of {self._postings!r}, {len(self._ended)} prepared>"


def restore(postings: Postings, content: bytes) -> Iterator[None]:
    """Bring a new book to a state that was saved, in steps; raises `msgspec.MsgspecError` at the first if it cannot."""
    saved = BOOK_DECODER.decode(content)
    postings.next = saved.next
    postings.tariffs.update(saved.tariffs)
    postings.accounts.questions.update((one.account, one) for one in saved.questions)
    postings.accounts.refused.update(saved.refused)
    postings.accounts.next_question = saved.next_question
    postings.paid_keys.has_forgotten = True  # Each is looked up in the journal when it is needed.
    states = [_restored_account(one, alert_percent=postings.accounts.alert_percent) for one in saved.accounts]
    for state, account in zip(states, saved.accounts, strict=True):
        if account.parent is not None:
            state.parent, postings.accounts.has_tree = states[account.parent], True
        if account.renewing is not None:
            state.renewing = _restored_renewal(account.renewing, states, postings.accounts.alert_percent)
            postings.accounts.has_renewing = True
    postings.accounts.total = states[0]
    postings.accounts.states.update((states[place].name, states[place]) for place in saved.listed)
    postings.accounts.closed.update(name for name, state in postings.accounts.states.items() if state.is_closed)
    yield
    places = (saved.records, postings.records), (saved.released, postings.released), (saved.expired, postings.expired)
    for contents, records in places:
        for encoded in contents:
            record = _restored_record(RECORD_DECODER.decode(encoded), states)
            records[record.number] = record
            if records is postings.records:
                postings.by_key.setdefault(record.key, []).append(record)
            yield


def _periods(state: AccountState) -> tuple[AccountState, ...]:
    """Return an account with its periods that count."""
    renewing = state.renewing
    return (state,) if renewing is None else (state, *renewing.earlier, renewing.current)


def _saved_period(state: PeriodState) -> SavedPeriod:
    return SavedPeriod(
        *state.period,
        state.elsewhere,
        state.elsewhere_reserved,
        state.is_over,
        None if state.limit == math.inf else int(state.limit),
    )


def _restored_account(saved: SavedAccount, *, alert_percent: int) -> AccountState:
    period = saved.period
    if period is None:
        state = AccountState(saved.name, None, alert_percent=alert_percent)
    else:
        state = PeriodState(saved.name, Period(period.start, period.end))
        state.elsewhere, state.elsewhere_reserved = period.elsewhere, period.elsewhere_reserved
    for name, figure in zip(FIGURES, saved.figures, strict=True):
        setattr(state, name, figure)
    state.set_cap(_micros(saved.cap), alert_percent=alert_percent)
    if isinstance(state, PeriodState) and period is not None and period.is_over:
        state.end(may_grow=True)
        state.limit = math.inf if period.limit is None else period.limit
    state.is_alerted, state.is_closed = saved.is_alerted, saved.is_closed
    if saved.is_paused:
        state.pause()
    state.base_cap = state.cap if saved.raised_from is None else _micros(saved.raised_from[0])
    return state


def _restored_renewal(saved: SavedRenewal, states: list[AccountState], alert_percent: int) -> RenewingCap:
    periods = [states[place] for place in (*saved.earlier, saved.current)]
    *earlier, current = [one for one in periods if isinstance(one, PeriodState)]
    renewing = RenewingCap(saved.renewal, _micros(saved.cap), current, alert_percent=alert_percent)
    renewing.earlier = earlier
    renewing.raised, renewing.raised_until = _micros(saved.raised), saved.raised_until
    return renewing


def _micros(amount: int | None) -> Micros | None:
    return None if amount is None else micros_of(amount)


def _restored_record(saved: SavedRecord, states: list[AccountState]) -> KeyRecord:
    risk_account = None if saved.risk_account is None else states[saved.risk_account]
    fields = {name: getattr(saved, name) for name in SavedRecord.__struct_fields__}
    fields |= {"states": tuple(states[place] for place in saved.states), "risk_account": risk_account}
    return KeyRecord(**fields)
