"""Providers on AGIRAILS, who are paid through an escrow: the money is locked before they begin and released after.

A call writes down a transaction, locks its money, waits for the delivery, and pays:

| what is known                             | what the caller is told          | the money          |
|-------------------------------------------|----------------------------------|--------------------|
| it failed before the money was locked     | `NotAdmitted`, `Permanent`       | never left         |
| it was delivered                          | `ProviderReply`                  | paid               |
| it was not, in time, or the call was cut  | `OutcomeUnknown`                 | locked: held       |

Held money is a state of its own, which can last: a provider whose handler failed, hangs or is not there never says so,
and what it has begun cannot be called off. `look_up` and `cancel` find out and do what can be done, late answers are
paid for by whoever looks them up, and `AgirailsNetwork.locked` lists all that is still held.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from actors.agirails.deliveries import answer_in
from actors.agirails.errors import classify_agirails
from actors.agirails.purchases import Order, PurchaseProgress, describe
from actors.agirails.sdk import CANCELLED, DELIVERED, DISPUTED, SETTLED, UNPAID, Transaction
from actors.errors.families import BudgetExceeded, CallFailed, NotAdmitted, OutcomeUnknown, Permanent, Transient
from actors.transports.reconciliation import Answered, Finding, Lost, NeverRan, UnderWay
from actors.transports.transport import ProviderReply
from runtime import is_being_cancelled

if TYPE_CHECKING:
    from collections.abc import Generator

    from actors.agirails.purchases import Purchases
    from actors.agirails.sdk import Books
    from actors.money import Micros
    from actors.transports.transport import Idempotent, ProviderCall

MIN_PRICE: Micros = 50_000
"""The least that AGIRAILS lets anybody pay for anything, in micro-units."""


class AgirailsTransport:
    """The door to one provider of an `AgirailsNetwork`, made by its method `transport`.

    Whoever repeats a call goes on with the transaction that bears its key, whatever became of the first caller, also in
    another process and after a restart, and so it is paid once. It is not declared idempotent all the same. A call that
    may be repeated is cut off as soon as it is slow, and repeated; here an early cut would only leave money locked, and
    a repetition wait for the same delivery. So a call has all of its time, and what is unknown then is looked up.

    A provider may run its handler twice for one transaction, for the SDK does so where its own writings fail; one that
    must not has to look at the transaction's id. Closing the transport ends the waiting of the calls under way, whose
    money stays locked, and returns once everything begun is written.
    """

    paid = True
    idempotent: Idempotent = "no"

    def __init__(self, purchases: Purchases, *, name: str, address: str) -> None:
        self.provider = name
        self.address = address
        self._purchases = purchases
        self._under_way: set[asyncio.Future[None]] = set()
        self._progress: set[PurchaseProgress] = set()
        self._waits: set[asyncio.Future[Transaction | None]] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._under_way)} calls under way"
        return f"AgirailsTransport({self.provider} at {self.address}, {state})"

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Buy one answer. Raises a member of `CallFailed`; see this module for which, and where the money is then.

        What is offered, and paid, is `call.max_cost`, which a supervisor sets to the price that the provider is listed
        for. The input must be JSON.
        """
        order = self._order(call)
        if order.amount < MIN_PRICE:
            raise BudgetExceeded(needed=MIN_PRICE, available=order.amount, cap="request", provider=self.provider)
        reply: ProviderReply | None = None
        with self._counted() as progress:
            try:
                async with asyncio.timeout(call.timeout):
                    transaction = await self._purchases.buy(order, progress)
                    delivered = await self._delivery_of(transaction)
                    reply = self._reply_in(delivered)
                    if delivered.state == DELIVERED:
                        await self._purchases.pay(delivered)
            except TimeoutError:
                # Paying for an answer that came in time may take longer.
                if reply is None:
                    raise self._not_in_time(progress, within=call.timeout) from None
        return reply

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if the books can be read: that is all that can be known of a provider without paying it."""
        try:
            async with asyncio.timeout(timeout):
                await self._purchases.read()
        except Exception as error:
            raise classify_agirails(error, provider=self.provider, stage="creating") from error

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - as above.
        """Find out what became of a call; an answer that is found is paid for. Raises a member of `CallFailed`."""
        order = self._order(call)
        try:
            async with asyncio.timeout(timeout):
                transaction, books = await self._purchases.find(order)
                return await self._finding(transaction, books)
        except CallFailed:
            raise
        except Exception as error:
            raise self._not_found_out(error) from error

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - as above.
        """Call a call off if its provider has not begun, and return what became of it, as `look_up` does."""
        order = self._order(call)
        try:
            async with asyncio.timeout(timeout):
                transaction, books = await self._purchases.cancel_call(order)
                return await self._finding(transaction, books, is_refused=True)
        except CallFailed:
            raise
        except Exception as error:
            raise self._not_found_out(error) from error

    async def aclose(self) -> None:
        """End the waiting of the calls under way. A call after this raises RuntimeError."""
        self._is_closed = True
        for progress in self._progress:
            progress.is_given_up = True
        for wait in self._waits:
            wait.cancel()
        while self._under_way:
            await asyncio.wait(self._under_way)

    @contextmanager
    def _counted(self) -> Generator[PurchaseProgress]:
        """Count a call as under way, for `aclose`."""
        if self._is_closed:
            raise RuntimeError(f"the transport to {self.provider!r} is closed; make a new one")
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        progress = PurchaseProgress()
        self._under_way.add(ended)
        self._progress.add(progress)
        try:
            yield progress
        finally:
            self._under_way.discard(ended)
            self._progress.discard(progress)
            ended.set_result(None)

    def _order(self, call: ProviderCall) -> Order:
        try:
            description = describe(call.service, call.idempotency_key, call.input)
        except ValueError as error:
            raise Permanent(str(error), provider=self.provider, outcome="not_started") from error
        return Order(
            name=self.provider,
            provider=self.address,
            key=call.idempotency_key,
            amount=call.max_cost,
            description=description,
        )

    async def _delivery_of(self, transaction: Transaction) -> Transaction:
        """Wait for the delivery of what is locked; raises a member of `CallFailed` where there will be none."""
        delivered = None
        if not self._is_closed:
            wait = asyncio.ensure_future(self._purchases.delivered(transaction))
            self._waits.add(wait)
            try:
                delivered = await wait
            except asyncio.CancelledError:
                if not self._is_closed or is_being_cancelled():
                    raise
            finally:
                self._waits.discard(wait)
        if delivered is None:
            why = "its transport was closed" if self._is_closed else "the books have lost it"
            raise self._unknown(f"{transaction.id} is paid into escrow and not delivered: {why}")
        if delivered.state == CANCELLED:
            raise NotAdmitted(f"{self.provider!r}: {delivered.id} was called off", provider=self.provider)
        if delivered.state == DISPUTED:
            raise self._unknown(f"{delivered.id} is disputed")
        return delivered

    def _reply_in(self, transaction: Transaction) -> ProviderReply:
        answer = answer_in(transaction)
        if answer is msgspec.UNSET:
            raise self._unknown(f"{transaction.id} was delivered without an answer that can be read")
        return ProviderReply(output=answer, cost=transaction.amount)

    async def _finding(self, transaction: Transaction | None, books: Books, *, is_refused: bool = False) -> Finding:
        """Say what became of a call; `is_refused` where it would have been called off, had that been possible."""
        if transaction is None or transaction.state in UNPAID:
            return NeverRan()
        if transaction.state not in {DELIVERED, SETTLED}:
            return UnderWay(self._callable_off_at(transaction, books) if is_refused else None)
        answer = answer_in(transaction)
        if answer is msgspec.UNSET and not self._purchases.is_lost(transaction):
            return UnderWay()
        if transaction.locked:
            await self._purchases.pay(transaction)
        if answer is msgspec.UNSET:
            return Lost(transaction.amount)
        return Answered(ProviderReply(output=answer, cost=transaction.amount))

    def _callable_off_at(self, transaction: Transaction, books: Books) -> float | None:
        """Return when, in loop time, calling off is possible at the earliest; None where nobody can say."""
        if transaction.state != "COMMITTED":
            return None
        return asyncio.get_running_loop().time() + max(0, transaction.deadline + 1 - books.now)

    def _not_in_time(self, progress: PurchaseProgress, *, within: float) -> CallFailed:
        if progress.is_locked:
            return self._unknown(f"not delivered within {within:g} s")
        what = f"{self.provider!r}: this call paid nothing within {within:g} s; allow a longer timeout"
        return NotAdmitted(what, provider=self.provider)

    def _not_found_out(self, error: Exception) -> CallFailed:
        what = f"{self.provider!r}: what became of the call could not be found out: {type(error).__name__}: {error}"
        return Transient(what, provider=self.provider, charged="held")

    def _unknown(self, what: str) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self.provider!r}: {what}", provider=self.provider)
