"""The actor Ledger owns the money of a program: a call reserves its price first, in every account that it draws on.

One `Reserve` is one decision over all caps, so there is nothing to roll back. `BookCall` tells what became of the call;
if nothing is told, the money is held.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.errors.families import Permanent
from actors.ledger.aging import HeldAges
from actors.ledger.allocator import Allocator
from actors.ledger.approvals import Approvals, CapAnswer
from actors.ledger.beside import MAX_LISTED, FindValue, KeepValue, KeptValues, LeaveAccount, ListValues
from actors.ledger.book import Book
from actors.ledger.bookkeeper import Bookkeeper
from actors.ledger.commits import Commits
from actors.ledger.config import DEFAULT_CONFIG, LedgerConfig
from actors.ledger.entries import MoneyHeld, MoneySettled
from actors.ledger.errors import JournalUnreadable
from actors.ledger.messages import (
    AnswerQuestion,
    AwaitCommit,
    BookCall,
    CloseAccount,
    FindKey,
    ForgetAnswer,
    GetHeld,
    GetStatement,
    GiveUpAccount,
    HeldHandle,
    KeepFailure,
    ListHandles,
    ListStatements,
    MarkSent,
    MarkUnderWay,
    NoteHandle,
    OpenAccount,
    PauseAccount,
    Reservation,
    Reserve,
    Resolve,
    ResumeAccount,
    SetCap,
    Statements,
    Unsettled,
)
from actors.ledger.opening import AccountOpener, recover
from actors.ledger.periods import read_cap
from actors.ledger.receipts import JournalReceipts
from actors.ledger.renewer import RenewalDue, Renewer
from actors.ledger.reporting import HeldAlertDue, Reporter
from actors.ledger.waiters import CloseWaiters, ReserveQueues
from actors.money import ZERO, micros_of
from actors.validation import check_config, check_text
from runtime import Actor, ActorRef, ActorRestarted, Key, MailboxFull, Message, Request, Terminated, handles
from runtime.persistence import JournalError, JournalFenced

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping

    from actors.ledger.account import Account
    from actors.ledger.approvals import OnExhausted
    from actors.ledger.entries import Booked, MoneyReleased
    from actors.ledger.messages import Costing
    from actors.ledger.opening import OpenJournal
    from actors.ledger.page import AccountState
    from actors.ledger.receipt import KeyStatus, PaidAnswer
    from actors.ledger.record import KeyRecord
    from actors.ledger.statement import Statement
    from actors.money import Amount, Micros
    from runtime import Timer
    from runtime.persistence import KeptRow


LEDGERS = Key[Any]("understudy.ledgers")
"""Under which every ledger of a system is registered, for what shows the money of all."""


class HolderRestarted(Message, frozen=True):
    """The ledger tells itself that an actor which answers for calls was restarted, after what that one told it."""

    ref: ActorRef


class ExpireHeld(Message, frozen=True):
    """The ledger reminds itself of money that may have been held for too long."""


class Ledger(
    Actor[
        Reserve
        | BookCall
        | FindKey
        | AwaitCommit
        | KeepFailure
        | ForgetAnswer
        | KeepValue
        | FindValue
        | ListValues
        | LeaveAccount
        | MarkSent
        | NoteHandle
        | ListHandles
        | Resolve
        | OpenAccount
        | CloseAccount
        | GiveUpAccount
        | SetCap
        | PauseAccount
        | ResumeAccount
        | GetStatement
        | ListStatements
        | GetHeld
        | Terminated
        | HolderRestarted
        | MarkUnderWay
        | ExpireHeld
        | HeldAlertDue
        | RenewalDue
        | AnswerQuestion
    ]
):
    """Keeps a book of accounts, in memory or in a journal.

    `accounts` are open from the start: caps as people write them, "5" or "5/day" (see `OpenAccount`), None for no cap.
    With a `journal`, the path of a file or a function that opens it with the options of `SqliteJournal`, everything
    outlives the program: accounts and figures, and which provider was paid under which key. What was open is held,
    because the outcome of those calls is unknown. An account that was open then is taken over, with its figures, by
    the first `OpenAccount` of its name. Without a journal, give all instances the same `book`, and a restart of the
    actor forgets nothing: `Ledger(book=book)` in the factory. A `book` has a configuration of its own.

    `on_exhausted(statement, needed)` is awaited before a cap refuses a request, once at a time for each account. It
    answers with the new cap, or with None to refuse, which then holds until the cap is changed or renews; or with a
    `CapAnswer`, which may hold for good. `statement.question` is its number: as long as there is no answer, it is the
    same when it is asked again after a restart. Requests that need that account wait meanwhile, in order, within their
    deadlines. What it raises is logged, and refuses them.
    """

    def __init__(
        self,
        config: LedgerConfig = DEFAULT_CONFIG,
        *,
        accounts: Mapping[str, Amount | None] | None = None,
        journal: str | os.PathLike[str] | OpenJournal | None = None,
        book: Book | None = None,
        on_exhausted: OnExhausted | None = None,
    ) -> None:
        check_config("config", config, LedgerConfig)
        if journal is not None and book is not None:
            raise ValueError("a ledger with a journal reads its book from there; give either `journal` or `book`")
        if journal is not None and not callable(journal) and not os.fspath(journal):
            raise ValueError("journal must be the path of a file, or None, got an empty string")
        for name in accounts or ():
            check_text("the name of an account", name)
        self.config = config
        self.caps = {name: None if cap is None else read_cap(cap) for name, cap in (accounts or {}).items()}
        self.journal_of = journal
        self.book = book or Book(alert_percent=config.alert_percent, max_paid_keys=config.max_paid_keys)
        self.is_shared = book is not None
        self.queues = ReserveQueues()
        self.closers = CloseWaiters()
        self.approvals = Approvals(on_exhausted, timeout=config.approval_timeout, on_failure=self._approval_failed)
        self.watched: set[Any] = set()
        self.ages = HeldAges(config.held_for)
        self.reminder: Timer | None = None

    async def started(self) -> None:
        reporter = Reporter(self.context, self.book.accounts, held_alert_after=self.config.held_alert_after)
        self.bookkeeper = Bookkeeper(self.book, reporter)
        self.allocator = Allocator(
            self.bookkeeper,
            self.queues,
            self.approvals,
            Renewer(self.bookkeeper, self.context),
            max_waiting=self.config.max_waiting,
            watch=self._watch,
        )
        self.opener = AccountOpener(self.bookkeeper, self.allocator, opened=self._opened_in_this_run())
        if self.journal_of is not None:
            await self._recover(self.journal_of)
        elif not self.is_shared:
            # A reservation that an earlier instance has made must not be taken for one of this instance.
            self.book.number_from(int(self.context.random.random() * 2**52))
        for holder in self.book.postings.holders:
            self._watch(holder)
        try:
            for name, cap in self.caps.items():
                self.opener.open_by_config(name, cap)
        except BaseException:
            await self.bookkeeper.close()  # `stopped` is not called for an instance that could not start.
            raise
        for record in self.book.postings.records.values():
            record.born = None
            self._note_age(record)
            if record.is_held:
                held_for = max(0.0, time.time() - (record.held_since or time.time()))
                reporter.report_held(record.provider, record.number, micros_of(record.amount), held_for=held_for)
        self._be_reminded()
        self.context.registry.register(LEDGERS, self.context.ref)
        self.subscription = self.context.events.subscribe(ActorRestarted, self._actor_restarted)

    async def stopped(self) -> None:
        self.subscription.cancel()
        # The runtime answers the requests that wait; they may ask the next instance again.
        self.book.leave_closing(self.closers.clear())
        try:
            await self.approvals.stop()
        finally:
            await self.bookkeeper.close()

    def _opened_in_this_run(self) -> set[str]:
        """Return the accounts that were opened in this run, also before a restart if the book outlives that."""
        if not self.is_shared and self.journal_of is None:
            return set()
        opened: set[str] = self.context.kept.setdefault("opened", set[str]())
        return opened

    async def _recover(self, opened: str | os.PathLike[str] | OpenJournal) -> None:
        """Continue from where the journal ends."""
        journal, read = await recover(opened, self.book, config=self.config, at=time.time())
        self.book.receipts = JournalReceipts(journal)
        self.bookkeeper.commits = Commits(
            journal,
            self.book,
            read=read,
            take_back=self._take_back,
            on_failure=self._journal_failed,
        )
        for record in self.book.postings.records.values():
            record.is_under_way = False  # That was said before, and no look-up goes on that could say otherwise.
        self.opener.note_recovered(self.book.open_accounts())
        self.book.accounts.forget_crossings()
        self.bookkeeper.reporter.report_alerts()

    def _journal_failed(self, error: JournalError) -> None:
        if isinstance(error, JournalFenced):  # The money is the later owner's.
            self.context.log.error("{}; this ledger ends", error)
            self.context.ref.stop()
        else:
            self.bookkeeper.reporter.report_journal_down(error)

    # Reservations.

    @handles(Reserve)
    def reserve(self, message: Reserve) -> Reservation | asyncio.Future[Reservation]:
        """Reserve at once if every account has enough; otherwise wait, ask for more, or refuse."""
        if message.holder is not None and not isinstance(message.holder, ActorRef):
            raise Permanent(f"holder must be the ref of an actor, got {message.holder!r:.100}")
        if (commits := self.bookkeeper.commits) is not None:
            commits.refuse_if_down()
        return self.allocator.reserve(message)

    @handles(BookCall)
    def book_call(self, message: BookCall) -> None:
        """Enter what became of a call; a message that came twice does nothing."""
        self._list_tariff(message.costing)
        entry = self.book.book(
            message.reservation, message.charged, message.cost, costing=message.costing, at=time.time()
        )
        if message.answer is not None and isinstance(entry, MoneySettled):
            self._keep_beside(message.answer, entry)
        self._outcome_recorded(entry)

    @handles(MarkSent)
    def mark_sent(self, message: MarkSent) -> None:
        """Note that a call is about to be sent."""
        self.book.mark_sent(message.reservation)

    @handles(NoteHandle)
    def note_handle(self, message: NoteHandle) -> None:
        """Have the handle of a call written; it is of use to its own request alone, and told to no other."""
        entry = self.book.note_handle(message.reservation, message.handle, at=time.time())
        if entry is not None and self.bookkeeper.commits is not None:
            self.bookkeeper.commits.append(entry)

    @handles(Resolve)
    def resolve(self, message: Resolve) -> MoneySettled | MoneyReleased | asyncio.Future[MoneySettled | MoneyReleased]:
        """Enter what was found out about a call whose money is held."""
        self._list_tariff(message.costing)
        self.bookkeeper.remember_key_of(message.reservation)
        entry = self.book.resolve(
            message.reservation,
            message.charged,
            message.cost,
            as_found=message.as_found,
            costing=message.costing,
            at=time.time(),
        )
        if message.answer is not None and isinstance(entry, MoneySettled):
            self._keep_beside(message.answer, entry)
        self._outcome_recorded(entry)
        return self.bookkeeper.once_written(entry)

    @handles(FindKey)
    def find_key(self, message: FindKey) -> KeyStatus:
        """Tell what came of the request under a key."""
        if self.book.paid_keys.has_forgotten:
            self.bookkeeper.restore_paid_key(message.key)
        return self.book.key_status(message.key, message.fields)

    @handles(AwaitCommit)
    def await_commit(self, message: AwaitCommit) -> asyncio.Future[None] | None:
        """Answer once all that was told before is on disk."""
        return self.bookkeeper.once_written(None)

    @handles(KeepFailure)
    def keep_failure(self, message: KeepFailure) -> None:
        """Keep the error for which a request has paid."""
        self._keep(message.answer, cost=ZERO, provider=message.provider)
        self.bookkeeper.schedule_commit()

    @handles(ForgetAnswer)
    def forget_answer(self, message: ForgetAnswer) -> None:
        """Let go of an answer; a journal does so with its next commit, for which nothing waits."""
        with suppress(JournalUnreadable):  # What is damaged is no answer.
            self.book.receipts.forget(message.key)

    def _keep_beside(self, answer: PaidAnswer, entry: MoneySettled) -> None:
        """Keep the answer of a call whose money is in the book already, and so has to be recorded in any case."""
        with suppress(JournalUnreadable):  # Its key stays damaged, and so is not paid for again.
            self._keep(answer, cost=entry.cost, provider=entry.provider)

    def _keep(self, answer: PaidAnswer, *, cost: Micros, provider: str) -> None:
        self.book.receipts.keep(answer, cost=cost, provider=provider, at=time.time(), keep=self.config.keep_answers)

    @handles(MarkUnderWay)
    def mark_under_way(self, message: MarkUnderWay) -> None:
        """Note whether a held call is known to be under way, and so does not age."""
        record = self.book.postings.records.get(message.reservation)
        if record is None or not self.ages.ages(record):
            return
        if message.is_under_way:
            if (entry := self.book.mark_under_way(record.number, at=time.time())) is not None:
                self.bookkeeper.record(entry)
        else:
            record.is_under_way = False
            self._note_age(record)

    @handles(ExpireHeld)
    def expire_held(self, message: ExpireHeld) -> None:
        """Settle what was held for too long as charged."""
        now, clock = self.context.now(), time.time()
        for record in self.ages.take_due(self.book.postings.records, now=now, clock=clock):
            entry = self.book.expire(record, at=clock)
            self._outcome_recorded(entry)
            self.bookkeeper.reporter.report_expired(entry, since=record.held_since or clock)
        self._be_reminded()

    @handles(HeldAlertDue)
    def alert_held(self, message: HeldAlertDue) -> None:
        """Raise the alerts of money that has been held for long."""
        self.bookkeeper.reporter.report_held_long()

    @handles(RenewalDue)
    def serve_renewed(self, message: RenewalDue) -> None:
        """Let the requests look again that wait for a cap to renew."""
        self.allocator.serve_renewed()

    @handles(Terminated)
    def holder_ended(self, message: Terminated) -> None:
        """Book what an actor that has ended has left open."""
        self.watched.discard(message.ref)
        self._settle_holder(message.ref)

    @handles(HolderRestarted)
    def holder_restarted(self, message: HolderRestarted) -> None:
        """Book what the earlier instance of an actor has left open; a restart is not `Terminated`."""
        self._settle_holder(message.ref)

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        """Undo what was done for an asker that had given up before the answer came."""
        if isinstance(answer, Reservation) or isinstance(request, OpenAccount):
            self._take_back(answer)

    # Accounts.

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str | asyncio.Future[str]:
        """Open an account, or take it over from an earlier run, and return its name."""
        return self.opener.open(message)

    @handles(CloseAccount)
    def close_account(self, message: CloseAccount) -> Account | asyncio.Future[Account]:
        """Close an account at once, and answer with its statement when the last call that draws on it has ended."""
        state = self.book.closing(message.name) or self._close(message.name)
        if state.open == 0:
            return self.bookkeeper.once_written(state.statement(), or_wait=True)
        return self.closers.wait_for(state)

    @handles(GiveUpAccount)
    def give_up_account(self, message: GiveUpAccount) -> None:
        """Close an account that was opened for an asker that had gone."""
        if self.book.is_open(message.name):
            self._close(message.name)

    @handles(LeaveAccount)
    def leave_account(self, message: LeaveAccount) -> None:
        """Let the next that opens an account of this name take it over."""
        if self.book.is_open(message.name):
            self.opener.give_up(message.name)

    @handles(SetCap)
    def set_cap(self, message: SetCap) -> Statement | asyncio.Future[Statement]:
        """Change a cap, and look again at the requests that wait for the account."""
        renewal = message.renewal
        if renewal is None and message.keeps_renewal:
            renewal = self.book.accounts.opened(message.account).renewal
        self.allocator.set_cap(message.account, message.cap, renewal, overdraft=message.overdraft)
        return self.bookkeeper.once_written(self.book.statement(message.account), or_wait=True)

    @handles(PauseAccount)
    def pause_account(self, message: PauseAccount) -> Statement | asyncio.Future[Statement]:
        """Let no call draw on an account, and refuse the requests that wait for it."""
        self.allocator.pause(message.account, is_paused=True)
        return self.bookkeeper.once_written(self.book.statement(message.account), or_wait=True)

    @handles(ResumeAccount)
    def resume_account(self, message: ResumeAccount) -> Statement | asyncio.Future[Statement]:
        """Let calls draw on an account again."""
        self.allocator.pause(message.account, is_paused=False)
        return self.bookkeeper.once_written(self.book.statement(message.account), or_wait=True)

    @handles(AnswerQuestion)
    def answer_question(self, message: AnswerQuestion) -> Statement | asyncio.Future[Statement]:
        """Enter an answer that comes from elsewhere than `on_exhausted`, which is not waited for any more."""
        account = self.book.accounts.account_of(message.question)
        self.approvals.withdraw(account)
        self.allocator.answer(account, CapAnswer(message.cap, message.for_good))
        return self.bookkeeper.once_written(self.book.statement(account), or_wait=True)

    @handles(GetStatement)
    def get_statement(self, message: GetStatement) -> Statement:
        """Return the figures of an account."""
        if message.account is not None:
            self.allocator.renew((message.account,))
        return self.book.statement(message.account)

    @handles(ListStatements)
    def list_statements(self, message: ListStatements) -> Statements:
        """Return the figures of several accounts."""
        accounts = self.book.accounts
        if message.names is None:
            names = tuple(accounts.open_names()[message.first :][: message.most])
        else:
            names = tuple(filter(accounts.is_known, message.names))
        if accounts.has_renewing:
            self.allocator.renew(tuple(name for name in names if accounts.is_open(name)))
        return Statements(
            total=accounts.statement(), accounts=tuple(map(accounts.statement, names)), open=accounts.open_count
        )

    @handles(GetHeld)
    def get_held(self, message: GetHeld) -> tuple[Unsettled, ...]:
        """Return the reservations of calls whose outcome is unknown."""
        return self.book.unsettled(account=message.account, is_held=True)

    @handles(ListHandles)
    def list_handles(self, message: ListHandles) -> tuple[HeldHandle, ...]:
        """Return the held calls that can be taken up, for a supervisor that begins."""
        for record in self.book.postings.records.values():
            if record.handle is not None:
                self.bookkeeper.remember_key_of(record.number)
        return self.book.handles()

    # What is kept beside the money.

    @handles(KeepValue)
    def keep_value(self, message: KeepValue) -> None:
        """Keep a value in the journal."""
        if (commits := self.bookkeeper.commits) is not None:
            at = None if message.for_ever else time.time()
            commits.journal.store.put(message.scope, message.key, message.head, message.body, at=at)
            self.bookkeeper.schedule_commit()

    @handles(FindValue)
    def find_value(self, message: FindValue) -> KeptRow | None:
        """Return a value that is kept."""
        commits = self.bookkeeper.commits
        try:
            return None if commits is None else commits.journal.store.find(message.scope, message.key)
        except JournalError as error:
            raise JournalUnreadable(f"what is kept under {message.key!r} is not known", error) from error

    @handles(ListValues)
    def list_values(self, message: ListValues) -> KeptValues:
        """Return some of the heads of the values of a scope."""
        if (commits := self.bookkeeper.commits) is None:
            raise Permanent("the ledger has no journal to keep values in; give it one: Ledger(journal=...)")
        try:
            heads, after = commits.journal.store.slice_of_heads(message.scope, after=message.after, limit=MAX_LISTED)
        except JournalError as error:
            raise JournalUnreadable("what is kept in a scope is not known", error) from error
        return KeptValues(commits.journal.path, heads, after)

    # What follows from a step.

    def _outcome_recorded(self, entry: Booked | None) -> None:
        """Record what became of a call, and let the requests that wait look again, as money may have come back."""
        if entry is None:
            return
        self.bookkeeper.record_outcome(entry)
        if isinstance(entry, MoneyHeld):
            self._note_age(self.book.postings.records[entry.reservation])
        if self.queues:
            for account in entry.accounts:
                self.allocator.serve(account)
        if self.closers:
            for state, waiter in self.closers.take_drained():
                self.bookkeeper.once_written(state.statement(), waiter, or_wait=True)

    def _list_tariff(self, costing: Costing | None) -> None:
        """Record a tariff before the first call that is settled by it."""
        if costing is None or costing.tariff is None:
            return
        if (listed := self.book.list_tariff(costing.tariff, at=time.time())) is not None:
            self.bookkeeper.record(listed)

    def _note_age(self, record: KeyRecord) -> None:
        """Take note of what is held, and be reminded when it has been for too long."""
        if self.ages.ages(record) and self.ages.note(record, now=self.context.now(), clock=time.time()):
            self._be_reminded()

    def _be_reminded(self) -> None:
        """Set a timer for what expires next."""
        if self.reminder is not None:
            self.reminder.cancel()
            self.reminder = None
        pause = self.ages.pause(now=self.context.now())
        if pause is not None:
            self.reminder = self.context.timers.once(pause, ExpireHeld())

    def _close(self, name: str) -> AccountState:
        """Close an account, after those below it."""
        if self.book.is_open(name):
            for below in self.book.accounts.below(name):
                self.allocator.close(below.name)
                self.opener.forget(below.name)
        state = self.allocator.close(name)
        self.opener.forget(name)
        return state

    def _take_back(self, answer: Any) -> None:
        """Undo a reservation, or the opening of the account of this name, that its asker was not given any more."""
        if isinstance(answer, Reservation):
            self._outcome_recorded(self.book.take_back(answer, at=time.time()))
        elif isinstance(answer, str) and self.book.is_open(answer):
            if self.book.statement(answer).reserved_ever:
                self.opener.give_up(answer)
            else:
                self._close(answer)

    def _approval_failed(self, account: str, error: BaseException) -> None:
        self.context.log.opt(exception=error).error("on_exhausted raised for account {!r}", account)

    # Holders.

    def _watch(self, holder: Any) -> None:
        if holder not in self.watched:
            self.watched.add(holder)
            self.context.watch(holder)

    def _actor_restarted(self, event: ActorRestarted) -> None:
        if self.book.postings.holders.get(event.ref):
            try:
                self.context.ref.tell(HolderRestarted(event.ref))
            except MailboxFull:
                self._settle_holder(event.ref)  # What it told may come after this; it is booked all the same.

    def _settle_holder(self, holder: ActorRef) -> None:
        for entry in self.book.holder_ended(holder, at=time.time()):
            self._outcome_recorded(entry)

    def broken_invariants(self) -> Iterator[str]:
        yield from self.book.broken_invariants()
        yield from self.queues.broken_invariants()
        if self.journal_of is None:  # What an instance with a journal leaves open is held by the next one.
            for one in self.book.unsettled(is_held=False):
                yield f"reservation {one.reservation} under key {one.key!r} was never booked: {one.amount}"
        yield from self.closers.broken_invariants()

    def __repr__(self) -> str:
        return f"<Ledger {self.book!r}, {len(self.queues)} waiting>"
