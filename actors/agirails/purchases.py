"""Buy calls on an AGIRAILS network, with one transaction for each provider and idempotency key.

The key is in the description of the transaction, so the network's state shows which calls have been paid, even after a
restart. Writes take turns, because each rewrites the one file of the state under a lock that the SDK does not wait for
long. Each write is awaited to its end, even if its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

import msgspec

from actors.agirails.deliveries import Deliveries
from actors.agirails.errors import classify_agirails
from actors.agirails.sdk import CANCELLED, DELIVERED, UNDER_WAY, UNPAID, NetworkState, Sdk, Transaction
from actors.errors.families import NotAdmitted, Permanent
from actors.money import ZERO, Micros
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

PROOF_WITHIN = 10.0
"""Seconds after a provider reported a delivery within which its answer must come; after that it counts as lost."""
_DESCRIPTION = re.compile(r"service:([^;]+);key:([^;]*);input:")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A call to buy: for `amount` micro-units, from the provider `name` at the address `provider`, under `key`."""

    name: str
    provider: str
    key: str
    amount: Micros
    description: str


class PurchaseProgress:
    """How far a purchase is: whether its money is locked or may be, and whether its caller has given up.

    `on_opened` is told the id of its transaction before the money is locked.
    """

    def __init__(self, on_opened: Callable[[str], None]) -> None:
        self.on_opened = on_opened
        self.is_locked = False
        self.is_given_up = False


class Purchases:
    """The purchases of one requester through one `Sdk`; see `AgirailsNetwork` for the options."""

    def __init__(self, sdk: Sdk, *, requester: str, poll_every: float, delivery_within: int, chain_rules: bool) -> None:
        self.requester = requester
        self._sdk = sdk
        self._delivery_within = delivery_within
        self._chain_rules = chain_rules
        self._deliveries = Deliveries(sdk.read, every=poll_every)
        self._writing = asyncio.Lock()
        self._without_proof: dict[str, float] = {}
        """For each transaction that was reported as delivered without an answer, the loop time of that report."""

    def __repr__(self) -> str:
        return f"<Purchases of {self.requester}, {self._deliveries!r}>"

    async def read(self) -> NetworkState:
        """Return the network's present state. Raises the errors of the SDK."""
        return await self._sdk.read()

    async def mint(self, amount: Micros) -> None:
        """Add an amount to the requester's balance."""
        await self._in_turn(self._sdk.mint(self.requester, amount))

    async def buy(self, order: Order, progress: PurchaseProgress) -> Transaction:
        """Lock the money for an order, and return its transaction: the existing one, or a new one.

        If the caller is cancelled or gives up before the money is locked, the transaction is cancelled. `progress`
        says at any time how far the purchase is. Raises a subclass of `CallFailed`.
        """

        def give_up() -> None:
            progress.is_given_up = True

        async with self._writing:
            return await _uninterrupted(self._buy(order, progress), give_up)

    async def delivered(self, transaction: Transaction) -> Transaction | None:
        """Wait until a transaction is delivered, disputed or cancelled; None if the network has lost it."""
        return await self._deliveries.wait_for(transaction.id)

    async def pay(self, transaction: Transaction) -> bool:
        """Pay for a delivery, and tell whether it is paid; a failure is logged, and the money stays locked."""
        return await self._in_turn(self._pay(transaction))

    async def settle(self) -> Micros:
        """Pay for every delivery that is not paid yet, and return the sum."""
        due = [one for one in (await self._sdk.read()).of(self.requester) if one.locked and one.state == DELIVERED]
        return sum([await self._in_turn(self._pay_if_due(one)) for one in due], ZERO)

    def is_lost(self, transaction: Transaction) -> bool:
        """Tell whether the answer of a delivery is lost: it cannot be read, or has not come within `PROOF_WITHIN`."""
        now, begun = asyncio.get_running_loop().time(), self._without_proof.pop(transaction.id, None)
        if transaction.proof.startswith("{"):
            return True
        if begun is not None and now - begun >= PROOF_WITHIN:
            return True
        self._without_proof[transaction.id] = now if begun is None else begun
        return False

    async def find(self, order: Order) -> tuple[Transaction | None, NetworkState]:
        """Return the transaction of an order, after all writes under way here; None if there is none."""
        async with self._writing:
            state = await self._sdk.read()
        return self._same_in(state, order), state

    async def taken_up(self, order: Order | str, transaction_id: str) -> tuple[Transaction | None, NetworkState]:
        """Return the transaction of this id, which must be of the order, after all writes under way here.

        If only the key of an order is known, the transaction must have that key.
        """
        async with self._writing:
            state = await self._sdk.read()
        found = state.transaction(transaction_id)
        if found is not None:
            _check_same(found, order)
        return found, state

    async def cancel_call(self, order: Order) -> tuple[Transaction | None, NetworkState]:
        """Cancel an order if its provider has not begun, and return its transaction, as `find` does."""
        return await self._in_turn(self._cancel(order))

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._writing:
                return await _uninterrupted(work)
        finally:
            work.close()  # It has ended, or it never began.

    async def _buy(self, order: Order, progress: PurchaseProgress) -> Transaction:
        try:
            transaction = await self._opened(order, progress)
        except Exception as error:
            raise classify_agirails(error, provider=order.name, stage="creating") from error
        progress.on_opened(transaction.id)
        if transaction.state not in UNPAID:
            progress.is_locked = True
            return transaction
        if progress.is_given_up:
            await self._abandon(transaction)
            raise self._given_up(order)
        progress.is_locked = True  # Assumed until the opposite is known.
        try:
            await self._sdk.lock(transaction)
        except Exception as error:
            failure = classify_agirails(error, provider=order.name, stage="locking")
            if failure.charged == "no":
                progress.is_locked = False
                await self._abandon(transaction)
            raise failure from error
        return transaction

    def _given_up(self, order: Order) -> NotAdmitted:
        return NotAdmitted(f"{order.name!r}: given up before anything was paid", provider=order.name)

    async def _opened(self, order: Order, progress: PurchaseProgress) -> Transaction:
        """Return the transaction of an order; create it if there is none."""
        state = await self._sdk.read()
        found = self._in(state, order)
        if (
            found is not None
            and found.state in UNPAID
            and (found.amount != order.amount or found.deadline <= state.now)
        ):
            # It was never paid, and its price is not the present one or its deadline has passed.
            await self._sdk.cancel(found)
            found = None
        if found is None:
            if progress.is_given_up:
                raise self._given_up(order)
            created = await self._sdk.create(
                provider=order.provider,
                requester=self.requester,
                amount=order.amount,
                deadline=state.now + self._delivery_within,
                description=order.description,
            )
            state = await self._sdk.read()
            # If two processes have created one each, both continue with the first.
            found = self._in(state, order)
            mine = state.transaction(created)
            if mine is not None and found is not None and found.id != created:
                await self._abandon(mine)
        if found is None:
            raise NotAdmitted(f"{order.name!r}: the network has lost the transaction", provider=order.name)
        _check_same(found, order)
        if found.state in UNPAID and found.amount > order.amount:
            # The price of the transaction was changed between two readings, and its present price would be locked.
            what = f"{order.name!r}: {found.id} is for {found.amount}, and {order.amount} was offered"
            raise NotAdmitted(what, provider=order.name)
        return found

    def _in(self, state: NetworkState, order: Order) -> Transaction | None:
        """Return the first transaction of an order that is not cancelled; None if there is none."""
        for one in state.of(self.requester):
            if one.provider == order.provider and one.state != CANCELLED and key_in(one.description) == order.key:
                return one
        return None

    async def _pay(self, transaction: Transaction) -> bool:
        try:
            await self._sdk.release(transaction)
        except Exception as error:  # noqa: BLE001 - the answer must not be lost because it is not paid yet.
            with contextlib.suppress(Exception):
                now = (await self._sdk.read()).transaction(transaction.id)
                if now is not None and not now.locked:
                    return True  # Another process has paid meanwhile.
            logger_for("agirails").warning("{} is delivered and could not be paid: {!r}", transaction.id, error)
            return False
        return True

    def _same_in(self, state: NetworkState, order: Order) -> Transaction | None:
        """Return the transaction of an order, as `_in` does. Raises `Permanent` if it is that of another request."""
        found = self._in(state, order)
        if found is not None:
            _check_same(found, order)
        return found

    async def _pay_if_due(self, transaction: Transaction) -> Micros:
        """Pay for a delivery unless it has been paid meanwhile; return the sum paid."""
        now = (await self._sdk.read()).transaction(transaction.id)
        return now.locked if now is not None and now.locked and await self._pay(now) else ZERO

    async def _cancel(self, order: Order) -> tuple[Transaction | None, NetworkState]:
        state = await self._sdk.read()
        transaction = self._same_in(state, order)
        if transaction is not None and self._may_be_cancelled(transaction, state):
            before, failed = transaction, None
            try:
                await self._sdk.cancel(transaction)
            except Exception as error:  # noqa: BLE001 - its provider may have begun meanwhile, which the state shows.
                failed = error
            state = await self._sdk.read()
            transaction = self._in(state, order)
            if failed is not None and transaction == before:
                raise failed
        return transaction, state

    def _may_be_cancelled(self, transaction: Transaction, state: NetworkState) -> bool:
        if transaction.state in UNDER_WAY:
            # The mock network would even take back the money of a transaction in progress, which the chain never does.
            return transaction.state == "COMMITTED" and (not self._chain_rules or state.now > transaction.deadline)
        return transaction.state in UNPAID

    async def _abandon(self, transaction: Transaction) -> None:
        """Cancel a transaction that is not paid. If that fails, it costs nothing, and a later call of its key uses it.

        A transaction that another process has paid meanwhile is left alone.
        """
        try:
            now = (await self._sdk.read()).transaction(transaction.id)
            if now is not None and now.state in UNPAID:
                await self._sdk.cancel(now)
        except Exception as error:  # noqa: BLE001 - the caller gets the reason why it was abandoned instead.
            logger_for("agirails").warning("{} is not paid and could not be cancelled: {!r}", transaction.id, error)


def describe(service: str, key: str, input: Any) -> str:  # noqa: A002 - its name everywhere else.
    """Return the description from which a provider reads its service and input, and the requester the key.

    Raises ValueError for a service or an input that cannot be written in it.

    >>> describe("shout", "order;7", {"text": "hello"})
    'service:shout;key:order%3B7;input:{"text":"hello"}'
    """
    if not service or ";" in service:
        raise ValueError(f"the name of a service of AGIRAILS must not be empty nor have semicolons, got {service!r}")
    try:
        # Equal inputs must give equal texts, because a repetition is recognised by its text.
        content = msgspec.json.encode(input, order="deterministic").decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"the input cannot be written as JSON: {error}") from error
    return f"service:{service};key:{quote(key, safe='', errors='surrogatepass')};input:{content}"


def key_in(description: str) -> str | None:
    """Return the idempotency key in a description; None if it has none.

    >>> key_in('service:shout;key:order%3B7;input:{"text":"hello"}'), key_in("service:shout")
    ('order;7', None)
    """
    found = _DESCRIPTION.match(description)
    return None if found is None else unquote(found[2], errors="surrogatepass")


def _check_same(found: Transaction, order: Order | str) -> None:
    """Raise `Permanent` if a transaction is that of another request than an order, or the key of one."""
    if isinstance(order, str):
        if key_in(found.description) != order:
            raise Permanent(f"transaction {found.id} is not that of the key {order!r}", outcome="not_started")
    elif found.description != order.description:
        raise Permanent(
            f"the idempotency key {order.key!r} belongs to another request to {order.name!r}; use a new key",
            provider=order.name,
            outcome="not_started",
        )


async def _uninterrupted(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await `work` to its end, even if the caller is cancelled; the cancellation is raised afterwards.

    If a write were interrupted, it would be unknown whether it took place.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        on_cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # Retrieved, so that asyncio does not report it.
        raise
