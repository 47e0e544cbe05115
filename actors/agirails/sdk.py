"""Read and write the state of an AGIRAILS network through its SDK, which only this module imports.

The import takes a second and 80 MB, so it is done in a thread when a network is first used. Nothing here waits, retries
or decides. None of the SDK's own types leaves this module, but its errors pass through unchanged.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.money import ZERO, Micros, micros_of
from runtime import run_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNPAID = frozenset({"INITIATED", "QUOTED"})
"""The states of a transaction whose money has not left its requester."""
UNDER_WAY = frozenset({"COMMITTED", "IN_PROGRESS"})
"""The states in which the money is locked and the provider has not delivered."""
DELIVERED, DISPUTED, SETTLED, CANCELLED = "DELIVERED", "DISPUTED", "SETTLED", "CANCELLED"


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction; `amount` is the agreed price, `locked` the money in its escrow now, both in micro-units.

    `deadline` is in seconds of the network's clock. `proof` is the text that the provider added on delivery, or "".
    """

    id: str
    requester: str
    provider: str
    state: str
    amount: Micros
    locked: Micros
    deadline: int
    description: str
    proof: str


class NetworkState:
    """The state of the network at one moment; `now` is in seconds of its clock, `balances` are by address."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.now = int(state.blockchain.timestamp)
        self.balances: dict[str, Micros] = {address: micros_of(int(units)) for address, units in state.balances.items()}

    def transaction(self, transaction_id: str) -> Transaction | None:
        """Return one transaction; None if there is none of this id."""
        found = self._state.transactions.get(transaction_id)
        return None if found is None else self._typed(found)

    def of(self, requester: str) -> Iterator[Transaction]:
        """Yield the transactions of a requester in the order they were created in."""
        for transaction in self._state.transactions.values():
            if transaction.requester == requester.lower():
                yield self._typed(transaction)

    def _typed(self, transaction: Any) -> Transaction:
        escrow = self._state.escrows.get(transaction.escrow_id)
        return Transaction(
            id=transaction.id,
            requester=transaction.requester,
            provider=transaction.provider,
            state=transaction.state.value,
            amount=micros_of(int(transaction.amount)),
            locked=ZERO if escrow is None or escrow.released else micros_of(int(escrow.amount)),
            deadline=transaction.deadline,
            description=transaction.service_description or "",
            proof=transaction.delivery_proof or "",
        )


class Sdk:
    """Reads and writes the state of the mock network in one directory.

    Each write rewrites one file under a lock, for which it waits at most 5 seconds. After a write was cancelled, it is
    unknown whether it took place. Raises ImportError if the SDK is not installed.
    """

    def __init__(self, state_directory: Path) -> None:
        if importlib.util.find_spec("agirails") is None:
            raise ImportError('AgirailsNetwork needs the SDK of AGIRAILS; write: pip install "understudy[agirails]"')
        self._state_directory = state_directory
        self._opened: Any = None

    async def read(self) -> NetworkState:
        """Return the present state; the SDK can only read all of it."""
        return NetworkState(await (await self._runtime()).get_state())

    async def create(self, *, provider: str, requester: str, amount: Micros, deadline: int, description: str) -> str:
        """Create a transaction, which costs nothing yet, and return its id."""
        runtime = await self._runtime()
        created = await runtime.create_transaction(
            _parameters(
                provider=provider,
                requester=requester,
                amount=str(int(amount)),
                deadline=deadline,
                # The mock's clock stands still, so a window for disputes would never end.
                dispute_window=0,
                service_description=description,
            )
        )
        return cast("str", created)

    async def lock(self, transaction: Transaction) -> None:
        """Lock the money of a transaction in its escrow: from now on its provider may begin."""
        await (await self._runtime()).link_escrow(transaction.id, str(int(transaction.amount)))

    async def release(self, transaction: Transaction) -> None:
        """Pay the provider of a delivered transaction from its escrow."""
        # The escrow of a transaction has its id. A change of state alone would leave the money where it is.
        await (await self._runtime()).release_escrow(transaction.id)

    async def cancel(self, transaction: Transaction) -> None:
        """Cancel a transaction, and recover the money in its escrow."""
        await (await self._runtime()).transition_state(transaction.id, CANCELLED)

    async def mint(self, address: str, amount: Micros) -> None:
        """Add money to an address, as the mock network can."""
        await (await self._runtime()).mint_tokens(address, str(int(amount)))

    async def _runtime(self) -> Any:
        if self._opened is None:
            opened = await run_in_thread(_open, self._state_directory)
            # Another call may have opened it meanwhile.
            self._opened = self._opened or opened
        return self._opened


def _open(state_directory: Path) -> Any:
    from agirails.runtime.mock_runtime import MockRuntime  # noqa: PLC0415 - imported only when it is needed.

    return MockRuntime(state_directory)


def _parameters(**fields: Any) -> Any:
    from agirails.runtime.base import CreateTransactionParams  # noqa: PLC0415 - as above.

    return CreateTransactionParams(**fields)
