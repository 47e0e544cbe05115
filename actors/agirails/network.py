"""An AGIRAILS network with one requester: transports to its providers, and the money in escrow."""

from __future__ import annotations

import functools
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.agirails.purchases import Purchases, key_in
from actors.agirails.sdk import Sdk
from actors.agirails.transport import MIN_PRICE, AgirailsTransport
from actors.market.listing import Listing
from actors.money import Amount, Micros, to_micros

if TYPE_CHECKING:
    from actors.providers.provider import Provider

MAX_WITHIN = 10 * 365 * 86_400
"""The most seconds that a provider can have to deliver: ten years."""
_ADDRESS = re.compile("0x[0-9a-fA-F]{40}")


class LockedEscrow(msgspec.Struct, frozen=True, kw_only=True):
    """Money of the requester in the escrow of a transaction, with its provider, idempotency key and state.

    In the states COMMITTED and IN_PROGRESS the provider has to deliver; in DELIVERED, `AgirailsNetwork.settle` pays.
    `deadline` is in seconds of the network's clock.
    """

    transaction: str
    provider: str
    key: str
    state: str
    amount: Micros
    deadline: int

    def __str__(self) -> str:
        return f"{self.transaction[:10]} {self.state}: {self.amount} for {self.provider}, key {self.key!r}"


class AgirailsNetwork:
    """The mock network of AGIRAILS in one directory, and one requester's purchases on it.

    `requester` is the address that pays. The network's state is read every `poll_every` seconds while a call waits for
    its delivery. A provider has `delivery_within` seconds of the network's clock; after that, the money of a
    transaction that it has not begun can be recovered. With `chain_rules`, that is possible only then, as on the chain.

    All transports to its providers share one network, so make only one for a directory, and use it in one event loop.
    There is nothing to close. Raises ValueError for options that cannot work, and ImportError without the extra
    `agirails`.

    The chain itself cannot be used in this way, because it carries a hash of the request, and no answer.
    """

    def __init__(
        self,
        *,
        state_directory: str | Path,
        requester: str,
        poll_every: float = 0.05,
        delivery_within: int = 3600,
        chain_rules: bool = False,
    ) -> None:
        self.requester = _checked_address("requester", requester)
        if not os.fspath(state_directory):
            raise ValueError("state_directory must be the path of a directory, got an empty string")
        if not 0 < poll_every < math.inf:
            raise ValueError(f"poll_every must be > 0 seconds and finite, got {poll_every}")
        if type(delivery_within) is not int or not 1 <= delivery_within <= MAX_WITHIN:
            raise ValueError(
                f"delivery_within must be a whole number of seconds from 1 to {MAX_WITHIN}, got {delivery_within!r}"
            )
        self._directory = Path(state_directory)
        self._purchases = Purchases(
            Sdk(self._directory),
            requester=self.requester,
            poll_every=poll_every,
            delivery_within=delivery_within,
            chain_rules=chain_rules,
        )

    def __repr__(self) -> str:
        return f"AgirailsNetwork({str(self._directory)!r}, requester={self.requester}, {self._purchases!r})"

    def transport(self, provider: Provider) -> AgirailsTransport:
        """Return a transport to a provider. Its address must be one of AGIRAILS, its price at least `MIN_PRICE`."""
        address = _checked_address(f"address of {provider.name!r}", provider.address)
        if provider.price < MIN_PRICE:
            raise ValueError(
                f"price of {provider.name!r} must be >= {MIN_PRICE}, the least that AGIRAILS accepts, "
                f"got {provider.price}"
            )
        return AgirailsTransport(self._purchases, name=provider.name, address=address)

    def listing(self, provider: Provider, *, timeout: float = 30.0, max_concurrency: int = 10) -> Listing:
        """List a provider on a market; `timeout` is for one attempt, in seconds.

        What is held for a call never counts as charged by its age: a locked escrow tells what becomes of it.
        """
        self.transport(provider)  # It opens nothing; a mistake is raised here and not at the first call.
        return Listing(
            provider=provider,
            transport=functools.partial(self.transport, provider),
            timeout=timeout,
            max_concurrency=max_concurrency,
            held_for=math.inf,
        )

    async def balances(self) -> dict[str, Micros]:
        """Return the balances of all addresses on the network; money in escrow is in none of them."""
        return (await self._purchases.read()).balances

    async def locked(self) -> list[LockedEscrow]:
        """Return all money of the requester that is in escrow, the oldest transaction first."""
        return [
            LockedEscrow(
                transaction=one.id,
                provider=one.provider,
                key=key_in(one.description) or "",
                state=one.state,
                amount=one.locked,
                deadline=one.deadline,
            )
            for one in (await self._purchases.read()).of(self.requester)
            if one.locked
        ]

    async def mint(self, amount: Amount) -> None:
        """Add dollars (str, int or Decimal) to the requester's balance, as only a mock network can."""
        await self._purchases.mint(to_micros(amount))

    async def settle(self) -> Micros:
        """Pay for every delivery that is not paid yet, such as an answer that came too late; return the sum.

        A payment that fails is logged, and its money stays locked.
        """
        return await self._purchases.settle()


def _checked_address(what: str, address: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{what} must be 0x and 40 hexadecimal digits, got {address!r}")
    return address.lower()
