"""Requests for one thing under one key at the same time: one of them is served, and all are answered.

The call belongs to its key. An asker that leaves, leaves alone, and the last one ends it. It draws on the money of the
first asker, has until the latest of their deadlines, and waits in the highest of their classes. If it ends by limits of
the first asker's own, it goes on by those of the next. A stream goes to all of them, from its first piece on.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.errors.families import BudgetExceeded, CallFailed, ConsumerLeft, NoProvider, OutcomeUnknown
from actors.ledger.answers import decode, encode
from actors.ledger.book import REQUEST
from actors.ledger.errors import RiskExceeded
from actors.limits.class_queue import PRIORITIES
from actors.money import ZERO
from actors.supervisor.payments.kept_pieces import given_pieces
from actors.supervisor.pipeline.job import Job
from actors.supervisor.pipeline.shared_stream import SharedStream
from actors.transports.streaming import StreamTerms

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from actors.errors.families import Charged
    from actors.ledger.fingerprint import Fields
    from actors.limits.class_queue import Priority
    from actors.supervisor.messages import SmartRequest, SmartResult
    from actors.transports.streaming import StreamConfig
    from runtime import Context

    Serve: TypeAlias = Callable[["KeyedCall"], Coroutine[Any, Any, SmartResult]]

SHORTEST_LOOK = 0.25
"""Seconds after which an asker whose time is up looks again whether the call, which has no more time, has ended."""


class KeyedCall:
    """One request that is served for all that ask for it while it is under way."""

    def __init__(
        self,
        first: Job,
        context: Context,
        streams: StreamConfig,
        fields: Fields,
        *,
        reclass: Callable[[Job, Priority], None],
    ) -> None:
        self.fields = fields
        self._reclass = reclass
        self.payer = first
        """The asker on whose money it draws."""
        self.is_ending = False
        self.task: asyncio.Task[SmartResult]
        self._context, self._streams = context, streams
        self._askers: list[Job] = []
        self._classes: Counter[Priority] = Counter()
        """How many of them are of each class."""
        self._payers = [first]
        self._finishes = False
        """Whether it goes on to its end if all askers have left."""
        terms = first.message.stream
        self.shared: SharedStream | None = None
        self._terms: StreamTerms | None = None
        if terms is not None:
            self.shared = SharedStream()
            self._terms = StreamTerms(sink=self.shared, gap=terms.gap, first=terms.first, timeout=terms.timeout)
        message = self.message_of(first)
        self.job = Job(message, first.request_id, started=first.started, deadline=first.deadline, risk=first.risk)
        self.job.shared, self.job.is_shared, self.job.trace = self.shared, True, first.trace

    def message_of(self, asker: Job) -> SmartRequest:
        """Return what one of its askers asks for; all read one stream, or get the answer whole."""
        message = asker.message
        return message if message.stream is self._terms else msgspec.structs.replace(message, stream=self._terms)

    async def answer(self, asker: Job) -> SmartResult:
        """Return the answer once it is there; raises a member of `CallFailed`, also when the asker's time is up."""
        served = asker.served = self.job
        if asker.trace is not None:
            _follow(asker, served)
        self._askers.append(asker)
        self._classes[asker.message.priority] += 1
        served.give_until(asker.deadline)
        self._take_class()
        terms, reader, reading = asker.message.stream, None, None
        if terms is not None:
            self._finishes = self._finishes or terms.finishes(self._streams)
            if self.shared is not None:
                reader = self.shared.join(terms, after_cut=asker.message.after_cut)
                reading = asyncio.create_task(self.shared.give(reader, self._streams))
        try:
            await self._until_done(asker, reading)
            result = self._result(asker)
            if reading is not None and isinstance(left := reading.exception(), CallFailed):
                # It was whole in the moment in which its last reader was given up.
                left.charged = "yes" if result.paid else "no"
                raise left
            if terms is not None and (reader is None or reader.wants_whole):
                for piece in given_pieces(None, result.output, asked=asker.message.input):
                    await terms.put(piece, self._streams)
            return result
        finally:
            if self.shared is not None and reader is not None:
                self.shared.leave(reader)
            await self._left(asker, reading)

    def _take_class(self) -> None:
        """Wait in the highest class of those that wait for it, as in priority inheritance."""
        entry = self.job.entry
        for priority in PRIORITIES:
            if self._classes[priority]:
                if priority != entry.priority:
                    self._reclass(self.job, priority)
                return

    async def _left(self, asker: Job, reading: asyncio.Task[None] | None) -> None:
        """Go on without an asker; if it was the last, end, unless it is to finish."""
        self._askers.remove(asker)
        self._classes[asker.message.priority] -= 1
        self._take_class()
        if asker is self.payer:
            served = self.job
            asker.calls, asker.cost, asker.attempts = served.calls, served.cost, served.attempts
            asker.last = served.last
        ending: set[asyncio.Task[Any]] = set()
        if reading is not None and reading.cancel():
            ending.add(reading)
        if not self._askers and not self._finishes and self.task.cancel():
            self.is_ending = True
            ending.add(self.task)
        if ending:
            await asyncio.wait(ending)
        if reading is not None and not reading.cancelled():
            reading.exception()  # An asker that has left does not ask for it.

    async def _until_done(self, asker: Job, reading: asyncio.Task[None] | None) -> None:
        """Wait until it is done, and the asker has all its pieces."""
        tasks: set[asyncio.Task[Any]] = {self.task} if reading is None else {self.task, reading}
        while waits_for := {one for one in tasks if not one.done()}:
            left = asker.deadline - self._context.now()
            if left <= 0 and (self.task.done() or asker.deadline < self.job.deadline):
                raise self._too_late()
            timeout = max(left, SHORTEST_LOOK if left <= 0 else left)
            await asyncio.wait(waits_for, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done() and (failure := reading.exception()) is not None:
                self._end_reading(failure)
                tasks.discard(reading)

    def _end_reading(self, failure: BaseException) -> None:
        """Go on from a reader that takes no more: it leaves alone, and the last one ends the call, which tells why."""
        if isinstance(failure, CallFailed):
            failure.charged = self._charged
        if not isinstance(failure, ConsumerLeft) or len(self._askers) > 1 or self._finishes or self.shared is None:
            raise failure
        self.is_ending = True
        self.shared.close()

    @property
    def _charged(self) -> Charged:
        return "held" if self.job.calls else "no"

    def _too_late(self) -> OutcomeUnknown:
        why = "and the same request under its key goes on for others that have more"
        if self.task.done():
            why = "before it has read all of a stream"
        late = OutcomeUnknown(f"its time is up, {why}; ask again under the key", provider=self.job.last or None)
        late.charged = self._charged
        return late

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
    """The requests under keys that one supervisor serves; `leave` is called for each at its end.

    `reclass` is called when it is to wait in another class than before.
    """

    def __init__(
        self,
        context: Context,
        streams: StreamConfig,
        *,
        leave: Callable[[Job], None],
        reclass: Callable[[Job, Priority], None],
    ) -> None:
        self._context, self.streams = context, streams
        self._leave, self._reclass = leave, reclass
        self._calls: set[KeyedCall] = set()
        self._by_key: dict[str, KeyedCall] = {}

    async def under_way(self, key: str) -> KeyedCall | None:
        """Return the call under a key; None if there is none. One that is about to end is waited for."""
        while (call := self._by_key.get(key)) is not None and not call.task.done():
            if not call.is_ending:
                return call
            await asyncio.wait({call.task})
        return None

    def begin(self, job: Job, serve: Serve, *, fields: Fields = (), is_alone: bool = False) -> KeyedCall:
        """Have a request served in a task of its own, which no asker's deadline ends; one `is_alone` has one asker."""
        call = KeyedCall(job, self._context, self.streams, fields, reclass=self._reclass)

        def ended(task: asyncio.Task[SmartResult]) -> None:
            if not task.cancelled():
                task.exception()  # It may be that all askers have left.
            if call.shared is not None:
                call.shared.end()
            self._calls.discard(call)
            if self._by_key.get(job.key) is call:
                del self._by_key[job.key]
            self._leave(call.job)

        call.task = asyncio.create_task(serve(call), context=contextvars.Context())
        call.task.add_done_callback(ended)
        self._calls.add(call)
        if not is_alone:
            self._by_key[job.key] = call
        return call

    async def close(self) -> None:
        """Leave no task behind."""
        tasks = [call.task for call in self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<KeyedCalls {len(self._calls)} under way>"


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


def _follow(asker: Job, served: Job) -> None:
    """Have the trace of a request tell of the call that serves it, which others may have begun."""
    if served.trace is None:
        served.trace = asker.trace
    elif asker.trace is not None and asker.trace is not served.trace:
        asker.trace.join(served.trace)
