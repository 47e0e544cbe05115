"""Which accounts a call draws on: the request's own, and those that hold the caps of the market."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, NamedTuple

from actors.errors.families import LedgerDown, Permanent
from actors.ledger.messages import GetStatement, OpenAccount, SetCap
from actors.ledger.periods import Cap
from actors.money import ZERO
from actors.supervisor.payments.ledger_client import LEDGER_CALL_TIMEOUT
from runtime import RuntimeFault

if TYPE_CHECKING:
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.money import Micros
    from actors.supervisor.payments.ledger_client import LedgerClient
    from runtime import Context

RUN = "run"
"""The account of all that a supervisor spends, if its market has a budget."""
RISK = "risk"
"""The account of what may be paid twice because other providers were paid besides, if the market bounds that."""
KEPT_TERMS, KEPT_CHANGES = "caps", "changed caps"
"""Under which names a supervisor's restarts keep what it goes by, and what the ledger was not told of it yet."""
OF_PROVIDER = "provider "
"""How the names of the accounts begin that hold what single providers are paid."""


def account_of(provider: str) -> str:
    """Name the account of all that one provider is paid."""
    return f"{OF_PROVIDER}{provider}"


class Terms(NamedTuple):
    """How the account of a cap is opened: with the cap, or none any more, and how far that may be passed."""

    cap: Cap | None
    overdraft: Micros

    def __str__(self) -> str:
        cap = "no cap" if self.cap is None else str(self.cap)
        return f"{cap} with an overdraft of {self.overdraft}" if self.overdraft else cap


def terms_of(market: Market) -> dict[str, Terms]:
    """Return the terms of a market's caps, by account."""
    terms: dict[str, Terms] = {}
    if market.budget is not None:
        terms[RUN] = Terms(Cap(market.budget, market.budget_renewal), market.overdraft)
    if market.risk_total is not None:
        terms[RISK] = Terms(Cap(market.risk_total), ZERO)
    for one in market.providers:
        if one.budget is not None:
            terms[account_of(one.provider.name)] = Terms(Cap(one.budget, one.budget_renewal), market.overdraft)
    return terms


def accounts_of(market: Market) -> set[str]:
    """Name the accounts of the providers that a market lists."""
    return {account_of(one.provider.name) for one in market.providers}


class Accounts:
    """The accounts of one supervisor's requests."""

    def __init__(self, client: LedgerClient, context: Context, market: Market) -> None:
        self._client = client
        self._context = context
        self._market = market
        self._of_market = accounts_of(market)
        """The accounts of the providers that the market itself lists."""
        self._open: set[str] = set()
        """The accounts that are open, as far as this supervisor has found out."""
        begins_anew = KEPT_TERMS in context.kept
        self.terms: dict[str, Terms] = context.kept.setdefault(KEPT_TERMS, {})
        """Those of the market by account; without a cap for one of a market before, which is still drawn on."""
        self._changed: set[str] = context.kept.setdefault(KEPT_CHANGES, set())
        """Those whose terms another market has changed, until the ledger was told."""
        self._opening: dict[str, asyncio.Task[None]] = {}
        if begins_anew:
            self.go_by(market)
        else:
            self.terms.update(terms_of(market))

    def go_by(self, market: Market) -> None:
        """Go by the caps of another market; an account keeps what was spent, and one without a cap now has none."""
        self._market, self._of_market = market, accounts_of(market)
        offered = {RUN, RISK, *self._of_market}
        after = terms_of(market)
        for name in {*self.terms, *after}:
            before, overdraft = self.terms.get(name), ZERO if name == RISK else market.overdraft
            # If its provider is there no more, the requests that still call it keep to its cap.
            cap = None if before is None or name in offered else before.cap
            terms = after.get(name, Terms(cap, overdraft))
            if terms != before:
                self._change(name, terms)

    def relisted(self, listing: Listing) -> None:
        """Go by the cap that a registry has for a provider by now; of what the market lists, its own cap holds.

        The ledger is told before it is next drawn on.
        """
        name = account_of(listing.provider.name)
        before = self.terms.get(name)
        if before is None or name in self._of_market:
            return
        cap = None if listing.budget is None else Cap(listing.budget, listing.budget_renewal)
        terms = Terms(cap, self._market.overdraft)
        if terms != before:
            self._change(name, terms)

    def _change(self, name: str, terms: Terms) -> None:
        self.terms[name] = terms
        self._changed.add(name)
        self._open.discard(name)

    async def tell_changes(self) -> None:
        """Tell the ledger of the caps that have changed, all at once; raises `LedgerDown`, or what it refuses with.

        What it could not be told is told before it is next drawn on.
        """
        telling = (self._ensure_cap(name) for name in sorted(self._changed))
        for error in await asyncio.gather(*telling, return_exceptions=True):
            if error is not None:
                raise error

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
        return account in self.terms or account.startswith(OF_PROVIDER)

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
            if name not in self.terms and budget is not None:
                self.terms[name] = Terms(Cap(budget, renewal), self._market.overdraft)  # A registry lists it.
            if name in self.terms:
                names.append(name)
                if name not in self._open:
                    await self._ensure_cap(name)
        return tuple(names)

    async def of_risk(self) -> str | None:
        """Return the account that bounds what may be paid twice, opened if need be; None if the market has no bound.

        Raises `LedgerDown` if the ledger cannot be reached.
        """
        if RISK not in self.terms:
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
        told: Terms | None = None
        while told != (terms := self.terms[name]):  # Another market may change them meanwhile.
            await self._tell(name, terms)
            told = terms
        self._changed.discard(name)
        self._open.add(name)

    async def _tell(self, name: str, terms: Terms) -> None:
        ledger, (cap, overdraft) = self._client.ledger, terms
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
            before = Terms(
                None if statement.cap is None else Cap(statement.cap, statement.renewal), statement.overdraft
            )
            if before != terms:
                self._context.log.warning(
                    "account {!r} is open at the ledger with {}, which holds, and not the {} of this market; "
                    "SetCap changes it",
                    name,
                    before if before.cap is None else f"a cap of {before}",
                    terms,
                )

    async def close(self) -> None:
        """Wait for the openings under way."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
