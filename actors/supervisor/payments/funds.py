"""The money of a supervisor's requests: reserved with the ledger before each call, and booked there after it.

What a call draws on is decided here, and whether it may is the ledger's to say: one question over every cap.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.errors.families import BudgetExceeded, LedgerDown, Permanent
from actors.ledger.errors import JournalFailed
from actors.ledger.messages import BookCall, CloseAccount, GetStatement, OpenAccount, Reservation, Reserve, Resolve
from actors.money import to_micros, usd
from runtime import AskTimeout, MailboxFull, RuntimeFault

if TYPE_CHECKING:
    from actors.errors.families import Charged
    from actors.market.listing import Listing
    from actors.market.market import Market
    from actors.money import Amount, Micros
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target
    from runtime import ActorRef, Context, Request

    LedgerRef = ActorRef[Reserve | BookCall | Resolve | GetStatement | OpenAccount | CloseAccount]

RUN = "run"
"""The account of all that a supervisor spends, where its market has a budget."""
OF_PROVIDER = "provider "
"""How the names of the accounts begin that hold what single providers are paid."""
LEDGER_CALL_TIMEOUT = 5.0
"""Seconds that the ledger has to open an account, or to tell its figures, for a request."""
MAX_PATIENCE = 86_400.0
"""Seconds that somebody may wait who asks the ledger himself, such as for the last call that draws on an account."""


def account_of(provider: str) -> str:
    """Name the account of all that one provider is paid."""
    return f"{OF_PROVIDER}{provider}"


class Funds:
    """One supervisor's dealings with its ledger."""

    def __init__(self, ledger: LedgerRef, context: Context, market: Market) -> None:
        self._ledger = ledger
        self._context = context
        self._market = market
        self._known: set[str] = set()
        """The accounts that are open, as far as this supervisor has found out."""
        self._of_market = {
            *([] if market.budget is None else [RUN]),
            *(account_of(one.provider.name) for one in market.providers if one.budget is not None),
        }
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._late: set[asyncio.Future[None]] = set()

    async def ensure(self, account: str) -> None:
        """Raise `Permanent` for an account that is not open, before anything is done for a request that names it."""
        if account not in self._known:
            try:
                statement = await self._ledger.ask(GetStatement(account), timeout=LEDGER_CALL_TIMEOUT)
            except Permanent as unknown:
                raise Permanent(f"there is no open account {account!r}; ask OpenAccount first") from unknown
            except RuntimeFault as fault:
                raise LedgerDown(str(fault)) from fault
            if statement.is_closed:
                raise Permanent(f"there is no open account {account!r}: it was closed; open another")
            self._known.add(account)

    async def pass_on(self, message: Request[Any]) -> Any:
        """Ask the ledger what somebody else wants to know, until his deadline; raises `LedgerDown` where that fails."""
        ledger: ActorRef[Any] = self._ledger
        try:
            return await ledger.ask(message, timeout=MAX_PATIENCE)
        except RuntimeFault as fault:
            raise LedgerDown(str(fault)) from fault

    def is_of_market(self, account: str) -> bool:
        """Tell whether an account holds a cap of the market, which no caller may close."""
        return account in self._of_market or account.startswith(OF_PROVIDER)

    def close_account(self, account: str) -> None:
        """Close an account that was opened for somebody who had gone."""
        self.forget(account)
        self._tell(CloseAccount(name=account))

    def forget(self, account: str) -> None:
        """Look an account up again before it is next drawn on, because it is being closed."""
        self._known.discard(account)

    async def reserve(self, job: Job, target: Target, *, wait: bool) -> Reservation | BudgetExceeded:
        """Reserve the price of one call in all that it draws on, or return why not.

        With `wait`, wait for what calls under way may give back, until the request's deadline. Raises a member of
        `CallFailed` where no other provider would fare better: the ledger cannot be reached, or the request was
        paid already.
        """
        listing = job.candidates.listings[target.name]
        wish = Reserve(
            key=job.key,
            provider=target.name,
            amount=listing.provider.price,
            accounts=await self._accounts(job, listing),
            budget=job.message.budget,
            # Whoever is idempotent by nature may be asked, and paid, again while it is not known whether it was.
            intent="repeat"
            if job.repeats(target)
            else "again"
            if job.may_pay_again or job.under_way or (job.held is not None and target.idempotent == "repeatable")
            else "first",
            wait=wait,
            holder=self._context.ref,
        )
        await self._wait_for_late(until=job.deadline)
        left = job.deadline - self._context.now()
        try:
            return await self._ledger.ask(wish, timeout=max(left, 0.001))
        except BudgetExceeded as refusal:
            return refusal
        except AskTimeout as late:
            refused = job.broke.get(target.name)
            if refused is None:
                raise LedgerDown(str(late)) from late
            return BudgetExceeded(
                needed=refused.needed, available=refused.available, cap=refused.cap, provider=target.name
            )
        except RuntimeFault as fault:
            raise LedgerDown(str(fault)) from fault

    def book(self, reservation: Reservation, charged: Charged, cost: Micros | None = None) -> None:
        """Tell the ledger what became of a call."""
        self._tell(BookCall(reservation, charged, cost))

    async def resolve(self, reservation: Reservation, *, is_paid: bool, cost: Micros | None) -> None:
        """Tell the ledger what was found out of a call whose money is held; one that it knows of is no news.

        Raises `LedgerDown` where it cannot be told now.
        """
        found = Resolve(reservation.number, "yes" if is_paid else "no", cost if is_paid else None, as_found=True)
        await self._wait_for_late(until=self._context.now() + LEDGER_CALL_TIMEOUT)
        try:
            with suppress(Permanent):
                await self._ledger.ask(found, timeout=LEDGER_CALL_TIMEOUT)
        except (RuntimeFault, JournalFailed) as fault:
            raise LedgerDown(str(fault)) from fault

    async def close(self) -> None:
        """Stop telling what a ledger that is too busy has not taken yet: it holds that money when its holder ends."""
        for sending in tuple(self._late):
            sending.cancel()
        await asyncio.gather(*self._late, *self._opening.values(), return_exceptions=True)

    async def _accounts(self, job: Job, listing: Listing) -> tuple[str, ...]:
        account, market = job.message.account, self._market
        if market.budget is None is listing.budget:
            return () if account is None else (account,)
        names = [] if account is None else [account]
        for name, cap in ((RUN, market.budget), (account_of(listing.provider.name), listing.budget)):
            if cap is not None:
                names.append(name)
                self._of_market.add(name)
                await self._open(name, cap)
        return tuple(names)

    async def _open(self, name: str, cap: Amount) -> None:
        """Open an account for a cap of the market; one that is open at the ledger keeps the cap it has there.

        It is for all requests, and so no request's to call off: the ledger closes what was opened for somebody who has
        gone, whoever else has found it open meanwhile.
        """
        if name in self._known:
            return
        opening = self._opening.get(name)
        if opening is None:
            opening = asyncio.create_task(self._ask_to_open(name, cap), context=contextvars.Context())
            self._opening[name] = opening
            opening.add_done_callback(lambda opened: self._opened(name, opened))
        try:
            await asyncio.shield(opening)
        except RuntimeFault as fault:
            raise LedgerDown(str(fault)) from fault

    def _opened(self, name: str, opening: asyncio.Task[None]) -> None:
        self._opening.pop(name, None)
        if not opening.cancelled():
            opening.exception()  # Whoever waited has been told; it may be that nobody did any more.

    async def _ask_to_open(self, name: str, cap: Amount) -> None:
        wanted = to_micros(cap)
        try:
            await self._ledger.ask(OpenAccount(name=name, cap=wanted), timeout=LEDGER_CALL_TIMEOUT)
        except Permanent:
            statement = await self._ledger.ask(GetStatement(name), timeout=LEDGER_CALL_TIMEOUT)
            if statement.cap != wanted:
                self._context.log.warning(
                    "account {!r} is open at the ledger with {}, which holds, and not the ${} of this market; "
                    "SetCap changes it",
                    name,
                    "no cap" if statement.cap is None else f"a cap of ${usd(statement.cap)}",
                    usd(wanted),
                )
        self._known.add(name)

    def _tell(self, message: BookCall | CloseAccount) -> None:
        try:
            self._ledger.tell(message)
        except MailboxFull:
            # It is busy, and will have room; what it has to know must not be lost for that.
            # Nor for the deadline of the request, which would travel with it.
            sending = asyncio.create_task(self._ledger.send(message), context=contextvars.Context())
            self._late.add(sending)
            sending.add_done_callback(self._sent)

    async def _wait_for_late(self, *, until: float) -> None:
        """Let the ledger take first what it has had no room for: a question must not overtake what it turns on."""
        if self._late:
            await asyncio.wait(self._late, timeout=max(until - self._context.now(), 0.0))

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._late.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            self._context.log.warning("the ledger could not be told any more: {}", error)
