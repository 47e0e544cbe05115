"""Requests for one thing under one key at the same time: one of them is served, and all are answered.

The call belongs to its key. An asker that leaves, leaves alone, and the last one ends it. It draws on the money of the
first asker, has until the latest of their deadlines, and if it ends by limits of the first asker's own, it goes on by
those of the next.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.errors.families import BudgetExceeded, CallFailed, NoProvider, OutcomeUnknown
from actors.ledger.answers import decode, encode
from actors.ledger.book import REQUEST
from actors.ledger.errors import RiskExceeded
from actors.money import ZERO
from actors.supervisor.pipeline.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from actors.ledger.fingerprint import Fields
    from actors.supervisor.messages import SmartResult
    from runtime import Context

    Serve: TypeAlias = Callable[["KeyedCall"], Coroutine[Any, Any, SmartResult]]

SHORTEST_LOOK = 0.25
"""Seconds after which an asker whose time is up looks again whether the call, which has no more time, has ended."""


class KeyedCall:
    """One request that is served for all that ask for it while it is under way."""

    def __init__(self, first: Job, fields: Fields, context: Context) -> None:
        message = first.message
        self.fields = fields
        self.job = Job(message, first.request_id, started=first.started, deadline=first.deadline, risk=first.risk)
        self.payer = first
        """The asker on whose money it draws."""
        self.is_ending = False
        self.task: asyncio.Task[SmartResult]
        self._context = context
        self._askers: list[Job] = []
        self._payers = [first]

    async def answer(self, asker: Job) -> SmartResult:
        """Return the answer once it is there; raises a member of `CallFailed`, also when the asker's time is up."""
        served = asker.served = self.job
        self._askers.append(asker)
        served.deadline = served.entry.deadline = max(served.deadline, asker.deadline)
        try:
            await self._until_done(asker)
            return self._result(asker)
        finally:
            self._askers.remove(asker)
            if asker is self.payer:
                asker.calls, asker.cost, asker.attempts = served.calls, served.cost, served.attempts
                asker.last = served.last
            if not self._askers and not self.task.done():
                self.is_ending = True
                self.task.cancel()
                await asyncio.wait({self.task})

    async def _until_done(self, asker: Job) -> None:
        while not self.task.done():
            left = asker.deadline - self._context.now()
            if left <= 0 and asker.deadline < self.job.deadline:
                late = OutcomeUnknown(
                    "its time is up, and the same request under its key goes on for others that have more; "
                    "ask again under the key",
                    provider=self.job.last or None,
                )
                late.charged = "held" if self.job.calls else "no"
                raise late
            await asyncio.wait({self.task}, timeout=max(left, SHORTEST_LOOK if left <= 0 else left))

    def _result(self, asker: Job) -> SmartResult:
        try:
            result = self.task.result()
        except CallFailed as failure:
            told = copy.copy(failure)  # One for each asker.
            told.replayed = told.replayed or asker is not self.payer
            raise told from failure
        latency = self._context.now() - asker.started
        if asker is self.payer:
            return msgspec.structs.replace(result, request_id=asker.request_id, latency=latency)
        return msgspec.structs.replace(
            result,
            output=_copied(result.output),
            cost=ZERO,
            replayed=True,
            attempts=0,
            failures=(),
            held=(),
            at_risk=ZERO,
            request_id=asker.request_id,
            latency=latency,
        )

    def goes_on_after(self, failure: CallFailed) -> Job | None:
        """Return the asker by whose limits it goes on, if it has ended by those of the one before; else None."""
        if not is_by_own_limits(failure, self.job):
            return None
        following = next((one for one in self._askers if one not in self._payers), None)
        if following is not None:
            self._payers.append(following)
            self.payer = following
        return following

    def __repr__(self) -> str:
        return f"<KeyedCall {self.job.asked_key!r} for {len(self._askers)} askers>"


class KeyedCalls:
    """The requests under keys that one supervisor serves; `leave` is called for each at its end."""

    def __init__(self, context: Context, *, leave: Callable[[Job], None]) -> None:
        self._context = context
        self._leave = leave
        self._by_key: dict[str, KeyedCall] = {}

    async def under_way(self, key: str) -> KeyedCall | None:
        """Return the call under a key; None if there is none. One that is about to end is waited for."""
        while (call := self._by_key.get(key)) is not None and not call.task.done():
            if not call.is_ending:
                return call
            await asyncio.wait({call.task})
        return None

    def begin(self, job: Job, fields: Fields, serve: Serve) -> KeyedCall:
        """Have a request served in a task of its own, which no asker's deadline ends."""
        call = KeyedCall(job, fields, self._context)

        def ended(task: asyncio.Task[SmartResult]) -> None:
            if not task.cancelled():
                task.exception()  # It may be that all askers have left.
            if self._by_key.get(job.key) is call:
                del self._by_key[job.key]
            self._leave(call.job)

        call.task = asyncio.create_task(serve(call), context=contextvars.Context())
        call.task.add_done_callback(ended)
        self._by_key[job.key] = call
        return call

    async def close(self) -> None:
        """Leave no task behind."""
        tasks = [call.task for call in self._by_key.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<KeyedCalls {len(self._by_key)} under way>"


def is_by_own_limits(failure: CallFailed, job: Job) -> bool:
    """Tell whether a request has failed by limits that another asker may not have: its money, risk or filter."""
    own = {REQUEST, job.message.account}
    for one in (failure, failure.__cause__, *getattr(failure, "refused", ())):
        if isinstance(one, BudgetExceeded) and own & {one.cap, one.account}:
            return True
        if isinstance(one, RiskExceeded) and one.cap in own:
            return True
    return isinstance(failure, NoProvider)


def _copied(output: Any) -> Any:
    """Return an answer that one asker can change without another's being changed, if it can be copied."""
    try:
        return decode(encode(output))
    except TypeError:
        return output
