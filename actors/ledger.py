"""Owns the money: whoever wants to make a paid call reserves its price first, in every account that it draws on.

One `Reserve` is one decision over all caps, so there is nothing to roll back; what becomes of the call is told by
`BookCall`, and what nobody tells is held. A book decides, and the ledger does the waiting, the asking and the writing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from actors.alerts import AlertCleared, AlertRaised
from actors.book import Book, Short
from actors.errors import BudgetExceeded, CallFailed, Permanent
from actors.events import Overcharged
from actors.ledger_errors import JournalError, JournalFailed
from actors.ledger_journal import Journal, Safety
from actors.ledger_lines import LedgerLines, Waiter
from actors.ledger_requests import (
    BookCall,
    GetHeld,
    GetStatement,
    MarkSent,
    Reservation,
    Reserve,
    Resolve,
    SetCap,
    Unsettled,
    check_cap,
)
from actors.money import to_micros
from actors.movements import MoneyReleased, MoneyReserved, MoneySettled
from actors.requests import CloseAccount, OpenAccount
from runtime import Actor, ActorRef, ActorRestarted, MailboxFull, Message, Request, Terminated, handles

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from actors.account import Account
    from actors.money import Amount, Micros
    from actors.movements import Booked, Entry
    from actors.page import Page, Statement

ALERT = "cap"
"""What the alerts of a ledger give as their rule."""
TIME_TO_END = 1.0
"""Seconds that a question has to end when the ledger does."""


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a ledger keeps its book.

    An alert is raised where `alert_percent` of a cap is used. `max_paid_keys` are remembered after they were paid; a
    journal knows the others too. `max_waiting` may wait for money, and a question may take `question_timeout` seconds.
    `safety` says what a journal outlives: the process ("normal"), or a power cut too ("full").
    """

    alert_percent: int = 80
    max_paid_keys: int = 100_000
    max_waiting: int = 100_000
    question_timeout: float = 600.0
    safety: Safety = "normal"

    def __post_init__(self) -> None:
        if not 0 < self.alert_percent <= 100:
            raise ValueError(f"alert_percent must be > 0 and at most 100, got {self.alert_percent}")
        if self.max_paid_keys < 1:
            raise ValueError(f"max_paid_keys must be >= 1, got {self.max_paid_keys}")
        if self.max_waiting < 0:
            raise ValueError(f"max_waiting must be >= 0, got {self.max_waiting}")
        if not self.question_timeout > 0:
            raise ValueError(f"question_timeout must be > 0 seconds, got {self.question_timeout}")


DEFAULT_CONFIG = LedgerConfig()


class HolderRestarted(Message, frozen=True):
    """The ledger tells itself that an actor which answers for calls has begun anew, behind what that one told it."""

    ref: ActorRef


class JournalBroke(Message, frozen=True):
    """The ledger tells itself that it must begin anew, with what has been written."""

    error: JournalError


class Question(msgspec.Struct):
    """Somebody is being asked for more money; for whose sake, and the task that does it."""

    waiter: Waiter
    task: asyncio.Task[Amount | None]


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
        on_exhausted: Callable[[Statement, Micros], Awaitable[Amount | None]] | None = None,
    ) -> None:
        if journal is not None and book is not None:
            raise ValueError("a ledger with a journal reads its book from there; give it one of the two")
        self.config = config
        self.caps = {name: None if cap is None else to_micros(cap) for name, cap in (accounts or {}).items()}
        self.journal_path = journal
        self.journal: Journal | None = None
        self.on_exhausted = on_exhausted
        self.book = book or Book(alert_percent=config.alert_percent, max_paid_keys=config.max_paid_keys)
        self.is_shared = book is not None
        self.lines = LedgerLines()
        self.questions: dict[str, Question] = {}
        self.said_no: set[str] = set()
        """The accounts that will not get more, unless somebody changes their cap."""
        self.recovered: set[str] = set()
        """The accounts of an earlier run that nobody has opened in this one."""
        self.closing: dict[Page, asyncio.Future[Account]] = {}
        self.alerted_at: dict[str, float] = {}
        self.unanswered: list[tuple[asyncio.Future[Any], Any]] = []
        """Answers that may be given once the journal is written."""
        self.commit_due: asyncio.Handle | None = None
        self.watched: set[Any] = set()
        self.named = 0

    def started(self) -> None:
        self.publish = self.context.events.publish  # Looked up once: every movement is published.
        if self.journal_path is not None:
            self._recover(self.journal_path)
        elif not self.is_shared:
            # Reservations of an instance before a restart are none of this one's.
            self.book.number_from(int(self.context.random.random() * 2**52))
        for holder in self.book.holders:
            self._watch(holder)
        try:
            for name, cap in self.caps.items():
                # What a book says of its caps is newer than what the factory was given.
                if not (self.is_shared and self.book.is_open(name)):
                    self.recovered.discard(name)
                    self._open(name, cap)
        except BaseException:
            self._close_journal()  # An instance that could not start is not stopped either.
            raise
        self.subscription = self.context.events.subscribe(ActorRestarted, self._heard_of_restart)

    async def stopped(self) -> None:
        self.subscription.cancel()
        tasks = [question.task for question in self.questions.values()]
        self.questions.clear()  # What they answer now is of no use.
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=TIME_TO_END)
        finally:
            self._close_journal()

    # Reservations.

    @handles(Reserve)
    def reserve(self, message: Reserve) -> Reservation | asyncio.Future[Reservation]:
        """Reserve at once where every account has enough; otherwise wait, ask for more, or refuse."""
        if self.book.has_forgotten_keys:
            self._recall(message.key)
        if self.lines and (account := self.lines.before(message.accounts)) is not None:
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
        if self.book.has_forgotten_keys:
            self._recall(message.reservation.key)  # What was paid under it before is part of the sum.
        self._booked(self.book.book(message.reservation, message.charged, message.cost, at=time.time()))

    @handles(MarkSent)
    def mark_sent(self, message: MarkSent) -> None:
        """Note that a call is about to be sent."""
        self.book.mark_sent(message.reservation)

    @handles(Resolve)
    def resolve(self, message: Resolve) -> MoneySettled | MoneyReleased | asyncio.Future[MoneySettled | MoneyReleased]:
        """Enter what was found out of a call whose money is held."""
        entry = self.book.resolve(message.reservation, message.charged, message.cost, at=time.time())
        self._booked(entry)
        return entry if self.journal is None else self._once_written(entry)

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
        if isinstance(answer, Reservation):
            self._booked(self.book.take_back(answer, at=time.time()))
        elif isinstance(request, OpenAccount) and self.book.is_open(answer):
            if self.book.statement(answer).reserved_ever:
                self.recovered.add(answer)  # It was taken on, and is still there to be.
            else:
                self._close(answer)

    # Accounts.

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str:
        """Open an account, or take one on from an earlier run, and return its name."""
        try:
            check_cap(message.cap)
            str(message.name or "").encode()
        except ValueError as error:
            raise Permanent(f"account {message.name!r} cannot be opened: {error}") from None
        name = message.name
        while name is None:
            self.named += 1
            made_up = f"account-{self.named}"
            name = None if self.book.is_known(made_up) else made_up
        if name in self.recovered:
            self.recovered.discard(name)
            self._open(name, message.cap)
        else:
            self._enter(self.book.open(name, cap=message.cap, at=time.time()))
        return name

    @handles(CloseAccount)
    def close_account(self, message: CloseAccount) -> Account | asyncio.Future[Account]:
        """Close an account at once, and answer with its statement when the last call that draws on it has ended."""
        page = self._close(message.name)
        if page.open == 0:
            return page.statement()
        closing = self.closing[page] = asyncio.get_running_loop().create_future()
        return closing

    @handles(SetCap)
    def set_cap(self, message: SetCap) -> Statement:
        """Change a cap, and let those who wait look again."""
        self._set_cap(message.account, message.cap)
        return self.book.statement(message.account)

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

    def _given(self, entry: MoneyReserved, wish: Reserve, waiter: Waiter | None = None) -> Any:
        """Return the answer to a reservation that was made, or what will be it once it is written."""
        if wish.holder is not None and wish.holder not in self.watched:
            self._watch(wish.holder)
        self._enter(entry)
        if entry.from_held:
            reservation = self.book.given(entry.reservation)
        else:
            reservation = Reservation(entry.reservation, wish.key, wish.provider, wish.amount)
        if self.journal is not None:
            return self._once_written(reservation, waiter)
        if waiter is not None:
            waiter.set_result(reservation)
        return reservation

    def _booked(self, entry: Booked | None) -> None:
        """Tell of a step by which money may have come back, and let those who wait for it look again."""
        if entry is None:
            return
        self._enter(entry)
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
        if self.journal is not None:
            self.journal.append(entry)
            if self.commit_due is None:
                self.commit_due = asyncio.get_running_loop().call_soon(self._commit)
        self.publish(entry)
        if self.book.crossed:
            self._alert()

    def _alert(self) -> None:
        """Tell of the accounts of which so much is used as calls for an alert, or no longer."""
        now = self.context.now()
        for page in self.book.take_crossed():
            value = page.used / page.cap if page.cap else None
            since = self.alerted_at.pop(page.name, now)
            if page.is_alerted:
                self.alerted_at[page.name] = now
                threshold = self.book.alert_percent / 100
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

    def _set_cap(self, name: str, cap: Micros | None) -> None:
        self._enter(self.book.set_cap(name, cap, at=time.time()))
        self.said_no.discard(name)
        self._serve(name)

    def _close(self, name: str) -> Page:
        page, entry = self.book.close(name, at=time.time())
        self._enter(entry)
        self.recovered.discard(name)
        self.said_no.discard(name)
        self.alerted_at.pop(name, None)
        question = self.questions.pop(name, None)
        if question is not None:
            question.task.cancel()
        self._serve(name)  # Which refuses everybody.
        return page

    def _answer_closers(self) -> None:
        for page in [page for page in self.closing if page.open == 0]:
            closing = self.closing.pop(page)
            if not closing.done():
                closing.set_result(page.statement())

    def _watch(self, holder: Any) -> None:
        self.watched.add(holder)
        self.context.watch(holder)

    def _heard_of_restart(self, event: ActorRestarted) -> None:
        if self.book.holders.get(event.ref):
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
        if len(self.lines) >= self.config.max_waiting or not (wish.wait or account in self.questions):
            raise BudgetExceeded(needed=wish.amount, available=0, cap=account, provider=wish.provider)
        return self._line_up(self.lines.new_waiter(wish), account)

    def _line_up(self, waiter: Waiter, account: str) -> Waiter:
        self.lines.stand(waiter, account)
        waiter.add_done_callback(self._left)
        return waiter

    def _left(self, waiter: asyncio.Future[Reservation]) -> None:
        if isinstance(waiter, Waiter) and (account := waiter.account) is not None:
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

    def _refuse(self, waiter: Waiter, refusal: CallFailed) -> None:
        self.lines.leave(waiter)
        waiter.set_exception(refusal)

    def _may_wait(self, waiter: Waiter, short: Short) -> bool:
        """Tell whether there is something to wait for: calls under way, or an answer, which is asked for here."""
        account = short.account
        if account is None:
            return False
        if short.may_come and waiter.wish.wait:
            return True
        if self.on_exhausted is None or account in self.said_no or account in waiter.asked:
            return False
        if account not in self.questions:
            task = asyncio.create_task(
                self._ask_for_more(self.on_exhausted, account, short.needed), name=f"more for {account}"
            )
            self.questions[account] = Question(waiter, task)
            task.add_done_callback(partial(self._answered, account))
        return True

    async def _ask_for_more(
        self, ask: Callable[[Statement, Micros], Awaitable[Amount | None]], account: str, needed: Micros
    ) -> Amount | None:
        async with asyncio.timeout(self.config.question_timeout):
            return await ask(self.book.statement(account), needed)

    def _answered(self, account: str, task: asyncio.Task[Amount | None]) -> None:
        """Raise the cap, or refuse those who have only waited to be told."""
        question = self.questions.get(account)
        if question is None or question.task is not task:
            if not task.cancelled():
                task.exception()  # The account was closed, or the ledger has ended: it is nobody's business any more.
            return
        del self.questions[account]
        cap = self._cap_of(account, task)
        question.waiter.asked += (account,)
        present = self.book.statement(account).cap
        if cap is not None and present is not None and cap > present:
            self._set_cap(account, cap)
            return
        for waiter in self.lines.waiting_for(account):
            waiter.asked += (account,)
            if not waiter.wish.wait and not waiter.done():
                short = self.book.statement(account).available or 0
                self._refuse(
                    waiter,
                    BudgetExceeded(
                        needed=waiter.wish.amount, available=short, cap=account, provider=waiter.wish.provider
                    ),
                )
        self._serve(account)

    def _cap_of(self, account: str, task: asyncio.Task[Amount | None]) -> Micros | None:
        """Return the cap that was answered; None where there will be no more."""
        try:
            answer = task.result()
            if answer is not None:
                return to_micros(answer)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - logged; it harms those who wait, and no other.
            self.context.log.opt(exception=error).error("on_exhausted raised for account {!r}", account)
            return None
        self.said_no.add(account)
        return None

    # The journal.

    def _recover(self, path: str | os.PathLike[str]) -> None:
        """Go on where the journal ends; what was open then is held."""
        journal = Journal(path, safety=self.config.safety)
        try:
            for entry in journal.read():
                self.book.apply(entry)
            for entry in self.book.hold_all(at=time.time()):
                journal.append(entry)
            journal.commit()
        except ValueError as error:
            journal.close()
            raise JournalError(journal.path, f"does not add up: {error}", "restore a copy") from error
        except sqlite3.Error as error:
            journal.close()
            raise JournalError(journal.path, f"cannot be written: {error}", "make room for it") from error
        except BaseException:
            journal.close()
            raise
        self.journal = journal
        self.recovered = set(self.book.open_accounts())
        self.book.forget_crossings()
        self._alert()

    def _recall(self, key: str) -> None:
        """Look a key up that was paid long ago."""
        if self.journal is not None and self.book.paid(key) is None:
            paid = self.journal.paid(key)
            if paid is not None:
                self.book.remember_paid(key, *paid)

    def _once_written(self, answer: Any, waiter: asyncio.Future[Any] | None = None) -> asyncio.Future[Any]:
        """Return the future of an answer that must not be given before the journal is written."""
        future = waiter if waiter is not None else asyncio.get_running_loop().create_future()
        self.unanswered.append((future, answer))
        return future

    def _commit(self) -> None:
        """Write everything that this turn of the loop has brought, and give the answers that waited for it."""
        self.commit_due = None
        journal, unanswered = self.journal, self.unanswered
        if journal is None:
            return
        self.unanswered = []
        try:
            journal.commit()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may go on as if it were written.
            for future, _ in unanswered:
                if not future.done():
                    future.set_exception(JournalFailed(journal.path, str(error)))
            broke = JournalError(journal.path, f"cannot be written: {error}", "make room for it")
            with suppress(MailboxFull):  # Whatever is in there will fail, and so have the same effect.
                self.context.ref.tell(JournalBroke(broke))
            return
        for future, answer in unanswered:
            if not future.done():
                future.set_result(answer)
            elif isinstance(answer, Reservation):
                self._booked(self.book.take_back(answer, at=time.time()))

    def _close_journal(self) -> None:
        journal, self.journal = self.journal, None
        if journal is None:
            return
        if self.commit_due is not None:
            self.commit_due.cancel()
        for future, answer in self.unanswered:
            future.cancel()  # It has not been answered, and so no call was made.
            entry = self.book.take_back(answer, at=time.time()) if isinstance(answer, Reservation) else None
            if entry is not None and not journal.is_broken:
                journal.append(entry)
                self.publish(entry)
        try:
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
