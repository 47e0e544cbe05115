"""Finds out what became of calls that may have been paid: at once, for whoever waits, and later for their money's sake.

A call is looked up where its transport can, and called off where that may still help. What cannot be found out stays
held with the ledger, counts against its budgets, and is asked for again after pauses that grow.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from actors.errors.families import CallFailed, LedgerDown
from actors.events import Reconciled
from actors.transports.reconciliation import Answered, Finding, Lost, NeverRan, UnderWay
from runtime import Backoff, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from actors.money import Micros
    from actors.supervisor.payments.funds import Funds
    from actors.supervisor.payments.held_call import HeldCall
    from actors.supervisor.targets.gateways import Gateways
    from runtime import Context

SOON = Backoff(initial=0.2, cap=5.0, jitter=0.2)
"""The pauses of a request that waits to know."""
LATER = Backoff(initial=5.0, cap=600.0, jitter=0.2)
"""The pauses for those that nobody waits for any more."""
MAX_KEPT = 100_000
"""The calls that are asked for later; of more, the oldest stay held until somebody resolves them by hand."""

Resolution: TypeAlias = Answered | NeverRan | Lost


class Kept:
    """A held call that is asked for at `due`, in loop time, for the next time after `tries`."""

    __slots__ = ("due", "held", "tries")

    def __init__(self, held: HeldCall, due: float) -> None:
        self.held = held
        self.due = due
        self.tries = 0


class Reconciler:
    """Finds out for one supervisor."""

    def __init__(self, gateways: Gateways, spending: Funds, context: Context) -> None:
        self._gateways = gateways
        self._spending = spending
        self._context = context
        self._kept: dict[int, Kept] = {}
        """By the number of the reservation."""
        self._finding: dict[int, asyncio.Future[Resolution | None]] = {}
        """What is being found out, by the number of the reservation."""
        self._is_finding = False
        self.has_news = False
        """Whether somebody was kept since this was last set to False."""

    async def find_out(self, held: HeldCall, *, until: float) -> Resolution | None:
        """Find out about a call, and book it; None where that is not known at loop time `until`.

        Where somebody is at it already, what he finds is waited for: two who ask by one key could call off each other's
        next call.
        """
        number = held.reservation.number
        while (other := self._finding.get(number)) is not None:
            await asyncio.wait({other}, timeout=max(until - self._context.now(), 0.0))
            if not other.done():
                return None
            if (known := other.result()) is not None:
                return known
        self._kept.pop(number, None)  # Of an earlier request under its key.
        with self._alone_with(number) as found:
            tries = 0
            while True:
                finding = await self._ask(held)
                if finding is not None and not isinstance(finding, UnderWay):
                    try:
                        await self._book(held, finding)
                    except LedgerDown:
                        self.keep(held)  # It is known, but not entered yet.
                    found.append(finding)
                    return finding
                tries += 1
                now = self._context.now()
                pause = SOON.delay(tries, random=self._context.random.random())
                ready_at = max(now + pause, finding.until or 0.0) if isinstance(finding, UnderWay) else now + pause
                if not held.target.can_tell or ready_at >= until:
                    return None
                await asyncio.sleep(ready_at - now)

    @contextmanager
    def _alone_with(self, number: int) -> Generator[list[Resolution]]:
        """Let others wait who want to know the same; they are told what is put into the list."""
        found: list[Resolution] = []
        ended = self._finding[number] = asyncio.get_running_loop().create_future()
        try:
            yield found
        finally:
            del self._finding[number]
            ended.set_result(found[0] if found else None)

    def keep(self, held: HeldCall) -> None:
        """Find out later, when `find_due` is called; whoever cannot tell is not asked."""
        if held.target.can_tell and len(self._kept) < MAX_KEPT:
            self._kept[held.reservation.number] = Kept(held, self._context.now())
            self.has_news = True

    @property
    def next_due(self) -> float:
        """When there is something to find out, in loop time; infinity for never."""
        return min((kept.due for kept in self._kept.values()), default=math.inf)

    async def find_due(self) -> bool:
        """Find out about those that are due, one after the other; False where that is being done already."""
        if self._is_finding:
            return False
        self._is_finding = True
        try:
            for number, kept in tuple(self._kept.items()):
                if self._kept.get(number) is not kept or number in self._finding:
                    continue  # Somebody has found out meanwhile, or does.
                if kept.due <= self._context.now() and await self._is_settled(number, kept):
                    self._kept.pop(number, None)
        finally:
            self._is_finding = False
        return True

    async def _is_settled(self, number: int, kept: Kept) -> bool:
        """Find out about one call, and enter it; False where that has to wait."""
        with self._alone_with(number) as found:
            finding = await self._ask(kept.held)
            if finding is not None and not isinstance(finding, UnderWay):
                with suppress(LedgerDown):
                    await self._book(kept.held, finding)
                    found.append(finding)
                    return True
        kept.tries += 1
        now = self._context.now()
        pause = LATER.delay(kept.tries, random=self._context.random.random())
        kept.due = max(now + pause, (finding.until or 0.0) if isinstance(finding, UnderWay) else 0.0)
        return False

    async def _ask(self, held: HeldCall) -> Finding | None:
        """Look a call up, and call it off if it may still run; None where nobody can say."""
        target, finding = held.target, None
        with suppress(CallFailed, RuntimeFault):
            if target.can_look_up:
                finding = await self._gateways.look_up(target, held.call)
        if finding is None or isinstance(finding, UnderWay):
            with suppress(CallFailed, RuntimeFault):
                if target.can_cancel:
                    called_off = await self._gateways.cancel(target, held.call)
                    # That it cannot be called off before some time is no reason not to look it up before.
                    if finding is None or not isinstance(called_off, UnderWay):
                        finding = called_off
        return finding

    async def _book(self, held: HeldCall, finding: Resolution) -> None:
        cost: Micros | None = None
        output: object = None
        if isinstance(finding, Answered):
            cost, output = finding.reply.cost, finding.reply.output
        elif isinstance(finding, Lost):
            cost = finding.cost
        await self._spending.resolve(held.reservation, is_paid=not isinstance(finding, NeverRan), cost=cost)
        self._context.events.publish(
            Reconciled(
                request_id=held.call.request_id,
                provider=held.target.name,
                found=type(finding).__name__,
                cost=0 if isinstance(finding, NeverRan) else held.reservation.amount if cost is None else cost,
                output=output,
            )
        )

    def held(self) -> Iterator[HeldCall]:
        """Tell which calls are still to be found out about."""
        return (kept.held for kept in self._kept.values())

    def __repr__(self) -> str:
        return f"<Reconciler {len(self._kept)} calls to find out about>"
