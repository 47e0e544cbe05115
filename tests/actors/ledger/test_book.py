"""Money in several accounts at once, as arithmetic: whatever happens in whatever order, it adds up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.book import Book, InsufficientFunds
from actors.ledger.entries import Entry, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.errors import AlreadyPaid, StillUnsettled
from actors.ledger.messages import Costing, Intent, Reservation, Reserve
from actors.ledger.postings import MAX_RELEASED
from actors.money import Micros
from tests.proofs import repeated

NAMES = ("run", "batch", "alder", "birch")


def wish(key: str = "k", amount: int = 10, **more: Any) -> Reserve:
    return Reserve(**{"key": key, "provider": "alder", "amount": Micros(amount), "accounts": ("run",), **more})


def book_with(**caps: int | None) -> Book:
    book = Book()
    for name, cap in caps.items():
        book.open(name, cap=None if cap is None else Micros(cap), at=0.0)
    return book


def reserved(book: Book, key: str = "k", amount: int = 10, **more: Any) -> Reservation:
    made = book.reserve(wish(key, amount, **more), at=1.0)
    assert isinstance(made, MoneyReserved), made
    return book.reservation(made.reservation)


def refused(book: Book, *args: Any, **more: Any) -> BudgetExceeded:
    made = book.reserve(wish(*args, **more), at=1.0)
    assert isinstance(made, InsufficientFunds), made
    return made.refusal()


def figures(book: Book, name: str | None = "run") -> tuple[int, int, int]:
    statement = book.statement(name)
    assert list(book.broken_invariants()) == []
    return statement.reserved, statement.held, statement.settled


# Caps.


def test_every_account_takes_a_reservation_or_none_does():
    book = book_with(run=100, batch=50, alder=20)
    reserved(book, amount=Micros(20), accounts=("run", "batch", "alder"))
    refusal = refused(book, "other", 1, accounts=("run", "batch", "alder"))
    assert (refusal.cap, refusal.needed, refusal.available) == ("alder", 1, 0)
    assert [figures(book, name) for name in ("run", "batch", "alder")] == [(20, 0, 0)] * 3


def test_a_requests_own_budget_caps_all_that_is_spent_and_kept_under_its_key():
    book = book_with(run=100)
    first = reserved(book, amount=Micros(6), budget=Micros(10))
    book.book(first, "yes", 6, at=2.0)
    assert refused(book, amount=Micros(5), budget=Micros(10), intent="again").cap == "request"
    second = reserved(book, amount=Micros(4), budget=Micros(10), intent="again")
    book.book(second, "held", at=2.0)
    refusal = refused(book, amount=Micros(1), budget=Micros(10), intent="again")
    assert (refusal.cap, refusal.available) == ("request", 0)
    reserved(book, "another", 10, budget=Micros(10))
    assert figures(book) == (10, 4, 6)


def test_an_account_without_a_cap_allows_anything():
    book = book_with(run=None)
    reserved(book, amount=10**18)
    assert figures(book) == (10**18, 0, 0)


def test_the_account_that_refuses_for_good_is_named_before_one_that_may_have_more_later():
    book = book_with(run=10, batch=5)
    reserved(book, amount=Micros(10))
    made = book.reserve(wish("other", 6, accounts=("run", "batch")), at=1.0)
    assert isinstance(made, InsufficientFunds)
    assert (made.account, made.may_free_up) == ("batch", False)


def test_a_lowered_cap_stops_everything_and_a_raised_one_lets_it_go_on():
    book = book_with(run=100)
    book.book(reserved(book, amount=Micros(50)), "yes", at=2.0)
    book.set_cap("run", 40, at=3.0)
    assert refused(book, "other", 0).available == 0
    assert list(book.broken_invariants()) == []
    book.set_cap("run", 60, at=4.0)
    assert reserved(book, "other", 10).amount == 10


def test_an_account_that_is_not_open_is_refused_and_so_is_one_that_is_named_twice():
    book = book_with(run=100)
    with pytest.raises(Permanent, match="no open account 'ran'; open it first"):
        book.reserve(wish(accounts=("run", "ran")), at=1.0)
    with pytest.raises(Permanent, match="list each account once"):
        book.reserve(wish(accounts=("run", "run")), at=1.0)
    with pytest.raises(Permanent, match="open already"):
        book.open("run", cap=1, at=1.0)
    assert figures(book) == (0, 0, 0)


# What becomes of a reservation.


def test_the_true_cost_is_settled_and_the_rest_released():
    book = book_with(run=10)
    entry = book.book(reserved(book), "yes", 7, at=2.0)
    assert isinstance(entry, MoneySettled)
    assert (entry.cost, entry.released, entry.overcharged) == (7, 3, 0)
    assert figures(book) == (0, 0, 7)


def test_a_provider_that_states_no_cost_is_paid_what_was_reserved():
    book = book_with(run=10)
    book.book(reserved(book), "yes", at=2.0)
    assert figures(book) == (0, 0, 10)


def test_an_overcharge_is_booked_as_it_is_and_stops_the_account():
    book = book_with(run=10)
    entry = book.book(reserved(book), "yes", 25, at=2.0)
    assert isinstance(entry, MoneySettled)
    assert (entry.released, entry.overcharged) == (0, 15)
    assert figures(book) == (0, 0, 25)
    assert book.statement("run").overcharged == 15
    assert refused(book, "other", 0).available == 0, "not even a free call may be made on an account over its cap"


def test_whatever_is_told_twice_counts_once():
    book = book_with(run=100)
    for charged, cost in (("yes", 7), ("no", None), ("held", None)):
        reservation = reserved(book, str(charged))
        assert book.book(reservation, charged, cost, at=2.0) is not None
        assert book.book(reservation, charged, cost, at=3.0) is None
    assert figures(book) == (0, 10, 7)


def test_nothing_that_comes_after_a_settlement_changes_it():
    book = book_with(run=100)
    reservation = reserved(book)
    book.book(reservation, "yes", 7, at=2.0)
    assert [book.book(reservation, charged, at=3.0) for charged in ("yes", "no", "held")] == [None] * 3
    assert figures(book) == (0, 0, 7)


def test_what_is_held_may_be_settled_later():
    book = book_with(run=10)
    reservation = reserved(book)
    book.book(reservation, "held", at=2.0)
    assert figures(book) == (0, 10, 0)
    assert [(one.key, one.amount, one.since) for one in book.unsettled(is_held=True)] == [("k", 10, 2.0)]
    book.book(reservation, "yes", 4, at=3.0)
    assert figures(book) == (0, 0, 4)


def test_a_call_that_was_charged_although_its_money_had_been_released_is_booked_all_the_same():
    book = book_with(run=10)
    reservation = reserved(book)
    book.book(reservation, "no", at=2.0)
    reserved(book, "other", 10)
    entry = book.book(reservation, "yes", 8, at=3.0)
    assert isinstance(entry, MoneySettled)
    assert entry.is_late
    assert figures(book) == (10, 0, 8)
    with pytest.raises(AlreadyPaid):
        book.reserve(wish(), at=4.0)


def test_a_reservation_that_was_never_made_cannot_be_booked_or_resolved():
    book = book_with(run=10)
    with pytest.raises(Permanent, match="no reservation 99; was it made by another ledger"):
        book.book(Reservation(99, "k", "alder", Micros(10)), "yes", at=1.0)
    with pytest.raises(Permanent, match="not held"):
        book.resolve(99, "no", at=1.0)


def test_only_what_is_held_can_be_resolved_and_only_once():
    book = book_with(run=10)
    reservation = reserved(book)
    with pytest.raises(Permanent, match="under way"):
        book.resolve(reservation.number, "no", at=2.0)
    book.book(reservation, "held", at=2.0)
    assert isinstance(book.resolve(reservation.number, "no", at=3.0), MoneyReleased)
    with pytest.raises(Permanent, match="not held, or no more"):
        book.resolve(reservation.number, "yes", at=4.0)
    assert figures(book) == (0, 0, 0)


@pytest.mark.parametrize("other", [None, "alder", "birch"])
def test_what_was_found_to_be_paid_is_entered_where_nothing_else_can_be_meant(other: str | None):
    book = book_with(run=30)
    first = reserved(book)
    book.book(first, "held", at=2.0)
    if other is not None:
        second = reserved(book, provider=other, intent="again")
        book.book(second, "yes", at=2.0)
    book.resolve(first.number, "no", at=3.0)
    if other == first.provider:
        with pytest.raises(Permanent):  # A look-up by the key has found the second call.
            book.resolve(first.number, "yes", 4, as_found=True, at=4.0)
        return
    entry = book.resolve(first.number, "yes", 4, as_found=True, at=4.0)
    assert isinstance(entry, MoneySettled)
    assert (entry.cost, entry.is_late) == (4, True)


def test_a_free_call_of_unknown_outcome_holds_nothing_and_bars_no_other():
    book = book_with(run=10)
    assert isinstance(book.book(reserved(book, amount=0), "held", at=2.0), MoneyReleased)
    reserved(book, amount=0)


# Keys.


def test_a_key_that_was_paid_is_refused_and_the_refusal_says_what_was_paid():
    book = book_with(run=100)
    book.book(reserved(book), "yes", 7, at=2.0)
    with pytest.raises(AlreadyPaid) as paid:
        book.reserve(wish(provider="birch"), at=3.0)
    assert (paid.value.key, paid.value.paid, paid.value.paid_to, paid.value.charged) == ("k", 7, "alder", "yes")
    book.book(reserved(book, provider="birch", intent="again"), "yes", 8, at=4.0)
    assert book.paid_keys.paid("k") == (15, "birch")


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("provider", ["alder", "birch"])
def test_a_key_whose_outcome_is_open_is_refused_unless_that_is_intended(is_held: bool, provider: str):  # noqa: FBT001
    book = book_with(run=100)
    first = reserved(book)
    if is_held:
        book.book(first, "held", at=2.0)
    with pytest.raises(StillUnsettled) as refusal:
        book.reserve(wish(provider=provider), at=3.0)
    assert (refusal.value.reservation, refusal.value.at_provider, refusal.value.is_held) == (
        first.number,
        "alder",
        is_held,
    )
    second = reserved(book, provider=provider, intent="again")
    assert second.number != first.number


def test_a_call_that_cost_nothing_leaves_its_key_free():
    book = book_with(run=100)
    book.book(reserved(book), "no", at=2.0)
    book.book(reserved(book, provider="birch"), "yes", 0, at=3.0)
    reserved(book)


def test_only_the_keys_paid_last_are_remembered():
    book = Book(max_paid_keys=2)
    book.open("run", cap=None, at=0.0)
    for key in "abc":
        book.book(reserved(book, key), "yes", at=1.0)
    assert [book.paid_keys.paid(key) for key in "abc"] == [None, (10, "alder"), (10, "alder")]
    assert book.paid_keys.has_forgotten


def test_no_more_than_the_reservations_released_last_are_remembered():
    book = book_with(run=None)
    for number in range(MAX_RELEASED + 10):
        book.book(reserved(book, str(number)), "no", at=1.0)
    assert len(book.postings.released) == MAX_RELEASED
    assert (len(book.postings.records), len(book.postings.by_key), len(book.postings.holders)) == (0, 0, 0)


# Repetitions under a key that the provider honours.


def test_a_repetition_takes_on_what_is_held_and_needs_only_what_it_costs_more():
    book = book_with(run=12)
    first = reserved(book, amount=Micros(10))
    book.book(first, "held", at=2.0)
    assert refused(book, amount=Micros(13), intent="repeat").needed == 3
    again = reserved(book, amount=Micros(12), intent="repeat")
    assert (again.number, again.amount, again.attempt) == (first.number, 12, 2)
    assert figures(book) == (12, 0, 0)
    book.book(again, "yes", 11, at=3.0)
    assert figures(book) == (0, 0, 11)


def test_a_repetition_elsewhere_is_refused_and_one_of_nothing_is_a_first_call():
    book = book_with(run=100)
    assert reserved(book, "new", intent="repeat").attempt == 1
    book.book(reserved(book), "held", at=2.0)
    with pytest.raises(StillUnsettled):
        book.reserve(wish(provider="birch", intent="repeat"), at=3.0)


def test_a_repetition_that_was_not_charged_says_nothing_of_the_call_before_it():
    book = book_with(run=100)
    book.book(reserved(book, amount=Micros(10)), "held", at=2.0)
    again = reserved(book, amount=Micros(15), intent="repeat")
    entry = book.book(again, "no", at=3.0)
    assert isinstance(entry, MoneyHeld)
    assert (entry.held, entry.released) == (10, 5)
    assert book.book(again, "no", at=4.0) is None, "told twice, it must not release what the first call may have cost"
    assert figures(book) == (0, 10, 0)


def test_what_an_earlier_call_tells_late_does_not_end_its_repetition():
    book = book_with(run=100)
    first = reserved(book)
    book.book(first, "held", at=2.0)
    again = reserved(book, intent="repeat")
    assert book.book(first, "no", at=3.0) is None
    assert book.book(first, "held", at=3.0) is None
    assert figures(book) == (10, 0, 0)
    book.book(first, "yes", 9, at=4.0)  # The key is charged once, whichever call is answered.
    assert book.book(again, "yes", 9, at=5.0) is None
    assert figures(book) == (0, 0, 9)


def test_a_repetition_is_owed_even_on_an_account_that_is_over_its_cap():
    book = book_with(run=20)
    held = reserved(book, "held")
    book.book(held, "held", at=2.0)
    book.book(reserved(book), "yes", 50, at=2.0)
    assert reserved(book, "held", intent="repeat").number == held.number


def test_a_repetition_whose_asker_has_given_up_is_held_as_before():
    book = book_with(run=20)
    book.book(reserved(book), "held", at=2.0)
    book.take_back(reserved(book, amount=Micros(15), intent="repeat"), at=3.0)
    assert figures(book) == (0, 10, 0)
    other = reserved(book, "other")
    book.take_back(other, at=3.0)
    assert book.take_back(other, at=3.0) is None
    assert figures(book) == (0, 10, 0)


# Holders.


def test_a_holder_that_ends_leaves_held_what_was_sent_and_nothing_of_the_rest():
    book = book_with(run=100)
    sent, unsent = (reserved(book, key, holder="h", is_sent=False) for key in ("sent", "unsent"))
    reserved(book, "done", holder="h")
    book.book(reserved(book, "booked", holder="h"), "yes", at=2.0)
    reserved(book, "another", holder="other")
    book.mark_sent(sent)
    booked = book.holder_ended("h", at=3.0)
    assert [(type(one), one.key) for one in booked] == [
        (MoneyHeld, "sent"),
        (MoneyReleased, "unsent"),
        (MoneyHeld, "done"),
    ]
    assert book.holder_ended("h", at=3.0) == []
    assert figures(book) == (10, 20, 10)
    assert list(book.postings.holders) == ["other"]
    book.book(sent, "no", at=4.0)  # It was known after all.
    book.book(unsent, "yes", 5, at=4.0)
    assert figures(book) == (10, 10, 15)


# Accounts that are closed.


def test_money_in_a_closed_account_goes_its_way_and_then_it_is_forgotten():
    book = book_with(run=100, batch=100)
    reservation = reserved(book, accounts=("run", "batch"))
    page, _ = book.close("batch", at=2.0)
    with pytest.raises(Permanent):
        reserved(book, "other", accounts=("batch",))
    with pytest.raises(Permanent, match="calls under way still draw on it; wait for them first"):
        book.open("batch", cap=None, at=2.0)
    book.book(reservation, "held", at=3.0)
    assert book.statement("batch").is_closed
    book.resolve(reservation.number, "yes", 8, at=4.0)
    assert (page.settled, page.released) == (8, 2)
    assert figures(book) == (0, 0, 8)
    assert not book.accounts.is_known("batch")
    book.open("batch", cap=5, at=5.0)
    assert book.statement("batch").settled == 0
    assert book.statement().settled == 8, "the total remembers what was spent in closed accounts"


# Alerts.


def test_an_account_crosses_its_alert_at_the_first_micro_unit_of_80_percent_and_back_below_it():
    book = book_with(run=9)  # 80 % are 7.2.
    seven = reserved(book, amount=Micros(7))
    assert book.accounts.take_crossed() == []
    one = reserved(book, "one", 1)
    assert [(page.name, page.is_alerted) for page in book.accounts.take_crossed()] == [("run", True)]
    reserved(book, "more", 1)
    assert book.accounts.take_crossed() == [], "raised once"
    book.book(one, "no", at=2.0)
    book.book(seven, "yes", at=2.0)
    assert book.accounts.take_crossed() == []
    book.set_cap("run", 100, at=3.0)
    assert [(page.name, page.is_alerted) for page in book.accounts.take_crossed()] == [("run", False)]


def test_a_free_call_that_its_holder_left_is_over_whatever_is_told_of_it_later():
    book = book_with(run=100)
    free = reserved(book, amount=0, holder="h")
    [released] = book.holder_ended("h", at=2.0)
    assert isinstance(released, MoneyReleased)
    assert book.book(free, "held", at=3.0) is None
    assert list(book.broken_invariants()) == []


# Anything, in any order.

amounts = st.integers(min_value=0, max_value=60)
steps = st.lists(
    st.tuples(st.integers(0, 9), amounts, amounts, st.integers(0, 3), st.booleans()), min_size=1, max_size=60
)


class Play:
    """Plays random steps on a book, keeping a simple-minded account of its own beside it."""

    def __init__(self, caps: tuple[int | None, ...]) -> None:
        self.book = Book()
        self.entries: list[Entry] = []
        self.given: list[Reservation] = []
        self.spent: dict[str, int] = dict.fromkeys((*NAMES, "risk"), 0)
        self.overcharged: dict[str, int] = dict.fromkeys((*NAMES, "risk"), 0)
        for name, cap in zip(NAMES, caps, strict=True):
            self.entries.append(self.book.open(name, cap=cap, at=0.0))
        self.entries.append(self.book.open("risk", cap=Micros(80), at=0.0))

    def passed_over(self, key: str, risk: int) -> dict[str, Any]:
        """Pass over what is held under a key, each second time."""
        numbers = tuple(one.reservation for one in self.book.unsettled(is_held=True) if one.key == key)
        if risk % 2:
            return {}
        return {
            "passes_over": numbers,
            "risk": Micros(risk) if risk else None,
            "risk_account": "risk" if risk % 4 else None,
        }

    def step(self, what: int, amount: int, cost: int, who: int, flag: bool) -> None:  # noqa: FBT001
        book = self.book
        intent: Intent = ("first", "repeat", "again", "first")[cost % 4]
        one = self.given[amount % len(self.given)] if self.given else Reservation(10**6, "none", "alder", Micros(1))
        try:
            match what:
                case 0 | 1 | 2 | 3:
                    asked = Reserve(
                        key=f"k{cost % 7}",
                        provider=("alder", "birch")[who % 2],
                        amount=Micros(amount),
                        accounts=NAMES[: who + 1] if flag else NAMES[who:],
                        budget=Micros(100) if flag else None,
                        intent=intent,
                        holder=who if cost % 2 else None,
                        is_sent=flag,
                        **self.passed_over(f"k{cost % 7}", amount + cost),
                    )
                    made = book.reserve(asked, at=1.0)
                    if isinstance(made, MoneyReserved):
                        self.given.append(book.reservation(made.reservation))
                        self.note(made)
                case 4 | 5:
                    self.note(book.book(one, "yes", cost if flag else min(cost, one.amount), at=2.0))
                case 6:
                    self.note(book.book(one, "held" if flag else "no", at=2.0))
                case 7:
                    self.note(book.resolve(one.number, "yes" if flag else "no", cost if flag else None, at=2.0))
                case 8:
                    for booked in book.holder_ended(who, at=3.0):
                        self.note(booked)
                case _ if flag:
                    self.age(who, amount)
                case _:
                    self.note(book.take_back(one, at=3.0))
        except Permanent:
            pass

    def age(self, who: int, amount: int) -> None:
        """Let held money expire, or be known to be of a call under way."""
        held = [one for one in self.book.postings.records.values() if one.is_held]
        if held and who % 2:
            self.note(self.book.mark_under_way(held[-1].number, at=4.0))
        elif held:
            self.note(self.book.expire(held[amount % len(held)], at=4.0))

    def note(self, entry: Any) -> None:
        if entry is None:
            return
        self.entries.append(entry)
        if isinstance(entry, MoneySettled | MoneyReleased):
            for name in entry.accounts:
                self.spent[name] -= entry.corrects
        if isinstance(entry, MoneySettled):
            for name in entry.accounts:
                self.spent[name] += entry.cost
                self.overcharged[name] += entry.cost if entry.is_late else entry.overcharged


@settings(max_examples=repeated(300))
@given(caps=st.tuples(*[st.one_of(st.none(), st.integers(0, 300))] * 4), plan=steps)
def test_whatever_happens_it_adds_up_and_no_account_is_over_its_cap_but_by_what_was_overcharged(
    caps: tuple[int | None, ...], plan: list[tuple[int, int, int, int, bool]]
):
    play = Play(caps)
    for one in plan:
        play.step(*one)
        assert list(play.book.broken_invariants()) == []
        for name, cap in zip(NAMES, caps, strict=True):
            statement = play.book.statement(name)
            assert statement.settled == play.spent[name]
            # What was charged late had been released, and may have been given to others meanwhile.
            late = play.book.accounts.states[name].beyond
            assert cap is None or statement.used <= cap + statement.overcharged + late
            assert play.overcharged[name] or late or cap is None or statement.used <= cap
    replayed = Book()
    for entry in play.entries:
        replayed.postings.apply(entry)
    assert replayed.postings.figures() == play.book.postings.figures()


@settings(max_examples=repeated(100))
@given(caps=st.tuples(*[st.integers(0, 300)] * 4), plan=steps)
def test_once_all_is_resolved_every_micro_unit_is_spent_or_free(
    caps: tuple[int, ...], plan: list[tuple[int, int, int, int, bool]]
):
    play = Play(caps)
    for one in plan:
        play.step(*one)
    for booked in play.book.hold_all(at=4.0):
        play.note(booked)
    for one in play.book.unsettled():
        play.note(play.book.resolve(one.reservation, "no", at=5.0))
    for name, cap in zip(NAMES, caps, strict=True):
        statement = play.book.statement(name)
        assert (statement.reserved, statement.held, statement.settled) == (0, 0, play.spent[name])
        left = cap - statement.settled
        if left >= 0:
            reserved(play.book, f"last of {name}", left, accounts=(name,), intent="again")
    assert list(play.book.broken_invariants()) == []


def test_an_entry_that_cannot_follow_is_refused():
    book = book_with(run=10)
    entry = book.reserve(wish(), at=1.0)
    assert isinstance(entry, MoneyReserved)
    opened = book_with().open("run", cap=1, at=0.0)
    with pytest.raises(ValueError, match="reserves what it cannot"):
        book.postings.apply(entry)
    with pytest.raises(ValueError, match="opens an account that is open"):
        book.postings.apply(opened)
    released = book_with(run=1)
    gone = released.close("run", at=1.0)[1]
    with pytest.raises(ValueError, match="not open"):
        released.postings.apply(gone)
    with pytest.raises(ValueError, match="never reserved"):
        Book().postings.apply(
            MoneyReleased(reservation=1, key="k", provider="p", accounts=(), released=Micros(0), at=1.0)
        )


def test_a_book_and_its_parts_tell_their_state():
    book = book_with(run=10)
    held = reserved(book, "k", 4)
    book.book(held, "held", at=2.0)
    reserved(book, "other", 4)
    assert repr(book) == "<Book 1 accounts, 1 reservations open, 1 held>"
    assert "held" in repr(book.postings.records[held.number])
    assert "cap $0.00001" in repr(book.accounts.states["run"])


@pytest.mark.parametrize("cost", [0, 7])
def test_a_call_that_was_estimated_at_nothing_is_corrected_as_any_other(cost: int):
    book = Book()
    book.open("run", cap=None, at=0.0)
    made = book.reserve(Reserve(key="k", provider="alder", amount=Micros(9), accounts=("run",)), at=1.0)
    assert isinstance(made, MoneyReserved)
    call = book.reservation(made.reservation)
    book.book(call, "yes", Micros(0), costing=Costing(basis="estimated"), at=2.0)
    book.book(call, "yes", Micros(cost), costing=Costing(basis="exact"), at=3.0)
    assert (book.statement("run").settled, book.statement("run").estimated) == (cost, 0)
    assert list(book.broken_invariants()) == []
