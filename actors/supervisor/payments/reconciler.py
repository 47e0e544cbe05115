"""Finds out what became of calls that may have been paid: at once for a request that waits, later for its money.

A call is taken up by its handle or looked up if its transport can, and cancelled if that may still help. A call that
cannot be reconciled stays held with the ledger, counts against its budgets, and is asked about again after pauses that
grow. One of which only the cost can be told is asked about at set times, and counts as charged whole after the last of
them.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

from actors.errors.families import CallFailed, LedgerDown
from actors.transports.reconciliation import NOT_KEPT, Lost, UnderWay
from runtime import Backoff, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from actors.supervisor.payments.held_call import HeldCall, Resolution
    from actors.transports.reconciliation import Finding
    from runtime import Context

    Record: TypeAlias = Callable[[HeldCall, Resolution], Awaitable[None]]

    class UnderWayMarker(Protocol):
        """Tells the ledger whether a held call is under way."""

        def __call__(self, held: HeldCall, *, is_under_way: bool) -> None: ...


SOON = Backoff(initial=0.2, cap=5.0, jitter=0.2)
"""The pauses while a request waits to know."""
LATER = Backoff(initial=5.0, cap=600.0, jitter=0.2)
"""The pauses when no request waits any more."""
MAX_KEPT = 100_000
"""The calls that are asked about later; of more, the oldest stay held until they are resolved by hand."""


def next_look(finding: UnderWay | None, *, now: float, pause: float, deadline: float) -> float:
    """Return when to ask about a call again, in loop time: not before `deadline` if it is not worth while.

    A call that is under way is not asked about before it is done, by what its provider says, but in pauses of `pause`
    seconds if that is beyond the deadline: it may be done sooner, or break off. The last pauses are half of the time
    left each.

    >>> next_look(UnderWay(until=5.0), now=1.0, pause=0.2, deadline=30.0)
    5.0
    >>> next_look(UnderWay(until=50.0), now=1.0, pause=0.2, deadline=30.0)
    1.2
    >>> next_look(UnderWay(), now=27.0, pause=5.0, deadline=30.0), next_look(None, now=27.0, pause=5.0, deadline=30.0)
    (28.5, 32.0)
    """
    ready_at = now + pause
    if finding is None:
        return ready_at
    if finding.until is not None and finding.until < deadline:
        ready_at = max(ready_at, finding.until)
    left = deadline - now
    return ready_at if ready_at < deadline or left < 2 * SOON.initial else now + left / 2


class Kept:
    """A held call that is asked about at `due`, in loop time, for the next time after `tries`.

    `times` are the times at which it is, if its provider can tell the cost alone.
    """

    __slots__ = ("due", "held", "times", "tries")

    def __init__(self, held: HeldCall, now: float) -> None:
        self.held = held
        self.times = [now + seconds for seconds in held.asked_after]
        self.due = self.times[0] if self.times else now
        self.tries = 0


class Reconciler:
    """Reconciles the calls of one supervisor; `record` enters what was found with the ledger.

    `mark_under_way` tells it that a call is under way, and later that this is not known any more.
    """

    def __init__(self, context: Context, *, record: Record, mark_under_way: UnderWayMarker) -> None:
        self._context = context
        self._record = record
        self._mark_under_way = mark_under_way
        self._kept: dict[int, Kept] = {}
        """By the number of the reservation."""
        self._reconciling: dict[int, asyncio.Future[Resolution | None]] = {}
        """What is being reconciled now, by the number of the reservation."""
        self._is_at_work = False
        self.has_news = False
        """Whether a call was kept since this was last set to False."""

    async def reconcile(self, held: HeldCall, *, until: float, wait: float = 0.0) -> Resolution | None:
        """Find out about a call, and record it; None if that is not known at loop time `until`.

        One that is taken up by its handle has `wait` seconds for its answer before it is cancelled. If another task is
        at it already, its result is waited for: two that ask by one key could cancel each other's next call.
        """
        number = held.reservation.number
        while (other := self._reconciling.get(number)) is not None:
            await asyncio.wait({other}, timeout=max(until - self._context.now(), 0.0))
            if not other.done():
                return None
            if (known := other.result()) is not None:
                return known
        self._kept.pop(number, None)  # Of an earlier request under its key.
        with self._alone_with(number) as found:
            tries = 0
            while True:
                finding = await self._ask(held, wait=wait)
                wait = 0.0
                if finding is not None and not isinstance(finding, UnderWay):
                    try:
                        await self._record(held, finding)
                    except LedgerDown:
                        self.keep(held)  # It is known, but not entered yet.
                    found.append(finding)
                    return finding
                tries += 1
                now = self._context.now()
                pause = SOON.delay(tries, random=self._context.random.random())
                ready_at = next_look(finding, now=now, pause=pause, deadline=until)
                if not held.can_be_asked or ready_at >= until:
                    return None
                await asyncio.sleep(ready_at - now)

    @contextmanager
    def _alone_with(self, number: int) -> Generator[list[Resolution]]:
        """Let other tasks that want to know the same wait; they are told what is put into the list."""
        found: list[Resolution] = []
        ended = self._reconciling[number] = asyncio.get_running_loop().create_future()
        try:
            yield found
        finally:
            del self._reconciling[number]
            ended.set_result(found[0] if found else None)

    def keep(self, held: HeldCall) -> None:
        """Find out later, when `reconcile_due` is called, if the transport can tell at all."""
        if held.can_be_asked and len(self._kept) < MAX_KEPT:
            self._kept[held.reservation.number] = Kept(held, self._context.now())
            self.has_news = True

    def knows(self, number: int) -> bool:
        """Tell whether the call of a reservation is reconciled, now or later."""
        return number in self._kept or number in self._reconciling

    @property
    def next_due(self) -> float:
        """When the next call is due, in loop time; infinity for never."""
        return min((kept.due for kept in self._kept.values()), default=math.inf)

    async def reconcile_due(self) -> bool:
        """Find out about the calls that are due, one after the other; False if that is being done already."""
        if self._is_at_work:
            return False
        self._is_at_work = True
        try:
            for number, kept in tuple(self._kept.items()):
                if self._kept.get(number) is not kept:
                    continue  # A request has found out meanwhile.
                if number in self._reconciling:
                    # A request is about to find out. Until then it must not be due, or it would be at every moment.
                    kept.due = max(kept.due, self._context.now() + LATER.initial)
                    continue
                if kept.due <= self._context.now() and await self._is_settled(number, kept):
                    self._kept.pop(number, None)
        finally:
            self._is_at_work = False
        return True

    async def _is_settled(self, number: int, kept: Kept) -> bool:
        """Find out about one call, and record it; False if that has to wait."""
        kept.tries += 1
        with self._alone_with(number) as found:
            finding = await self._ask(kept.held)
            if finding is None and 0 < len(kept.times) <= kept.tries:
                if kept.held.is_settled:
                    return True  # It was settled whole already.
                finding = Lost()
            if finding is not None and not isinstance(finding, UnderWay):
                with suppress(LedgerDown):
                    await self._record(kept.held, finding)
                    found.append(finding)
                    return True
        now = self._context.now()
        if kept.tries < len(kept.times):
            kept.due = kept.times[kept.tries]
            return False
        pause = LATER.delay(kept.tries, random=self._context.random.random())
        kept.due = max(now + pause, (finding.until or 0.0) if isinstance(finding, UnderWay) else 0.0)
        return False

    async def _ask(self, held: HeldCall, *, wait: float = 0.0) -> Finding | None:
        """Look a call up, and cancel it if it may still run; None if its transport cannot say.

        One that has a handle is taken up, which tells the same, and its answer is waited for. One of an earlier life
        of the program is not cancelled: what it asked for is not known any more, and its answer may be wanted.
        """
        target, handle, finding = held.target, held.handle, None
        with suppress(CallFailed, RuntimeFault):
            if handle is not None:
                finding = await target.resume(handle, held.call, wait=wait)
            elif target.can_look_up:
                finding = await target.look_up(held.call)
        if held.call.input is not NOT_KEPT and (finding is None or isinstance(finding, UnderWay)):
            with suppress(CallFailed, RuntimeFault):
                if target.can_cancel:
                    cancelled = await target.cancel(held.call)
                    # That it cannot be cancelled before some time is no reason not to look it up before.
                    if finding is None or not isinstance(cancelled, UnderWay):
                        finding = cancelled
        is_under_way = isinstance(finding, UnderWay)
        if is_under_way or held.is_under_way:
            self._mark_under_way(held, is_under_way=is_under_way)
        held.is_under_way = is_under_way
        return finding

    def held(self) -> Iterator[HeldCall]:
        """Return the calls that are still to be reconciled."""
        return (kept.held for kept in self._kept.values())

    def __repr__(self) -> str:
        return f"<Reconciler {len(self._kept)} calls to reconcile>"
