"""The places of tenants at a door: so many requests of each are answered at once, and others wait in a line of it.

The lines are bounded, of each tenant and in all: if one too many comes, those past their deadline go first, and then
the newest of the tenant with the most waiting in the lowest class. In its line, a request waits in its class.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.limits.class_queue import ClassQueue, Priority
from actors.serve.problems import Problem
from actors.serve.token_limits import reserved_for
from actors.supervisor.targets.waiter_bound import WaiterBound
from actors.tariffs.estimate import Form as DemandForm
from actors.tariffs.estimate import demand_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from actors.serve.tenants import Tenant

    Place: TypeAlias = AbstractAsyncContextManager[None]
Meanwhile: TypeAlias = "Callable[[], Coroutine[Any, Any, None]] | None"

FIRST_GUESS = 1.0
"""Seconds that a request is taken to hold its place as long as none of its tenant has ended."""
NEWEST_PART = 0.1
"""The weight of the last request in the mean time for which places are held."""


class PlaceWish(msgspec.Struct, frozen=True):
    """A request that needs a place, and may wait for it for `timeout` seconds in its class."""

    priority: Priority
    body: dict[str, Any]
    form: DemandForm
    timeout: float

    def cost(self) -> float:
        """Return what its turn costs its class: the tokens that it reserves, as far as they can be told."""
        return float(reserved_for(demand_of(self.body, form=self.form)))


class WaitingRequest:
    """A request in the line of its tenant, until loop time `deadline`; `turn` tells whether it has a place."""

    __slots__ = ("cost", "deadline", "has_waited", "number", "priority", "tenant", "turn")

    def __init__(self, tenant: str, wish: PlaceWish) -> None:
        loop = asyncio.get_running_loop()
        self.tenant, self.deadline, self.cost = tenant, loop.time() + wish.timeout, wish.cost()
        self.priority: Priority = wish.priority
        self.number = 0
        self.has_waited = False
        self.turn: asyncio.Future[bool] = loop.create_future()

    def end(self, *, has_place: bool) -> None:
        """Let it wait no more."""
        if not self.turn.done():
            self.turn.set_result(has_place)


class _Line:
    """One tenant: its requests under way, those that wait, and for how long the last ones held their places."""

    __slots__ = ("held_for", "queue", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.held_for: float | None = None
        self.queue = ClassQueue[WaitingRequest]()


class TenantPlaces:
    """Who is answered and who waits, by tenant; `max_waiting` may wait in all."""

    def __init__(self, tenant_named: Callable[[str], Tenant | None], max_waiting: int) -> None:
        self.bound = WaiterBound[WaitingRequest](max_waiting)
        self._tenant_named = tenant_named
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def held(self, name: str, wish: PlaceWish, meanwhile: Meanwhile = None) -> AsyncGenerator[None]:
        """Hold a place of a tenant within the block; wait for it in line, and `meanwhile` do something else.

        Raises `Problem`, 429 with the wait, for one that may not wait, or not any more, or not so long.
        """
        line, loop = self._lines.setdefault(name, _Line()), asyncio.get_running_loop()
        if line.queue or not self._has_place(name, line):
            doing = asyncio.ensure_future(_nothing() if meanwhile is None else meanwhile())
            doing.add_done_callback(_ended)
            try:
                await self._wait(name, line, WaitingRequest(name, wish))
            finally:
                doing.cancel()  # It is not waited for: a place that was given must not be lost.
        else:
            line.under_way += 1
        since = loop.time()
        try:
            yield
        finally:
            held_for = loop.time() - since
            mean = held_for if line.held_for is None else line.held_for
            line.held_for = mean + NEWEST_PART * (held_for - mean)
            self._leave(name, line)

    def look_again(self) -> None:
        """Give places to those in line, as far as there are any: tenants may have others by now."""
        for name, line in list(self._lines.items()):
            self._serve(name, line)

    def _has_place(self, name: str, line: _Line) -> bool:
        tenant = self._tenant_named(name)
        return tenant is None or tenant.max_under_way is None or line.under_way < tenant.max_under_way

    async def _wait(self, name: str, line: _Line, waiter: WaitingRequest) -> None:
        loop = asyncio.get_running_loop()
        if not self._make_room(waiter, now=loop.time()):
            raise self._too_many(name, line, now=loop.time())
        self.bound.add(waiter, loop.time())
        line.queue.enqueue(waiter, cost=waiter.cost, priority=waiter.priority)
        timer = loop.call_at(waiter.deadline, lambda: waiter.end(has_place=False))
        try:
            has_place = await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.result():
                self._leave(name, line)
            raise
        finally:
            timer.cancel()
            self._take_out(line, waiter, now=loop.time())
        if not has_place:
            raise self._too_many(name, line, now=loop.time())

    def _make_room(self, waiter: WaitingRequest, *, now: float) -> bool:
        """Tell whether a request may wait, for which others may have to go."""
        bound, tenant = self.bound, self._tenant_named(waiter.tenant)
        most = None if tenant is None else tenant.max_waiting
        if bound.is_full or bound.is_full_for(waiter, most):
            for late in bound.take_late(now):
                self._send_away(late, now=now)
        for of_tenant in (True, False):
            if bound.is_full_for(waiter, most) if of_tenant else bound.is_full:
                other = bound.to_send_away(waiter, of_tenant=of_tenant)
                if other is None:
                    return False
                self._send_away(other, now=now)
        return True

    def _send_away(self, waiter: WaitingRequest, *, now: float) -> None:
        self._take_out(self._lines[waiter.tenant], waiter, now=now)
        waiter.end(has_place=False)

    def _take_out(self, line: _Line, waiter: WaitingRequest, *, now: float) -> None:
        line.queue.remove(waiter)
        self.bound.discard(waiter, now)

    def _leave(self, name: str, line: _Line) -> None:
        line.under_way -= 1
        self._serve(name, line)

    def _serve(self, name: str, line: _Line) -> None:
        """Give free places to those in line; one that was cancelled and has not run since takes none."""
        while (head := line.queue.head()) is not None and self._has_place(name, line):
            if head.turn.done():
                line.queue.remove(head)
                continue
            line.queue.serve(head)
            self.bound.discard(head, asyncio.get_running_loop().time())
            line.under_way += 1
            head.end(has_place=True)

    def _too_many(self, name: str, line: _Line, *, now: float) -> Problem:
        """Return the refusal of a request, with the time in which those before it will presumably have gone."""
        tenant, waiting = self._tenant_named(name), len(line.queue)
        most = (None if tenant is None else tenant.max_under_way) or 1
        wait = (waiting + 1) * (FIRST_GUESS if line.held_for is None else line.held_for) / most
        if self.bound.is_full:
            wait = max(wait, self.bound.time_to_clear(now))
        message = f"{line.under_way} requests of {name!r} are under way, its max_under_way, and {waiting} wait"
        return Problem(429, message, code="too_many_under_way", retry_after=wait)

    def __repr__(self) -> str:
        under_way = {name: line.under_way for name, line in self._lines.items() if line.under_way}
        return f"<TenantPlaces {under_way} under way, {self.bound.count} waiting>"


def _ended(doing: asyncio.Future[None]) -> None:
    """Take note of its end; what it may raise is that the client has left, which its request notices by itself."""
    if not doing.cancelled():
        doing.exception()


async def _nothing() -> None:
    """Do nothing."""
