"""Wait for the deliveries of transactions: one task reads the network's state now and then, for all waiters.

The task runs while there is a waiter, so there is nothing to close.
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

    from actors.agirails.sdk import NetworkState


PAUSE = 4.0
"""The pause after a reading is at least so many times as long as the reading took."""


class Deliveries:
    """Wakes the waiters of a transaction when it is delivered or over, about `every` seconds late."""

    def __init__(self, read: Callable[[], Awaitable[NetworkState]], *, every: float) -> None:
        self._read = read
        self._every = every
        self._waiting: dict[str, set[asyncio.Future[Transaction | None]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def wait_for(self, transaction_id: str) -> Transaction | None:
        """Wait until a transaction will not change any more, and return it; None if the network has lost it."""
        future: asyncio.Future[Transaction | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(transaction_id, set()).add(future)
        if self._reader is None:
            self._reader = asyncio.create_task(self._poll(), name="agirails-deliveries")
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

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self._wake(await self._read())
            except Exception as error:  # noqa: BLE001 - waiters have their own deadlines; the next reading may succeed.
                logger_for("agirails").warning("the state of the AGIRAILS network could not be read: {!r}", error)
            # Reading takes longer the more there is to read, and must leave other tasks their share of the processor.
            await asyncio.sleep(max(self._every, PAUSE * (loop.time() - began)))

    def _wake(self, state: NetworkState) -> None:
        for transaction_id, waiting in self._waiting.items():
            transaction = state.transaction(transaction_id)
            if transaction is None or is_over(transaction):
                for future in waiting:
                    if not future.done():
                        future.set_result(transaction)

    def __repr__(self) -> str:
        return f"<Deliveries {len(self._waiting)} transactions awaited>"


def is_over(transaction: Transaction) -> bool:
    """Tell whether a transaction will not change any more: it is cancelled, disputed, or delivered with its answer."""
    if transaction.state in {DELIVERED, SETTLED}:
        # The provider reports the delivery first, and the answer afterwards.
        return transaction.proof.startswith("{")
    return transaction.state in {CANCELLED, DISPUTED}


def answer_in(transaction: Transaction) -> object:
    """Return the answer that the provider delivered; UNSET if there is none (yet)."""
    if transaction.state not in {DELIVERED, SETTLED}:
        return msgspec.UNSET
    try:
        # The standard library, because the SDK writes with it, and so also values that are not JSON, such as NaN.
        proof: object = json.loads(transaction.proof)
    except (ValueError, RecursionError):
        return msgspec.UNSET
    # The SDK leaves an answer that cannot be written as JSON out of the proof.
    return proof["result"] if isinstance(proof, dict) and "result" in proof else msgspec.UNSET  # pyright: ignore[reportUnknownVariableType]
