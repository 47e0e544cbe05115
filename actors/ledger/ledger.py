"""Owns the money: whoever wants to make a paid call reserves its price first, in every account that it draws on.

One `Reserve` is one decision over all caps, so there is nothing to roll back; what becomes of the call is told by
`BookCall`, and what nobody tells is held. A book decides, and the ledger does the waiting, the asking and the writing.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from actors.errors.families import BudgetExceeded, CallFailed, Permanent
from actors.events import AlertCleared, AlertRaised, Overcharged
from actors.ledger.approvals import Questions
from actors.ledger.book import Book, InsufficientFunds
from actors.ledger.commits import Writer, recover
from actors.ledger.config import DEFAULT_CONFIG, LedgerConfig
from actors.ledger.entries import MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.errors import JournalError  # noqa: TC001
from actors.ledger.messages import (
    BookCall,
    CloseAccount,
    GetHeld,
    GetStatement,
    MarkSent,
    OpenAccount,
    Reservation,
    Reserve,
    Resolve,
    SetCap,
    Unsettled,
)
from actors.ledger.waiters import ReserveQueues, ReserveWaiter
from actors.money import to_micros
from actors.validation import check_text
from runtime import Actor, ActorRef, ActorRestarted, MailboxFull, Message, Request, Terminated, handles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.ledger.account import Account
    from actors.ledger.approvals import OnExhausted
    from actors.ledger.entries import Booked, Entry
    from actors.ledger.page import AccountState, Statement
    from actors.money import Amount, Micros

T = TypeVar("T")

ALERT = "cap"
"""What the alerts of a ledger give as their rule."""


class HolderRestarted(Message, frozen=True):
    """The ledger tells itself that an actor which answers for calls has begun anew, behind what that one told it."""

    ref: ActorRef


class JournalBroke(Message, frozen=True):
    """The ledger tells itself that it must begin anew, with what has been written."""

    error: JournalError


class Ledger(
    Actor[
        Reserve
        | BookCall
        | MarkSent
        | Resolve
        | OpenAccount
        | CloseAccount
        | SetCap
        | GetStatement
        | GetHeld
        | Terminated
        | HolderRestarted
        | JournalBroke
    ]
):
    """Keeps a book of accounts; see the module's text for how.

    `accounts` are open from the start: caps as people write them, None for no cap. With a `journal`, the path of a
    file, all of it outlives the program: accounts and figures, who was paid under which key, and what was open is
    held, because nobody knows what became of those calls. An account that was open then is taken on, with its
    figures, by the first `OpenAccount` of its name. Without a journal, give all instances the same `book`, and a
    restart of the actor forgets nothing: `Ledger(book=book)` in the factory. A `book` has a configuration of its own.

    `on_exhausted(statement, needed)` is awaited before a cap refuses anybody, once at a time for each account, and
    answers with the new cap; or None to refuse, which then holds until the cap is changed. Those who need that account
    wait meanwhile, in order, within their deadlines. What it raises is logged, and counts as a no for those who wait.
    """

    def __init__(
        self,
        config: LedgerConfig = DEFAULT_CONFIG,
        *,
        accounts: Mapping[str, Amount | None] | None = None,
        journal: str | os.PathLike[str] | None = None,
        book: Book | None = None,
        on_exhausted: OnExhausted | None = None,
    ) -> None:
        if journal is not None and book is not None:
            raise ValueError("a ledger with a journal reads its book from there; give it one of the two")
        if journal is not None and not os.fspath(journal):
            raise ValueError("journal must be the path of a file, or None, got an empty string")
        self.config = config
        for name in accounts or ():
            check_text("the name of an account", name)
        self.caps = {name: None if cap is None else to_micros(cap) for name, cap in (accounts or {}).items()}
        self.journal_path = journal
        self.writer: Writer | None = None
        self.book = book or Book(alert_percent=config.alert_percent, max_paid_keys=config.max_paid_keys)
        self.is_shared = book is not None
        self.lines = ReserveQueues()
        self.questions = Questions(
            on_exhausted, timeout=config.question_timeout, answered=self._answered, failed=self._not_answered
        )
        self.recovered: set[str] = set()
        """The accounts of an earlier run that nobody has opened in this one."""
        self.closing: dict[AccountState, asyncio.Future[Account]] = {}
        self.alerted_at: dict[str, float] = {}
        self.watched: set[Any] = set()
        self.named = 0

    async def started(self) -> None:
        self.publish = self.context.events.publish  # Looked up once: every movement is published.
        self.opened: set[str] = self.context.kept.setdefault("opened", set[str]())
        """The accounts that were opened in this run, also before a restart."""
        if self.journal_path is not None:
            await self._recover(self.journal_path)
        elif not self.is_shared:
            # Reservations of an instance before a restart are none of this one's.
            self.book.number_from(int(self.context.random.random() * 2**52))
        for holder in self.book.postings.holders:
            self._watch(holder)
        try:
            for name, cap in self.caps.items():
                self._open_by_config(name, cap)
        except BaseException:
            self._close_journal()  # An instance that could not start is not stopped either.
            raise
        self.subscription = self.context.events.subscribe(ActorRestarted, self._heard_of_restart)

    async def stopped(self) -> None:
        self.subscription.cancel()
        self.closing.clear()  # Those who wait for these are told by whoever ends the instance.
        try:
            await self.questions.stop()
        finally:
            self._close_journal()

    # Reservations.

    @handles(Reserve)
    def reserve(self, message: Reserve) -> Reservation | asyncio.Future[Reservation]:
        """Reserve at once where every account has enough; otherwise wait, ask for more, or refuse."""
        if message.holder is not None and not isinstance(message.holder, ActorRef):
            raise Permanent(f"holder must be the ref of an actor, got {message.holder!r:.100}")
        if self.book.paid_keys.has_forgotten and self.book.paid_keys.get(message.key) is None:
            self._recall(message.key)
        if (
            self.lines
            and (account := self.lines.before(message.accounts)) is not None
            and not self.book.has_enough_held(message)
        ):
            return self._join(message, account)
        made = self.book.reserve(message, at=time.time())
        if isinstance(made, MoneyReserved):
            return self._given(made, message)
        waiter = self.lines.new_waiter(message)
        if len(self.lines) >= self.config.max_waiting or not self._may_wait(waiter, made):
            raise made.refusal()
        return self._line_up(waiter, made.account or "")

    @handles(BookCall)
    def book_call(self, message: BookCall) -> None:
        """Enter what became of a call; a message that came twice does nothing."""
        self._booked(self.book.book(message.reservation, message.charged, message.cost, at=time.time()))

    @handles(MarkSent)
    def mark_sent(self, message: MarkSent) -> None:
        """Note that a call is about to be sent."""
        self.book.mark_sent(message.reservation)

    @handles(Resolve)
    def resolve(self, message: Resolve) -> MoneySettled | MoneyReleased | asyncio.Future[MoneySettled | MoneyReleased]:
        """Enter what was found out of a call whose money is held."""
        entry = self.book.resolve(
            message.reservation, message.charged, message.cost, as_found=message.as_found, at=time.time()
        )
        self._booked(entry)
        return self._once_written(entry)

    @handles(Terminated)
    def holder_ended(self, message: Terminated) -> None:
        """Book what an actor that has ended has left open."""
        self.watched.discard(message.ref)
        self._left_by(message.ref)

    @handles(HolderRestarted)
    def holder_restarted(self, message: HolderRestarted) -> None:
        """Book what an instance that is no more has left open; to those who watch, a restart is no end."""
        self._left_by(message.ref)

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        """Undo what was done for somebody who had gone before the answer came."""
        if isinstance(answer, Reservation) or isinstance(request, OpenAccount):
            self._take_back(answer)

    # Accounts.

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str | asyncio.Future[str]:
        """Open an account, or take one on from an earlier run, and return its name."""
        name = message.name
        while name is None:
            self.named += 1
            made_up = f"account-{self.named}"
            name = None if self.book.accounts.is_known(made_up) else made_up
        if name in self.recovered:
            self.recovered.discard(name)
            self._open(name, message.cap)
        else:
            self._enter(self.book.open(name, cap=message.cap, at=time.time()))
        return self._opened(name)

    @handles(CloseAccount)
    def close_account(self, message: CloseAccount) -> Account | asyncio.Future[Account]:
        """Close an account at once, and answer with its statement when the last call that draws on it has ended."""
        page = self.book.accounts.draining(message.name) or self._close(message.name)
        if page.open == 0:
            return self._once_written(page.statement())
        closing = self.closing.get(page)
        if closing is None:
            closing = self.closing[page] = asyncio.get_running_loop().create_future()
        # Shielded, because an asker that gives up must not take the answer from one who asks again.
        return asyncio.shield(closing)

    @handles(SetCap)
    def set_cap(self, message: SetCap) -> Statement | asyncio.Future[Statement]:
        """Change a cap, and let those who wait look again."""
        self.questions.withdraw(message.account)  # Whatever it would be answered, this is newer.
        self._set_cap(message.account, message.cap)
        return self._once_written(self.book.statement(message.account))

    @handles(GetStatement)
    def state(self, message: GetStatement) -> Statement:
        """Tell the figures of an account."""
        return self.book.statement(message.account)

    @handles(GetHeld)
    def list_held(self, message: GetHeld) -> tuple[Unsettled, ...]:
        """Tell whose outcome is unknown."""
        return self.book.unsettled(account=message.account, is_held=True)

    @handles(JournalBroke)
    def begin_anew(self, message: JournalBroke) -> None:
        """Crash: the next instance goes by what has been written, and by nothing else."""
        raise message.error

    # What every step entails.

    def _once_written(self, answer: T) -> T | asyncio.Future[T]:
        """Return an answer, or what will be it once all that was entered is on disk."""
        if self.writer is None or not self.writer.journal.has_unwritten:
            return answer
        return self.writer.once_written(answer)

    def _given(self, entry: MoneyReserved, wish: Reserve, waiter: ReserveWaiter | None = None) -> Any:
        """Return the answer to a reservation that was made, or what will be it once it is written."""
        if wish.holder is not None and wish.holder not in self.watched:
            self._watch(wish.holder)
        self._enter(entry)
        if entry.from_held:
            reservation = self.book.reservation(entry.reservation)
        else:
            reservation = Reservation(entry.reservation, wish.key, wish.provider, wish.amount)
        if self.writer is not None:
            return self.writer.once_written(reservation, waiter)
        if waiter is not None:
            waiter.set_result(reservation)
        return reservation

    def _booked(self, entry: Booked | None) -> None:
        """Tell of a step by which money may have come back, and let those who wait for it look again."""
        if entry is None:
            return
        self._enter(entry)
        if isinstance(entry, MoneySettled) and self.book.paid_keys.has_forgotten:
            self._recall(entry.key)  # What was paid under it before is part of the sum.
        if isinstance(entry, MoneySettled) and (entry.overcharged or entry.is_late):
            self.publish(
                Overcharged(
                    provider=entry.provider,
                    key=entry.key,
                    quoted=0 if entry.is_late else entry.cost - entry.overcharged,
                    charged=entry.cost,
                    accounts=entry.accounts,
                )
            )
        if self.lines:
            for account in entry.accounts:
                self._serve(account)
        if self.closing:
            self._answer_closers()

    def _enter(self, entry: Entry) -> None:
        """Write an entry down, and tell everybody."""
        if self.writer is not None:
            self.writer.append(entry)
        self.publish(entry)
        if self.book.accounts.crossed:
            self._alert()

    def _alert(self) -> None:
        """Tell of the accounts of which so much is used as calls for an alert, or no longer."""
        now = self.context.now()
        for page in self.book.accounts.take_crossed():
            value = page.used / page.cap if page.cap else None
            since = self.alerted_at.pop(page.name, now)
            if page.is_alerted:
                self.alerted_at[page.name] = now
                threshold = self.book.accounts.alert_percent / 100
                self.publish(
                    AlertRaised(rule=ALERT, subject=page.name, value=value or 0.0, threshold=threshold, at=now)
                )
            else:
                self.publish(AlertCleared(rule=ALERT, subject=page.name, value=value, lasted=now - since))

    def _open(self, name: str, cap: Micros | None) -> None:
        """Open an account, or give one that is open this cap."""
        if not self.book.is_open(name):
            self._enter(self.book.open(name, cap=cap, at=time.time()))
        elif self.book.statement(name).cap != cap:
            self._set_cap(name, cap)

    def _open_by_config(self, name: str, cap: Micros | None) -> None:
        """Open an account that the factory names, or give it this cap where it is of an earlier run."""
        outlives = self.is_shared or self.journal_path is not None
        if (outlives and name in self.opened) or (self.is_shared and self.book.is_open(name)):
            return  # What has become of it in this run is newer, also that it was closed.
        self.recovered.discard(name)
        try:
            self._open(name, cap)
        except Permanent as refusal:
            self.context.log.warning("{}", refusal)  # It can still be resolved, as everything else goes on.
            return
        self._opened(name)

    def _opened(self, name: str) -> str | asyncio.Future[str]:
        """Note, once it is written, that an account is of this run, and return its name, now or then."""

        def note(written: asyncio.Future[str]) -> None:
            if not written.cancelled() and written.exception() is None:
                self.opened.add(name)

        answer = self._once_written(name)
        if isinstance(answer, str):
            self.opened.add(name)
        else:
            answer.add_done_callback(note)
        return answer

    def _set_cap(self, name: str, cap: Micros | None) -> None:
        self._enter(self.book.set_cap(name, cap, at=time.time()))
        self.questions.forget_no(name)
        self._serve(name)

    def _close(self, name: str) -> AccountState:
        page, entry = self.book.close(name, at=time.time())
        self._enter(entry)
        self.recovered.discard(name)
        self.questions.withdraw(name)
        self.alerted_at.pop(name, None)
        self._serve(name)  # Which refuses everybody.
        return page

    def _answer_closers(self) -> None:
        for page in [page for page in self.closing if page.open == 0]:
            closing = self.closing.pop(page)
            if closing.done():
                continue
            if self.writer is not None:
                self.writer.once_written(page.statement(), closing)
            else:
                closing.set_result(page.statement())

    def _watch(self, holder: Any) -> None:
        self.watched.add(holder)
        self.context.watch(holder)

    def _heard_of_restart(self, event: ActorRestarted) -> None:
        if self.book.postings.holders.get(event.ref):
            try:
                self.context.ref.tell(HolderRestarted(event.ref))
            except MailboxFull:
                self._left_by(event.ref)  # What it told may come after; it is booked all the same.

    def _left_by(self, holder: ActorRef) -> None:
        for entry in self.book.holder_ended(holder, at=time.time()):
            self._booked(entry)

    # Waiting.

    def _join(self, wish: Reserve, account: str) -> asyncio.Future[Reservation]:
        """Stand behind those who wait for an account already: what it has, or gets, is theirs first."""
        self.book.refuse_repetition(wish)
        if len(self.lines) >= self.config.max_waiting or not (wish.wait or self.questions.is_pending(account)):
            raise BudgetExceeded(needed=wish.amount, available=0, cap=account, provider=wish.provider, may_free_up=True)
        return self._line_up(self.lines.new_waiter(wish), account)

    def _line_up(self, waiter: ReserveWaiter, account: str) -> ReserveWaiter:
        self.lines.stand(waiter, account)
        waiter.add_done_callback(self._left)
        return waiter

    def _left(self, waiter: asyncio.Future[Reservation]) -> None:
        if isinstance(waiter, ReserveWaiter) and (account := waiter.account) is not None:
            self.lines.leave(waiter)
            self._serve(account)  # The next may want less.

    def _serve(self, account: str) -> None:
        """Give to whoever is first in line as long as there is enough, and refuse whom nothing can help."""
        lines = self.lines
        while (waiter := lines.first(account)) is not None:
            earlier = lines.before(waiter.wish.accounts, waiter.number)
            if earlier is not None:
                lines.stand(waiter, earlier)
                continue
            if self.book.paid_keys.has_forgotten and self.book.paid_keys.get(waiter.wish.key) is None:
                self._recall(waiter.wish.key)  # It may have been paid, and forgotten, since it was asked for.
            try:
                made = self.book.reserve(waiter.wish, at=time.time())
            except CallFailed as refusal:
                self._refuse(waiter, refusal)
                continue
            if isinstance(made, MoneyReserved):
                lines.leave(waiter)
                self._given(made, waiter.wish, waiter)
            elif not self._may_wait(waiter, made):
                self._refuse(waiter, made.refusal())
            elif made.account == account:
                return
            else:
                lines.stand(waiter, made.account or "")

    def _refuse(self, waiter: ReserveWaiter, refusal: CallFailed) -> None:
        self.lines.leave(waiter)
        waiter.set_exception(refusal)

    def _may_wait(self, waiter: ReserveWaiter, short: InsufficientFunds) -> bool:
        """Tell whether there is something to wait for: calls under way, or an answer, which is asked for here."""
        account = short.account
        if account is None:
            return False
        if short.may_free_up and waiter.wish.wait:
            return True
        return self.questions.may_answer(waiter, self.book.statement(account), short.needed)

    def _answered(self, account: str, cap: Micros | None, asker: ReserveWaiter) -> None:
        """Raise the cap, or refuse those who have only waited to be told."""
        asker.asked += (account,)
        statement = self.book.statement(account)
        if cap is not None and statement.cap is not None and cap > statement.cap:
            self._set_cap(account, cap)
            return
        for waiter in self.lines.waiting_for(account):
            waiter.asked += (account,)
            wish = waiter.wish
            if not wish.wait and not waiter.done():
                left = statement.available or 0
                self._refuse(
                    waiter, BudgetExceeded(needed=wish.amount, available=left, cap=account, provider=wish.provider)
                )
        self._serve(account)

    def _not_answered(self, account: str, error: BaseException) -> None:
        self.context.log.opt(exception=error).error("on_exhausted raised for account {!r}", account)

    # The journal.

    async def _recover(self, path: str | os.PathLike[str]) -> None:
        """Go on where the journal ends."""
        journal = await recover(path, self.book, safety=self.config.safety, at=time.time())
        self.writer = Writer(journal, gone=self._take_back, broke=self._journal_broke)
        self.recovered = set(self.book.open_accounts()) - self.opened
        self.book.accounts.forget_crossings()
        self._alert()

    def _recall(self, key: str) -> None:
        """Look up what was paid under a key in all, and may have been forgotten, or a part of it."""
        if self.writer is not None:
            paid = self.writer.paid(key)
            if paid is not None:
                self.book.paid_keys.remember(key, *paid)

    def _take_back(self, answer: Any) -> None:
        """Undo what was done for somebody who had gone: a reservation, or an account, which is told by its name."""
        if isinstance(answer, Reservation):
            self._booked(self.book.take_back(answer, at=time.time()))
        elif isinstance(answer, str) and self.book.is_open(answer):
            if self.book.statement(answer).reserved_ever:
                self.opened.discard(answer)
                self.recovered.add(answer)  # It was taken on, and is still there to be.
            else:
                self._close(answer)

    def _journal_broke(self, error: JournalError) -> None:
        with suppress(MailboxFull):  # Whatever is in there will fail, and so have the same effect.
            self.context.ref.tell(JournalBroke(error))

    def _close_journal(self) -> None:
        """Write what is left, and undo what was reserved for those who have had no answer: no call was made."""
        writer, self.writer = self.writer, None
        if writer is None:
            return
        journal, unanswered = writer.journal, writer.abandon()
        try:
            if not journal.is_broken:
                for answer in unanswered:
                    if isinstance(answer, Reservation) and (entry := self.book.take_back(answer, at=time.time())):
                        journal.append(entry)
                        self.publish(entry)
                journal.commit()
        except sqlite3.Error as error:
            self.context.log.opt(exception=error).error("journal {!r} cannot be written", journal.path)
        finally:
            journal.close()

    def broken_invariants(self) -> Iterator[str]:
        yield from self.book.broken_invariants()
        yield from self.lines.broken_invariants()
        if self.journal_path is None:  # What an instance with a journal leaves open, the next one has as held.
            for one in self.book.unsettled(is_held=False):
                yield f"reservation {one.reservation} under key {one.key!r} was never booked: {one.amount} micro-units"
        for page in self.closing:
            yield f"whoever closed account {page.name!r} was not answered"

    def __repr__(self) -> str:
        return f"<Ledger {self.book!r}, {len(self.lines)} waiting>"
