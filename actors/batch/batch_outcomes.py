"""The outcomes of a batch of requests as they come, and the figures of all that have come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.batch.progress import Progress, TellsProgress
from actors.batch.summary import SummaryTally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from actors.batch.outcomes import RequestOutcome
    from actors.batch.parking_lot import ParkingLot
    from actors.batch.progress import OnProgress
    from actors.batch.summary import BatchSummary
    from actors.ledger.account import Account
    from actors.limits.waiting import Waiting


class BatchOutcomes(TellsProgress):
    """An async iterator of the outcomes of a batch, each as it ends; `robust_batch` yields one.

    The first error of `on_progress` is `progress_error`, and `progress_failures` counts all.
    """

    def __init__(self, items: object, on_progress: OnProgress | None) -> None:
        self._progress = Progress(on_progress, items)
        self.has_listener = on_progress is not None
        """Whether `tell` has a function to call."""
        self._tally = SummaryTally()
        self._outcomes: AsyncIterator[RequestOutcome] | None = None
        self.lot: ParkingLot | None = None
        """Where its items are parked, if they may be."""
        self.closed: Account | None = None
        """The figures of the batch's account once its block is left, if the ledger has told them."""
        self._clock = asyncio.get_running_loop().time
        self._began = self._latest = self._clock()

    @property
    def summary(self) -> BatchSummary:
        """The figures of the items that have an outcome, whether it was taken or not."""
        elapsed = self._latest - self._began
        return self._tally.summary(total=self._progress.total, elapsed=elapsed, closed=self.closed)

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """For which resets items are parked, the next ones first, in loop time; of requests, ask `GetRequests`."""
        return () if self.lot is None else self.lot.waits()

    def __aiter__(self) -> AsyncIterator[RequestOutcome]:
        return self

    def __anext__(self) -> Awaitable[RequestOutcome]:
        # No coroutine of its own: that would be one more for each item.
        return no_more() if self._outcomes is None else anext(self._outcomes)

    def begin(self, outcomes: AsyncIterator[RequestOutcome]) -> BatchOutcomes:
        """Take the outcomes to pass on, and return this."""
        self._outcomes = outcomes
        return self

    def add(self, outcome: RequestOutcome) -> None:
        """Count an outcome."""
        self._latest = self._clock()
        self._tally.add(outcome)
        self._progress.count(1)

    async def tell(self) -> None:
        """Tell how many items have finished by now."""
        await self._progress.tell()

    def close(self, account: Account) -> None:
        """Take what the ledger says of the money of the whole batch."""
        self.closed = account

    def __repr__(self) -> str:
        return f"<BatchOutcomes {self._progress!r}>"


async def no_more() -> RequestOutcome:
    """Say that there are no more outcomes."""
    raise StopAsyncIteration
