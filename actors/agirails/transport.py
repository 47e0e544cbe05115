"""Call providers on AGIRAILS through an escrow: money is locked before the provider begins, and released afterwards.

A call creates a transaction, locks its money, waits for the delivery, and pays:

| what happened                             | the caller gets                  | the money          |
|-------------------------------------------|----------------------------------|--------------------|
| it failed before the money was locked     | `NotAdmitted`, `Permanent`       | never left         |
| it was delivered                          | `ProviderReply`                  | paid               |
| no delivery in time, or the call was cut  | `OutcomeUnknown`                 | locked: held       |

Money can stay held for long: a provider whose handler fails, hangs or is absent does not report that, and a transaction
that it has begun cannot be cancelled. `look_up` finds the outcome, and pays for an answer that came late. `resume`
waits for the answer to an earlier call, by the id of its transaction. `cancel` cancels a transaction if that is
possible. `AgirailsNetwork.locked` lists all held money.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from actors.agirails.deliveries import answer_in
from actors.agirails.errors import classify_agirails
from actors.agirails.purchases import Order, PurchaseProgress, describe
from actors.agirails.sdk import CANCELLED, DELIVERED, DISPUTED, SETTLED, UNDER_WAY, UNPAID, Transaction
from actors.errors.families import BudgetExceeded, CallFailed, NotAdmitted, OutcomeUnknown, Permanent, Transient
from actors.money import Micros
from actors.transports.reconciliation import NOT_KEPT, Answered, Finding, Lost, NeverRan, UnderWay
from actors.transports.transport import ProviderReply
from runtime import is_being_cancelled

if TYPE_CHECKING:
    from collections.abc import Generator

    from actors.agirails.purchases import Purchases
    from actors.agirails.sdk import NetworkState
    from actors.transports.transport import Idempotent, ProviderCall

MIN_PRICE = Micros(50_000)
"""The smallest payment that AGIRAILS accepts."""


class AgirailsTransport:
    """The transport to one provider of an `AgirailsNetwork`, made by the network's method `transport`.

    A repeated call continues the transaction that has its key, whatever became of the first call, even in another
    process and after a restart. So each key is paid once. The transport is not declared idempotent all the same: a call
    that may be repeated is cut off as soon as it is slow, and is sent again. Here, an early cut would only leave money
    locked, and the repetition would wait for the same delivery. So each call has its whole timeout, and an unknown
    outcome is looked up afterwards.

    A provider may run its handler twice for one transaction, because the SDK does so if one of its own writes fails. A
    handler that must not run twice has to check the transaction's id. Closing the transport ends the waits of the calls
    under way, whose money stays locked, and returns once every write that was begun has ended.
    """

    paid = True
    idempotent: Idempotent = "no"
    resumes_alone = True

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
        """Buy one answer. Raises a subclass of `CallFailed`; see this module for which, and where the money is then.

        The price offered and paid is `call.max_cost`, which a supervisor sets to the listed price of the provider.
        The input must be JSON.
        """
        order = self._order(call)
        if order.amount < MIN_PRICE:
            raise BudgetExceeded(needed=MIN_PRICE, available=order.amount, cap="request", provider=self.provider)
        reply: ProviderReply | None = None
        with self._counted(call) as progress:
            try:
                async with asyncio.timeout(call.timeout):
                    transaction = await self._purchases.buy(order, progress)
                    delivered = await self._delivery_of(transaction)
                    reply = self._reply_in(delivered)
                    if delivered.state == DELIVERED:
                        await self._purchases.pay(delivered)
            except TimeoutError:
                # The payment for an answer that came in time may take longer.
                if reply is None:
                    raise self._not_in_time(progress, within=call.timeout) from None
        return reply

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if the network's state can be read, which is all that can be checked without paying a provider."""
        try:
            async with asyncio.timeout(timeout):
                await self._purchases.read()
        except Exception as error:
            raise classify_agirails(error, provider=self.provider, stage="creating") from error

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - as above.
        """Return what became of a call; an answer that is found is paid. Raises a subclass of `CallFailed`."""
        order = self._order(call)
        try:
            async with asyncio.timeout(timeout):
                transaction, state = await self._purchases.find(order)
                return await self._finding(transaction, state)
        except CallFailed:
            raise
        except Exception as error:
            raise self._lookup_failed(error) from error

    async def resume(self, handle: str, call: ProviderCall) -> Finding:
        """Wait for the delivery of a transaction by its id, and return what became of it, as `look_up` does."""
        order = call.idempotency_key if call.input is NOT_KEPT else self._order(call)
        try:
            transaction, state = await self._purchases.taken_up(order, handle)
            if transaction is None:
                raise self._unknown(f"the network does not know {handle} any more")
            if transaction.state in UNDER_WAY:
                with suppress(TimeoutError):
                    async with asyncio.timeout(call.timeout):
                        transaction = await self._awaited(transaction) or transaction
            return await self._finding(transaction, state)
        except CallFailed:
            raise
        except Exception as error:
            raise self._lookup_failed(error) from error

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - as above.
        """Cancel a call if its provider has not begun, and return what became of it, as `look_up` does."""
        order = self._order(call)
        try:
            async with asyncio.timeout(timeout):
                transaction, state = await self._purchases.cancel_call(order)
                return await self._finding(transaction, state, is_refused=True)
        except CallFailed:
            raise
        except Exception as error:
            raise self._lookup_failed(error) from error

    async def aclose(self) -> None:
        """End the waits of the calls under way. A call after this raises RuntimeError."""
        self._is_closed = True
        for progress in self._progress:
            progress.is_given_up = True
        for wait in self._waits:
            wait.cancel()
        while self._under_way:
            await asyncio.wait(self._under_way)

    @contextmanager
    def _counted(self, call: ProviderCall) -> Generator[PurchaseProgress]:
        """Count a call as under way, for `aclose`."""
        if self._is_closed:
            raise RuntimeError(f"the transport to {self.provider!r} is closed; make a new one")
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        progress = PurchaseProgress(call.notes.begun)
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
        """Wait for the delivery of a transaction. Raises a subclass of `CallFailed` if there will be none."""
        delivered = await self._awaited(transaction)
        if delivered is None:
            why = "its transport was closed" if self._is_closed else "the network has lost it"
            raise self._unknown(f"{transaction.id} is paid into escrow and not delivered: {why}")
        if delivered.state == CANCELLED:
            raise NotAdmitted(f"{self.provider!r}: {delivered.id} was cancelled", provider=self.provider)
        if delivered.state == DISPUTED:
            raise self._unknown(f"{delivered.id} is disputed")
        return delivered

    async def _awaited(self, transaction: Transaction) -> Transaction | None:
        """Wait until a transaction is over, and return it; None if the network has lost it, or this is closed."""
        if self._is_closed:
            return None
        wait = asyncio.ensure_future(self._purchases.delivered(transaction))
        self._waits.add(wait)
        try:
            return await wait
        except asyncio.CancelledError:
            if not self._is_closed or is_being_cancelled():
                raise
            return None
        finally:
            self._waits.discard(wait)

    def _reply_in(self, transaction: Transaction) -> ProviderReply:
        answer = answer_in(transaction)
        if answer is msgspec.UNSET:
            raise self._unknown(f"{transaction.id} was delivered without an answer that can be read")
        return ProviderReply(output=answer, cost=transaction.amount)

    async def _finding(
        self, transaction: Transaction | None, state: NetworkState, *, is_refused: bool = False
    ) -> Finding:
        """Return what became of a call; `is_refused` means that it could not be cancelled if it is under way."""
        if transaction is None or transaction.state in UNPAID or transaction.state == CANCELLED:
            return NeverRan()
        if transaction.state not in {DELIVERED, SETTLED}:
            return UnderWay(self._cancellable_at(transaction, state) if is_refused else None)
        answer = answer_in(transaction)
        if answer is msgspec.UNSET and not self._purchases.is_lost(transaction):
            return UnderWay()
        if transaction.locked:
            await self._purchases.pay(transaction)
        if answer is msgspec.UNSET:
            return Lost(transaction.amount)
        return Answered(ProviderReply(output=answer, cost=transaction.amount))

    def _cancellable_at(self, transaction: Transaction, state: NetworkState) -> float | None:
        """Return the earliest loop time at which a call can be cancelled; None if that is unknown."""
        if transaction.state != "COMMITTED":
            return None
        return asyncio.get_running_loop().time() + max(0, transaction.deadline + 1 - state.now)

    def _not_in_time(self, progress: PurchaseProgress, *, within: float) -> CallFailed:
        if progress.is_locked:
            return self._unknown(f"not delivered within {within:g} s")
        what = f"{self.provider!r}: this call paid nothing within {within:g} s; allow a longer timeout"
        return NotAdmitted(what, provider=self.provider)

    def _lookup_failed(self, error: Exception) -> CallFailed:
        what = f"{self.provider!r}: the outcome of the call could not be looked up: {type(error).__name__}: {error}"
        return Transient(what, provider=self.provider, charged="held")

    def _unknown(self, what: str) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self.provider!r}: {what}", provider=self.provider)
