"""The items of a batch that are parked until a reset: each goes on by itself then, in the order of the source."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.batch.fan_out import EndOfSource, Source
from actors.batch.parking import Resets, due_at, parked_until
from actors.batch.resuming import KeptItem
from actors.limits.waiting import Waiting
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

    from actors.batch.outcomes import RequestOutcome

    Work: TypeAlias = Callable[[int, Any], Awaitable[RequestOutcome | None]]


MAX_TOLD = 10
"""The resets that are told of at most."""
MAX_WHY = 300
"""Characters of the reason why items are parked that are kept."""


class ItemTurn(msgspec.Struct, frozen=True):
    """An item whose turn it is; `key` and `ended` are what is kept of it if it was parked."""

    index: int
    item: Any
    key: str | None = None
    ended: KeptItem | None = None


class ParkingLot:
    """Parks items for `longest` seconds at most, and gives them their turns again, before new ones.

    While an item is parked, it takes memory alone. Its owner is told once for each reset, by a line of the log.
    """

    def __init__(self, name: str, *, longest: float) -> None:
        self.name = name
        self.longest = longest
        self._loop = asyncio.get_running_loop()
        self._wall = time.time() - self._loop.time()
        """What to add to the loop's time for seconds since 1970; a clock that leaps moves nothing that is parked."""
        self._random = random.random()
        self._resets = Resets()
        self._parked: list[tuple[float, int, ItemTurn]] = []
        """By when they are due, and then in the order of the source."""
        self._due: list[tuple[int, ItemTurn]] = []
        self._under_way = 0
        self._changed = asyncio.Event()
        self._whys: dict[float, str] = {}
        """Why items are parked until each reset of which the owner was told."""

    def __len__(self) -> int:
        return len(self._parked) + len(self._due)

    async def turns(self, items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[ItemTurn]:
        """Yield every item, and again those that were parked, until each has ended."""
        source, asking = Source(items), None
        is_used_up = False
        try:
            while True:
                self._take_due()
                if self._due:
                    _, turn = heapq.heappop(self._due)
                elif is_used_up:
                    if not (self._parked or self._under_way):
                        return
                    await self._wait(None)
                    continue
                elif source.is_sync:
                    try:
                        turn = ItemTurn(*source.next_now())
                    except EndOfSource:
                        is_used_up = True
                        continue
                else:
                    asking = asking or asyncio.ensure_future(source.next())
                    await self._wait(asking)
                    if not asking.done():
                        continue
                    try:
                        turn = ItemTurn(*asking.result())
                    except EndOfSource:
                        is_used_up = True
                        continue
                    finally:
                        asking = None
                self._under_way += 1
                yield turn
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.wait([asking])
            await source.aclose()

    def serving(self, work: Work) -> Work:
        """Return what does the work for an item whose turn it is, and notes that it has ended or is parked."""

        async def serve(_: int, turn: ItemTurn) -> RequestOutcome | None:
            try:
                return await work(turn.index, turn)
            finally:
                self._under_way -= 1
                self._changed.set()

        return serve

    def park(self, turn: ItemTurn, error: Exception, *, key: str, revision: int) -> KeptItem | None:
        """Park an item that has failed so, and return what is kept of it; None if it has failed for good."""
        now, wall = self._loop.time(), self._wall
        reset = self._resets.reset_after(error, now=now)
        if reset is None:
            return None
        since = turn.ended.at if turn.ended is not None and turn.ended.status == "parked" else wall + now
        until = parked_until(wall + reset, now=wall + now, since=since, longest=self.longest)
        if until is None:
            return None
        kept = KeptItem("parked", at=since, revision=revision, until=until)
        self._put(msgspec.structs.replace(turn, key=key, ended=kept), kept, why=str(error))
        return kept

    def park_again(self, turn: ItemTurn, kept: KeptItem, *, key: str) -> bool:
        """Park an item that an earlier life of the program has parked; False if it is due."""
        if kept.status != "parked" or kept.until <= self._wall + self._loop.time():
            return False
        self._put(msgspec.structs.replace(turn, key=key, ended=kept), kept, why="it was parked before")
        return True

    def _put(self, turn: ItemTurn, kept: KeptItem, *, why: str) -> None:
        now, wall = self._loop.time(), self._wall
        heapq.heappush(self._parked, (due_at(kept.until - wall, now=now, random=self._random), turn.index, turn))
        if kept.until not in self._whys:
            self._whys[kept.until] = " ".join(why.split())[:MAX_WHY]
            when = datetime.fromtimestamp(kept.until, UTC).isoformat(timespec="seconds")
            logger_for(self.name).warning("items are parked until {}, and go on by themselves then: {}", when, why)

    def waits(self) -> tuple[Waiting, ...]:
        """Return for which resets items wait, the next ones first, each with the first and the number of its items."""
        parked: dict[float, list[tuple[float, float]]] = {}
        for due, _, turn in self._parked:
            if turn.ended is not None:
                parked.setdefault(turn.ended.until, []).append((turn.ended.at - self._wall, due))
        return tuple(
            Waiting(
                reason="parked",
                since=min(since for since, _ in times),
                until=min(due for _, due in times),
                evidence=f"{len(times):,} items until a reset; {self._whys.get(reset, 'parked before')}",
            )
            for reset, times in sorted(parked.items())[:MAX_TOLD]
        )

    def _take_due(self) -> None:
        now = self._loop.time()
        while self._parked and self._parked[0][0] <= now:
            _, index, turn = heapq.heappop(self._parked)
            heapq.heappush(self._due, (index, turn))

    async def _wait(self, asking: asyncio.Future[Any] | None) -> None:
        """Wait until an item has ended, or is due, or has come."""
        self._changed.clear()
        due = self._parked[0][0] if self._parked else math.inf
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            timeout = None if due == math.inf else max(0.0, due - self._loop.time())
            waited_for = {changed} if asking is None else {changed, asking}
            await asyncio.wait(waited_for, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    def __repr__(self) -> str:
        return f"<ParkingLot {len(self)} items>"


class WithoutParked:
    """The outcomes of a batch alone: an item that is parked has none yet."""

    def __init__(self, outcomes: AsyncIterator[RequestOutcome | None]) -> None:
        self._outcomes = outcomes

    def __aiter__(self) -> AsyncIterator[RequestOutcome]:
        return self

    async def __anext__(self) -> RequestOutcome:
        while True:
            outcome = await anext(self._outcomes)
            if outcome is not None:
                return outcome
