"""Who waits for which transaction: however many wait, the books are read once every so often, by one task.

The task runs while anybody waits, so there is nothing to close.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import msgspec

from actors.agirails.sdk import CANCELLED, DELIVERED, DISPUTED, SETTLED, Transaction
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.agirails.sdk import Books


PAUSE = 4.0
"""How many times as long as a reading took nothing is read after it."""


class Deliveries:
    """Tells those who wait that a transaction is delivered or over, about `every` seconds late."""

    def __init__(self, read: Callable[[], Awaitable[Books]], *, every: float) -> None:
        self._read = read
        self._every = every
        self._waiting: dict[str, set[asyncio.Future[Transaction | None]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def of(self, transaction_id: str) -> Transaction | None:
        """Wait until nothing more is to be expected of a transaction; None where the books have lost it."""
        future: asyncio.Future[Transaction | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(transaction_id, set()).add(future)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_on(), name="agirails-deliveries")
        try:
            return await future
        finally:
            waiting = self._waiting[transaction_id]
            waiting.discard(future)
            if not waiting:
                del self._waiting[transaction_id]
            if not self._waiting:
                self._reader.cancel()
                self._reader = None

    async def _read_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self._tell(await self._read())
            except Exception as error:  # noqa: BLE001 - those who wait have their own deadlines; the next may succeed.
                logger_for("agirails").warning("the books of AGIRAILS could not be read: {!r}", error)
            # Reading takes longer the more there is to read, and others want the processor too.
            await asyncio.sleep(max(self._every, PAUSE * (loop.time() - began)))

    def _tell(self, books: Books) -> None:
        for transaction_id, waiting in self._waiting.items():
            transaction = books.transaction(transaction_id)
            if transaction is None or is_over(transaction):
                for future in waiting:
                    if not future.done():
                        future.set_result(transaction)

    def __repr__(self) -> str:
        return f"<Deliveries {len(self._waiting)} transactions awaited>"


def is_over(transaction: Transaction) -> bool:
    """Tell whether nothing more is to be expected: it was called off, is disputed, or has been delivered in full."""
    if transaction.state in {DELIVERED, SETTLED}:
        # The provider says that it delivered, and only then what.
        return transaction.proof.startswith("{")
    return transaction.state in {CANCELLED, DISPUTED}


def answer_in(transaction: Transaction) -> object:
    """Return what the provider delivered, or UNSET where that is not (yet) to be had."""
    if transaction.state not in {DELIVERED, SETTLED}:
        return msgspec.UNSET
    try:
        # The standard library, because the SDK writes by it what is no JSON to others, such as NaN.
        proof: object = json.loads(transaction.proof)
    except (ValueError, RecursionError):
        return msgspec.UNSET
    # What could not be written as JSON is left out of the proof by the SDK.
    return proof["result"] if isinstance(proof, dict) and "result" in proof else msgspec.UNSET  # pyright: ignore[reportUnknownVariableType]
