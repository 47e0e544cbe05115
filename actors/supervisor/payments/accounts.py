"""Which accounts a call draws on: the request's own, and those that hold the caps of the market."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from actors.errors.families import LedgerDown, Permanent
from actors.ledger.messages import GetStatement, OpenAccount, SetCap
from actors.ledger.periods import Cap
from actors.money import ZERO
from actors.supervisor.payments.ledger_client import LEDGER_CALL_TIMEOUT
from runtime import RuntimeFault

if TYPE_CHECKING:
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.supervisor.payments.ledger_client import LedgerClient
    from runtime import Context

RUN = "run"
"""The account of all that a supervisor spends, if its market has a budget."""
RISK = "risk"
"""The account of what may be paid twice because other providers were paid besides, if the market bounds that."""
OF_PROVIDER = "provider "
"""How the names of the accounts begin that hold what single providers are paid."""


def account_of(provider: str) -> str:
    """Name the account of all that one provider is paid."""
    return f"{OF_PROVIDER}{provider}"


def caps_of(market: Market) -> dict[str, Cap | None]:
    """Return the caps of a market, by account."""
    caps: dict[str, Cap | None] = {}
    if market.budget is not None:
        caps[RUN] = Cap(market.budget, market.budget_renewal)
    if market.risk_total is not None:
        caps[RISK] = Cap(market.risk_total)
    for one in market.providers:
        if one.budget is not None:
            caps[account_of(one.provider.name)] = Cap(one.budget, one.budget_renewal)
    return caps


class Accounts:
    """The accounts of one supervisor's requests."""

    def __init__(self, client: LedgerClient, context: Context, market: Market) -> None:
        self._client = client
        self._context = context
        self._market = market
        self._open: set[str] = set()
        """The accounts that are open, as far as this supervisor has found out."""
        self.caps = caps_of(market)
        """The caps of the market by account; None for one that a market before had, whose account is still drawn on."""
        self._changed: set[str] = set()
        """Those whose cap another market has changed, until the ledger was told."""
        self._opening: dict[str, asyncio.Task[None]] = {}

    def go_by(self, market: Market) -> None:
        """Go by the caps of another market; an account keeps what was spent, and one without a cap now has none."""
        before, self._market = self._market, market
        offered = {account_of(one.provider.name) for one in market.providers}
        caps = caps_of(market)
        for name in {*self.caps, *caps}:
            if name not in caps and name not in offered and name not in {RUN, RISK}:
                continue  # Its provider is there no more; the requests that still call it keep to its cap.
            is_same = self.caps.get(name) == caps.get(name) and market.overdraft == before.overdraft
            if not (is_same and name in self.caps):
                self.caps[name] = caps.get(name)
                self._changed.add(name)
                self._open.discard(name)

    async def tell_changes(self) -> None:
        """Tell the ledger of the caps that have changed. Raises `LedgerDown`, or what the ledger refuses with."""
        for name in sorted(self._changed):
            await self._ensure_cap(name)

    async def ensure_open(self, account: str) -> None:
        """Raise `Permanent` for an account that is not open, before anything is done for a request that names it."""
        if account in self._open:
            return
        try:
            statement = await self._client.ask(GetStatement(account), timeout=LEDGER_CALL_TIMEOUT)
        except Permanent as unknown:
            raise Permanent(
                f"there is no open account {account!r}; ask OpenAccount first", outcome="not_started"
            ) from unknown
        if statement.is_closed:
            raise Permanent(f"there is no open account {account!r}: it was closed; open another", outcome="not_started")
        self._open.add(account)

    def is_of_market(self, account: str) -> bool:
        """Tell whether an account holds a cap of the market, which no caller may close."""
        return account in self.caps or account.startswith(OF_PROVIDER)

    def forget(self, account: str) -> None:
        """Look an account up again before it is next drawn on, because it is being closed."""
        self._open.discard(account)

    async def of_market(self, listing: Listing) -> tuple[str, ...]:
        """Return the accounts of the market's caps for calls to one provider, opened if need be.

        Raises `LedgerDown` if the ledger cannot be reached.
        """
        names: list[str] = []
        for name, budget, renewal in (
            (RUN, None, None),
            (account_of(listing.provider.name), listing.budget, listing.budget_renewal),
        ):
            if name not in self.caps and budget is not None:
                self.caps[name] = Cap(budget, renewal)  # A registry lists it.
            if name in self.caps:
                names.append(name)
                if name not in self._open:
                    await self._ensure_cap(name)
        return tuple(names)

    async def of_risk(self) -> str | None:
        """Return the account that bounds what may be paid twice, opened if need be; None if the market has no bound.

        Raises `LedgerDown` if the ledger cannot be reached.
        """
        if RISK not in self.caps:
            return None
        await self._ensure_cap(RISK)
        return RISK

    async def _ensure_cap(self, name: str) -> None:
        """Open an account for a cap of the market; one that is open at the ledger keeps the cap it has there.

        It serves all requests, and so none of them may cancel it: the ledger closes an account whose opener has gone,
        whichever requests have found it open meanwhile.
        """
        if name in self._open:
            return
        opening = self._opening.get(name)
        if opening is None:
            opening = asyncio.create_task(self._ask_to_open(name), context=contextvars.Context())
            self._opening[name] = opening
            opening.add_done_callback(lambda opened: self._opened(name, opened))
        try:
            await asyncio.shield(opening)
        except RuntimeFault as fault:
            raise LedgerDown(str(fault)) from fault

    def _opened(self, name: str, opening: asyncio.Task[None]) -> None:
        self._opening.pop(name, None)
        if not opening.cancelled():
            opening.exception()  # The requests that waited have been told; if none waits any more, it is seen here.

    async def _ask_to_open(self, name: str) -> None:
        cap: Cap | None = None
        is_told = False
        while not is_told or cap != self.caps[name]:  # Another market may change it meanwhile.
            cap = self.caps[name]
            await self._tell_cap(name, cap)
            is_told = True
        self._changed.discard(name)
        self._open.add(name)

    async def _tell_cap(self, name: str, cap: Cap | None) -> None:
        ledger = self._client.ledger
        overdraft = ZERO if name == RISK else self._market.overdraft
        amount, renewal = (None, None) if cap is None else cap
        opening = OpenAccount(name=name, cap=amount, renewal=renewal, overdraft=overdraft)
        try:
            await ledger.ask(opening, timeout=LEDGER_CALL_TIMEOUT)
        except Permanent:
            if name in self._changed:
                change = SetCap(name, amount, renewal, overdraft=overdraft, keeps_renewal=False)
                await ledger.ask(change, timeout=LEDGER_CALL_TIMEOUT)
                return
            statement = await ledger.ask(GetStatement(name), timeout=LEDGER_CALL_TIMEOUT)
            before = None if statement.cap is None else Cap(statement.cap, statement.renewal)
            if before != cap:
                self._context.log.warning(
                    "account {!r} is open at the ledger with {}, which holds, and not the {} of this market; "
                    "SetCap changes it",
                    name,
                    "no cap" if before is None else f"a cap of {before}",
                    cap,
                )

    async def close(self) -> None:
        """Wait for the openings under way."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
