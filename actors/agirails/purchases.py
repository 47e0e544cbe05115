"""What one requester buys on an AGIRAILS network: one transaction for each provider and idempotency key.

The key travels in the description of the transaction, so the books themselves know which calls have been paid, also
after a restart. Writings take turns, because each rewrites the one file of the books under a lock that is not waited
for long, and each is awaited to its end, also by a caller that is cancelled.
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
from actors.agirails.sdk import CANCELLED, DELIVERED, UNDER_WAY, UNPAID, Books, Sdk, Transaction
from actors.errors.families import NotAdmitted, Permanent
from actors.money import Micros, usd
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

PROOF_WITHIN = 10.0
"""Seconds between a provider's word that it delivered and what it delivered; after them that is lost."""
_DESCRIPTION = re.compile(r"service:([^;]+);key:([^;]*);input:")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be bought: for `amount` micro-units, from the provider called `name` at `provider`, under `key`."""

    name: str
    provider: str
    key: str
    amount: Micros
    description: str


class PurchaseProgress:
    """How far a purchase is: whether its money is locked, or gone, or may be; and whether anybody still wants it."""

    def __init__(self) -> None:
        self.is_locked = False
        self.is_given_up = False


class Purchases:
    """All that one requester buys through one `Sdk`; see `AgirailsNetwork` for the fields."""

    def __init__(self, sdk: Sdk, *, requester: str, poll_every: float, delivery_within: int, chain_rules: bool) -> None:
        self.requester = requester
        self._sdk = sdk
        self._delivery_within = delivery_within
        self._chain_rules = chain_rules
        self._deliveries = Deliveries(sdk.read, every=poll_every)
        self._lane = asyncio.Lock()
        self._proofless: dict[str, float] = {}
        """Since when, in loop time, a transaction is said to be delivered without its answer."""

    def __repr__(self) -> str:
        return f"<Purchases of {self.requester}, {self._deliveries!r}>"

    async def read(self) -> Books:
        """Return what the books say now; raises what the SDK does."""
        return await self._sdk.read()

    async def mint(self, amount: Micros) -> None:
        """Give the requester so many micro-units."""
        await self._in_turn(self._sdk.mint(self.requester, amount))

    async def buy(self, order: Order, progress: PurchaseProgress) -> Transaction:
        """Have the money for an order locked, and return its transaction: the one there is, or else a new one.

        A caller that is cancelled, or gives up, before the money is locked has the transaction called off. `progress`
        says at any time how far it has come. Raises a member of `CallFailed`.
        """

        def give_up() -> None:
            progress.is_given_up = True

        async with self._lane:
            return await _to_its_end(self._buy(order, progress), give_up)

    async def delivered(self, transaction: Transaction) -> Transaction | None:
        """Wait until a transaction is delivered, disputed or called off; None where the books have lost it."""
        return await self._deliveries.of(transaction.id)

    async def pay(self, transaction: Transaction) -> bool:
        """Pay for what was delivered, and tell whether it is paid; what cannot be is logged, and stays locked."""
        return await self._in_turn(self._pay(transaction))

    async def settle(self) -> Micros:
        """Pay for all that was delivered and is not paid yet, and return the sum."""
        due = [one for one in (await self._sdk.read()).of(self.requester) if one.locked and one.state == DELIVERED]
        return sum([await self._in_turn(self._pay_if_due(one)) for one in due])

    def is_lost(self, transaction: Transaction) -> bool:
        """Tell whether what was delivered is not to be had, nor to be waited for any more."""
        now, begun = asyncio.get_running_loop().time(), self._proofless.pop(transaction.id, None)
        if transaction.proof.startswith("{"):
            return True
        if begun is not None and now - begun >= PROOF_WITHIN:
            return True
        self._proofless[transaction.id] = now if begun is None else begun
        return False

    async def find(self, order: Order) -> tuple[Transaction | None, Books]:
        """Return the transaction of an order, once all that is under way here is written; None if there is none."""
        async with self._lane:
            books = await self._sdk.read()
        return self._same_in(books, order), books

    async def cancel_call(self, order: Order) -> tuple[Transaction | None, Books]:
        """Call an order off, if its provider has not begun, and return what became of it, as `find` does."""
        return await self._in_turn(self._call_off(order))

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._lane:
                return await _to_its_end(work)
        finally:
            work.close()  # It has ended, or never began.

    async def _buy(self, order: Order, progress: PurchaseProgress) -> Transaction:
        try:
            transaction = await self._opened(order, progress)
        except Exception as error:
            raise classify_agirails(error, provider=order.name, stage="creating") from error
        if transaction.state not in UNPAID:
            progress.is_locked = True
            return transaction
        if progress.is_given_up:
            await self._abandon(transaction)
            raise self._given_up(order)
        progress.is_locked = True  # Until it is known that it is not.
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
        """Return the transaction of an order, written down now if there was none."""
        books = await self._sdk.read()
        found = self._in(books, order)
        if (
            found is not None
            and found.state in UNPAID
            and (found.amount != order.amount or found.deadline <= books.now)
        ):
            # It was never paid, and the price has changed since, or its time is up.
            await self._sdk.cancel(found)
            found = None
        if found is None:
            if progress.is_given_up:
                raise self._given_up(order)
            created = await self._sdk.create(
                provider=order.provider,
                requester=self.requester,
                amount=order.amount,
                deadline=books.now + self._delivery_within,
                description=order.description,
            )
            books = await self._sdk.read()
            # Of two processes that have created one each, both go on with the first.
            found = self._in(books, order)
            mine = books.transaction(created)
            if mine is not None and found is not None and found.id != created:
                await self._abandon(mine)
        if found is None:
            raise NotAdmitted(f"{order.name!r}: the books have lost the transaction", provider=order.name)
        _check_same(found, order)
        if found.state in UNPAID and found.amount > order.amount:
            # Somebody has agreed to another price between two readings: what is locked is what it says then.
            what = f"{order.name!r}: {found.id} is for ${usd(found.amount)}, and ${usd(order.amount)} was offered"
            raise NotAdmitted(what, provider=order.name)
        return found

    def _in(self, books: Books, order: Order) -> Transaction | None:
        """Return the first transaction of an order that was not called off."""
        for one in books.of(self.requester):
            if one.provider == order.provider and one.state != CANCELLED and key_in(one.description) == order.key:
                return one
        return None

    async def _pay(self, transaction: Transaction) -> bool:
        try:
            await self._sdk.release(transaction)
        except Exception as error:  # noqa: BLE001 - the answer is there; that it is not paid yet must not lose it.
            with contextlib.suppress(Exception):
                now = (await self._sdk.read()).transaction(transaction.id)
                if now is not None and not now.locked:
                    return True  # Somebody else was as quick.
            logger_for("agirails").warning("{} is delivered and could not be paid: {!r}", transaction.id, error)
            return False
        return True

    def _same_in(self, books: Books, order: Order) -> Transaction | None:
        """Return the same, but raise `Permanent` for one that was for something else."""
        found = self._in(books, order)
        if found is not None:
            _check_same(found, order)
        return found

    async def _pay_if_due(self, transaction: Transaction) -> Micros:
        """Pay for what nobody else has paid for meanwhile, and return how much that was."""
        now = (await self._sdk.read()).transaction(transaction.id)
        return now.locked if now is not None and now.locked and await self._pay(now) else 0

    async def _call_off(self, order: Order) -> tuple[Transaction | None, Books]:
        books = await self._sdk.read()
        transaction = self._same_in(books, order)
        if transaction is not None and self._may_be_called_off(transaction, books):
            before, failed = transaction, None
            try:
                await self._sdk.cancel(transaction)
            except Exception as error:  # noqa: BLE001 - its provider may have been as quick; the books know.
                failed = error
            books = await self._sdk.read()
            transaction = self._in(books, order)
            if failed is not None and transaction == before:
                raise failed
        return transaction, books

    def _may_be_called_off(self, transaction: Transaction, books: Books) -> bool:
        if transaction.state in UNDER_WAY:
            # The mock would also take back what a provider is at work on; the chain never does.
            return transaction.state == "COMMITTED" and (not self._chain_rules or books.now > transaction.deadline)
        return transaction.state in UNPAID

    async def _abandon(self, transaction: Transaction) -> None:
        """Call off what was not paid; if that fails, it costs nothing, and a repetition of its key goes on with it.

        What another process has paid for meanwhile is not touched.
        """
        try:
            now = (await self._sdk.read()).transaction(transaction.id)
            if now is not None and now.state in UNPAID:
                await self._sdk.cancel(now)
        except Exception as error:  # noqa: BLE001 - why it was abandoned is what the caller has to know.
            logger_for("agirails").warning("{} is not paid and could not be called off: {!r}", transaction.id, error)


def describe(service: str, key: str, input: Any) -> str:  # noqa: A002 - what it is called everywhere.
    """Return the description by which a provider finds its handler and its input, and we our key.

    Raises ValueError for what cannot be said so.

    >>> describe("shout", "order;7", {"text": "hello"})
    'service:shout;key:order%3B7;input:{"text":"hello"}'
    """
    if not service or ";" in service:
        raise ValueError(f"a service of AGIRAILS needs a name without semicolons, got {service!r}")
    try:
        # Equal inputs are to be equal texts, by which a repetition is known.
        content = msgspec.json.encode(input, order="deterministic").decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"the input cannot be written as JSON: {error}") from error
    return f"service:{service};key:{quote(key, safe='', errors='surrogatepass')};input:{content}"


def key_in(description: str) -> str | None:
    """Return the idempotency key in a description, or None where it has none.

    >>> key_in('service:shout;key:order%3B7;input:{"text":"hello"}'), key_in("service:shout")
    ('order;7', None)
    """
    found = _DESCRIPTION.match(description)
    return None if found is None else unquote(found[2], errors="surrogatepass")


def _check_same(found: Transaction, order: Order) -> None:
    """Raise `Permanent` for a transaction that bears the key of an order, and is for something else."""
    if found.description != order.description:
        raise Permanent(
            f"the idempotency key {order.key!r} belongs to another request to {order.name!r}; use a new key",
            provider=order.name,
            outcome="not_started",
        )


async def _to_its_end(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await `work` to its end, also where the caller is cancelled meanwhile, who is so only then.

    A writing that was cut off may have taken place or not, and nobody would know.
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
            task.exception()  # Its end is known; without this look it would be reported as unseen.
        raise
