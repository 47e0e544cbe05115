"""The money of a supervisor's requests: reserved with the ledger before each call, booked there after it.

Which accounts a call draws on is decided here. Whether it may is the ledger's to say, in one question over every cap.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import BudgetExceeded, CallFailed, LedgerDown, Permanent
from actors.events import CostUnreadable, Reconciled
from actors.ledger.errors import JournalFailed
from actors.ledger.messages import (
    AwaitCommit,
    BookCall,
    FindKey,
    ForgetAnswer,
    GiveUpAccount,
    KeepFailure,
    ListHandles,
    MarkUnderWay,
    NoteHandle,
    Reservation,
    Reserve,
    Resolve,
)
from actors.money import ZERO
from actors.supervisor.payments.accounts import Accounts
from actors.supervisor.payments.held_call import call_of_handle, charge_found
from actors.supervisor.payments.kept_answers import found_answer
from actors.supervisor.payments.ledger_client import LEDGER_CALL_TIMEOUT, LedgerClient
from actors.supervisor.payments.reconciler import Reconciler
from actors.transports.reconciliation import Answered, Lost
from runtime import AskTimeout, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from actors.ledger.fingerprint import Fields
    from actors.ledger.receipt import KeyStatus, PaidAnswer
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.supervisor.payments.charge import Charge
    from actors.supervisor.payments.held_call import HeldCall, Resolution
    from actors.supervisor.payments.ledger_client import LedgerRef
    from actors.supervisor.targets.target import Target
    from runtime import Context, Request

SHORTEST_WAIT = 0.001
"""Seconds that the ledger has at least, however late it is for the request."""


class Payments:
    """One supervisor's dealings with its ledger, and with calls that may have been paid."""

    def __init__(self, ledger: LedgerRef, context: Context, market: Market) -> None:
        self._context = context
        self._client = LedgerClient(ledger, context)
        self.accounts = Accounts(self._client, context, market)
        self._short: dict[object, tuple[str, float]] = {}
        """The provider of each request that waits for money, and since when; the oldest first."""
        self.reconciler = Reconciler(context, record=self._record, mark_under_way=self._mark_under_way)

    async def ask_ledger(self, request: Request[Any]) -> Any:
        """Pass a caller's own question on to the ledger; raises `LedgerDown` if it cannot be reached."""
        return await self._client.ask(request)

    async def tell_caps(self) -> None:
        """Have the ledger take on the caps that another market has changed. Raises a `CallFailed`."""
        await self.accounts.tell_changes()

    def close_account(self, account: str) -> None:
        """Close an account that was opened for a caller that had gone."""
        self.accounts.forget(account)
        self._client.tell(GiveUpAccount(account))

    async def reserve(
        self, wish: Reserve, listing: Listing, *, now: float, until: float, refused: BudgetExceeded | None = None
    ) -> Reservation | CallFailed:
        """Reserve the money of one call in all that it draws on, or return why not, from `now` to loop time `until`.

        The accounts of the market's caps are added to those of `wish`, and the one that bounds what may be paid twice.
        `refused` is why there was no money for it when it was last asked for. A `BudgetExceeded` concerns this
        provider's price; with every other refusal no other provider would fare better: the ledger cannot be reached,
        the request was paid already, or it may have been.
        """
        try:
            if self.accounts.terms or listing.budget is not None:
                accounts = wish.accounts + await self.accounts.of_market(listing)
                wish, now = msgspec.structs.replace(wish, accounts=accounts), self._context.now()
            if wish.passes_over:
                wish = msgspec.structs.replace(wish, risk_account=await self.accounts.of_risk())
                now = self._context.now()
            if self._client.late:
                await self._client.until_told(until=until)
                now = self._context.now()
            left = max(until - now, SHORTEST_WAIT)
            if refused is None:
                return await self._client.ledger.ask(wish, timeout=left)
            with self._waiting(wish.provider):
                return await self._client.ledger.ask(wish, timeout=left)
        except CallFailed as refusal:
            return refusal
        except AskTimeout as late:
            if refused is not None:
                # It has waited for money until its deadline.
                return BudgetExceeded(
                    needed=refused.needed,
                    available=refused.available,
                    cap=refused.cap,
                    account=refused.account,
                    provider=wish.provider,
                    retry_after=_later(refused.retry_after, self._context.now() - now),
                )
            return _ledger_down(late)
        except RuntimeFault as fault:
            return _ledger_down(fault)

    @contextmanager
    def _waiting(self, provider: str) -> Generator[None]:
        """Count a request among those that wait for money to pay a provider."""
        token = object()
        self._short[token] = (provider, self._context.now())
        try:
            yield
        finally:
            del self._short[token]

    def short_of_money(self, provider: str) -> tuple[float, int] | None:
        """Return since when requests wait for money to pay a provider, and how many; None if none does."""
        since = [began for name, began in self._short.values() if name == provider]
        return (since[0], len(since)) if since else None

    def book(self, reservation: Reservation, charge: Charge, answer: PaidAnswer | None = None) -> None:
        """Tell the ledger what became of a call, with the `answer` of which a receipt is kept."""
        self._client.tell(BookCall(reservation, charge.charged, charge.cost, charge.costing, answer))

    async def find_key(self, key: str, fields: Fields, *, until: float) -> KeyStatus:
        """Ask the ledger what came of the request under a key; raises `KeyReused`, or `LedgerDown`."""
        await self._client.until_told(until=until)
        left = max(until - self._context.now(), SHORTEST_WAIT)
        return await self._client.ask(FindKey(key, fields), timeout=left)

    async def await_commit(self, *, until: float) -> None:
        """Wait until what the ledger was told is on disk; raises `JournalFailed`, or `LedgerDown`."""
        await self._client.until_told(until=until)
        await self._client.ask(AwaitCommit(), timeout=max(until - self._context.now(), SHORTEST_WAIT))

    def keep_failure(self, answer: PaidAnswer, *, provider: str) -> None:
        """Tell the ledger with which error a request has ended that has paid."""
        self._client.tell(KeepFailure(answer, provider))

    def forget_answer(self, message: ForgetAnswer) -> None:
        """Tell the ledger that an answer is not asked for again."""
        self._client.tell(message)

    def note_handle(self, reservation: Reservation, handle: str) -> None:
        """Have the handle by which a call can be taken up written beside what was reserved for it."""
        self._client.tell(NoteHandle(reservation, handle))

    async def reconcile(self, held: HeldCall, *, until: float, wait: float = 0.0) -> Resolution | None:
        """Find out about a call that may have been paid, and book it; None if not known at loop time `until`.

        One that is taken up by its handle has `wait` seconds for its answer.
        """
        return await self.reconciler.reconcile(held, until=until, wait=wait)

    def reconcile_later(self, held: HeldCall) -> None:
        """Find out about a call when no request waits for it any more."""
        self.reconciler.keep(held)

    async def take_up(self, targets: Mapping[str, Target]) -> None:
        """Find out later about the held calls that can be taken up, also those of an earlier life of the program."""
        for held in await self.ask_ledger(ListHandles()):
            target = targets.get(held.reservation.provider)
            if target is not None and not self.reconciler.knows(held.reservation.number):
                with suppress(CallFailed, RuntimeFault):
                    target.open()  # Then it is known what its transport can do.
                if target.resumes_alone:
                    self.reconciler.keep(call_of_handle(target, held))

    def held_providers(self) -> Iterator[str]:
        """Name the providers that are still asked about calls whose outcome is unknown."""
        return (held.target.name for held in self.reconciler.held())

    async def close(self) -> None:
        """Leave no task behind."""
        await self._client.close()
        await self.accounts.close()

    def _mark_under_way(self, held: HeldCall, *, is_under_way: bool) -> None:
        """Tell the ledger whether a held call is known to be under way: then its money does not age."""
        self._client.tell(MarkUnderWay(held.reservation.number, is_under_way))

    async def _record(self, held: HeldCall, found: Resolution) -> None:
        """Enter what became of a held call with the ledger, and publish it; raises `LedgerDown`."""
        output: object = None
        unread: str | None = None
        if isinstance(found, Answered):
            output, unread = found.reply.output, found.reply.unread_cost
        elif isinstance(found, Lost):
            unread = found.unread_cost
        charge = charge_found(held, found)
        cost, is_paid = charge.cost, charge.charged == "yes"
        held.found = found
        await self._resolve(held, charge, found_answer(held, found))
        held.target.learn_cost(held.call, cost, held.tokens)
        if unread is not None:
            self._context.events.publish(
                CostUnreadable(
                    request_id=held.call.request_id,
                    provider=held.target.name,
                    stated=unread,
                    settled=held.reservation.amount,
                )
            )
        self._context.events.publish(
            Reconciled(
                request_id=held.call.request_id,
                provider=held.target.name,
                found=type(found).__name__,
                cost=ZERO if not is_paid else held.reservation.amount if cost is None else cost,
                output=output,
            )
        )

    async def _resolve(self, held: HeldCall, charge: Charge, answer: PaidAnswer | None) -> None:
        """Tell the ledger what was found out; a reservation that it has settled already is no news."""
        charged = "yes" if charge.charged == "yes" else "no"
        number = held.reservation.number
        found = Resolve(number, charged, charge.cost, as_found=True, costing=charge.costing, answer=answer)
        await self._client.until_told(until=self._context.now() + LEDGER_CALL_TIMEOUT)
        try:
            with suppress(Permanent):
                await self._client.ask(found, timeout=LEDGER_CALL_TIMEOUT)
        except JournalFailed as fault:
            raise LedgerDown(str(fault)) from fault

    def __repr__(self) -> str:
        return f"<Payments, {self.reconciler!r}>"


def _later(retry_after: float | None, waited: float) -> float | None:
    return None if retry_after is None else max(0.0, retry_after - waited)


def _ledger_down(fault: RuntimeFault) -> LedgerDown:
    down = LedgerDown(str(fault))
    down.__cause__ = fault
    return down
